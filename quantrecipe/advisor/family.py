"""The best member of a family in a budget: larger at fewer bits against smaller at more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.advise import conclude
from quantrecipe.advisor.assess import Place, assess
from quantrecipe.advisor.candidate import Candidate, by_quality, choose, ties
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.scale import Scale, scale_of
from quantrecipe.catalog import lookup
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import QuantRecipeError
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import RuleSet
from quantrecipe.units import format_bytes


def members(family: str | None, model: str | None) -> list[ModelSpec]:
    """The members of families (``llama-2,llama-3``), or a model and its smaller siblings, by parameters."""
    if family:
        names = [name for name in family.split(",") if name.strip()]
        found = {one.id: one for name in names or [family] for one in lookup.find_family(name)}
        return sorted(found.values(), key=lambda one: one.parameters)
    if not model:
        raise QuantRecipeError("--or-smaller needs --model")
    spec = resolve_model(model)
    if spec.family not in lookup.families():
        return [spec]
    smaller = [one for one in lookup.siblings(spec) if one.parameters < spec.parameters]
    return [*sorted(smaller, key=lambda one: one.parameters), spec]


def advise_family(models: Sequence[ModelSpec], asked: Constraints, rules: RuleSet) -> Advice:
    """The best of several models by predicted absolute quality; those of other tokenizers only where they compare.

    The largest model that has a way to fit is what the others are compared with.
    """
    asked = asked.for_model(max(model.context for model in models))
    readable = [model for model in models if model.context >= asked.context]
    if not readable:
        longest = max(model.context for model in models)
        raise QuantRecipeError("no member reads that context", value=asked.context, limit=f"at most {longest}")
    scale = scale_of(readable, readable[-1])
    groups = [scale]
    while groups[-1].unlike:
        groups.append(scale_of(groups[-1].unlike, groups[-1].unlike[-1]))
    answers = [_weigh(readable, one, asked, rules) for one in groups]
    first = next((index for index, (_, found) in enumerate(answers) if _able(found)), 0)
    alike, candidates = answers[first]
    advice = conclude(alike, candidates, asked, rules)
    before = [*_tied(advice.recommended, candidates), *_bytes(groups[first], advice.recommended)]
    after = [line for index, one in enumerate(answers) if index != first for line in _unlike(one, asked)]
    return replace(advice, warnings=[*before, *advice.warnings, *after])


def _weigh(
    models: Sequence[ModelSpec], scale: Scale, asked: Constraints, rules: RuleSet
) -> tuple[list[ModelSpec], list[Candidate]]:
    alike = [model for model in models if model.id in scale.offsets]
    places = {model.id: Place(scale.offsets[model.id], scale.rates[model.id]) for model in alike}
    return alike, [one for model in alike for one in assess(model, asked, rules, places[model.id], True)]


def _able(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if not one.rejected or one.lacks_only("choice")]


def _tied(chosen: Candidate | None, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Other members whose best lies within what the evidence can tell."""
    if chosen is None:
        return
    best: dict[str, Candidate] = {}
    for one in by_quality(_able(candidates)):
        best.setdefault(one.model.id, one)
    tied = [one for one in best.values() if one.model is not chosen.model and _tie(one, chosen)]
    if tied:
        names = ", ".join(f"{one.model.id} as {one.label}" for one in tied)
        yield f"a tie: {names} differs by less than the intervals can tell; the faster, surer, simpler was taken"


def _tie(one: Candidate, other: Candidate) -> bool:
    return ties(one, other) if one.score >= other.score else ties(other, one)


def _bytes(scale: Scale, chosen: Candidate | None) -> Iterator[str]:
    if scale.by_bytes and chosen is not None:
        yield "tokenizers differ: bits a byte of WikiText-2 were compared, not perplexities"


def _unlike(answer: tuple[list[ModelSpec], list[Candidate]], asked: Constraints) -> Iterator[str]:
    """The best of models that cannot be compared with the recommendation."""
    models, candidates = answer
    names = ", ".join(model.id for model in models)
    one = choose(_able(candidates), asked)
    size = format_bytes(one.memory.total_bytes) if one else ""
    best = f"the best of them is {one.model.id} as {one.label} ({size})" if one else "none of them fits"
    yield f"cannot compare {names}: no published perplexity links them to the rest (tokenizer or training); {best}"
