"""The native backend's work: block by block, quantize, write, pass the witness through, forget."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream, compute_dtype
from quantrecipe.modeling.writer import ShardWriter, write_json
from quantrecipe.plugins.contract import Checkpoint, Job, LayerRecord
from quantrecipe.plugins.native.activations import quantized_inputs
from quantrecipe.plugins.native.checks import check_job
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import Layer, quantize_layer
from quantrecipe.plugins.native.qparams import Quantized
from quantrecipe.plugins.native.walk import walk_block
from quantrecipe.schemes import QuantizationArgs

#: Tokens a batch: long enough for full matrix products, short enough for the cache.
BATCH_TOKENS = 2048


@torch.inference_mode()
def quantize(job: Job) -> Checkpoint:
    """Carry the job out; fills ``job.output_path`` with weights and config.json."""
    return _Run(job).carry_out()


class _Run:
    """One job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = ModelFolder.open(job.model_path)
        self.skeleton = Skeleton(self.folder, job.trust_remote_code)
        has_odd = any(not one.info.is_plain for one in job.plan.quantized)
        self.format = format_named(job.format, has_odd)
        check_job(job, self.format)
        stored = self.skeleton.dtype
        self.dtype = compute_dtype(stored, job.device)
        self.storage = self.format.storage(stored, self.dtype)
        self.writer = ShardWriter(job.output_path)
        self.records: list[LayerRecord] = []
        self.notes: list[str] = []
        self.replaced: set[str] = set()

    def carry_out(self) -> Checkpoint:
        """Blocks in order, then what lies outside them, then the config."""
        witness = self._stream(self.job.witness)
        seen = witness.enter()
        calibration = self._calibration()
        hidden = calibration.enter() if calibration else []
        self.job.progress.start("quantize", len(self.skeleton.blocks), "blocks")
        for index, block in enumerate(self.skeleton.blocks):
            self.skeleton.materialize(block.name, self.dtype, self.job.device)
            hidden = self._quantize_block(index, calibration, hidden)
            with quantized_inputs(self._input_schemes(index), as_transformers=True):
                seen = [witness.call(index, batch) for batch in seen]
            self.skeleton.release(block.name)
            self.job.progress.advance(1, block=block.name)
        for layer in self._layers(None):
            self._quantize_layer(layer, None)
        with quantized_inputs(self._input_schemes(None), as_transformers=True):
            logits = [witness.logits(*pair) for pair in zip(witness.batches, seen, strict=True)]
        self._write_rest()
        return self._checkpoint(torch.cat(logits).float().cpu())

    def _stream(self, tokens: torch.Tensor) -> Stream:
        size = max(1, BATCH_TOKENS // tokens.shape[1])
        return Stream(self.skeleton, tokens, size, self.dtype, self.job.device)

    def _calibration(self) -> Stream | None:
        tokens = self.job.calibration
        return self._stream(tokens) if tokens is not None and self.job.plan.needs_calibration else None

    def _layers(self, block: int | None) -> Iterator[Layer]:
        """The layers to quantize in one block, or outside all of them."""
        for planned in self.job.plan.quantized:
            if planned.info.block == block and planned.group is not None:
                yield Layer(planned, planned.group, self.skeleton.model.get_submodule(planned.name))

    def _input_schemes(self, block: int | None) -> list[tuple[torch.nn.Module, QuantizationArgs]]:
        """The modules in one block, or outside, whose inputs are quantized too."""
        pairs = [(layer.module, layer.group.input_activations) for layer in self._layers(block)]
        return [(module, inputs) for module, inputs in pairs if inputs is not None]

    def _quantize_block(self, index: int, stream: Stream | None, hidden: list[torch.Tensor]) -> list[torch.Tensor]:
        """Quantize a block's layers; the calibration text's hidden states behind it."""
        layers = {layer.name: layer for layer in self._layers(index)}
        for layer in layers.values():
            if not layer.wants_inputs:
                self._quantize_layer(layer, None)
        if stream is None:
            return []
        waiting = {name: layer.module for name, layer in layers.items() if layer.wants_inputs}
        last = index == len(self.skeleton.blocks) - 1
        with quantized_inputs(self._input_schemes(index)):
            return walk_block(
                partial(stream.call, index),
                hidden,
                waiting,
                lambda name, hessian: self._quantize_layer(layers[name], hessian),
                outputs_wanted=not last,
            )

    def _quantize_layer(self, layer: Layer, hessian: Hessian | None) -> None:
        quantized, record = quantize_layer(layer, self.storage, hessian, self._note)
        self.records.append(record)
        self._write(layer, quantized)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.job.progress.note(text)

    def _write(self, layer: Layer, quantized: Quantized) -> None:
        parameter = f"{layer.name}.weight"
        stored = self.skeleton.stored_name(parameter)
        self.replaced.add(stored)
        name = self.format.stored_name(stored, parameter, self._prefix).removesuffix(".weight")
        for suffix, tensor in self.format.tensors(quantized, layer.group.input_activations is not None):
            self.writer.add(f"{name}.{suffix}", tensor)

    @property
    def _prefix(self) -> str:
        return str(self.skeleton.model.base_model_prefix)

    def _write_rest(self) -> None:
        """Everything that stays as it is, under the name it had; then the configs."""
        full = {self.skeleton.stored_name(name): name for name, _, _ in self.skeleton.parameters_of("")}
        for stored in self.folder.names:
            if stored not in self.replaced:
                name = self.format.stored_name(stored, full.get(stored, stored), self._prefix)
                self.writer.add(name, self.folder.tensor(stored))
        self._write_tied_head()
        self.writer.close()
        config = {**self.folder.config, "quantization_config": self.format.config(self.job.plan)}
        write_json(self.job.output_path / "config.json", config)
        for name, data in self.format.extra_files(self.job.plan).items():
            write_json(self.job.output_path / name, data)

    def _write_tied_head(self) -> None:
        """The tied head once more, where files of this format hold it."""
        parameter = f"{self.skeleton.head}.weight"
        tied = any(info.is_head and info.is_tied for info in self.skeleton.linears())
        if self.format.unties and tied and parameter not in self.folder:
            self.writer.add(parameter, self.folder.tensor(self.skeleton.stored_name(parameter)))

    def _checkpoint(self, logits: torch.Tensor) -> Checkpoint:
        order = {planned.name: place for place, planned in enumerate(self.job.plan.quantized)}
        records = sorted(self.records, key=lambda record: order[record.name])
        return Checkpoint(
            path=self.job.output_path,
            format=self.format.name,
            layers=tuple(records),
            witness_logits=logits,
            notes=tuple(self.notes),
        )
