"""qadvise's answer to one question: which quantization of this model fits this memory, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.alternatives import frontier, pick_alternatives
from quantrecipe.advisor.assess import assess
from quantrecipe.advisor.candidate import Candidate, choose
from quantrecipe.advisor.conflicts import conflict_lines, disagreements
from quantrecipe.advisor.constraints import Constraints, constraints
from quantrecipe.advisor.hints import warnings_for
from quantrecipe.advisor.offers import counter_offers
from quantrecipe.advisor.reasons import reasons_for
from quantrecipe.advisor.siblings import sibling_line
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import QuantRecipeError
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import RuleSet
from quantrecipe.rules.loader import load_rules


def advise(  # noqa: PLR0913 - the question has that many parts
    model: str | ModelSpec,
    memory: str | int | None = None,
    *,
    context: int | None = None,
    batch: int = 1,
    hardware: str | None = None,
    gpus: int = 1,
    engine: str | None = None,
    objective: str = "quality",
    max_loss: str | float | None = None,
    offload: str | int | None = None,
    rules: Iterable[str | Path] = (),
) -> Advice:
    """The recommended recipe for ``model`` in ``memory`` (``80GB``, or bytes), with reasons and alternatives.

    memory is what all ``gpus`` devices have together; without it, what ``hardware`` has. max_loss: largest
    relative increase of perplexity (``1%``). offload: host memory for weights.
    context: tokens, 2048 unless the model reads fewer.
    Raises QuantRecipeError for input that makes no sense.
    """
    spec = resolve_model(model) if isinstance(model, str) else model
    asked = constraints(
        memory, context=context, batch=batch, hardware=hardware, gpus=gpus, engine_name=engine,
        objective=objective, max_loss=max_loss, offload=offload,
    )  # fmt: skip
    return advise_one(spec, asked, ruleset(rules))


def ruleset(files: Iterable[str | Path] = ()) -> RuleSet:
    """The package's rules, the plugins' and the user's."""
    from quantrecipe.plugins.manager import rule_packs

    return load_rules(files, rule_packs())


def advise_one(model: ModelSpec, asked: Constraints, rules: RuleSet) -> Advice:
    """The answer for one model."""
    asked = for_context(model, asked)
    candidates = assess(model, asked, rules)
    return conclude([model], candidates, asked, rules)


def for_context(model: ModelSpec, asked: Constraints) -> Constraints:
    """The question with a context that the model reads. Raises QuantRecipeError where a longer one was asked for."""
    asked = asked.for_model(model.context)
    if asked.context > model.context:
        raise QuantRecipeError(
            f"context is longer than {model.id} was made for", value=asked.context, limit=f"at most {model.context}"
        )
    return asked


def conclude(models: Sequence[ModelSpec], candidates: list[Candidate], asked: Constraints, rules: RuleSet) -> Advice:
    """Chooses among assessed candidates and says why."""
    chosen = choose([one for one in candidates if not one.rejected], asked)
    model = chosen.model if chosen else models[-1]
    reasons = reasons_for(chosen, candidates) if chosen else []
    offers = [] if chosen else counter_offers(models, candidates, asked, rules)
    notes = warnings_for(chosen, candidates, asked) if chosen else []
    if chosen and len(models) == 1:
        notes += sibling_line(chosen, asked, rules)
    others = pick_alternatives(candidates, chosen, asked)
    conflicts = disagreements(chosen, candidates)
    notes += conflict_lines(conflicts, all_of_them=chosen is None)
    return Advice(model, asked, chosen, reasons, others, frontier(candidates), notes, offers, conflicts)
