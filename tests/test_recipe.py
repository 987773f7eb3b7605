"""The recipe's parts: presets, methods, limits, and pairs that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quantrecipe.recipe import GptqMethod, Group, OtherMethod, Recipe, RtnMethod
from quantrecipe.schemes import PRESETS, parse_scheme


def _recipe(**parts: Any) -> dict[str, Any]:
    return {"model": {"id": "demo"}, "quantization": {"config_groups": {"main": "w4a16-g64"}}} | parts


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_stands_for_a_group(name: str) -> None:
    short, long = Group.model_validate(name), Group.model_validate({"scheme": name, "targets": ["Linear"]})
    scheme = parse_scheme(name)
    assert short == long
    assert (short.weights, short.input_activations) == (scheme.weights, scheme.input_activations)
    assert short.scheme.name == name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rtn", RtnMethod()),
        ({"name": "gptq", "block_size": 64}, GptqMethod(name="gptq", block_size=64)),
        ("gptq", GptqMethod(name="gptq")),
        ({"name": "awq", "options": {"a": 1}}, OtherMethod(name="awq", options={"a": 1})),
    ],
)
def test_methods(given: Any, expected: Any) -> None:
    assert Group.model_validate({"scheme": "w4a16", "method": given}).method == expected


@pytest.mark.parametrize(
    "weights",
    [
        {"num_bits": 4, "strategy": "group"},
        {"num_bits": 4, "strategy": "channel", "group_size": 64},
        {"num_bits": 7},
        {"num_bits": 9},
        {"num_bits": 3, "type": "float"},
        {"num_bits": 8, "type": "nf4"},
        {"num_bits": 4, "strategy": "block"},
        {"num_bits": 4, "group_sizes": 64},
    ],
)
def test_contradictions_are_refused(weights: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Group.model_validate({"weights": weights})


@pytest.mark.parametrize(
    "parts",
    [
        {"target": {"memory": "80 gigs"}},
        {"target": {"memory": True}},
        {"gates": {"max_perplexity_increase": "-1%"}},
        {"gates": {"max_perplexity_increase": "a lot"}},
        {"gates": {"min_top1_agreement": 1.5}},
        {"gates": {"max_size": 0}},
        {"calibration": {"samples": 0}},
        {"evaluation": {"perplexity": {"windows": 1}}},
        {"version": 2},
        {"extra": 1},
    ],
)
def test_values_out_of_bounds_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(_recipe(**parts))


def test_scheme_and_weights_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="either scheme or weights"):
        Group.model_validate({"scheme": "w4a16", "weights": {"num_bits": 4}})
