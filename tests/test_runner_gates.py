"""Each gate passes, fails or stays unsure by what was seen; what was not measured never passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quantrecipe.recipe import ExpectedLoss, Gates
from quantrecipe.runner.gates import Evidence, TaskAnswers, limits
from quantrecipe.runner.judge import GateResult, Look, exit_code, judge
from quantrecipe.runner.losses import WindowScores


def scores(increase: float, spread: float = 0.001, windows: int = 60) -> WindowScores:
    """Windows of 8 tokens, perplexity 20, whose losses differ by ``increase`` on the mean; so do KL and agreement."""
    noise = np.random.default_rng(0).normal(size=windows)
    steps = torch.tensor(increase + spread * (noise - noise.mean()) / noise.std())
    original = torch.full((windows, 8), float(np.log(20)), dtype=torch.float64)
    return WindowScores(original, original + steps[:, None], steps.abs(), 1 - steps.abs())


def judged(gates: dict[str, Any], look: Look | None = None, **evidence: Any) -> list[GateResult]:
    """All but integrity."""
    return list(judge(limits(Gates.model_validate(gates), Evidence(faults=(), **evidence)), look)[1:])


@pytest.mark.parametrize(
    ("gates", "increase", "expected"),
    [
        ({"max_perplexity_increase": "1%"}, 0.005, "pass"),
        ({"max_perplexity_increase": "1%"}, 0.015, "fail"),
        ({"max_perplexity_increase": "1%"}, 0.00995, "unsure"),
        ({"max_perplexity_increase": 0.2}, 0.005, "pass"),  # absolute: 0.2 of 20 is 1 %
        ({"max_perplexity_increase": 0.2}, 0.015, "fail"),
        ({"max_kl": 0.01}, 0.009, "pass"),
        ({"max_kl": 0.01}, 0.011, "fail"),
        ({"max_kl": 0.01}, 0.01, "unsure"),
        ({"min_top1_agreement": 0.9}, 0.05, "pass"),
        ({"min_top1_agreement": 0.9}, 0.15, "fail"),
        ({"min_top1_agreement": 0.9}, 0.1, "unsure"),
    ],
)
def test_gates_on_windows(gates: dict[str, Any], increase: float, expected: str) -> None:
    (result,) = judged(gates, scores=scores(increase))
    assert result.outcome == expected
    assert (result.low < result.value < result.high) and result.confidence == 0.95  # type: ignore[operator]


@pytest.mark.parametrize(
    ("gates", "evidence", "expected"),
    [
        ({"max_size": "1kB"}, {"file_bytes": 1000}, "pass"),
        ({"max_size": "1kB"}, {"file_bytes": 1001}, "fail"),
        ({"max_bits_per_weight": 4.5}, {"bits_per_weight": 4.25}, "pass"),
        ({"max_peak_memory": "1MB"}, {"peak_memory": 2_000_000}, "fail"),
        ({"min_tokens_per_second_ratio": 0.9}, {"speed": [0.01, -0.02, 0.0, 0.02]}, "pass"),
        ({"min_tokens_per_second_ratio": 1.5}, {"speed": [0.01, -0.02, 0.0, 0.02]}, "fail"),
        ({"min_tokens_per_second_ratio": 1.0}, {"speed": [0.01, -0.02, 0.0, 0.02]}, "unsure"),
    ],
)
def test_gates_on_size_and_speed(gates: dict[str, Any], evidence: dict[str, Any], expected: str) -> None:
    (result,) = judged(gates, **evidence)
    assert result.outcome == expected


@pytest.mark.parametrize(
    ("gates", "lost", "expected"),
    [
        ({"min_task_accuracy": {"t": 0.5}}, 10, "pass"),
        ({"min_task_accuracy": {"t": 0.95}}, 60, "fail"),
        ({"min_task_accuracy": {"t": 0.9}}, 20, "unsure"),
        ({"max_task_drop": {"t": 0.1}}, 2, "pass"),
        ({"max_task_drop": {"t": 0.1}}, 60, "fail"),
        ({"max_task_drop": {"t": 0.1}}, 20, "unsure"),
    ],
)
def test_gates_on_tasks(gates: dict[str, Any], lost: int, expected: str) -> None:
    answers = TaskAnswers([True] * 200, [True] * (200 - lost) + [False] * lost, "acc")
    (result,) = judged(gates, tasks={"t": answers})
    assert (result.outcome, result.name) == (expected, f"{next(iter(gates))}:t")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.005, 0.02, "pass"), (0.02, 0.03, "fail"), (0.001, 0.005, "fail"), (0.0099, 0.02, "unsure")],
)
def test_within_prediction(low: float, high: float, expected: str) -> None:
    expected_loss = ExpectedLoss(relative_increase=(low + high) / 2, low=low, high=high)
    (result,) = judged({"within_prediction": True}, scores=scores(0.01), expected=expected_loss)
    assert (result.outcome, result.low_limit, result.limit) == (expected, low, high)


EVERY = {
    "max_perplexity_increase": 1, "max_baseline_increase": 1, "max_kl": 1, "min_top1_agreement": 0.1,
    "max_size": "1TB", "max_bits_per_weight": 99, "max_peak_memory": "1TB", "min_tokens_per_second_ratio": 0.1,
    "min_task_accuracy": {"t": 0.0}, "max_task_drop": {"t": 1.0}, "within_prediction": True,
}  # fmt: skip


def test_missing_evidence_is_never_a_pass() -> None:
    gates = Gates.model_validate(EVERY)
    assert gates.count == len(EVERY)
    results = judge(limits(gates, Evidence()))
    assert [result.outcome for result in results] == ["unsure"] * (len(EVERY) + 1)
    assert [exit_code(results, unsure) for unsure in ("fail", "pass", "extend")] == [2, 2, 2]


def test_faults_are_named() -> None:
    (result,) = judge(limits(Gates(), Evidence(faults=("a.scale holds NaN", "b is missing"))))
    assert (result.name, result.outcome) == ("integrity", "fail")
    assert result.why == "a.scale holds NaN, and 1 more"


def test_exit_codes() -> None:
    unsure = judged({"max_kl": 0.01}, scores=scores(0.01))
    failed = judged({"max_size": "1kB"}, file_bytes=2000)
    assert [exit_code(unsure, policy) for policy in ("fail", "pass", "extend")] == [1, 0, 2]
    assert exit_code([*unsure, *failed], "pass") == 1
    assert exit_code(()) == 0


def test_an_unsure_gate_says_how_many_windows_would_settle_it() -> None:
    """At half the distance to the limit, an interval must be half as wide: four times the windows."""
    first = judged({"max_kl": 0.0101}, Look(windows=60, left=500), scores=scores(0.01, spread=0.002))[0]
    assert first.outcome == "unsure"
    assert first.further_windows is not None
    total = 60 + first.further_windows
    half = first.high - first.value  # type: ignore[operator]
    assert total == pytest.approx(60 * (half / 0.0001) ** 2, abs=2)
    assert "the text has 500 more" in first.why


def test_a_look_that_may_err_less_needs_more() -> None:
    seen = scores(0.0085, spread=0.0025)
    assert judged({"max_kl": 0.01}, scores=seen)[0].outcome == "pass"
    early = judged({"max_kl": 0.01}, Look(alpha=0.001, windows=60, left=600), scores=seen)[0]
    assert (early.outcome, early.confidence) == ("unsure", 0.998)


def test_holm_spares_the_last_of_many_near_failures() -> None:
    """Alone it would be called failed; among three it is one that chance explains."""
    bad = scores(0.0112, spread=0.0025)
    assert judged({"max_kl": 0.01}, scores=bad)[0].outcome == "fail"
    near = {"min_task_accuracy": dict.fromkeys("abcd", 0.9)}
    answers = {name: TaskAnswers([True] * 200, [True] * 180 + [False] * 20, "acc") for name in "abcd"}
    among = judged({"max_kl": 0.01, **near}, scores=bad, tasks=answers)
    assert among[0].outcome == "unsure"
    assert "Holm" in among[0].why


def test_a_baseline_is_compared_where_one_is_given() -> None:
    evidence = Evidence(faults=(), scores=scores(0.01), baseline=[0.0] * 60)
    result = judge(limits(Gates(), evidence, with_baseline=True))[1]
    assert (result.name, result.outcome, result.limit) == ("max_baseline_increase", "pass", 0.005)
    worse = Evidence(faults=(), scores=scores(0.01), baseline=[0.01, 0.011] * 30)
    assert judge(limits(Gates(), worse, with_baseline=True))[1].outcome == "fail"
