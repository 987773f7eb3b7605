"""Measuring and judging by turns: where a gate stays unsure, more windows are measured, at most five looks in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from quantrecipe.plugins.contract import Progress
from quantrecipe.recipe import Gates, Perplexity
from quantrecipe.runner.cache import OriginalCache
from quantrecipe.runner.evaluate import score
from quantrecipe.runner.gates import Evidence, Limit, judged_by_windows, limits
from quantrecipe.runner.judge import GateResult, Look, Unsure, judge
from quantrecipe.runner.losses import WindowScores, gathered
from quantrecipe.runner.scorers import Scorer
from quantrecipe.runner.stats.spending import look_sizes, spent
from quantrecipe.runner.tokens import Windows, further, joined


class Accepted(Protocol):
    """The losses of an accepted checkpoint."""

    def differences(self, given: Windows, scores: WindowScores) -> list[float] | None:
        """Loss of each window minus the accepted one's over the same tokens; None where too few are the same."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Two models and the windows of the first look."""

    original: Scorer
    quantized: Scorer
    windows: Windows
    part: Perplexity
    divergence: bool
    cache: OriginalCache | None
    progress: Progress
    baseline: Accepted | None = None

    def scores(self, given: Windows) -> WindowScores:
        """Measure these windows."""
        return score(self.original, self.quantized, given.tokens, self.progress, self.divergence, self.cache)


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured over which windows, how the gates were judged at last, and a line a look."""

    windows: Windows | None
    scores: WindowScores | None
    gates: tuple[GateResult, ...]
    looks: tuple[dict[str, Any], ...] = ()


def judge_alone(gates: Gates, evidence: Evidence, with_baseline: bool = False) -> Trial:
    """Gates without windows to measure."""
    return Trial(None, None, judge(limits(gates, evidence, with_baseline)))


def measure_and_judge(subject: Subject, gates: Gates, evidence: Evidence, unsure: Unsure) -> Trial:
    """Measure the first windows and judge; go on where ``unsure`` says extend and more windows would help."""
    sizes = planned(subject, gates, unsure)
    given, scores = subject.windows, subject.scores(subject.windows)
    looks: list[dict[str, Any]] = []
    for number, (size, alpha) in enumerate(zip(sizes, spent(sizes), strict=True)):
        if number:
            subject.progress.note(f"unsure over {len(given.index)} windows: measuring {size - len(given.index)} more")
            given, scores = extended(subject, given, scores, size)
        wanted = limits(gates, _with_scores(evidence, subject, given, scores), subject.baseline is not None)
        results = judge(wanted, Look(alpha, len(given.index), given.available - len(given.index)))
        looks.append({"windows": len(given.index), "alpha": alpha, "unsure": _doubtful(wanted, results)})
        if not looks[-1]["unsure"] or any(result.outcome == "fail" for result in results):
            break
    return Trial(given, scores, results, tuple(looks))


def planned(subject: Subject, gates: Gates, unsure: Unsure) -> list[int]:
    """Windows at each look."""
    first, available = len(subject.windows.index), subject.windows.available
    if unsure != "extend" or not judged_by_windows(gates, subject.baseline is not None):
        return [first]
    return look_sizes(first, max(first, min(subject.part.extend_to or available, available)))


def extended(subject: Subject, given: Windows, scores: WindowScores, size: int) -> tuple[Windows, WindowScores]:
    """The windows and scores up to ``size`` windows, in the order of the text."""
    more = further(given, size)
    index = [*given.index, *more.index]
    order = sorted(range(len(index)), key=index.__getitem__)
    return joined(given, more), gathered([scores, subject.scores(more)], order)


def _with_scores(evidence: Evidence, subject: Subject, given: Windows, scores: WindowScores) -> Evidence:
    if subject.baseline is None:
        return replace(evidence, scores=scores)
    found = subject.baseline.differences(given, scores)
    missing = {**evidence.missing, "baseline": "the baseline was measured over other windows"}
    return replace(evidence, scores=scores, baseline=found, missing=missing)


def _doubtful(wanted: Sequence[Limit], results: Sequence[GateResult]) -> list[str]:
    """Gates that more windows might settle."""
    extends = {limit.name for limit in wanted if limit.extends and limit.quantity is not None}
    return [result.name for result in results if result.outcome == "unsure" and result.name in extends]
