"""The advisor as a function: properties that hold for every model and budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantrecipe
from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.advise import advise
from quantrecipe.advisor.candidate import Candidate, ties
from quantrecipe.catalog import lookup
from quantrecipe.errors import QuantRecipeError
from quantrecipe.memory import estimate_memory
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_file import dump_recipe, parse_recipe
from quantrecipe.recipe_transforms import LorcCompensation
from quantrecipe.schemes import scheme_name

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(lookup.names())
BUDGETS = st.integers(2 * 10**9, 800 * 10**9)


def recount(recipe: Recipe, model: str, chosen: Candidate) -> int:
    """Total bytes of a recipe by the parts that it states, not by the advisor's objects."""
    group = recipe.quantization.config_groups["main"]
    scheme = scheme_name(group.weights, group.input_activations)
    kv_bits = 8 if any(word in (recipe.launch or "") for word in ("kv-cache-dtype", "-ctk")) else chosen.kv_bits
    found = estimate_memory(
        model, scheme, context=recipe.target.context, batch=recipe.target.batch, kv_bits=kv_bits,
        output_format=recipe.quantization.format,
        gpus=recipe.target.hardware.count if recipe.target.hardware else 1,
    )  # fmt: skip
    part = recipe.quantization.compensation
    sides = sum((matrix.rows + matrix.columns) * matrix.count for matrix in lookup.spec(model).quantizable())
    return found.total_bytes + (part.rank * sides * 2 if isinstance(part, LorcCompensation) else 0)


@SLOW
@given(NAMES, BUDGETS, st.sampled_from([256, 1024, 2048]))
def test_a_recommended_recipe_validates_and_fits(name: str, budget: int, context: int) -> None:
    longest = lookup.spec(name).context
    advice = advise(name, budget, context=min(context, longest))
    if advice.recommended is None:
        assert advice.exit_code == 1 and advice.offers and advice.recipe is None
        return
    recipe = advice.recipe
    assert recipe is not None and recipe.expected is not None
    assert recount(recipe, name, advice.recommended) == recipe.expected.peak_memory <= budget
    assert recipe.calibration.sequence_length <= longest
    assert recipe.evaluation.perplexity and recipe.evaluation.perplexity.sequence_length <= longest
    weights = recipe.quantization.config_groups["main"].weights
    columns = {m.columns for m in lookup.spec(name).quantizable()}
    assert not weights.group_size or all(k % weights.group_size == 0 for k in columns)
    assert recipe.because and recipe.launch and recipe.gates.max_size


