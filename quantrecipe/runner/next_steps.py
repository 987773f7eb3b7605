"""What to try next where a gate on quality failed: steps are data (next_steps.yaml), reasons the rules' findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe import Group, Recipe
from quantrecipe.rules.loader import load_rules
from quantrecipe.safe_yaml import parse
from quantrecipe.schemes import WEIGHT_BITS, scheme_name

STEPS = Path(__file__).with_name("next_steps.yaml")
SIZES = ("max_size", "max_bits_per_weight", "max_peak_memory")
NOT_QUALITY = (*SIZES, "integrity", "min_tokens_per_second_ratio")
MOST_NAMED = 3


def next_steps(
    recipe: Recipe, gates: Sequence[Mapping[str, Any]], named: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """``action``, ``why``, ``rule``, ``source`` of each step; none where no gate on quality failed or is unsure."""
    failed = [gate["name"] for gate in gates if gate["outcome"] == "fail"]
    if all(name in NOT_QUALITY for name in failed):
        return []
    group, tight = _widest(recipe), any(name in SIZES for name in failed)
    facts = _facts(recipe, group, bool(named))
    rules = {rule.id: rule for rule in load_rules().rules}
    steps = parse(STEPS.read_text(encoding="utf-8"), STEPS.name, QuantRecipeError).data
    chosen = [step for step in steps if _applies(step["where"], facts) and not (tight and step.get("adds_bytes"))]
    return [_step(step, rules.get(step["rule"]), _names(group, named)) for step in chosen]


def _widest(recipe: Recipe) -> Group:
    """The group that most layers are in: the first, as later ones are exceptions."""
    return next(iter(recipe.quantization.config_groups.values()))


def _facts(recipe: Recipe, group: Group, suspects: bool) -> dict[str, Any]:
    return {
        "bits": group.weights.num_bits,
        "group": group.weights.group_size or 0,
        "method": group.method.name,
        "calibrated": group.method.name != "rtn",
        "activations": group.input_activations is not None,
        "compensation": getattr(recipe.quantization.compensation, "name", "none"),
        "suspects": suspects,
    }


def _applies(where: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    return all(_holds(key, wanted, facts[key]) for key, wanted in where.items())


def _holds(key: str, wanted: Any, found: Any) -> bool:
    if key == "bits":
        return bool(found <= wanted)
    if key == "group" and wanted > 0:
        return bool(found >= wanted)
    return bool(found == wanted)


def _names(group: Group, named: Sequence[Mapping[str, str]]) -> dict[str, str]:
    weights = group.weights
    bits = next((one for one in sorted(WEIGHT_BITS) if one > weights.num_bits), weights.num_bits)
    more = weights.model_copy(update={"num_bits": bits})
    finer = weights.model_copy(update={"strategy": "group", "group_size": 64 if not weights.group_size else
                                       max(weights.group_size // 2, 32)})  # fmt: skip
    return {
        "layers": ", ".join(one["name"] for one in named[:MOST_NAMED]),
        "more_bits": scheme_name(more, group.input_activations),
        "finer": scheme_name(finer, group.input_activations),
    }


def _step(step: Mapping[str, Any], rule: Any, names: Mapping[str, str]) -> dict[str, Any]:
    action = step["action"].format(**names)
    if rule is None:
        return {"action": action, "why": "", "rule": None, "source": None}
    return {"action": action, "why": rule.finding, "rule": rule.id, "source": rule.source}
