"""A quantized matrix taken apart: codes, scales, zero points; and the weight that they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Decoded:
    """Weight [N, K] = (value of code - zero) * scale.

    codes: uint8, int8 or float8 [R, C], R x C >= N x K, row by row (more only where a last block is filled up).
    scale: float [R, G]: each serves C / G columns, or those that ``groups`` says. zero: [R, G] in the codes' terms,
    int16, or a float where it need not be whole; None = 0. groups: int64 [C] or None. book: fp32 values of the codes,
    or None where a code is a number. product: the dtype that loaders multiply in; None = the one that the model
    computes in. rounds: what they round the product to before all else.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    shape: tuple[int, int]
    zero: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    book: torch.Tensor | None = None
    product: torch.dtype | None = None
    rounds: torch.dtype | None = None

    def weight(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight [N, K] as a loader that computes in ``dtype`` (None = the scales' own) has it."""
        scale = self.scale.to(self.product or dtype or self.scale.dtype)
        found = self._spread(self.steps().to(scale.dtype), scale)
        rows, columns = self.shape
        found = found.flatten()[: rows * columns].view(rows, columns)
        found = found if self.rounds is None else found.to(self.rounds)
        return found if dtype is None else found.to(dtype)

    def steps(self) -> torch.Tensor:
        """Value of code minus zero, before the scale: int16 or float [R, C]."""
        if self.book is not None:
            return self.book[self.codes.long()]
        if self.codes.is_floating_point():
            return self.codes
        steps = self.codes.to(torch.int16)
        if self.zero is None:
            return steps
        zero = self.zero.float() if self.zero.is_floating_point() else self.zero.to(torch.int16)
        if self.groups is not None:
            return steps - zero[:, self.groups]
        return (steps.view(len(steps), zero.shape[1], -1) - zero.unsqueeze(-1)).flatten(1)

    def scale_of_each(self) -> torch.Tensor:
        """The scale of every weight, [N, K]."""
        ones = torch.ones(self.codes.shape, dtype=self.scale.dtype)
        rows, columns = self.shape
        return self._spread(ones, self.scale).flatten()[: rows * columns].view(rows, columns)

    def _spread(self, steps: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        if self.groups is not None:
            return steps * scale[:, self.groups]
        return (steps.reshape(len(steps), scale.shape[1], -1) * scale.unsqueeze(-1)).flatten(1)
