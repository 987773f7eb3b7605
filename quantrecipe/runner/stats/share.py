"""Shares and paired yes-or-no answers: agreement of tokens, accuracy of tasks, what a task lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantrecipe.runner.intervals import CONFIDENCE, Interval
from quantrecipe.runner.stats.mean import Mean


class Share:
    """The mean of shares in [0, 1] of ``trials`` each, in the order of the text.

    Where all are 0 or all are 1 their spread says nothing; then the exact binomial bound (Clopper and Pearson,
    1934) stands in, as though the trials were independent.
    """

    def __init__(self, shares: Sequence[float], trials: int) -> None:
        self._mean, self.trials = Mean(shares), trials * len(shares)

    @property
    def value(self) -> float:
        """The estimate."""
        return self._mean.value

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Kept within 0 and 1."""
        found, alpha = self._mean.interval(confidence).clipped(0.0, 1.0), (1 - confidence) / 2
        slack = 1 - alpha ** (1 / self.trials)
        if self.value == 1:
            return Interval(1.0, 1 - slack, 1.0, found.blocks, confidence)
        if self.value == 0:
            return Interval(0.0, 0.0, slack, found.blocks, confidence)
        return found

    def p_over(self, limit: float) -> float:
        """P-value against a truth of at most ``limit``."""
        if self.value in (0, 1):
            return float(limit**self.trials) if self.value == 1 else 1.0
        return self._mean.p_over(limit)

    def p_under(self, limit: float) -> float:
        """P-value against a truth of at least ``limit``."""
        if self.value in (0, 1):
            return float((1 - limit) ** self.trials) if self.value == 0 else 1.0
        return self._mean.p_under(limit)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers among independent questions: the score interval (Wilson, 1927)."""

    right: int
    questions: int

    @property
    def value(self) -> float:
        """The share of right answers."""
        return self.right / self.questions

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Wilson's."""
        z, n, p = _normal_quantile((1 - confidence) / 2), self.questions, self.value
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
        return Interval(p, max(low, 0.0), min(high, 1.0), n, confidence)

    def p_over(self, limit: float) -> float:
        """The score test, whose inversion the interval is."""
        return _upper_tail(self._score(limit))

    def p_under(self, limit: float) -> float:
        """The score test the other way."""
        return _upper_tail(-self._score(limit))

    def _score(self, limit: float) -> float:
        spread = math.sqrt(limit * (1 - limit) / self.questions)
        gap = self.value - limit
        return math.copysign(math.inf, gap) if spread == 0 and gap else gap / spread if spread else 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Accuracy lost on the same questions: p(original right, quantized wrong) - p(the other way round).

    The adjusted Wald interval of Agresti and Min (Simple improved confidence intervals for comparing matched
    proportions, Statistics in Medicine 24, 2005, section 3): half an answer is added to each of the four cells.
    """

    lost: int
    won: int
    questions: int

    @property
    def value(self) -> float:
        """The estimate, not adjusted."""
        return (self.lost - self.won) / self.questions

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The adjusted interval, made to hold the estimate and kept within -1 and 1."""
        middle, error = self._adjusted()
        half = _normal_quantile((1 - confidence) / 2) * error
        low, high = min(middle - half, self.value), max(middle + half, self.value)
        return Interval(self.value, max(low, -1.0), min(high, 1.0), self.questions, confidence)

    def p_over(self, limit: float) -> float:
        """P-value against a drop of at most ``limit``."""
        middle, error = self._adjusted()
        return _upper_tail((middle - limit) / error)

    def p_under(self, limit: float) -> float:
        """P-value against a drop of at least ``limit``."""
        middle, error = self._adjusted()
        return _upper_tail((limit - middle) / error)

    def _adjusted(self) -> tuple[float, float]:
        lost, won, n = self.lost + 0.5, self.won + 0.5, self.questions + 2
        return (lost - won) / n, math.sqrt(lost + won - (lost - won) ** 2 / n) / n


def _normal_quantile(alpha: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - alpha))


def _upper_tail(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))
