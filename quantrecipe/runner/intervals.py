"""Intervals of means over windows that may resemble their neighbours: contiguous blocks, Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

LEAST_BLOCKS = 40
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, its interval (None: too little data), and the blocks that it rests on."""

    value: float
    low: float | None
    high: float | None
    blocks: int
    confidence: float = CONFIDENCE

    def map(self, function: Any) -> Interval:
        """The interval of an increasing function of the value."""
        low = None if self.low is None else function(self.low)
        high = None if self.high is None else function(self.high)
        return Interval(function(self.value), low, high, self.blocks, self.confidence)

    def clipped(self, least: float, most: float) -> Interval:
        """The same, kept between two bounds that the true value cannot pass."""
        low = None if self.low is None else min(max(self.low, least), most)
        high = None if self.high is None else min(max(self.high, least), most)
        return Interval(min(max(self.value, least), most), low, high, self.blocks, self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def block_sums(values: Sequence[float]) -> list[tuple[float, int]]:
    """(sum, windows) of contiguous blocks: as long as can be while at least 40 remain, sizes equal or one apart."""
    count = len(values)
    blocks = count // max(count // LEAST_BLOCKS, 1)
    edges = [index * count // blocks for index in range(blocks + 1)]
    return [(math.fsum(values[a:b]), b - a) for a, b in pairwise(edges)]


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean over windows of equal length, with the studentized interval over contiguous blocks.

    Blocks differ by at most one window; their mean is the ratio of sums, its variance that of the ratio
    estimator (Cochran, Sampling Techniques, section 6.3), the quantile Student's with blocks - 1 degrees.
    """
    from scipy.special import stdtrit

    sums = block_sums(values)
    count, blocks = len(values), len(sums)
    mean = math.fsum(total for total, _ in sums) / count
    if blocks < 2:
        return Interval(mean, None, None, blocks, confidence)
    residual = math.fsum((total - mean * size) ** 2 for total, size in sums)
    error = math.sqrt(blocks / (blocks - 1) * residual) / count
    half = float(stdtrit(blocks - 1, 0.5 + confidence / 2)) * error
    return Interval(mean, mean - half, mean + half, blocks, confidence)


def share_interval(shares: Sequence[float], trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The mean of shares in [0, 1] of ``trials`` each.

    Where all are 0 or all are 1 the spread says nothing; then the exact binomial bound (Clopper and Pearson,
    1934) stands in, as though the trials were independent.
    """
    found = mean_interval(shares, confidence).clipped(0.0, 1.0)
    slack = 1 - ((1 - confidence) / 2) ** (1 / (trials * len(shares)))
    if found.value == 1:
        return Interval(1.0, 1 - slack, 1.0, found.blocks, confidence)
    if found.value == 0:
        return Interval(0.0, 0.0, slack, found.blocks, confidence)
    return found
