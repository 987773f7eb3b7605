"""Measuring and judging by turns: where a gate stays unsure, more windows are measured, at most five looks in all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from quantrecipe.plugins.contract import Progress
from quantrecipe.recipe import Gates, Perplexity
from quantrecipe.runner.evaluate import Scoring, score
from quantrecipe.runner.gates import Evidence, judged_by_windows, limits
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
    scoring: Scoring
    progress: Progress
    baseline: Accepted | None = None

    def scores(self, given: Windows) -> WindowScores:
        """Measure these windows."""
        return score(self.original, self.quantized, given.tokens, self.progress, self.scoring)


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured over which windows, how the gates were judged at last and by what, and a line a look."""

    windows: Windows | None
    scores: WindowScores | None
    gates: tuple[GateResult, ...]
    evidence: Evidence
    look: Look = field(default_factory=Look)
    with_baseline: bool = False
    looks: tuple[dict[str, Any], ...] = ()

    def judged_again(self, gates: Gates, evidence: Evidence) -> Trial:
        """The same look at evidence that has become more, without more windows."""
        results = judge(limits(gates, evidence, self.with_baseline), self.look)
        return replace(self, gates=results, evidence=evidence)


def judge_alone(gates: Gates, evidence: Evidence, with_baseline: bool = False) -> Trial:
    """Gates without windows to measure."""
    results = judge(limits(gates, evidence, with_baseline))
    return Trial(None, None, results, evidence, with_baseline=with_baseline)


def measure_and_judge(subject: Subject, gates: Gates, evidence: Evidence, unsure: Unsure) -> Trial:
    """Measure the first windows and judge; go on where ``unsure`` says extend and more windows would help."""
    sizes = planned(subject, gates, unsure)
    given, scores = subject.windows, subject.scores(subject.windows)
    trial, looks = judge_alone(gates, evidence), []
    for number, (size, alpha) in enumerate(zip(sizes, spent(sizes), strict=True)):
        if number:
            subject.progress.note(f"unsure over {len(given.index)} windows: measuring {size - len(given.index)} more")
            given, scores = extended(subject, given, scores, size)
        look = Look(alpha, len(given.index), given.available - len(given.index))
        trial = _trial(subject, gates, _with_scores(evidence, subject, given, scores), look, (given, scores))
        looks.append({"windows": look.windows, "alpha": alpha, "unsure": _doubtful(trial)})
        if not looks[-1]["unsure"] or any(result.outcome == "fail" for result in trial.gates):
            break
    return replace(trial, looks=tuple(looks))


def _trial(
    subject: Subject, gates: Gates, evidence: Evidence, look: Look, seen: tuple[Windows, WindowScores]
) -> Trial:
    with_baseline = subject.baseline is not None
    results = judge(limits(gates, evidence, with_baseline), look)
    return Trial(*seen, results, evidence, look, with_baseline)


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


def _doubtful(trial: Trial) -> list[str]:
    """Gates that were measured and that more windows might settle."""
    return [gate.name for gate in trial.gates if gate.outcome == "unsure" and gate.further_windows is not None]
