"""The mean over windows of a text that may resemble their neighbours, be skewed, or have heavy tails.

Contiguous blocks of windows are the observations. An interval is the widest of several, each of which is right
where another errs, so that each side errs at most as often as the best of them:

* Student's t over at least 40 blocks;
* the same with the skewness taken out by Hall's monotone cubic (P. Hall, On the removal of skewness by
  transformation, J. R. Statist. Soc. B 54, 1992, section 2), for losses with a long tail to one side;
* Student's t over 20 and over 10 longer blocks, which sees likeness over longer stretches (batch means:
  Conway, 1963; few large batches: Ibragimov and Müller, t-statistic based correlation and heterogeneity robust
  inference, J. Bus. Econ. Stat. 28, 2010);
* and over 5, where the 10 show a variance of the mean that is 1.5 times that of the 40: long documents.

What that buys and costs is simulated by tools/simulate_gates.py and printed in docs/gates.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from quantrecipe.runner.intervals import CONFIDENCE, LEAST_BLOCKS, Interval

LONGER = (20, 10)
LONGEST = 5
DEPENDENCE = 1.5


@dataclass(frozen=True, slots=True)
class Studentized:
    """A mean, its standard error, degrees of freedom, and c = skewness / sqrt(n), 0 for plain Student's t."""

    mean: float
    error: float
    degrees: int
    skew: float = 0.0

    def low(self, alpha: float) -> float:
        """The lower bound that errs with ``alpha``."""
        return self.mean - self._untransformed(self._quantile(alpha)) * self.error

    def high(self, alpha: float) -> float:
        """The upper bound that errs with ``alpha``."""
        return self.mean - self._untransformed(-self._quantile(alpha)) * self.error

    def p_over(self, limit: float) -> float:
        """P-value against a truth of at most ``limit``; without spread it is 0 from the limit on."""
        if self.error == 0:
            return 0.0 if self.mean >= limit else 1.0
        return self._survival(self._transformed((self.mean - limit) / self.error))

    def p_under(self, limit: float) -> float:
        """P-value against a truth of at least ``limit``."""
        if self.error == 0:
            return 0.0 if self.mean <= limit else 1.0
        return self._survival(-self._transformed((self.mean - limit) / self.error))

    def _quantile(self, alpha: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees, 1 - alpha))

    def _survival(self, t: float) -> float:
        from scipy.special import stdtr

        return float(stdtr(self.degrees, -t))

    def _transformed(self, t: float) -> float:
        """Hall's g(T) = T + c T^2 / 3 + c^2 T^3 / 27 + c / 6."""
        c = self.skew
        return t + c * t * t / 3 + c * c * t**3 / 27 + c / 6

    def _untransformed(self, g: float) -> float:
        """Its inverse, T = 3 ((1 + c (g - c / 6))^(1/3) - 1) / c."""
        c = self.skew
        if abs(c) < 1e-9:
            return g
        return 3 * (math.cbrt(1 + c * (g - c / 6)) - 1) / c


class Mean:
    """The mean of values of equal weight, in the order of the text. Needs two values for an interval."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    @property
    def value(self) -> float:
        """The estimate."""
        return math.fsum(self.values) / len(self.values)

    @cached_property
    def blocks(self) -> int:
        """Blocks of the finest division: all windows up to 79, else at least 40."""
        count = len(self.values)
        return count // max(count // LEAST_BLOCKS, 1)

    @cached_property
    def _parts(self) -> tuple[Studentized, ...]:
        if len(self.values) < 2:
            return ()
        fine = student(self.values, self.blocks)
        parts = [fine, without_skew(self.values, self.blocks)]
        parts += [student(self.values, blocks) for blocks in LONGER if blocks < self.blocks]
        if parts[-1].degrees == LONGER[-1] - 1 and parts[-1].error ** 2 > DEPENDENCE * fine.error**2:
            parts.append(student(self.values, LONGEST))
        return tuple(parts)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The widest of the parts' intervals, on each side; without bounds where there is one value."""
        if not self._parts:
            return Interval(self.value, None, None, self.blocks, confidence)
        alpha = (1 - confidence) / 2
        low = min(part.low(alpha) for part in self._parts)
        high = max(part.high(alpha) for part in self._parts)
        return Interval(self.value, low, high, self.blocks, confidence)

    def p_over(self, limit: float) -> float:
        """The largest of the parts' p-values."""
        return max((part.p_over(limit) for part in self._parts), default=1.0)

    def p_under(self, limit: float) -> float:
        """The largest of the parts' p-values."""
        return max((part.p_under(limit) for part in self._parts), default=1.0)


def block_sums(values: Sequence[float], blocks: int) -> list[tuple[float, int]]:
    """(sum, windows) of contiguous blocks whose sizes are equal or one apart."""
    count = len(values)
    edges = [index * count // blocks for index in range(blocks + 1)]
    return [(math.fsum(values[a:b]), b - a) for a, b in pairwise(edges)]


def student(values: Sequence[float], blocks: int) -> Studentized:
    """Over that many blocks: a ratio of sums, its standard error by Cochran, Sampling Techniques, section 6.3."""
    mean, residuals = _residuals(values, blocks)
    spread = math.fsum(residual**2 for residual in residuals)
    return Studentized(mean, math.sqrt(blocks / (blocks - 1) * spread) / len(values), blocks - 1)


def without_skew(values: Sequence[float], blocks: int) -> Studentized:
    """The same, with the blocks' skewness for Hall's transformation."""
    plain = student(values, blocks)
    _, residuals = _residuals(values, blocks)
    second = math.fsum(residual**2 for residual in residuals) / blocks
    third = math.fsum(residual**3 for residual in residuals) / blocks
    skewness = third / second**1.5 if second > 0 else 0.0
    return Studentized(plain.mean, plain.error, plain.degrees, skewness / math.sqrt(blocks))


def _residuals(values: Sequence[float], blocks: int) -> tuple[float, list[float]]:
    mean = math.fsum(values) / len(values)
    return mean, [total - mean * size for total, size in block_sums(values, blocks)]