@SLOW
@given(NAMES, BUDGETS, st.integers(1, 100))
def test_more_memory_never_gives_a_worse_recommendation(name: str, budget: int, percent: int) -> None:
    small, large = advise(name, budget), advise(name, budget + budget * percent // 100)
    if small.recommended is None:
        return
    assert large.recommended is not None
    assert large.recommended.score <= small.recommended.score or ties(large.recommended, small.recommended)


@SLOW
@given(NAMES, BUDGETS)
def test_every_alternative_says_why(name: str, budget: int) -> None:
    advice = advise(name, budget, context=256)
    for one in advice.alternatives:
        assert one.rejected and one.rejected[0].text
    totals = [one.memory.total_bytes for one in advice.frontier]
    scores = [one.score for one in advice.frontier]
    assert totals == sorted(totals) and scores == sorted(scores, reverse=True)


def test_the_recipe_that_is_written_reads_back() -> None:
    from quantrecipe.recipe_text import recipe_yaml

    for name, memory in (("bloom-176b", "80GB"), ("gpt2", "2GB"), ("smollm2-135m", "1GB"), ("opt-350m", "1.2GB")):
        advice = advise(name, memory, context=512)
        assert advice.recipe is not None
        written = parse_recipe(recipe_yaml(advice.recipe_data or {}))
        assert written == advice.recipe
        assert parse_recipe(dump_recipe(advice.recipe)) == advice.recipe


def recommended(*args: Any, **kwargs: Any) -> Candidate:
    advice = advise(*args, **kwargs)
    assert advice.recommended is not None, advice.offers
    return advice.recommended


def test_gpt2_goes_out_as_gptq() -> None:
    assert recommended("gpt2-xl", "6GB").way.format.startswith("gptq")


def test_smollm2_takes_groups_of_64_at_most() -> None:
    assert {one.way.scheme.group for one in advise("smollm2-135m", "2GB").frontier} <= {0, 32, 64}


def test_projections_outside_the_blocks_are_ignored_by_name() -> None:
    recipe = advise("opt-350m", "2GB").recipe
    assert recipe is not None
    assert recipe.quantization.ignore == ["lm_head", "model.decoder.project_in", "model.decoder.project_out"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers", "tensorrt-llm", "llama.cpp"])
def test_an_engine_gets_only_what_it_loads(engine: str) -> None:
    from quantrecipe.advisor.tables import engine as table

    advice = advise("llama-2-7b", "24GB", hardware="a100-40gb", engine=engine)
    if advice.recommended is None:  # llama.cpp reads GGUF, which no installed backend writes
        assert engine == "llama.cpp"
        return
    way = advice.recommended.way
    assert way.scheme.bits in table(engine).formats[way.format]
    assert advice.recommended.kv_bits == 16 or table(engine).kv


def test_a_limit_of_loss_is_kept_with_probability_0_8() -> None:
    one = recommended("llama-2-13b", "24GB", max_loss="1%")
    assert one.prediction is not None and one.prediction.quantile(0.8) <= 0.01
    least = recommended("llama-2-13b", max_loss="5%")
    assert least.memory.total_bytes <= one.memory.total_bytes
    impossible = advise("opt-66b", "40GB", max_loss="0.001%")
    assert (impossible.recommended is None and "allow more loss" in impossible.offers[0].change) or impossible.offers


def test_batches_speak_for_activations_and_small_ones_for_weights() -> None:
    assert recommended("bloom-7b1", "24GB", objective="latency").way.scheme.bits == 4
    many = recommended("bloom-7b1", "24GB", objective="throughput", batch=16, context=512, max_loss="30%")
    assert many.way.scheme.act_bits == 8


def test_rules_of_the_user_count(tmp_path: Path) -> None:
    pack = tmp_path / "mine.yaml"
    pack.write_text(
        "pack: mine\ntitle: Mine\nabout: Ours.\nrules:\n  - id: mine/no-8-bits\n    title: no 8 bits here\n"
        "    when:\n      - candidate.weight_bits == 8\n    effect: forbid\n    finding: We were bitten.\n"
        "    advice: Do not.\n    source: our log\n    stands_on: [text]\n    limits: None known.\n"
    )
    advice = advise("bloom-7b1", "16GB", rules=[pack])
    assert advice.recommended and advice.recommended.way.scheme.bits != 8
    assert any("mine/no-8-bits" in one.rejected[0].text for one in advice.alternatives)


def test_maximize_gives_the_longest_context() -> None:
    from quantrecipe.advisor.advise import ruleset
    from quantrecipe.advisor.constraints import constraints
    from quantrecipe.advisor.maximize import advise_most

    asked = constraints("24GB")
    advice = advise_most(lookup.spec("llama-3.1-8b"), asked, ruleset(), "context")
    assert advice.recommended is not None and advice.asked.context > 60_000
    longer = dataclasses.replace(advice.asked, context=advice.asked.context + 20_000)
    memory = estimate_memory("llama-3.1-8b", advice.recommended.way.scheme, context=longer.context, kv_bits=8)
    assert memory.total_bytes > 23e9 or advice.asked.context == 131_072


def test_top_level_functions() -> None:
    assert isinstance(quantrecipe.advise("opt-125m", "2GB"), Advice)
    assert quantrecipe.predict_quality("bloom-7b1", "w4a16-g128", "gptq").relative_increase > 0
    assert quantrecipe.predict_quality("bloom-7b1", "w4a16-g128", "no-such-method").support == 0
    assert quantrecipe.estimate_memory("bloom-7b1", "w4a16-g128").total_bytes > 5e9
    assert "advise" in dir(quantrecipe)
    with pytest.raises(AttributeError):
        _ = quantrecipe.nothing


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": 0}, {"context": 4096}, {"batch": 0}, {"gpus": -1}, {"hardware": "a200"}, {"engine": "vlm"},
        {"objective": "fame"}, {"max_loss": "much"}, {"max_loss": "-1%"}, {"max_loss": "nan"}, {"memory": "80 gigs"},
        {"memory": "-3GB"}, {"memory": ""}, {"hardware": "t4", "engine": "no"},
        {"hardware": "cpu", "engine": "sglang"},
    ],
)  # fmt: skip
def test_wrong_questions(wrong: dict[str, Any]) -> None:
    with pytest.raises(QuantRecipeError) as caught:
        advise("bloom-7b1", **{"memory": "80GB", **wrong})
    assert "\n" not in caught.value.line()
