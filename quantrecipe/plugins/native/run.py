"""The native backend's work: block by block, quantize, write, pass the activations on, forget (stages.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.experts import send_everyone
from quantrecipe.modeling.files import remove
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.heap import give_back
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream, compute_dtype
from quantrecipe.plugins.contract import Checkpoint, Job
from quantrecipe.plugins.native.activations import quantized_inputs
from quantrecipe.plugins.native.block import Artefact, Naming, Worker, input_schemes
from quantrecipe.plugins.native.bounded import walk_bounded
from quantrecipe.plugins.native.checks import check_job
from quantrecipe.plugins.native.expert_tokens import expert_notes
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.kv_cache import BlockCache, check_reachable
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.make_stages import make_stages
from quantrecipe.plugins.native.rest import IN_OUTPUT, assemble
from quantrecipe.plugins.native.scratch import Kept, Scratch
from quantrecipe.plugins.native.stages import Block, Parameters, Side, Stages
from quantrecipe.plugins.native.states import Hidden, States
from quantrecipe.plugins.native.straight import is_straight, quantize_straight
from quantrecipe.plugins.native.transforms.hadamard import rewritten, seen_rotated
from quantrecipe.plugins.native.walk import walk_block

#: Tokens a batch: long enough for full matrix products, short enough for the cache.
BATCH_TOKENS = 2048


@torch.inference_mode(False)  # inference tensors could take no part in the gradients of zq-local and zq-global
@torch.no_grad()
def quantize(job: Job) -> Checkpoint:
    """Carry the job out; fills ``job.output_path`` with weights and config.json.

    What is finished lies in ``job.scratch`` and is not done again; without one it lies in the output folder for
    the time being.
    """
    stages = make_stages(job)
    return quantize_straight(job, stages) if is_straight(job, stages) else quantize_by_blocks(job, stages)


def quantize_by_blocks(job: Job, stages: Stages) -> Checkpoint:
    """Carry the job out with a forward pass, one decoder block at a time."""
    folder = job.scratch or job.output_path / IN_OUTPUT
    run = _Run(job, stages, folder)
    try:
        return run.carry_out()
    finally:
        run.scratch.close()
        if job.scratch is None:
            remove(folder)


class _Run:
    """One job under way."""

    def __init__(self, job: Job, stages: Stages, folder: Path) -> None:
        self.job, self.stages = job, stages
        stored = Skeleton(ModelFolder.open(job.model_path), job.trust_remote_code)
        self.skeleton = seen_rotated(stored, job.recipe, job.trust_remote_code)
        send_everyone(self.skeleton.model, job.recipe.calibration.experts == "all")
        form = format_named(job.format, any(not one.info.is_plain for one in job.plan.quantized))
        check_job(job, form)
        if job.plan.kv_cache is not None and form.name == "compressed-tensors":
            check_reachable(self.skeleton.model.config.get_text_config())
        self.dtype = compute_dtype(self.skeleton.dtype, job.device)
        self.naming = Naming.of(self.skeleton, form)
        storage = form.storage(self.skeleton.dtype, self.dtype)
        walk = walk_bounded if job.spill else walk_block
        self.worker = Worker(self.stages, storage, self.naming, walk, self._note)
        self.witness = self._stream(job.witness)
        self.calibration = self._calibration()
        self.notes: list[str] = []
        facts = {"batch of tokens": str(BATCH_TOKENS), "dtype": str(self.dtype), "format": form.name}
        self.scratch = Scratch(folder, facts)
        self.states = States(self.scratch, job.device, job.spill)

    def carry_out(self) -> Checkpoint:
        """Blocks in order, then what lies outside them; then all of it into the checkpoint's files."""
        count = len(self.skeleton.blocks)
        if self._missing():
            self._quantize(count)
        else:
            self.job.progress.note(f"going on behind block {count} of {count}: the last run had quantized all")
        kept = [one for place in range(count + 1) if (one := self.scratch.artefact(place)) is not None]
        assemble(self.job, self.skeleton, self.naming, self.stages, kept)
        return self._checkpoint(kept)

    def _missing(self) -> bool:
        """Whether some block, or what lies outside them, is still to be done."""
        return any(self.scratch.artefact(place) is None for place in range(len(self.skeleton.blocks) + 1))

    def _quantize(self, count: int) -> None:
        """The blocks that are left, from the hidden states that were saved, and what lies outside the blocks."""
        hidden, seen, outside = self._enter()
        self.job.progress.start("quantize", count, "blocks")
        start, saved, saved_seen = self.states.resume(hidden, count)
        if start:
            hidden, seen = saved, saved_seen
            self.job.progress.note(f"going on at block {start + 1} of {count}, where the last run was stopped")
            self.job.progress.advance(start, block=self.skeleton.blocks[start - 1].name)
        for index in range(start, count):
            hidden, seen = self._block(index, hidden, seen)
            self.job.progress.advance(1, block=self.skeleton.blocks[index].name)
        for layer in self._layers(None):
            if not layer.planned.info.is_embedding:
                self.worker.quantize_layer(layer, None, outside)
        outside.witness = self._logits(seen)
        self._keep(count, outside)

    def _enter(self) -> tuple[Hidden, list[torch.Tensor], Artefact]:
        """The streams in front of the first block, and what transforms and quantizing have made of the embeddings."""
        sides = self._sides() if self.calibration is not None else frozenset()
        hidden: Hidden = {}
        self.skeleton.materialize_outside(self.dtype, self.job.device)
        if self.calibration is not None and "original" in sides:
            hidden["original"] = self.calibration.enter(loaded=True)
        outside = self._change_outside()
        for layer in self._layers(None):
            if layer.planned.info.is_embedding:
                self.worker.quantize_layer(layer, None, outside)
        if self.calibration is not None and "quantized" in sides:
            hidden["quantized"] = self.calibration.enter(loaded=True)
        return hidden, self.witness.enter(loaded=True), outside

    def _block(self, index: int, hidden: Hidden, seen: list[torch.Tensor]) -> tuple[Hidden, list[torch.Tensor]]:
        """Carry out one block, keep what it leaves, and return the hidden states behind it."""
        name = self.skeleton.blocks[index].name
        last = index == len(self.skeleton.blocks) - 1
        self.skeleton.materialize(name, self.dtype, self.job.device)
        block = self._open(index, hidden)
        behind = None if last else partial(self.states.behind, "quantized", index)
        cache = BlockCache.of(self.skeleton.blocks[index].module, name, self.job.plan.kv_cache)
        artefact, outputs = self.worker.carry_out(block, behind)
        with quantized_inputs(input_schemes(block.layers.values())):
            cache.observe(block.run, block.inputs.get("quantized", ()), self.skeleton.dtype)
        artefact.tensors.update({self.naming.written(name): tensor for name, tensor in cache.tensors()})
        with quantized_inputs(input_schemes(block.layers.values()), as_transformers=True), cache.as_transformers():
            seen = [self.witness.call(index, batch) for batch in seen]
        self.skeleton.release(name)
        give_back()
        self._keep(index, artefact)
        found: Hidden = {"original": block.targets, "quantized": outputs}
        hidden = {side: found[side] for side in hidden}
        if not last:
            self.states.save(index + 1, hidden, seen)
        return hidden, seen

    def _open(self, index: int, hidden: Hidden) -> Block:
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
            storage=self.worker.storage,
            note=self._note,
        )
        if "original" in hidden:
            block.targets = self.states.behind("original", index, run, hidden["original"])
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
                yield Layer.of(planned, planned.group, self.skeleton.model.get_submodule(planned.name))

    def _logits(self, seen: list[torch.Tensor]) -> torch.Tensor:
        """The witness's, fp32 on the CPU."""
        with quantized_inputs(input_schemes(self._layers(None)), as_transformers=True):
            pairs = zip(self.witness.batches, seen, strict=True)
            return torch.cat([self.witness.logits(*pair) for pair in pairs]).float().cpu()

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
        self.notes.append(text)
        self.job.progress.note(text)

    def _keep(self, place: int, artefact: Artefact) -> None:
        """Write an artefact to the scratch folder, with what has been noted since the last."""
        artefact.notes, self.notes = self.notes, []
        self.scratch.keep(place, artefact)

    def _checkpoint(self, kept: list[Kept]) -> Checkpoint:
        order = {planned.name: place for place, planned in enumerate(self.job.plan.quantized)}
        records = [record for one in kept for record in one.records]
        beside = {name: digest(tensor) for one in kept for name, tensor in one.beside_tensors().items()}
        changed = {name: known for one in kept for name, known in one.changed.items()}
        details = {"changed_parameters": self._rotated() | changed, "adapter": beside}
        return Checkpoint(
            path=self.job.output_path,
            format=self.naming.format.name,
            layers=tuple(sorted(records, key=lambda record: order[record.name])),
            witness_logits=kept[-1].witness_logits(),
            notes=(*(note for one in kept for note in one.notes), *expert_notes(records)),
            details={name: part for name, part in details.items() if part},
        )

    def _rotated(self) -> dict[str, str]:
        """The parameters that a rotation changed and that are not quantized, each with its digest."""
        quantized = {f"{planned.name}.weight" for planned in self.job.plan.quantized}
        names = [name for name in rewritten(self.skeleton) if name not in quantized]
        return {name: digest(self.skeleton.read(name).to(self.dtype)) for name in names}
