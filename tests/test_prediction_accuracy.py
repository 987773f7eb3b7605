"""Published accuracy as a metric of its own: bounds, order, honesty about what is unknown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantrecipe
from quantrecipe.errors import QuantRecipeError
from quantrecipe.rules import evidence_table as table
from quantrecipe.rules.prediction import accuracy, predict
from quantrecipe.rules.prediction_accuracy import METRICS, TASKS, AccuracyPrediction, lost_share

BLOOM = 176e9


def ask(bits: float, method: str = "gptq", metric: str = "accuracy", **more: object) -> AccuracyPrediction:
    return accuracy(predict(family="bloom", params=BLOOM, weight_bits=bits, method=method, **more), metric)  # type: ignore[arg-type]


def test_published_numbers_lie_in_the_interval() -> None:
    """GPTQ's tables 16 to 22: BLOOM-176B at 3 bits loses 1.5 of 29.2 points above guessing on PIQA."""
    guess = ask(3)
    printed = [lost_share(r) for r in guess.nearest if (r.weight_bits, r.method) == (3, "gptq")]
    assert len(printed) >= 3 and guess.low <= -sum(v for v in printed if v) / len(printed) <= guess.high
    assert ask(3, "rtn").relative_increase < -0.5  # table 16: 53.3 of 79.2, where 50 is guessing
    assert abs(ask(8).relative_increase) < 0.01


def test_nothing_quantized_loses_nothing() -> None:
    guess = ask(16, "none")
    assert (guess.relative_increase, guess.low, guess.high, guess.support) == (0, 0, 0, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_more_bits_never_predict_less_accuracy(metric: str) -> None:
    found = [ask(bits, "rtn", metric).relative_increase for bits in (2, 3, 4, 5, 6, 8)]
    assert found == sorted(found)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["opt", "bloom", "llama-3", "mars"]), st.floats(1e8, 4e11), st.sampled_from([2, 3, 4, 6, 8]),
    st.sampled_from(["rtn", "gptq", "awq", "magic"]), st.sampled_from(list(METRICS)), st.sampled_from([16, 8, 4]),
)  # fmt: skip
def test_answers_are_finite_and_in_order(  # noqa: PLR0917
    family: str, params: float, bits: int, method: str, metric: str, kv_bits: int
) -> None:
    guess = accuracy(predict(family=family, params=params, weight_bits=bits, method=method, kv_bits=kv_bits), metric)
    points = [guess.low, guess.quantile(0.3), guess.relative_increase, guess.quantile(0.7), guess.high]
    assert points == sorted(points) and all(map(math.isfinite, points))
    assert -1 <= guess.relative_increase <= 0 and guess.support >= 0
    assert guess.to_json()["metric"] == metric


def test_unknown_families_say_so() -> None:
    guess = accuracy(predict(family="mars", params=7e9, weight_bits=4, method="gptq"), "mmlu")
    assert guess.support == 0 and guess.note.startswith("no evidence") and guess.baseline is None


def test_the_public_function_and_wrong_metrics() -> None:
    guess = quantrecipe.predict_quality("qwen2-7b", "w4a16-g128", "gptq", metric="mmlu")
    assert guess.support >= 1 and guess.baseline and 60 < guess.baseline < 80
    assert {row.metric for row in guess.nearest} <= {name for name, (kind, _) in TASKS.items() if kind == "mmlu"}
    with pytest.raises(QuantRecipeError, match="unknown metric"):
        quantrecipe.predict_quality("qwen2-7b", "w4a16-g128", "gptq", metric="fame")


def test_the_share_of_a_row_is_arithmetic() -> None:
    rows = [r for r in table.load() if r.metric == "acc_piqa" and r.model == "BLOOM-176B" and r.weight_bits == 3]
    row = next(r for r in rows if r.method == "gptq")
    assert lost_share(row) == pytest.approx((79.16 - 77.70) / (79.16 - 50))
    near_guessing = [r for r in table.load() if r.metric == "acc_arc_challenge" and r.baseline and r.baseline < 28]
    assert near_guessing and all(lost_share(r) is None for r in near_guessing)


def test_llama_30b_is_not_llama_3() -> None:
    assert {r.family for r in table.load() if r.model.lower() == "llama-30b"} == {"llama-1"}
    assert {r.params_b for r in table.load() if r.family == "llama-3"} == {8.0, 70.0}
