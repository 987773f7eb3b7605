"""How long a job will take, from its first block timed on this machine: a few seconds, whatever the model.

One batch goes through the block, its inputs are added to Hessians of their real widths; factors and solutions are
timed on matrices of at most ``SIDE`` columns and scaled by their operations (K^3 for a factor, N K^2 for a solution).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream, compute_dtype
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.bounded import groups_of
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import Layer, quantize_layer
from quantrecipe.plugins.native.linear import columns_of
from quantrecipe.plugins.native.make_stages import make_stages
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.plugins.native.run import BATCH_TOKENS
from quantrecipe.plugins.native.straight import is_straight
from quantrecipe.plugins.native.tuning.zeroquant import HELD_BACK, JUDGEMENTS

SIDE = 1536


@torch.inference_mode()
def estimate_seconds(job: Job) -> float:
    """Seconds that ``quantize(job)`` will take, without transforms, compensation and an early stop."""
    skeleton = Skeleton(ModelFolder.open(job.model_path), job.trust_remote_code)
    dtype = compute_dtype(skeleton.dtype, job.device)
    form = format_named(job.format, any(not one.info.is_plain for one in job.plan.quantized))
    timer = _Timer(form.storage(skeleton.dtype, dtype), dtype, job.device)
    block = skeleton.blocks[0]
    loading = _seconds(partial(skeleton.materialize, block.name, dtype, job.device))
    layers = [
        Layer(planned, planned.group, skeleton.model.get_submodule(planned.name))
        for planned in job.plan.quantized
        if planned.group is not None and planned.info.block == 0
    ]
    tunings = make_stages(job).tunings
    tuned = [layer for layer in layers if layer.group.method.name in tunings]
    layers = [layer for layer in layers if layer.group.method.name not in tunings]
    if is_straight(job, make_stages(job)):
        return len(skeleton.blocks) * (loading + sum(map(timer.solution, layers)) / torch.get_num_threads())
    work = loading + sum(timer.solution(layer) for layer in layers if not layer.wants_inputs)
    looking = [layer for layer in layers if layer.wants_inputs]
    if looking and job.calibration is not None:
        work += _with_inputs(job, skeleton, timer, looking)
    if tuned and job.calibration is not None:
        work += _distilled(job, skeleton, timer, tuned)
    return len(skeleton.blocks) * work


def _with_inputs(job: Job, skeleton: Skeleton, timer: _Timer, layers: list[Layer]) -> float:
    """Seconds of one block's forward passes, Hessians and the layers that look at them."""
    run, batch, batches = _first_batch(job, skeleton, timer)
    named = {layer.name: layer for layer in layers}
    groups = groups_of(run, batch, {name: layer.module for name, layer in named.items()})
    passes = len(groups) + 1 if job.spill else 1
    tokens = batch.shape[0] * batch.shape[1]
    one = passes * _seconds(partial(run, batch))
    one += sum(timer.product(tokens, columns_of(named[group[0]].module)) for group in groups)
    return batches * one + sum(timer.group([named[name] for name in group]) for group in groups)


def _distilled(job: Job, skeleton: Skeleton, timer: _Timer, layers: list[Layer]) -> float:
    """Seconds of one block's distillation: a batch takes a forward pass, a backward one of twice its work, roundings.

    Methods that plugins bring count like those that are built in, as far as they have the same options.
    """
    method = layers[0].group.method
    run, batch, batches = _first_batch(job, skeleton, timer)
    forward = _seconds(partial(run, batch))
    rounding = sum(timer.solution(layer.rounded_to_nearest()) for layer in layers)
    learned = getattr(method, "steps", 1) * -(-getattr(method, "batch", 1) // len(batch))
    judged = JUDGEMENTS * max(1, batches // HELD_BACK)
    return learned * (3 * forward + rounding) + (judged + 2 * batches) * forward


def _first_batch(
    job: Job, skeleton: Skeleton, timer: _Timer
) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, int]:
    """The first block, what reaches it of the first batch of calibration text, and how many batches there are."""
    assert job.calibration is not None
    size = max(1, BATCH_TOKENS // job.calibration.shape[1])
    stream = Stream(skeleton, job.calibration[:size], size, timer.dtype, job.device)
    batch = stream.enter()[0]
    skeleton.materialize(skeleton.blocks[0].name, timer.dtype, job.device)  # entering gave it back
    return partial(stream.call, 0), batch, -(-len(job.calibration) // size)


class _Timer:
    """Times parts of the work on small stand-ins, each size once."""

    def __init__(self, storage: Storage, dtype: torch.dtype, device: str) -> None:
        self.storage, self.dtype, self.device = storage, dtype, device

    def product(self, tokens: int, columns: int) -> float:
        """Adding one batch to a Hessian."""
        hessian = Hessian(columns, self.device)
        inputs = torch.randn(tokens, columns, device=self.device).to(self.dtype)
        hessian.add(inputs)
        return _seconds(partial(hessian.add, inputs))

    def group(self, layers: Iterable[Layer]) -> float:
        """Quantizing layers that share one Hessian: the first also pays for its factor."""
        found, first = 0.0, True
        for layer in layers:
            solving, scale, factoring = self._stand_in(layer, True)
            found += solving * scale + (factoring if first else 0.0)
            first = False
        return found

    def solution(self, layer: Layer) -> float:
        """Quantizing a layer that needs no inputs."""
        solving, scale, _ = self._stand_in(layer, False)
        return solving * scale

    def _stand_in(self, layer: Layer, looks: bool) -> tuple[float, float, float]:
        """Seconds for a smaller layer, how much more work the real one is, seconds for the real one's factor."""
        columns, rows = layer.planned.info.columns, layer.planned.info.rows
        step = layer.group.weights.group_size or 1
        k, n = min(columns, max(step, SIDE // step * step)), min(rows, SIDE)
        small = replace(layer, module=nn.Linear(k, n, bias=False, device=self.device, dtype=self.dtype))
        nn.init.normal_(small.module.weight, std=0.02)  # type: ignore[arg-type]
        if not looks:
            return (
                _seconds(partial(quantize_layer, small, self.storage, None, _ignore)),
                rows * columns / (n * k),
                0.0,
            )
        hessian = Hessian(k, self.device)
        hessian.add(torch.randn(2 * k, k, device=self.device))
        quantize_layer(small, self.storage, hessian, _ignore)  # compiles what is not compiled yet
        solving = _seconds(partial(quantize_layer, small, self.storage, hessian, _ignore))
        fresh = Hessian(k, self.device)
        fresh.add(torch.randn(2 * k, k, device=self.device))
        both = _seconds(partial(quantize_layer, small, self.storage, fresh, _ignore))
        return solving, rows * columns**2 / (n * k**2), max(both - solving, 0.0) * (columns / k) ** 3


def _ignore(_: str) -> None:
    """Remarks on stand-ins interest nobody."""


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
