"""The recipe's limits as quantities to be judged; judging them is judge.py's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from quantrecipe.recipe import ExpectedLoss, Gates
from quantrecipe.runner.evaluate import divergences
from quantrecipe.runner.losses import WindowScores
from quantrecipe.runner.stats.evidence import Exact, Mapped, Quantity, relative_increase
from quantrecipe.runner.stats.mean import Mean
from quantrecipe.runner.stats.share import Accuracy, Drop
from quantrecipe.units import parse_bytes

#: No worse than the accepted one: half a percent of perplexity, which the advisor calls a tie, too (docs/advisor.md).
BASELINE_LIMIT = "0.5%"
NOT_MEASURED = "not measured"
Kind = Literal["at most", "at least", "within"]
ORIGINAL, BASELINE, SHARE = "share of the original", "share of the accepted", "share"


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """Which questions of a task each model answered rightly, in the task's order."""

    original: Sequence[bool]
    quantized: Sequence[bool]
    metric: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gates judge; None = not measured, which is never a pass.

    faults: what integrity found wrong; doubts: what looks wrong to it.
    scores: of windows in the order of the text. baseline: loss of each
    window minus the accepted checkpoint's over the same tokens. speed: logarithms of paired ratios of tokens a
    second, quantized / original. missing: why a gate has nothing to be judged by.
    """

    faults: tuple[str, ...] | None = None
    doubts: tuple[str, ...] = ()
    scores: WindowScores | None = None
    baseline: Sequence[float] | None = None
    file_bytes: int | None = None
    bits_per_weight: float | None = None
    peak_memory: int | None = None
    speed: Sequence[float] | None = None
    tasks: Mapping[str, TaskAnswers] = field(default_factory=dict)
    expected: ExpectedLoss | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and what is held against it. extends: whether more windows would make the quantity surer."""

    name: str
    kind: Kind
    limit: float
    unit: str
    quantity: Quantity | None
    extends: bool = False
    low_limit: float | None = None
    missing: str = NOT_MEASURED
    faults: tuple[str, ...] = ()


def limits(gates: Gates, evidence: Evidence, with_baseline: bool = False) -> list[Limit]:
    """Integrity, then every gate that the recipe sets, in the recipe's order."""
    return [
        _integrity(evidence),
        *_losses(gates, evidence, with_baseline),
        *_divergence(gates, evidence),
        *_sizes(gates, evidence),
        *_speed(gates, evidence),
        *_tasks(gates, evidence),
        *_prediction(gates, evidence),
    ]


def judged_by_windows(gates: Gates, with_baseline: bool) -> bool:
    """Whether a gate would be surer for more windows."""
    return any(limit.extends for limit in limits(gates, Evidence(), with_baseline))


def _integrity(evidence: Evidence) -> Limit:
    if evidence.doubts and not evidence.faults:
        return Limit("integrity", "at most", 0, "faults", None, missing=f"looks wrong: {evidence.doubts[0]}")
    found = None if evidence.faults is None else Exact(len(evidence.faults))
    return Limit("integrity", "at most", 0, "faults", found, missing="not checked", faults=evidence.faults or ())


def _losses(gates: Gates, evidence: Evidence, with_baseline: bool) -> Iterator[Limit]:
    missing = evidence.missing.get("perplexity", NOT_MEASURED)
    if gates.max_perplexity_increase is not None:
        limit, unit = increase_limit(gates.max_perplexity_increase, ORIGINAL)
        found = _increase(evidence.scores, unit)
        yield Limit("max_perplexity_increase", "at most", limit, unit, found, True, missing=missing)
    if gates.max_baseline_increase is not None or with_baseline:
        limit, unit = increase_limit(gates.max_baseline_increase or BASELINE_LIMIT, BASELINE)
        missing = evidence.missing.get("baseline", "no --baseline to compare with")
        yield Limit("max_baseline_increase", "at most", limit, unit, _baseline(evidence, unit), True, missing=missing)


def increase_limit(text: float | str, share: str) -> tuple[float, str]:
    """The limit as a number, and its unit: ``share`` for ``1%``, else perplexity."""
    if isinstance(text, str) and text.endswith("%"):
        return float(text.removesuffix("%")) / 100, share
    return float(text), "perplexity"


