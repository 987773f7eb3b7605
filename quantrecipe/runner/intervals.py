"""An estimate with its interval, as reports and results.json hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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

    def map(self, function: Callable[[float], float]) -> Interval:
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


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean over windows of equal length, in the order of the text; see stats/mean.py."""
    from quantrecipe.runner.stats.mean import Mean

    return Mean(values).interval(confidence)
