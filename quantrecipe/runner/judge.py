"""Each limit judged by its quantity: pass, fail, or unsure where what was seen settles neither.

A pass is claimed only where every gate passes, so that each may err with alpha (intersection-union test: Berger,
Technometrics 24, 1982). A failure is claimed of any gate that fails, so Holm's procedure holds the chance of a
single wrong one under alpha, over all gates that rest on samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from quantrecipe.runner.gates import Limit
from quantrecipe.runner.intervals import Interval
from quantrecipe.runner.stats.evidence import Exact, Quantity
from quantrecipe.runner.stats.spending import ALPHA, holm

Outcome = Literal["pass", "fail", "unsure"]
Unsure = Literal["fail", "pass", "extend"]


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate. value, low, high, limit in ``unit``; low = high where the value is exact, None where unknown.

    low_limit: where the value must lie between two. confidence: of the interval, more than 0.95 where a gate is
    looked at more than once. further_windows: about how many more would settle an unsure one, None where that
    is unknown. faults: what integrity found.
    """

    name: str
    outcome: Outcome
    limit: float | None
    value: float | None
    low: float | None
    high: float | None
    unit: str
    why: str
    low_limit: float | None = None
    confidence: float | None = None
    further_windows: int | None = None
    faults: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"faults": list(self.faults)}


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the windows. alpha: what it may err, one-sided. windows: seen so far; left: in the text."""

    alpha: float = ALPHA
    windows: int = 0
    left: int = 0


def judge(limits: Sequence[Limit], look: Look | None = None) -> tuple[GateResult, ...]:
    """The outcome of every limit at this look."""
    here = look or Look()
    sampled = {limit.name: _scaled(_p_fail(limit), limit, here) for limit in limits if _sampled(limit)}
    adjusted = holm(sampled)
    return tuple(_judge(limit, adjusted.get(limit.name), here) for limit in limits)


def exit_code(results: Sequence[GateResult], unsure: Unsure = "extend") -> int:
    """1 if a gate fails, else 2 if one stays unsure, else 0.

    unsure: what a gate counts as whose interval holds the limit; ``fail`` and ``pass`` say so. What was not
    measured is 2 in any case.
    """
    if any(result.outcome == "fail" for result in results):
        return 1
    doubtful = [result for result in results if result.outcome == "unsure"]
    if any(result.low is None for result in doubtful):
        return 2
    return {"fail": 1, "pass": 0, "extend": 2}[unsure] if doubtful else 0


def _sampled(limit: Limit) -> bool:
    return limit.quantity is not None and not isinstance(limit.quantity, Exact)


def _p_fail(limit: Limit) -> float:
    """Small where the truth surely lies on the bad side."""
    found = limit.quantity
    assert found is not None
    if limit.kind == "at least":
        return found.p_under(limit.limit)
    if limit.kind == "at most" or limit.low_limit is None:
        return found.p_over(limit.limit)
    return min(found.p_over(limit.limit), found.p_under(limit.low_limit))


def _p_pass(limit: Limit) -> float:
    """Small where the truth surely lies on the good side."""
    found = limit.quantity
    assert found is not None
    if limit.kind == "at least":
        return found.p_over(limit.limit)
    if limit.kind == "at most" or limit.low_limit is None:
        return found.p_under(limit.limit)
    return max(found.p_under(limit.limit), found.p_over(limit.low_limit))


def _scaled(p_value: float, limit: Limit, look: Look) -> float:
    """As though the look had all of alpha: a p-value is compared with alpha, whatever this look may spend."""
    return min(1.0, p_value * ALPHA / look.alpha) if limit.extends else p_value


def _judge(limit: Limit, p_fail: float | None, look: Look) -> GateResult:
    found = limit.quantity
    confidence = 1 - 2 * (look.alpha if limit.extends else ALPHA)
    seen = None if found is None else found.interval(confidence)
    if found is None or seen is None or seen.low is None or seen.high is None:
        return _missing(limit, seen)
    if p_fail is None:
        outcome: Outcome = "fail" if _p_fail(limit) < 0.5 else "pass"
        return _result(limit, outcome, seen, "within the limit" if outcome == "pass" else _beyond(limit))
    if _scaled(_p_pass(limit), limit, look) <= ALPHA:
        return _result(limit, "pass", seen, "the whole interval is within the limit")
    if p_fail <= ALPHA:
        return _result(limit, "fail", seen, "the whole interval is beyond the limit")
    return _unsure(limit, found, seen, look)


def _missing(limit: Limit, seen: Interval | None) -> GateResult:
    why = limit.missing if seen is None else "too few windows for an interval"
    bound = limit.limit if math.isfinite(limit.limit) else None
    value = None if seen is None else seen.value
    return GateResult(limit.name, "unsure", bound, value, None, None, limit.unit, why, limit.low_limit)


def _beyond(limit: Limit) -> str:
    if not limit.faults:
        return "beyond the limit"
    more = f", and {len(limit.faults) - 1} more" if len(limit.faults) > 1 else ""
    return f"{limit.faults[0]}{more}"


def _unsure(limit: Limit, found: Quantity, seen: Interval, look: Look) -> GateResult:
    clear = _scaled(_p_fail(limit), limit, look) <= ALPHA
    why = "beyond the limit alone, but not among so many gates (Holm)" if clear else "the interval holds the limit"
    if not limit.extends or clear:
        return _result(limit, "unsure", seen, why)
    further = _further(limit, seen, look)
    need = (
        "no number of windows would settle it"
        if further is None
        else f"about {further:,} more windows would settle it"
    )
    return _result(limit, "unsure", seen, f"{why}; {need}, the text has {look.left:,} more", further)


def _further(limit: Limit, seen: Interval, look: Look) -> int | None:
    """Windows that would bring the interval to one side of the limit, its width falling with their root."""
    assert seen.low is not None
    assert seen.high is not None
    bounds = [limit.limit] if limit.low_limit is None else [limit.limit, limit.low_limit]
    total = 0.0
    for bound in bounds:
        gap, half = abs(seen.value - bound), seen.high - seen.value if bound > seen.value else seen.value - seen.low
        if gap == 0:
            return None
        total = max(total, look.windows * (half / gap) ** 2)
    return max(math.ceil(total) - look.windows, 1)


def _result(limit: Limit, outcome: Outcome, seen: Interval, why: str, further: int | None = None) -> GateResult:
    return GateResult(
        limit.name, outcome, limit.limit, seen.value, seen.low, seen.high, limit.unit, why, limit.low_limit,
        None if seen.low == seen.high else seen.confidence, further, limit.faults,
    )  # fmt: skip
