"""The native backend's work: block by block, quantize, write, pass the activations on, forget (stages.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream, compute_dtype
from quantrecipe.modeling.writer import ShardWriter
from quantrecipe.plugins.contract import Checkpoint, Job
from quantrecipe.plugins.native.activations import quantized_inputs
from quantrecipe.plugins.native.block import Artefact, Naming, Worker, input_schemes
from quantrecipe.plugins.native.checks import check_job
from quantrecipe.plugins.native.expert_tokens import expert_notes
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.make_stages import make_stages
from quantrecipe.plugins.native.record import digest
from quantrecipe.plugins.native.rest import write_configs, write_unchanged
from quantrecipe.plugins.native.stages import Block, Parameters, Side, Stages
from quantrecipe.plugins.native.straight import is_straight, quantize_straight

#: Tokens a batch: long enough for full matrix products, short enough for the cache.
BATCH_TOKENS = 2048


@torch.inference_mode()
def quantize(job: Job) -> Checkpoint:
    """Carry the job out; fills ``job.output_path`` with weights and config.json."""
    stages = make_stages(job)
    return quantize_straight(job, stages) if is_straight(job, stages) else _Run(job, stages).carry_out()


class _Run:
    """One job under way."""

    def __init__(self, job: Job, stages: Stages) -> None:
        self.job, self.stages = job, stages
        self.skeleton = Skeleton(ModelFolder.open(job.model_path), job.trust_remote_code)
        form = format_named(job.format, any(not one.info.is_plain for one in job.plan.quantized))
        check_job(job, form)
        self.dtype = compute_dtype(self.skeleton.dtype, job.device)
        self.naming = Naming.of(self.skeleton, form)
        storage = form.storage(self.skeleton.dtype, self.dtype)
        self.worker = Worker(self.stages, storage, self.naming, self._note)
        self.witness = self._stream(job.witness)
        self.calibration = self._calibration()
        self.total = Artefact()
        self.writer = ShardWriter(job.output_path)

    def carry_out(self) -> Checkpoint:
        """Blocks in order, then what lies outside them, then the config."""
        hidden, seen, outside = self._enter()
        self.job.progress.start("quantize", len(self.skeleton.blocks), "blocks")
        for index, block in enumerate(self.skeleton.blocks):
            hidden, seen = self._block(index, hidden, seen)
            self.job.progress.advance(1, block=block.name)
        for layer in self._layers(None):
            self.worker.quantize_layer(layer, None, outside)
        self._keep(outside)
        with quantized_inputs(input_schemes(self._layers(None)), as_transformers=True):
            pairs = zip(self.witness.batches, seen, strict=True)
            logits = torch.cat([self.witness.logits(*pair) for pair in pairs])
        self._finish()
        return self._checkpoint(logits.float().cpu())

    def _enter(self) -> tuple[dict[Side, list[torch.Tensor]], list[torch.Tensor], Artefact]:
        """The streams in front of the first block, and what transforms have made of the embeddings before it."""
        sides = self._sides() if self.calibration is not None else frozenset()
        hidden: dict[Side, list[torch.Tensor]] = {}
        self.skeleton.materialize_outside(self.dtype, self.job.device)
        if self.calibration is not None and "original" in sides:
            hidden["original"] = self.calibration.enter(loaded=True)
        outside = self._change_outside()
        if self.calibration is not None and "quantized" in sides:
            hidden["quantized"] = self.calibration.enter(loaded=True)
        return hidden, self.witness.enter(loaded=True), outside

    def _block(
        self, index: int, hidden: dict[Side, list[torch.Tensor]], seen: list[torch.Tensor]
    ) -> tuple[dict[Side, list[torch.Tensor]], list[torch.Tensor]]:
        """Carry out one block; the hidden states behind it."""
        name = self.skeleton.blocks[index].name
        self.skeleton.materialize(name, self.dtype, self.job.device)
        block = self._open(index, hidden)
        artefact, outputs = self.worker.carry_out(block, index < len(self.skeleton.blocks) - 1)
        self._keep(artefact)
        with quantized_inputs(input_schemes(block.layers.values()), as_transformers=True):
            seen = [self.witness.call(index, batch) for batch in seen]
        self.skeleton.release(name)
        behind = {"original": list(block.targets), "quantized": outputs}
        return {side: behind[side] for side in hidden}, seen

    def _open(self, index: int, hidden: dict[Side, list[torch.Tensor]]) -> Block:
        stream = self.calibration
        run = partial(stream.call, index) if stream is not None else partial(self.witness.call, index)
        block = Block(
            self.skeleton.blocks[index].module,
            self.skeleton.blocks[index].name,
            self._stored_dtype,
            index=index,
            layers={layer.name: layer for layer in self._layers(index)},
            inputs=dict(hidden),
            run=run,
            note=self._note,
        )
        if "original" in hidden:
            block.targets = [run(batch) for batch in hidden["original"]]
        return block

    def _stream(self, tokens: torch.Tensor) -> Stream:
        size = max(1, BATCH_TOKENS // tokens.shape[1])
        return Stream(self.skeleton, tokens, size, self.dtype, self.job.device)

    def _calibration(self) -> Stream | None:
        tokens = self.job.calibration
        return self._stream(tokens) if tokens is not None and self._sides() else None

    def _sides(self) -> frozenset[Side]:
        """The streams of hidden states that something looks at."""
        wanted: frozenset[Side] = self.stages.inputs
        return wanted | {"quantized"} if self.job.plan.methods_look else wanted

    def _layers(self, block: int | None) -> Iterator[Layer]:
        """The layers to quantize in one block, or outside all of them."""
        for planned in self.job.plan.quantized:
            if planned.info.block == block and planned.group is not None:
                yield Layer(planned, planned.group, self.skeleton.model.get_submodule(planned.name))

    def _stored_dtype(self, parameter: str) -> torch.dtype:
        original = self.naming.original(parameter)
        return self.skeleton.dtype if original is None else self.skeleton.folder.info(original).dtype

    def _change_outside(self) -> Artefact:
        """What transforms make of the embeddings, the final norm and the head."""
        model = Parameters(self.skeleton.model, "", self._stored_dtype)
        for transform in self.stages.transforms:
            transform.outside(model)
        artefact = Artefact()
        self.worker.add_changed(model, artefact)
        return artefact

    def _note(self, text: str) -> None:
        self.total.notes.append(text)
        self.job.progress.note(text)

    def _keep(self, artefact: Artefact) -> None:
        for name, tensor in artefact.tensors.items():
            self.writer.add(name, tensor)
        self.total.replaced += artefact.replaced
        self.total.changed |= artefact.changed
        self.total.records += artefact.records
        self.total.beside.update(artefact.beside)

    def _finish(self) -> None:
        write_unchanged(self.skeleton, self.naming, set(self.total.replaced), self.writer)
        self.writer.close()
        write_configs(self.job, self.skeleton.folder.config, self.naming, self.stages)
        if self.stages.compensation is not None:
            self.stages.compensation.write(self.job.output_path, self.total.beside)

    def _checkpoint(self, logits: torch.Tensor) -> Checkpoint:
        order = {planned.name: place for place, planned in enumerate(self.job.plan.quantized)}
        beside = {name: digest(tensor) for name, tensor in self.total.beside.items()}
        details = {"changed_parameters": self.total.changed, "adapter": beside}
        return Checkpoint(
            path=self.job.output_path,
            format=self.naming.format.name,
            layers=tuple(sorted(self.total.records, key=lambda record: order[record.name])),
            witness_logits=logits,
            notes=(*self.total.notes, *expert_notes(self.total.records)),
            details={name: part for name, part in details.items() if part},
        )