def _increase(scores: WindowScores | None, unit: str) -> Quantity | None:
    if scores is None:
        return None
    share = relative_increase(Mean(scores.differences))
    return share if unit == ORIGINAL else _scaled(share, math.exp(min(float(scores.original.mean()), 700.0)))


def _baseline(evidence: Evidence, unit: str) -> Quantity | None:
    if evidence.baseline is None or evidence.scores is None:
        return None
    share = relative_increase(Mean(evidence.baseline))
    accepted = float(evidence.scores.quantized.mean()) - math.fsum(evidence.baseline) / len(evidence.baseline)
    return share if unit == BASELINE else _scaled(share, math.exp(min(accepted, 700.0)))


def _scaled(quantity: Quantity, factor: float) -> Mapped:
    return Mapped(quantity, lambda x: x * factor, lambda x: x / factor)


def _divergence(gates: Gates, evidence: Evidence) -> Iterator[Limit]:
    kl, agreement = (None, None) if evidence.scores is None else divergences(evidence.scores)
    missing = evidence.missing.get("divergence", NOT_MEASURED)
    if gates.max_kl is not None:
        yield Limit("max_kl", "at most", gates.max_kl, "nats a token", kl, True, missing=missing)
    if gates.min_top1_agreement is not None:
        limit = gates.min_top1_agreement
        yield Limit("min_top1_agreement", "at least", limit, "share of tokens", agreement, True, missing=missing)


def _sizes(gates: Gates, evidence: Evidence) -> Iterator[Limit]:
    if gates.max_size is not None:
        yield Limit("max_size", "at most", parse_bytes(gates.max_size), "bytes", _exact(evidence.file_bytes))
    if gates.max_bits_per_weight is not None:
        bits = _exact(evidence.bits_per_weight)
        yield Limit("max_bits_per_weight", "at most", gates.max_bits_per_weight, "bits", bits)
    if gates.max_peak_memory is not None:
        peak = _exact(evidence.peak_memory)
        yield Limit("max_peak_memory", "at most", parse_bytes(gates.max_peak_memory), "bytes", peak)


def _speed(gates: Gates, evidence: Evidence) -> Iterator[Limit]:
    if gates.min_tokens_per_second_ratio is None:
        return
    found = None if evidence.speed is None else Mapped(Mean(evidence.speed), math.exp, math.log)
    missing = evidence.missing.get("speed", NOT_MEASURED)
    limit = gates.min_tokens_per_second_ratio
    yield Limit("min_tokens_per_second_ratio", "at least", limit, "of the original's", found, missing=missing)


def _tasks(gates: Gates, evidence: Evidence) -> Iterator[Limit]:
    missing = evidence.missing.get("tasks", NOT_MEASURED)
    for task, limit in gates.min_task_accuracy.items():
        answers = evidence.tasks.get(task)
        found = None if answers is None else Accuracy(sum(answers.quantized), len(answers.quantized))
        yield Limit(f"min_task_accuracy:{task}", "at least", limit, SHARE, found, missing=missing)
    for task, limit in gates.max_task_drop.items():
        answers = evidence.tasks.get(task)
        drop = None if answers is None else task_drop(answers)
        yield Limit(f"max_task_drop:{task}", "at most", limit, SHARE, drop, missing=missing)


def task_drop(answers: TaskAnswers) -> Drop:
    """What the quantized model lost of the original's accuracy."""
    pairs = list(zip(answers.original, answers.quantized, strict=True))
    return Drop(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs), len(pairs))


def _prediction(gates: Gates, evidence: Evidence) -> Iterator[Limit]:
    if not gates.within_prediction:
        return
    expected, found = evidence.expected, _increase(evidence.scores, ORIGINAL)
    if expected is None:
        yield Limit(
            "within_prediction", "within", math.inf, ORIGINAL, None, missing="the recipe holds no expected.loss"
        )
        return
    missing = evidence.missing.get("perplexity", NOT_MEASURED)
    yield Limit("within_prediction", "within", expected.high, ORIGINAL, found, True, expected.low, missing)


def _exact(value: float | None) -> Exact | None:
    return None if value is None else Exact(value)
