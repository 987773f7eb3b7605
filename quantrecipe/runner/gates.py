"""The recipe's limits, each judged by an interval: pass, fail, or unsure where the interval holds the limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from quantrecipe.recipe import Gates
from quantrecipe.runner.evaluate import Measures
from quantrecipe.runner.intervals import Interval
from quantrecipe.units import format_bytes, parse_bytes

Outcome = Literal["pass", "fail", "unsure"]


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate. value, low, high, limit in ``unit``; low = high where the value is exact, None where unknown."""

    name: str
    outcome: Outcome
    limit: float
    value: float | None
    low: float | None
    high: float | None
    unit: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gates judge; None = not measured, which is never a pass."""

    measures: Measures | None
    file_bytes: int | None
    bits_per_weight: float | None
    peak_memory: int | None


def judge(gates: Gates, evidence: Evidence) -> tuple[GateResult, ...]:
    """Every gate that the recipe sets, in the recipe's order."""
    return tuple(_gates(gates, evidence))


def exit_code(results: tuple[GateResult, ...]) -> int:
    """1 if a gate fails, else 2 if one is unsure, else 0."""
    outcomes = {result.outcome for result in results}
    return 1 if "fail" in outcomes else 2 if "unsure" in outcomes else 0


def _gates(gates: Gates, evidence: Evidence) -> Iterator[GateResult]:
    measures = evidence.measures
    if gates.max_perplexity_increase is not None:
        yield _increase(gates.max_perplexity_increase, measures)
    if gates.max_kl is not None:
        yield _at_most("max_kl", gates.max_kl, measures.kl if measures else None, "nats a token")
    if gates.min_top1_agreement is not None:
        agreement = measures.agreement if measures else None
        yield _at_least("min_top1_agreement", gates.min_top1_agreement, agreement, "share of tokens")
    if gates.max_size is not None:
        yield _at_most("max_size", parse_bytes(gates.max_size), _exact(evidence.file_bytes), "bytes")
    if gates.max_bits_per_weight is not None:
        found = _exact(evidence.bits_per_weight)
        yield _at_most("max_bits_per_weight", gates.max_bits_per_weight, found, "bits")
    if gates.max_peak_memory is not None:
        yield _at_most("max_peak_memory", parse_bytes(gates.max_peak_memory), _exact(evidence.peak_memory), "bytes")


def _increase(limit: float | str, measures: Measures | None) -> GateResult:
    """A share of the original perplexity (``1%``), or an absolute increase."""
    share = isinstance(limit, str) and limit.endswith("%")
    number = float(str(limit).removesuffix("%")) / (100 if share else 1)
    if measures is None:
        return _missing("max_perplexity_increase", number, "share of the original" if share else "perplexity")
    if share:
        return _at_most("max_perplexity_increase", number, measures.increase, "share of the original")
    absolute = measures.increase.map(lambda x: x * measures.perplexity)
    return _at_most("max_perplexity_increase", number, absolute, "perplexity")


def _exact(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, value, value, 1, 1.0)


def _at_most(name: str, limit: float, found: Interval | None, unit: str) -> GateResult:
    if found is None or found.low is None or found.high is None:
        return _missing(name, limit, unit, found)
    if found.high <= limit:
        return _result(name, "pass", limit, found, unit)
    return _result(name, "fail" if found.low > limit else "unsure", limit, found, unit)


def _at_least(name: str, limit: float, found: Interval | None, unit: str) -> GateResult:
    if found is None or found.low is None or found.high is None:
        return _missing(name, limit, unit, found)
    if found.low >= limit:
        return _result(name, "pass", limit, found, unit)
    return _result(name, "fail" if found.high < limit else "unsure", limit, found, unit)


def _missing(name: str, limit: float, unit: str, found: Interval | None = None) -> GateResult:
    why = "not measured" if found is None else "too few windows for an interval"
    return GateResult(name, "unsure", limit, found.value if found else None, None, None, unit, why)


def _result(name: str, outcome: Outcome, limit: float, found: Interval, unit: str) -> GateResult:
    side = {"pass": "within the limit", "fail": "beyond the limit", "unsure": "the interval holds the limit"}
    whole = "" if outcome == "unsure" or found.low == found.high else "the whole interval is "
    return GateResult(name, outcome, limit, found.value, found.low, found.high, unit, whole + side[outcome])


def show(value: float | None, unit: str) -> str:
    """A gate's number for people."""
    if value is None:
        return "–"
    if unit == "bytes":
        return format_bytes(value)
    if unit in ("share of the original", "share of tokens"):
        return f"{100 * value:.2f} %"
    return f"{value:.4g}"
