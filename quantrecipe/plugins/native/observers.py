"""Static ranges found on calibration text: min-max, percentile, least squared error.

Wu et al., arXiv:2004.09602, section 5.2, compares the three.
"""

from __future__ import annotations

import math

import torch

from quantrecipe.plugins.native.rounding import Fixed, fake_quantize, scale_and_zero
from quantrecipe.schemes import QuantizationArgs

#: Values of a batch that are kept to find a percentile or the least error, evenly spread over it.
SAMPLE = 1 << 14
#: Shares of the full range that ``mse`` tries.
SHARES = tuple(1 - 0.01 * i for i in range(90))


class Observed:
    """What was seen of one tensor over the calibration text: extremes, and an even sample of its values.

    keep: the dimension that has scales of its own (heads), None = one scale for all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.keep = keep
        self.low: torch.Tensor | None = None
        self.high: torch.Tensor | None = None
        self._sample: list[torch.Tensor] = []

    def add(self, values: torch.Tensor) -> None:
        """Take in one batch."""
        if not values.numel():
            return
        rows = self._rows(values)
        low, high = rows.amin(1).float(), rows.amax(1).float()
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        stride = _stride(rows.shape[1], values.shape[-1])
        self._sample.append(rows[:, ::stride].float())

    def fixed(self, args: QuantizationArgs, dtype: torch.dtype) -> Fixed:
        """Scale and zero point [heads or 1], in the dtype that they are stored in."""
        low, high = self._range(args)
        found = scale_and_zero(low.to(dtype), high.to(dtype), args)
        return Fixed(found.scale, found.zero)

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        if self.keep is None:
            return values.reshape(1, -1)
        return values.movedim(self.keep, 0).flatten(1)

    def _range(self, args: QuantizationArgs) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.low is not None and self.high is not None
        if args.observer == "percentile":
            return self._percentile(args)
        if args.observer == "mse":
            return self._least_error(args)
        return self.low, self.high

    def _percentile(self, args: QuantizationArgs) -> tuple[torch.Tensor, torch.Tensor]:
        """The range that holds this share of the values: of their sizes, or cut equally at both ends."""
        sample, share = torch.cat(self._sample, 1), args.percentile / 100
        if args.symmetric:
            high = _quantile(sample.abs(), share)
            return -high, high
        return _quantile(sample, (1 - share) / 2), _quantile(sample, (1 + share) / 2)

    def _least_error(self, args: QuantizationArgs) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of the full range that rounds the sample with the least squared error."""
        assert self.low is not None and self.high is not None
        sample = torch.cat(self._sample, 1)
        best, least = torch.ones_like(self.low), torch.full_like(self.low, torch.inf)
        for share in SHARES:
            tried = scale_and_zero(self.low * share, self.high * share, args)
            spread = Fixed(tried.scale.unsqueeze(1), None if tried.zero is None else tried.zero.unsqueeze(1))
            error = (fake_quantize(sample, args, spread) - sample).square().sum(1)
            best, least = torch.where(error < least, share, best), torch.minimum(error, least)
        return self.low * best, self.high * best


def _stride(count: int, channels: int) -> int:
    """A step through ``count`` values that meets every channel alike."""
    stride = max(1, count // SAMPLE)
    while math.gcd(stride, channels) > 1:
        stride += 1
    return stride


def _quantile(sample: torch.Tensor, share: float) -> torch.Tensor:
    """By rows, the value at that place of the order; torch.quantile takes no more than 2^24 values."""
    place = round(share * (sample.shape[1] - 1))
    return sample.kthvalue(place + 1, dim=1).values
