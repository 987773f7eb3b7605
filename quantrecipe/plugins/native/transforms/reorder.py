"""Another order of a layer's inputs, folded into the layers that give them (RPTQ, arXiv:2304.01089, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.transforms.fold import Writer
from quantrecipe.plugins.native.transforms.wiring import Fold, Wiring


@dataclass(frozen=True, slots=True)
class Junction:
    """A layer whose every input follows one output of each of ``sources``: in what order they lie is free."""

    target: str
    sources: tuple[str, ...]


def junctions(wiring: Wiring) -> list[Junction]:
    """Second layers of MLPs: what gives their input (fc1, or gate and up) passes it on row by row.

    Not o_proj: the order of its inputs is bound to heads. Not what follows a norm: that gives the residual stream's
    own order.
    """
    by_target: dict[str, list[Fold]] = {}
    for fold in wiring.folds:
        if fold.norm is None and len(fold.targets) == 1:
            by_target.setdefault(fold.targets[0], []).append(fold)
    return [
        Junction(target, tuple(fold.source for fold in folds))
        for target, folds in by_target.items()
        if all(torch.equal(fold.rows, torch.arange(len(fold.rows))) for fold in folds) and not _is_attention(folds)
    ]


def _is_attention(folds: Sequence[Fold]) -> bool:
    """Attention lets a shift pass (the rows of softmax sum to one), no activation function does."""
    return any(fold.shifts for fold in folds)


def reorder(writer: Writer, junction: Junction, order: torch.Tensor) -> None:
    """Input j of the target becomes what was input order[j]."""
    for source in junction.sources:
        bias = writer.bias(source)
        writer.set_weight(source, get_weight(writer.module(source))[order])
        if bias is not None:
            writer.set(source, "bias", bias[order])
    writer.set_weight(junction.target, get_weight(writer.module(junction.target))[:, order])
