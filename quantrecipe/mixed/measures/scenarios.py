"""Variants of the model, and their way through one block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from quantrecipe.mixed.measures.errors import Row
from quantrecipe.mixed.measures.streams import Streams, computed, held
from quantrecipe.mixed.options import Option
from quantrecipe.modeling.tensor_file import Piece
from quantrecipe.plugins.native.linear import set_weight
from quantrecipe.plugins.native.walk import Run

#: Streams beside the scenarios': the calibration text, and the probe's text through the original.
CALIBRATION, CLEAN = "calibration", "clean"


@dataclass(frozen=True, slots=True)
class Scenario:
    """The model with these layers quantized so, the others as they are. name: also of its stream.

    parent: the scenario whose stream it shares up to the first block where they differ; it must stand earlier.
    """

    name: str
    assigned: Mapping[str, Option]
    parent: str = CLEAN


class Passing:
    """The streams on their way through one block. run: the block on one batch of the probe's windows.

    weights: what the block's layers become, by layer and option.
    """

    def __init__(
        self,
        run: Run,
        before: Streams,
        model: nn.Module,
        weights: Mapping[tuple[str, Option], torch.Tensor],
        scenarios: tuple[Scenario, ...],
    ) -> None:
        self.run, self.before, self.model, self.weights, self.scenarios = run, before, model, weights, scenarios
        self.begun, self.here = before.names(), {name for name, _ in weights}
        self.assigned: dict[str, Mapping[str, Option]] = {CLEAN: {}, **{one.name: one.assigned for one in scenarios}}
        self.parents = {one.name: one.parent for one in scenarios}
        self.inputs = before.batches(CLEAN)
        self.outputs = [run(batch) for batch in self.inputs]
        self.errors: dict[str, float] = {}

    def pieces(self) -> Iterator[Piece]:
        """Of the clean stream, and of every scenario that has begun or begins here."""
        yield from held(CLEAN, self.outputs)
        for one in self.scenarios:
            if one.name in self.begun or self._begins(one):
                yield from computed(one.name, self.outputs, partial(self._through, one))

    def _begins(self, one: Scenario) -> bool:
        before = self.assigned[one.parent]
        return any(one.assigned.get(name) != before.get(name) for name in self.here)

    def _through(self, one: Scenario, index: int) -> torch.Tensor:
        source = source_of(one.name, self.begun, self.parents)
        hidden = self.inputs[index] if source == CLEAN else self.before.batch(source, index)
        with changed(self.model, one.assigned, self.weights):
            output = self.run(hidden)
        if source == CLEAN and one.parent == CLEAN:
            error = float((output.float() - self.outputs[index].float()).square().sum())
            self.errors[one.name] = self.errors.get(one.name, 0.0) + error
        return output

    def rows(self) -> list[Row]:
        """``block`` of the scenarios that began here; after their pieces were written."""
        pairs = zip(self.outputs, self.inputs, strict=True)
        adds = sum(float((after.float() - before.float()).square().sum()) for after, before in pairs)
        return [Row("block", name, "", error / adds) for name, error in self.errors.items()]


def source_of(name: str, begun: Collection[str], parents: Mapping[str, str]) -> str:
    """The stream that carries a scenario at this place: its own, or that of the nearest ancestor that has begun."""
    while name != CLEAN and name not in begun:
        name = parents[name]
    return name


@contextmanager
def changed(
    model: nn.Module, assigned: Mapping[str, Option], weights: Mapping[tuple[str, Option], torch.Tensor]
) -> Iterator[None]:
    """Within, the layers whose quantized weight is at hand have it."""
    found = {name: weights[name, option] for name, option in assigned.items() if (name, option) in weights}
    modules = {name: model.get_submodule(name) for name in found}
    kept = {name: module._parameters["weight"] for name, module in modules.items()}
    for name, weight in found.items():
        set_weight(modules[name], weight)
    try:
        yield
    finally:
        for name, module in modules.items():
            module._parameters["weight"] = kept[name]
