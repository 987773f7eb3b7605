"""What every answer of the predictor has, whatever its metric."""

from __future__ import annotations

from typing import Any, Protocol

INTERVAL = 0.8


class Quantiles(Protocol):
    """An answer as quantiles of what another paper would print; the interval holds 80 % of it."""

    __slots__ = ()

    metric: str

    def quantile(self, p: float) -> float:
        """The change that another paper's number stays under with probability p (0 < p < 1)."""

    @property
    def support(self) -> int:
        """Published cells near by; 0 = no evidence."""

    @property
    def nearest(self) -> tuple[Any, ...]:
        """Up to five published rows closest to the question."""

    @property
    def baseline(self) -> float | None:
        """What this very model scores in 16 bits, as published."""

    @property
    def note(self) -> str:
        """One line on what the answer rests on."""

    @property
    def relative_increase(self) -> float:
        """Median."""
        return self.quantile(0.5)

    @property
    def low(self) -> float:
        """Lower end of the 80 % interval."""
        return self.quantile((1 - INTERVAL) / 2)

    @property
    def high(self) -> float:
        """Upper end of the 80 % interval."""
        return self.quantile((1 + INTERVAL) / 2)

    def to_json(self) -> dict[str, Any]:
        """DESIGN.md's "quality" object."""
        return {
            "metric": self.metric, "baseline": self.baseline, "relative_increase": self.relative_increase,
            "low": self.low, "high": self.high, "support": self.support, "note": self.note,
            "evidence": [row.to_json() for row in self.nearest],
        }  # fmt: skip
