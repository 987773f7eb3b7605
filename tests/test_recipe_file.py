"""Recipes as YAML: round trips, errors with line and remedy, and nothing that can blow up."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.errors import QuantRecipeError, RecipeError
from quantrecipe.recipe_file import dump_recipe, load_recipe, parse_recipe

TEXT = """\
version: 1
model: {id: demo}
quantization:
  config_groups:
    zeta: {scheme: w4a16-g64, method: gptq}
    alpha:
      targets: ["re:.*down_proj"]
      weights: {num_bits: 8, strategy: channel}
gates: {max_perplexity_increase: 1%}
"""


def test_a_round_trip_keeps_meaning_and_the_order_of_groups() -> None:
    recipe = parse_recipe(TEXT)
    again = parse_recipe(dump_recipe(recipe))
    assert again == recipe
    assert list(again.quantization.config_groups) == ["zeta", "alpha"]  # a later group wins: order is meaning
    assert dump_recipe(again) == dump_recipe(recipe)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("model:", "modle:", ["r.yaml:2", "modle", "did you mean 'model'"]),
        ("scheme: w4a16-g64", "scheme: w4a16-g6x", ["r.yaml:5", "w4a16-g6x", "did you mean"]),
        ("num_bits: 8", "num_bits: 80", ["r.yaml:8", "80", "8"]),
        ("strategy: channel", "strategy: chanel", ["r.yaml:8", "chanel", "channel"]),
        ("weights: {", "weigths: {", ["r.yaml:8", "weigths", "did you mean 'weights'"]),
        ("max_perplexity_increase", "max_perplexity", ["r.yaml:9", "max_perplexity", "max_perplexity_increase"]),
        ("1%", "one", ["r.yaml:9", "one"]),
        ("version: 1", "version: [1", ["r.yaml:", "not valid YAML"]),
        ("version: 1", "version: 1\nversion: 1", ["r.yaml:2", "twice"]),
        ("{id: demo}", "&a {id: *a}", ["aliases"]),
        ("{id: demo}", "!!python/object:os.system {}", ["r.yaml:2"]),
    ],
)
def test_faults_name_line_value_and_remedy(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(TEXT.replace(old, new, 1), name="r.yaml")
    line = caught.value.line()
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("text", ["", "- 1", "just words", "[" * 5000, "a: " + "9" * 5000, "{a: 1"])
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text)


def test_control_characters_are_no_recipe() -> None:
    with pytest.raises(RecipeError):
        parse_recipe("\x00")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("modèle: 1".encode("latin-1"))
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecipeError, match="too large"):
        load_recipe(tmp_path / "large.yaml")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "weights", "x", "name"]), inner)
    ),
    max_leaves=8,
)
_KEYS = st.sampled_from(["version", "model", "quantization", "target", "gates", "evaluation", "because", "x"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_KEYS, _VALUES))
def test_any_mapping_is_a_recipe_or_one_clear_line(data: dict[str, object]) -> None:
    try:
        parse_recipe(yaml.safe_dump(data, allow_unicode=True))
    except QuantRecipeError as error:
        assert "\n" not in error.line()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.text(st.characters(exclude_categories=["C"]), max_size=3))
def test_any_damage_is_a_recipe_or_one_clear_line(place: int, patch: str) -> None:
    try:
        parse_recipe(TEXT[:place] + patch + TEXT[place + 1 :])
    except QuantRecipeError as error:
        assert "\n" not in error.line()
