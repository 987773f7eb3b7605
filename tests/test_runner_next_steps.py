"""What is advised after a failure follows the recipe, names the layers, and quotes rules that exist."""

from __future__ import annotations

from typing import Any

import pytest

from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe import Recipe
from quantrecipe.rules.loader import load_rules
from quantrecipe.runner.next_steps import STEPS, next_steps
from quantrecipe.runner.suspects import suspects
from quantrecipe.safe_yaml import parse
from quantrecipe.schemes import parse_scheme

FAILED = [{"name": "max_kl", "outcome": "fail"}]


def _recipe(scheme: str, method: str = "rtn") -> Recipe:
    groups = {"main": {"scheme": scheme, "method": method}}
    return Recipe.model_validate({"model": {"id": "demo"}, "quantization": {"config_groups": groups}})


def _actions(scheme: str, method: str = "rtn", gates: Any = FAILED, named: Any = ()) -> str:
    return "\n".join(step["action"] for step in next_steps(_recipe(scheme, method), gates, named))


def test_steps_follow_the_recipe() -> None:
    assert "gptq instead of rtn" in _actions("w4a16-g128")
    assert "gptq instead of rtn" not in _actions("w4a16-g128", "gptq")
    assert "finer groups: w4a16-g64" in _actions("w4a16-g128")
    assert "finer groups" not in _actions("w4a16-g32")
    assert "groups instead of one scale a channel: w4a16-g64" in _actions("w4a16")
    assert "w5a16-g128" in _actions("w4a16-g128")
    assert "more text" in _actions("w4a16", "gptq")
    assert "[a, b] and scheme w5a16" in _actions("w4a16", named=[{"name": "a"}, {"name": "b"}])


@pytest.mark.parametrize("name", ["max_size", "integrity", "min_tokens_per_second_ratio"])
def test_no_steps_where_quality_is_not_to_blame(name: str) -> None:
    assert next_steps(_recipe("w4a16"), [{"name": name, "outcome": "fail"}], []) == []


def test_nothing_that_adds_bytes_where_there_are_too_many_already() -> None:
    both = [*FAILED, {"name": "max_size", "outcome": "fail"}]
    assert _actions("w4a16-g128", gates=both) == "another method: gptq instead of rtn, at the same size"


def test_every_step_quotes_a_rule_that_exists() -> None:
    known = {rule.id for rule in load_rules().rules}
    steps = parse(STEPS.read_text(encoding="utf-8"), STEPS.name, QuantRecipeError).data
    assert {step["rule"] for step in steps} - {None} <= known
    for step in next_steps(_recipe("w4a16-g128"), FAILED, []):
        assert step["rule"] is None or (step["why"] and step["source"])
    assert parse_scheme("w5a16-g128")


def _layer(name: str, error: float, scheme: str = "w4a16") -> dict[str, Any]:
    return {"name": name, "relative_error": error, "output_error": None, "scheme": scheme}


def test_suspects_are_what_changed_or_stands_out() -> None:
    before = [_layer(name, 0.1) for name in "abc"]
    after = [_layer("a", 0.1), _layer("b", 0.4, "w2a16"), _layer("c", 0.105)]
    assert [one["name"] for one in suspects(after, before)] == ["b"]
    assert suspects(after, before)[0]["why"].startswith("w4a16 became w2a16")
    assert [one["name"] for one in suspects(after)] == ["b"]
    assert suspects(before) == suspects([]) == []
