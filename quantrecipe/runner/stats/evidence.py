"""What a gate asks of a measured quantity: its value, an interval, and how surely it lies beyond a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quantrecipe.runner.intervals import CONFIDENCE, Interval


class Quantity(Protocol):
    """A measured quantity.

    p_over(limit) is the p-value against "the truth is at most limit": small where it surely lies above.
    p_under(limit) likewise below. Both agree with the interval: low(confidence) > limit where
    p_over(limit) < (1 - confidence) / 2.
    """

    @property
    def value(self) -> float:
        """The estimate."""

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The two-sided interval; each side errs with (1 - confidence) / 2."""

    def p_over(self, limit: float) -> float:
        """How well "at most limit" agrees with what was seen."""

    def p_under(self, limit: float) -> float:
        """How well "at least limit" agrees with what was seen."""


@dataclass(frozen=True, slots=True)
class Exact:
    """A quantity without error, such as bytes."""

    value: float

    def interval(self, confidence: float = 1.0) -> Interval:
        """The value itself."""
        return Interval(self.value, self.value, self.value, 1, 1.0)

    def p_over(self, limit: float) -> float:
        """0 where it lies above, else 1."""
        return 0.0 if self.value > limit else 1.0

    def p_under(self, limit: float) -> float:
        """0 where it keeps the limit, else 1."""
        return 0.0 if self.value <= limit else 1.0


@dataclass(frozen=True, slots=True)
class Mapped:
    """An increasing function of a quantity, such as exp(x) - 1 of a mean difference of losses."""

    inner: Quantity
    function: Callable[[float], float]
    inverse: Callable[[float], float]

    @property
    def value(self) -> float:
        """The function of the estimate."""
        return self.function(self.inner.value)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The function of the bounds."""
        return self.inner.interval(confidence).map(self.function)

    def p_over(self, limit: float) -> float:
        """That of the inner quantity at the inverse."""
        return self.inner.p_over(self.inverse(limit))

    def p_under(self, limit: float) -> float:
        """That of the inner quantity at the inverse."""
        return self.inner.p_under(self.inverse(limit))


def relative_increase(loss_difference: Quantity) -> Mapped:
    """The relative increase of perplexity, exp(d) - 1, of a mean difference of losses d in nats a token."""
    return Mapped(loss_difference, lambda x: math.expm1(min(x, 700.0)), lambda x: math.log1p(max(x, -1 + 1e-12)))
