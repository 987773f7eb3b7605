"""Predictions: the cases that people who know the papers will try, and properties that must hold for all."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantrecipe.rules.prediction import (
    Prediction,
    absolute_quality,
    baseline_perplexity,
    predict,
)
from quantrecipe.rules.prediction_model import FILE, Anchor, PredictionModel, not_coarser, shipped
from quantrecipe.rules.prediction_scale import of_exponent, to_exponent, to_latent, to_loss

BLOOM, OPT66, LLAMA3 = 176.2e9, 65.7e9, 8.03e9
TOOLS = Path(__file__).resolve().parent.parent / "tools"


def ask(family: str, params: float, bits: float, method: str, group: int | None = None, **more: object) -> Prediction:
    question: dict[str, Any] = {"symmetric": False, **more}
    return predict(family=family, params=params, weight_bits=bits, group_size=group, method=method, **question)


# The sharp cases


@pytest.mark.parametrize("symmetric", [False, True])
def test_bloom_176b_three_bits_by_group(symmetric: bool) -> None:
    coarse = ask("bloom", BLOOM, 3, "gptq", 1024, act_order=True, symmetric=symmetric)
    fine = ask("bloom", BLOOM, 3, "gptq", 128, act_order=True, symmetric=symmetric)
    assert 0.02 < coarse.relative_increase < 0.045
    assert 0.012 < fine.relative_increase < 0.025
    assert fine.probability_better(coarse) > 0.6
    assert coarse.high < 0.06


def test_bloom_176b_with_an_8_bit_cache_is_hardly_worse() -> None:
    plain, cached = (ask("bloom", BLOOM, 3, "gptq", 1024, act_order=True, kv_bits=bits) for bits in (16, 8))
    assert 0 <= cached.relative_increase - plain.relative_increase < 0.004
    assert cached.support >= 2
    assert cached.high < 0.06


def test_bloom_176b_three_bit_rounding_collapses() -> None:
    rounded = ask("bloom", BLOOM, 3, "rtn")
    assert rounded.relative_increase > 9  # more than ten times the perplexity
    assert rounded.low > 1
    assert rounded.collapse_probability > 0.9
    assert ask("bloom", BLOOM, 3, "gptq", 1024).collapse_probability < 0.01


def test_contradicting_source_is_named_and_widens() -> None:
    row = ask("bloom", BLOOM, 3, "gptq")
    assert "ZeroQuant-V2" in row.note
    assert row.high / row.relative_increase > ask("bloom", BLOOM, 3, "gptq", 128).high / 0.017
    assert any(r.value == 49.46 for r in row.nearest)


def test_bloom_176b_four_bits() -> None:
    assert 0.005 < ask("bloom", BLOOM, 4, "gptq").relative_increase < 0.02


def test_opt_66b_w4a8_rounding_collapses_and_zq_does_not() -> None:
    assert ask("opt", OPT66, 4, "rtn", act_bits=8).relative_increase > 9
    assert ask("opt", OPT66, 4, "zq-local", act_bits=8).relative_increase < 1.5


@pytest.mark.parametrize("params", [125e6, 1.3e9, 6.7e9, 13e9, 30e9, 66e9, 175e9])
def test_int8_weights_are_nearly_free(params: float) -> None:
    assert abs(ask("opt", params, 8, "rtn").relative_increase) < 0.005


def test_llama_3_8b_four_bits_by_method() -> None:
    """arXiv:2404.14047, WikiText2: RTN 8.5, GPTQ 6.5, AWQ 6.6 against 6.1, all g128."""
    rtn, gptq, awq = (ask("llama", LLAMA3, 4, m, 128, model="llama-3-8b") for m in ("rtn", "gptq", "awq"))
    assert 0.25 < rtn.relative_increase < 0.5
    assert 0.03 < gptq.relative_increase < 0.1
    assert 0.03 < awq.relative_increase < 0.1
    assert gptq.probability_better(rtn) > 0.95


def test_smoothquant_opt_175b_is_mild_and_rounding_is_not() -> None:
    assert ask("opt", 175e9, 8, "smoothquant", act_bits=8).relative_increase < 0.04
    assert ask("opt", 175e9, 8, "rtn", act_bits=8).relative_increase > 9
    assert ask("opt", 30e9, 8, "rtn", act_bits=8).relative_increase > 1
    assert ask("opt", 6.7e9, 8, "rtn", act_bits=8).high > 9


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_two_bits_per_row_collapses(method: str) -> None:
    assert ask("llama-2", 6.74e9, 2, method).relative_increase > 1


def test_nf4_is_between_lossless_and_rounding_and_says_no_evidence() -> None:
    nf4 = ask("llama-2", 6.74e9, 4, "nf4", 64)
    assert 0.005 < nf4.relative_increase <= ask("llama-2", 6.74e9, 4, "rtn", 64).relative_increase * 1.1
    assert nf4.support == 0
    assert nf4.note.startswith("no evidence")


def test_unseen_family_is_wider_and_has_no_support() -> None:
    known, unseen = ask("llama-2", 7e9, 4, "gptq", 128), ask("mars", 7e9, 4, "gptq", 128, tokens_per_parameter=285)
    assert unseen.support == 0
    assert unseen.high / unseen.relative_increase > known.high / known.relative_increase
    assert len(unseen.nearest) == 5
    much = ask("mars", 7e9, 4, "gptq", 128, tokens_per_parameter=2000)
    assert much.relative_increase > unseen.relative_increase


def test_baselines_and_siblings() -> None:
    assert baseline_perplexity("bloom", BLOOM) == ("ppl_wiki2", 8.11)
    assert baseline_perplexity("mars", 7e9) is None
    small, large = ask("opt", 13e9, 8, "rtn"), ask("opt", 30e9, 4, "gptq")
    assert large.probability_better(small) > 0.6  # 9.63 against 10.13 on WikiText2
    a, b = absolute_quality(large, "opt", 30e9), absolute_quality(small, "opt", 13e9)
    assert a and b
    assert a.perplexity < b.perplexity
    between = absolute_quality(ask("opt", 20e9, 16, "rtn"), "opt", 20e9)
    assert between
    assert not between.published
    assert 9.56 < between.perplexity < 10.13


def test_json_is_designs_quality_object() -> None:
    quality = json.loads(json.dumps(ask("bloom", BLOOM, 3, "gptq", 1024).to_json()))
    assert {"metric", "baseline", "relative_increase", "low", "high", "support", "evidence"} <= quality.keys()
    assert quality["baseline"] == 8.11
    assert quality["evidence"][0]["value"] == 8.35


def test_prediction_is_immutable() -> None:
    with pytest.raises(AttributeError):
        ask("opt", 1e9, 4, "rtn").metric = "x"  # type: ignore[misc]


# Properties

FAMILIES = st.sampled_from(["opt", "bloom", "llama-1", "llama-2", "llama-3", "qwen2.5", "glm", "mars"])
METHODS = st.sampled_from(["rtn", "gptq", "awq", "omniquant", "smoothquant", "zq-local", "nf4", "weird"])
SIZES = st.sampled_from([0.125e9, 1.3e9, 6.74e9, 8.03e9, 13e9, 30e9, 66e9, 70e9, 130e9, 176e9]) | st.floats(1e8, 7e11)
GROUPS = st.sampled_from([16, 32, 64, 128, 256, 1024, None])
BITS = st.sampled_from([2, 2.5, 3, 4, 5, 6, 8, 12, 16])
Question = dict[str, Any]
QUESTIONS = st.fixed_dictionaries(
    {"family": FAMILIES, "params": SIZES, "method": METHODS, "group_size": GROUPS, "weight_bits": BITS,
     "symmetric": st.booleans(), "act_bits": st.sampled_from([16, 8, 6, 4]), "kv_bits": st.sampled_from([16, 8, 4]),
     "act_order": st.sampled_from([None, True, False])}
)  # fmt: skip
PROBABILITIES = st.floats(0.001, 0.999)


def increase(question: Question, **changes: object) -> float:
    return predict(**{**question, **changes}).relative_increase


ONLY_INPUTS = {"family": "opt", "params": 6.74e9, "method": "rtn", "group_size": 16, "weight_bits": 16,
               "symmetric": True, "act_bits": 8, "kv_bits": 16, "act_order": None}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(QUESTIONS, BITS)
@example(ONLY_INPUTS, 4)
def test_more_bits_never_lose_more(question: Question, other: float) -> None:
    low, high = sorted((question["weight_bits"], other))
    assert increase(question, weight_bits=high) <= increase(question, weight_bits=low) + 1e-12


@settings(max_examples=300, deadline=None)
@given(QUESTIONS, GROUPS)
def test_finer_groups_never_lose_more(question: Question, other: int | None) -> None:
    fine, coarse = sorted((question["group_size"], other), key=lambda g: math.inf if g is None else g)
    assert increase(question, group_size=fine) <= increase(question, group_size=coarse) + 1e-12


@settings(max_examples=200, deadline=None)
@given(QUESTIONS, st.sampled_from(["act_bits", "kv_bits"]))
def test_sixteen_bit_activations_and_cache_never_lose_more(question: Question, field: str) -> None:
    assert increase(question, **{field: 16}) <= increase(question) + 1e-12


@given(QUESTIONS)
def test_sixteen_bits_lose_exactly_nothing(question: Question) -> None:
    p = predict(**{**question, "weight_bits": 16, "act_bits": 16, "kv_bits": 16})
    assert (p.relative_increase, p.low, p.high) == (0.0, 0.0, 0.0)


@given(QUESTIONS, PROBABILITIES, PROBABILITIES)
def test_quantiles_are_in_order(question: Question, p: float, q: float) -> None:
    x = predict(**question)
    assert x.low <= x.relative_increase <= x.high
    assert x.quantile(min(p, q)) <= x.quantile(max(p, q))
    assert x.relative_increase > -0.01


@given(QUESTIONS, METHODS)
def test_probability_better_is_a_probability_and_antisymmetric(question: Question, method: str) -> None:
    a, b = predict(**question), predict(**{**question, "method": method})
    assert 0 <= a.probability_better(b) <= 1
    assert a.probability_better(b) == pytest.approx(1 - b.probability_better(a))


NONSENSE = st.fixed_dictionaries(
    {"family": st.text(), "model": st.text(), "method": st.text(), "params": st.floats(), "weight_bits": st.floats(),
     "group_size": st.none() | st.integers(), "act_bits": st.integers(-9, 99), "kv_bits": st.integers(-9, 99),
     "act_group": st.none() | st.integers(), "tokens_per_parameter": st.none() | st.floats()}
)  # fmt: skip


@given(NONSENSE)
def test_never_raises(question: Question) -> None:
    x = predict(**question)
    assert math.isfinite(x.relative_increase)
    assert x.support >= 0
    assert x.low <= x.high
    json.dumps(x.to_json())
    assert x.note


@given(st.floats(-0.02, 13.0))
def test_scale_is_its_own_inverse(loss: float) -> None:
    assert to_loss(to_latent(loss)) == pytest.approx(loss, abs=1e-9)


@given(st.floats(-10.0, 1.0))
def test_exponent_is_its_own_inverse(exponent: float) -> None:
    z = of_exponent(exponent)
    assert z == pytest.approx(of_exponent(to_exponent(z)), abs=1e-3)


def test_anchors_are_consistent_in_order() -> None:
    model = shipped()
    for methods in model._anchors.values():
        for cells in methods.values():
            found = [Anchor(tuple(at), *rest) for at, *rest in cells]
            assert all(a.z <= b.z + 1e-9 for a in found for b in found if not_coarser(a.at, b.at))


# Speed and weight


def test_answers_are_fast() -> None:
    assert PredictionModel(json.loads(FILE.read_text(encoding="utf-8"))).coefficients == shipped().coefficients
    start = time.perf_counter()
    for i in range(200):
        _ = ask("bloom", BLOOM, 3, "gptq", 8 + i, kv_bits=8).high
    assert (time.perf_counter() - start) / 200 < 2e-3  # 20 times what a quiet machine takes


def test_nothing_heavy_is_imported() -> None:
    code = ("import sys; from quantrecipe.rules.prediction import predict; "
            "predict(family='opt', params=1e9, weight_bits=4).nearest; "
            "sys.exit(any(m in sys.modules for m in ('numpy', 'scipy', 'csv', 'torch')))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_what_ships_is_what_the_tables_give_and_covers_what_it_claims() -> None:
    """Refits without each group and family: 80 % intervals hold about 80 % of rows that the fit never saw."""
    sys.path.insert(0, str(TOOLS))
    from fit_prediction import cross_validate
    from prediction_calibration import coverage
    from prediction_regression import observations

    by_group, by_family = cross_validate(observations())
    assert 0.77 <= coverage(by_group)["all"][1] <= 0.87
    assert 0.77 <= coverage(by_family)["all"][1] <= 0.87


@pytest.mark.slow
def test_committed_files_are_fresh() -> None:
    done = subprocess.run([sys.executable, str(TOOLS / "fit_prediction.py"), "--check"], check=False)
    assert done.returncode == 0


@given(st.floats(0.002, 200), st.sampled_from([3, 4, 5]), st.sampled_from([None, 32, 64, 128]))
def test_calibration_is_not_expected_to_hurt_where_no_such_model_was_published(
    billions: float, bits: int, group: int | None
) -> None:
    question = {"family": "smollm", "params": billions * 1e9, "weight_bits": bits, "group_size": group}
    rounded = predict(**question, method="rtn").relative_increase
    assert predict(**question, method="gptq").relative_increase <= rounded
    assert predict(**question, method="awq").relative_increase <= rounded
