"""Weights alone, without a forward pass: for methods that need no inputs, rows go from file to file.

Matrices are read in slices of rows through a memory map and quantized by a few threads at once; what one shard takes
is held, nothing grows with the model. There are no logits to prove the result with: every dequantized weight has its
digest, and every other tensor is compared with the original, which is all that logits depend on.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import torch

from quantrecipe.modeling.digest import digest_bytes
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import PlannedModule
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.modeling.writer import ShardWriter
from quantrecipe.plugins.contract import Checkpoint, Job, LayerRecord
from quantrecipe.plugins.native.block import Naming
from quantrecipe.plugins.native.checks import check_job
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.layers import check_finite, choose_codes
from quantrecipe.plugins.native.qparams import Matrix, joined
from quantrecipe.plugins.native.rest import write_configs, write_unchanged
from quantrecipe.plugins.native.shard_log import ShardLog
from quantrecipe.plugins.native.stages import Stages
from quantrecipe.recipe import Group, RtnMethod

#: Weights of a slice: its few copies in fp32 stay in the cache.
SLICE = 2**18
#: Smaller than in other runs, since a shard is held until it is full.
SHARD_BYTES = 128 * 10**6

Done = tuple[PlannedModule, list[tuple[str, torch.Tensor]], LayerRecord]


def is_straight(job: Job, stages: Stages) -> bool:
    """Whether nothing in the job looks at activations, and no activation is rounded (which only logits can prove)."""
    groups = [module.group for module in job.plan.quantized if module.group is not None]
    staged = stages.transforms or stages.compensation or stages.tunings
    rounds = job.plan.kv_cache is not None or any(group.input_activations for group in groups)
    return not (job.plan.needs_calibration or staged or rounds)


def quantize_straight(job: Job, stages: Stages) -> Checkpoint:
    """Carry such a job out. Raises as ``run.quantize``."""
    return _Straight(job).carry_out(stages)


class _Straight:
    """One job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.skeleton = Skeleton(ModelFolder.open(job.model_path), job.trust_remote_code)
        form = format_named(job.format, any(not one.info.is_plain for one in job.plan.quantized))
        check_job(job, form)
        self.naming = Naming.of(self.skeleton, form)
        self.dtype = compute_dtype(self.skeleton.dtype, job.device)
        self.storage = form.storage(self.skeleton.dtype, self.dtype)

    def carry_out(self, stages: Stages) -> Checkpoint:
        """Matrices in the model's order, then what stays as it is, then the configs."""
        plan = self.job.plan
        facts = {"shards of": str(SHARD_BYTES), "dtype": str(self.dtype), "format": self.naming.format.name}
        log = ShardLog(self.job.scratch, self.job.output_path, facts)
        self.job.progress.start("quantize", len(plan.quantized), "layers")
        with closing(log):
            writer = ShardWriter(self.job.output_path, SHARD_BYTES, log.shards, log.add_shard)
            records, fresh = self._matrices(log, writer)
            replaced = {self.naming.alone(f"{module.name}.weight") for module in plan.quantized}
            write_unchanged(self.skeleton, self.naming, replaced, writer)
            writer.close()
            log.add_matrices(writer.count, fresh)
        write_configs(self.job, self.skeleton.folder.config, self.naming, stages)
        return Checkpoint(self.job.output_path, self.naming.format.name, records)

    def _matrices(self, log: ShardLog, writer: ShardWriter) -> tuple[tuple[LayerRecord, ...], list[LayerRecord]]:
        """Quantize what the log does not hold yet; a matrix counts as done once a shard behind it is written.

        Returns all records, and those that the log does not hold yet.
        """
        records, fresh = dict(log.records), list[LayerRecord]()
        if records:
            self.job.progress.note(f"going on behind {len(records)} layers, where the last run was stopped")
            self.job.progress.advance(len(records))
        left = [module for module in self.job.plan.quantized if module.name not in records]
        for module, tensors, record in in_order(self._quantize, left):
            before = writer.count
            for name, tensor in tensors:
                writer.add(name, tensor)
            if writer.count > before:  # this matrix may lie in two shards; those before it lie in full ones
                log.add_matrices(writer.count, fresh)
                fresh = []
            fresh.append(record)
            records[module.name] = record
            self.job.progress.advance(1, block=module.name)
        return tuple(records[module.name] for module in self.job.plan.quantized), fresh

    def _quantize(self, module: PlannedModule) -> Done:
        """One matrix, slice after slice; runs beside others."""
        began, tally = time.perf_counter(), Tally()
        quantized = joined(self._parts(module, tally), module.info.rows)
        name = self.naming.written(f"{module.name}.weight").removesuffix(".weight")
        written = self.naming.format.tensors(quantized, module.as_bytes)
        tensors = [(f"{name}.{suffix}", part) for suffix, part in written]
        return module, tensors, tally.record(module, quantized, time.perf_counter() - began)

    def _parts(self, module: PlannedModule, tally: Tally) -> Iterator[Matrix]:
        """The slices of a matrix, quantized and counted."""
        assert module.group is not None
        for weight in self._slices(module, module.group):
            check_finite(weight, module.name)
            part = choose_codes(module.name, module.group, weight, self.storage, None, self._ignore)
            tally.add(weight, part.served(self.storage, self.dtype))
            yield part

    def _slices(self, module: PlannedModule, group: Group) -> Iterator[torch.Tensor]:
        """The weight [N, K] in fp32, by rows where rows do not depend on one another."""
        stored = self.skeleton.read(f"{module.name}.weight", mapped=True)
        matrix = stored.t() if module.info.kind == "Conv1D" else stored
        rows, columns = matrix.shape
        integers = isinstance(group.method, RtnMethod) and group.weights.type == "int"
        by_rows = integers and group.weights.strategy in ("channel", "group")
        step = max(1, SLICE // columns) if by_rows else rows
        for start in range(0, rows, step):
            yield matrix[start : start + step].to(self.dtype).to(torch.float32, copy=True).contiguous()

    def _ignore(self, _: str) -> None:
        """Data-free methods have no remarks."""


class Tally:
    """What a record says of a matrix, gathered slice by slice."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._lost = self._whole = 0.0

    def add(self, weight: torch.Tensor, served: torch.Tensor) -> None:
        """Rows of the weight [n, K] and what they became."""
        self._digest.update(digest_bytes(served))
        self._lost += float((weight - served.float()).norm()) ** 2
        self._whole += float(weight.norm()) ** 2

    def record(self, module: PlannedModule, quantized: Matrix, seconds: float) -> LayerRecord:
        """Of the whole matrix."""
        assert module.group is not None
        return LayerRecord(
            name=module.name,
            scheme=module.group.scheme.name,
            method=module.group.method.name,
            rows=module.info.rows,
            columns=module.info.columns,
            bytes=quantized.nbytes,
            relative_error=(self._lost / max(self._whole, 1e-60)) ** 0.5,
            output_error=None,
            digest=self._digest.hexdigest(),
            seconds=seconds,
        )


def in_order(work: Callable[[PlannedModule], Done], modules: Iterable[PlannedModule]) -> Iterator[Done]:
    """The results of ``work`` in the order of ``modules``; as many at once as torch has threads, one more waiting."""
    threads = torch.get_num_threads()

    def alone(module: PlannedModule) -> Done:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return work(module)

    pending: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for module in modules:
                pending.append(pool.submit(alone, module))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for one in pending:
                one.cancel()
            torch.set_num_threads(threads)
