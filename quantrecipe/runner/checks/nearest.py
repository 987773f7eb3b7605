"""Whether codes are the nearest to the original: if nearly all are, the few that are not were flipped later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from quantrecipe.modeling.formats import Decoded

#: Excess over the nearest code, in steps, that the rounding of a tool's own types (bf16, maxima in 8 bits) explains.
SLACK = 0.25
#: The same for code books, whose values lie between -1 and 1.
BOOK_SLACK = 0.1
#: Share of codes that must be the nearest for a module to count as rounded to nearest.
NEARLY_ALL = 0.999


@dataclass(frozen=True, slots=True)
class Rounding:
    """flipped: codes that are not the nearest, where nearly all are."""

    flipped: int
    LOOSE: ClassVar[Rounding]


Rounding.LOOSE = Rounding(-1)


def rounding_of(decoded: Decoded, weight: torch.Tensor) -> Rounding:
    """LOOSE where the method chose other codes than the nearest (GPTQ, AWQ's clipping, rounding in a coarse type)."""
    scale = decoded.scale_of_each().float()
    ratio = weight / scale.where(scale != 0, torch.ones_like(scale))
    rows, columns = decoded.shape
    steps = decoded.steps().float().flatten()[: rows * columns].view(rows, columns)
    excess = (ratio - steps).abs() - (ratio - _nearest(decoded, ratio)).abs()
    flipped = int((excess > (SLACK if decoded.book is None else BOOK_SLACK)).sum())
    return Rounding(flipped) if flipped <= (1 - NEARLY_ALL) * weight.numel() else Rounding.LOOSE


def _nearest(decoded: Decoded, ratio: torch.Tensor) -> torch.Tensor:
    """The value on the module's grid nearest to each ratio of weight and scale."""
    if decoded.book is not None:
        book = decoded.book.sort().values
        return book[torch.bucketize(ratio.contiguous(), (book[1:] + book[:-1]) / 2)]
    if decoded.codes.is_floating_point():
        top = torch.finfo(decoded.codes.dtype).max
        return ratio.clamp(-top, top).to(decoded.codes.dtype).float()
    steps = decoded.steps().float()
    return ratio.round().clamp(steps.amin(), steps.amax())
