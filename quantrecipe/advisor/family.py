"""The best member of a family in a budget: larger at fewer bits against smaller at more."""

from __future__ import annotations

from collections.abc import Sequence

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.advise import conclude
from quantrecipe.advisor.assess import assess
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.evidence import log_baseline
from quantrecipe.catalog import lookup
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import QuantRecipeError
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import RuleSet


def members(family: str | None, model: str | None) -> list[ModelSpec]:
    """The members of a family, or a model and its smaller siblings, by parameters."""
    if family:
        return lookup.find_family(family)
    if not model:
        raise QuantRecipeError("--or-smaller needs --model")
    spec = resolve_model(model)
    if spec.family not in lookup.families():
        return [spec]
    smaller = [one for one in lookup.find_family(spec.family) if one.parameters < spec.parameters]
    return [*smaller, spec]


def advise_family(models: Sequence[ModelSpec], asked: Constraints, rules: RuleSet) -> Advice:
    """The best of several siblings by predicted absolute quality."""
    asked = asked.for_model(max(model.context for model in models))
    readable = [model for model in models if model.context >= asked.context]
    if not readable:
        longest = max(model.context for model in models)
        raise QuantRecipeError("no member reads that context", value=asked.context, limit=f"at most {longest}")
    logs = {model.id: log_baseline(model) for model in readable}
    best = min(logs.values())
    candidates = [one for model in readable for one in assess(model, asked, rules, logs[model.id] - best, True)]
    return conclude(readable, candidates, asked, rules)
