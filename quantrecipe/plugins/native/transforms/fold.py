"""A scale and a shift folded into a source and its targets, so that the model computes what it did.

With x' = (x - z) / s in place of x: a norm's gain g becomes g / s and its bias (b - z) / s; a linear layer's rows
and bias likewise; its targets' columns W become W s, and their bias b + W z.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from quantrecipe.plugins.native.linear import get_weight, set_weight
from quantrecipe.plugins.native.stages import Parameters
from quantrecipe.plugins.native.transforms.wiring import Fold


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes into a block under way: weights to be quantized in place, all else as changed parameters.

    quantized: full names of the layers whose codes will be written.
    """

    block: Parameters
    quantized: frozenset[str]

    def module(self, name: str) -> nn.Module:
        """A module by its name in the block."""
        return self.block.module.get_submodule(name)

    def bias(self, name: str) -> torch.Tensor | None:
        """The module's bias in fp32."""
        bias = self.module(name)._parameters.get("bias")
        return None if bias is None else bias.detach().float()

    def set_weight(self, name: str, weight: torch.Tensor) -> None:
        """weight: [N, K] of a linear layer."""
        set_weight(self.module(name), weight)
        if self._full(name) not in self.quantized:
            self.set(name, "weight", self.module(name).weight)  # type: ignore[arg-type]

    def set(self, name: str, attribute: str, value: torch.Tensor) -> None:
        """A parameter that is written as it is."""
        self.block.change(f"{self._full(name)}.{attribute}", value)

    def _full(self, name: str) -> str:
        return f"{self.block.name}.{name}"


def rescale(writer: Writer, fold: Fold, s: torch.Tensor, z: torch.Tensor | None = None) -> None:
    """Fold scales s [N] and shifts z [N] of a source's N outputs; s must be 1 and z 0 where no target follows.

    Shifts need ``can_shift``.
    """
    _rescale_source(writer, fold, s, z)
    for target in fold.targets:
        W = get_weight(writer.module(target))
        bias = writer.bias(target)
        if z is not None and bias is not None:
            writer.set(target, "bias", bias + W @ z[fold.rows])
        writer.set_weight(target, W * s[fold.rows])


def _rescale_source(writer: Writer, fold: Fold, s: torch.Tensor, z: torch.Tensor | None) -> None:
    source, bias = fold.source, writer.bias(fold.source)
    if fold.norm is not None:
        gain = writer.module(source).weight.detach().float() + fold.norm.offset  # type: ignore[operator]
        writer.set(source, "weight", gain / s - fold.norm.offset)
    else:
        writer.set_weight(source, get_weight(writer.module(source)) / s.unsqueeze(1))
    if bias is not None:
        writer.set(source, "bias", (bias if z is None else bias - z) / s)


def can_shift(writer: Writer, fold: Fold) -> bool:
    """Whether source and targets all have the bias that a shift is folded into."""
    return fold.shifts and all(writer.bias(name) is not None for name in (fold.source, *fold.targets))


def by_source(values: torch.Tensor, fold: Fold, size: int, neutral: float) -> torch.Tensor:
    """The greatest value over the inputs [K] that follow each source output [N]; ``neutral`` where none does."""
    found = torch.full((size,), -torch.inf, dtype=values.dtype, device=values.device)
    rows = fold.rows.to(values.device)
    found = found.scatter_reduce(0, rows, values, "amax")
    return torch.where(torch.isinf(found), neutral, found)


def source_size(writer: Writer, fold: Fold) -> int:
    """Outputs N of the source."""
    if fold.norm is not None:
        return fold.norm.size
    return get_weight(writer.module(fold.source)).shape[0]


def names(folds: Iterable[Fold]) -> str:
    """For notes: ``v_proj -> o_proj, …``."""
    return ", ".join(f"{fold.source} -> {' + '.join(fold.targets)}" for fold in folds)
