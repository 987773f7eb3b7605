"""One decoder block: its steps in order, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from quantrecipe.errors import ModelError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.activations import Rounding, quantized_inputs
from quantrecipe.plugins.native.formats.base import Format
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import Layer, quantize_layer
from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.qparams import Matrix, Storage
from quantrecipe.plugins.native.record import output_error, relative_error
from quantrecipe.plugins.native.stages import Block, Compensated, Parameters, Stages
from quantrecipe.plugins.native.walk import Run, Walk


@dataclass(slots=True)
class Artefact:
    """What one block (or what lies outside all blocks) becomes in the files.

    tensors: by the name that they are written under. replaced: what of the original they stand for, by the names of
    ``Naming.replaces``. changed: parameters that a transform rewrote, each with the digest of what is computed with.
    beside: the compensation's tensors. witness: the quantized model's logits, in the last artefact.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    beside: dict[str, torch.Tensor] = field(default_factory=dict)
    records: list[LayerRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    witness: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Naming:
    """How parameters are called in the files.

    stored: name in the original's files of what a parameter is or lies in. alone: name of the parameter by itself, as
    stored where the files have it so. prefix: of the base model. parameters: by the latter name.
    """

    format: Format
    stored: Callable[[str], str]
    alone: Callable[[str], str]
    prefix: str
    parameters: dict[str, str]

    @classmethod
    def of(cls, skeleton: Skeleton, form: Format) -> Naming:
        """Of a model whose parameters are all still its own."""
        parameters = {skeleton.written_name(name): name for name, _, _ in skeleton.parameters_of("")}
        return cls(
            form, skeleton.stored_name, skeleton.written_name, str(skeleton.model.base_model_prefix), parameters
        )

    def unchanged(self, stored: str) -> str:
        """The name to write a tensor of the original under."""
        return self.format.stored_name(stored, self.parameters.get(stored, stored), self.prefix)

    def written(self, parameter: str) -> str:
        """The name to write a parameter of the model under."""
        return self.format.stored_name(self.replaces(parameter) or parameter, parameter, self.prefix)

    def replaces(self, parameter: str) -> str | None:
        """What of the original a written parameter stands for (``write_unchanged``)."""
        return self._find(parameter, self.alone)

    def original(self, parameter: str) -> str | None:
        """Its name in the original's files; for a bias that was not there, beside its weight. None: nowhere near."""
        return self._find(parameter, self.stored)

    @staticmethod
    def _find(parameter: str, find: Callable[[str], str]) -> str | None:
        owner, _, attribute = parameter.rpartition(".")
        for known, ending in ((parameter, ""), (f"{owner}.weight", attribute)):
            try:
                stored = find(known)
            except ModelError:
                continue
            return f"{stored.removesuffix('.weight')}.{ending}" if ending else stored
        return None


#: Computes a block's outputs on a stream and keeps them somewhere.
Behind = Callable[[Run, Sequence[torch.Tensor]], Sequence[torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Worker:
    """Carries out the steps of blocks; holds nothing but what all blocks share.

    walk: how layers meet their inputs, ``walk_block`` or ``walk_bounded``. note: one line for the user.
    """

    stages: Stages
    storage: Storage
    naming: Naming
    walk: Walk
    note: Callable[[str], None]

    def carry_out(self, block: Block, behind: Behind | None) -> tuple[Artefact, Sequence[torch.Tensor]]:
        """Transform, quantize and tune the block; what it leaves, and its outputs on the quantized stream.

        behind: None where nobody wants the outputs; they are () then.
        """
        artefact = Artefact()
        for transform in self.stages.transforms:
            transform.apply(block)
        outputs = self._quantize(block, artefact, behind)
        self.add_changed(block, artefact)
        return artefact, outputs

    def _quantize(self, block: Block, artefact: Artefact, behind: Behind | None) -> Sequence[torch.Tensor]:
        """Data-free layers, then those that look at inputs as the inputs reach them, then whole-block methods."""
        tuned = {name: one for name, one in block.layers.items() if one.group.method.name in self.stages.tunings}
        single = {name: one for name, one in block.layers.items() if name not in tuned}
        for layer in single.values():
            if not layer.wants_inputs:
                self.quantize_layer(layer, None, artefact)
        if "quantized" not in block.inputs:
            return ()
        waiting = {name: one.module for name, one in single.items() if one.wants_inputs}
        inputs = block.inputs["quantized"]
        with quantized_inputs(input_schemes(block.layers.values())):
            outputs: Sequence[torch.Tensor] = self.walk(
                block.run,
                inputs,
                waiting,
                lambda name, hessian: self.quantize_layer(single[name], hessian, artefact),
                behind is not None and not tuned,
            )
            self._tune(block, list(tuned.values()), artefact)
            return behind(block.run, inputs) if behind is not None and not outputs else outputs

    def _tune(self, block: Block, layers: list[Layer], artefact: Artefact) -> None:
        compensates = self.stages.compensation is not None
        before = {layer.name: get_weight(layer.module) for layer in layers if compensates}

        def put(layer: Layer, quantized: Matrix, record: LayerRecord) -> None:
            record = self._compensate(layer, before.get(layer.name), record, None, artefact)
            self._put(layer, quantized, record, artefact)

        for name, tuning in self.stages.tunings.items():
            mine = [layer for layer in layers if layer.group.method.name == name]
            if mine:
                tuning.tune(block, mine, put)

    def quantize_layer(self, layer: Layer, hessian: Hessian | None, artefact: Artefact) -> None:
        """Quantize one layer, compensate it, and put both into the artefact."""
        before = get_weight(layer.module) if self.stages.compensation else None
        quantized, record = quantize_layer(layer, self.storage, hessian, self.note)
        record = self._compensate(layer, before, record, hessian, artefact)
        self._put(layer, quantized, record, artefact)

    def _compensate(
        self,
        layer: Layer,
        before: torch.Tensor | None,
        record: LayerRecord,
        hessian: Hessian | None,
        artefact: Artefact,
    ) -> LayerRecord:
        """Compensate a quantized layer, whose weight was ``before``; its record after that."""
        compensation = self.stages.compensation
        if compensation is None or before is None:
            return record
        found = compensation.compensate(layer, before, hessian)
        if found is None:
            return record
        artefact.beside.update(found.beside)
        return compensated_record(record, before, found, hessian)

    def _put(self, layer: Layer, quantized: Matrix, record: LayerRecord, artefact: Artefact) -> None:
        parameter = f"{layer.name}.weight"
        artefact.records.append(record)
        artefact.replaced.append(self.naming.alone(parameter))
        name = self.naming.written(parameter).removesuffix(".weight")
        written = [*self.naming.format.tensors(quantized, layer.planned.as_bytes)]
        for suffix, tensor in [*written, *(layer.rounding.tensors() if layer.rounding else ())]:
            artefact.tensors[f"{name}.{suffix}"] = tensor

    def add_changed(self, parameters: Parameters, artefact: Artefact) -> None:
        """Put the parameters that transforms rewrote into the artefact."""
        for parameter, tensor in parameters.changed.items():
            artefact.tensors[self.naming.written(parameter)] = tensor
            artefact.changed[parameter] = digest(parameters.get(parameter))
            stored = self.naming.replaces(parameter)
            if stored is not None:
                artefact.replaced.append(stored)


def compensated_record(
    record: LayerRecord, before: torch.Tensor, found: Compensated, hessian: Hessian | None
) -> LayerRecord:
    """The record of a layer with what its compensation costs and mends."""
    return replace(
        record,
        bytes=record.bytes + found.nbytes,
        relative_error=relative_error(before, found.served),
        output_error=None if hessian is None else output_error(before, found.served, hessian),
        note="; ".join(note for note in (record.note, found.note) if note) or None,
    )


def input_schemes(layers: Iterable[Layer]) -> list[tuple[nn.Module, Rounding]]:
    """The modules whose inputs are quantized too, and how."""
    return [(layer.module, layer.rounding) for layer in layers if layer.rounding is not None]
