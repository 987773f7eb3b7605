"""Experts as plain Linear modules.

transformers 5 holds the experts of a block as 3-D parameters; checkpoints, engines and quantizers know them one by
one. ``unfuse`` puts ``experts.3.gate_proj``, ``.up_proj`` and ``.down_proj`` in their place, on whatever device the
parameters are; ``cut`` takes one expert's matrix out of a fused tensor and ``fuse`` puts them together again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

GATE, UP, DOWN = "gate_proj", "up_proj", "down_proj"


@dataclass(frozen=True, slots=True)
class Layout:
    """How an experts module holds its matrices, in the words of transformers' use_experts_implementation.

    gated: gate_up_proj [E, 2 I, H], else up_proj [E, I, H]; and down_proj [E, H, I]. concatenated: rows are
    [gate; up], else they take turns. transposed: the last two dimensions are swapped. biased: a vector beside each.
    """

    experts: int
    gated: bool
    concatenated: bool
    transposed: bool
    biased: bool

    @classmethod
    def of(cls, module: nn.Module) -> Self | None:
        """The layout of a fused module with that interface; None for any other module."""
        down: Any = module._parameters.get(DOWN)
        if down is None or down.dim() != 3 or not hasattr(module, "is_concatenated"):
            return None
        m: Any = module
        return cls(len(down), m.has_gate, m.is_concatenated, m.is_transposed, m.has_bias)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of one expert's matrices."""
        return (GATE, UP, DOWN) if self.gated else (UP, DOWN)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each matrix has."""
        return ("weight", "bias") if self.biased else ("weight",)

    def attribute(self, leaf: str, kind: str) -> str:
        """The fused parameter that a matrix (or its bias) lies in."""
        name = DOWN if leaf == DOWN else "gate_up_proj" if self.gated else UP
        return name if kind == "weight" else f"{name}_bias"

    def cut(self, row: torch.Tensor, leaf: str) -> torch.Tensor:
        """One matrix [N, K] or bias [N], a view, out of one expert's row of the fused parameter."""
        matrix = row.t() if self.transposed and row.dim() == 2 else row
        if leaf == DOWN or not self.gated:
            return matrix
        half = len(matrix) // 2
        if self.concatenated:
            return matrix[:half] if leaf == GATE else matrix[half:]
        return matrix[int(leaf == UP) :: 2]

    def join(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Outputs [T, I] of gate and up, side by side as the fused parameter's would be."""
        return torch.cat([gate, up], -1) if self.concatenated else torch.stack([gate, up], -1).flatten(-2)

    def join_rows(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Rows of gate and up as the fused parameter has them; what ``cut`` takes apart."""
        return torch.cat([gate, up]) if self.concatenated else torch.stack([gate, up], 1).flatten(0, 1)

    def parts(self, path: str) -> Iterator[tuple[str, int, str, str]]:
        """(parameter's name, expert, leaf, kind) of every matrix of the experts module ``path``."""
        for index in range(self.experts):
            for leaf in self.leaves:
                for kind in self.kinds:
                    yield f"{path}.{index}.{leaf}.{kind}", index, leaf, kind


class Expert(nn.Module):
    """One expert's matrices; how they work together its owner knows."""

    def __init__(self, fused: nn.Module, layout: Layout) -> None:
        super().__init__()
        for leaf in layout.leaves:
            rows, columns = layout.cut(fused._parameters[layout.attribute(leaf, "weight")][0], leaf).shape  # type: ignore[index]
            self.add_module(leaf, nn.Linear(columns, rows, layout.biased, device="meta"))


class Experts(nn.ModuleList):
    """The experts of one block as plain modules; computes what the module that it replaces computes.

    Every expert is visited, in order, also by no tokens at all: so all batches take the same way through a block.
    everyone: all tokens pass through every expert, the results of those that did not choose it thrown away: so a
    method that looks at inputs sees them all.
    """

    everyone = False

    def __init__(self, fused: nn.Module, layout: Layout) -> None:
        super().__init__(Expert(fused, layout) for _ in range(layout.experts))
        self.layout = layout
        for attribute in {layout.attribute(leaf, kind) for leaf in layout.leaves for kind in layout.kinds}:
            del fused._parameters[attribute]
        self._owner = (fused,)  # its activation and gating; a tuple keeps it out of the modules

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """hidden [T, H], chosen experts int64 [T, k] and their weights [T, k] -> [T, H]."""
        output = torch.zeros_like(hidden)
        for index, expert in enumerate(self):
            token, place = torch.where(chosen == index)
            part = self._compute(expert, hidden)[token] if self.everyone else self._compute(expert, hidden[token])
            part *= weights[token, place, None]
            output.index_add_(0, token, part.to(output.dtype))
        return output

    def _compute(self, expert: Any, inputs: torch.Tensor) -> torch.Tensor:
        owner: Any = self._owner[0]
        if not self.layout.gated:
            inner = owner.act_fn(expert.up_proj(inputs))
        else:
            gate, up = expert.gate_proj(inputs), expert.up_proj(inputs)
            inner = owner._apply_gate(self.layout.join(gate, up))
        result: torch.Tensor = expert.down_proj(inner)
        return result


def unfuse(model: nn.Module) -> None:
    """Put plain modules in the place of every fused experts module of a model on the meta device."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        for path, module in list(model.named_modules()):
            layout = Layout.of(module)
            if layout is not None:
                model.set_submodule(path, Experts(module, layout))


def send_everyone(model: nn.Module, on: bool) -> None:
    """Whether all tokens pass through every expert of the model (``Experts.everyone``)."""
    for module in model.modules():
        if isinstance(module, Experts):
            module.everyone = on


def expert_layouts(model: nn.Module) -> dict[str, Layout]:
    """Layout of every experts module by its path, fused or not."""
    found = {path: getattr(module, "layout", None) or Layout.of(module) for path, module in model.named_modules()}
    return {path: layout for path, layout in found.items() if isinstance(layout, Layout)}


def single_names(model: nn.Module) -> list[str]:
    """Names of the model's parameters, those of fused experts as their single parts."""
    fused = {path: layout for path, layout in expert_layouts(model).items() if Layout.of(model.get_submodule(path))}
    names = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in fused]
    return names + [name for path, layout in fused.items() for name, _, _, _ in layout.parts(path)]


def experts_of(parameter: str) -> str | None:
    """The experts module that a parameter of a single expert lies in; None for any other parameter."""
    found = re.match(r"(.*)\.\d+\.(gate_proj|up_proj|down_proj)\.(weight|bias)$", parameter)
    return found[1] if found else None


def expert_tensor(model: nn.Module, parameter: str) -> torch.Tensor | None:
    """One expert's matrix or bias, a view, out of a model with fused experts; None where it has no such expert."""
    path = experts_of(parameter)
    if path is None:
        return None
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    layout = Layout.of(module)
    if layout is None:
        return None
    index, leaf, kind = parameter.removeprefix(f"{path}.").split(".")
    whole = module._parameters[layout.attribute(leaf, kind)]
    return None if whole is None else layout.cut(whole[int(index)], leaf)


def fuse(layout: Layout, path: str, state: dict[str, torch.Tensor]) -> None:
    """Replace the matrices of one experts module in a state dict by the fused tensors."""
    rows: dict[str, list[torch.Tensor]] = {}
    for index in range(layout.experts):
        for kind in layout.kinds:
            taken = {leaf: state.pop(f"{path}.{index}.{leaf}.{kind}") for leaf in layout.leaves}
            for leaf in (UP, DOWN):
                row = layout.join_rows(taken[GATE], taken[UP]) if leaf == UP and layout.gated else taken[leaf]
                row = row.t() if layout.transposed and kind == "weight" else row
                rows.setdefault(layout.attribute(leaf, kind), []).append(row)
    state |= {f"{path}.{attribute}": torch.stack(found) for attribute, found in rows.items()}
