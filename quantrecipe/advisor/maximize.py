"""The longest context, or the largest batch, that fits within a limit of loss."""

from __future__ import annotations

from dataclasses import replace

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.advise import advise_one
from quantrecipe.advisor.assess import assess, loaded
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import DEFAULT_LIMIT, MAX_BATCH, UNLIMITED, Constraints
from quantrecipe.advisor.search import largest
from quantrecipe.errors import QuantRecipeError
from quantrecipe.memory import combine
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import RuleSet


def advise_most(model: ModelSpec, asked: Constraints, rules: RuleSet, what: str) -> Advice:
    """The answer at the largest ``what`` (context or batch) that some candidate within the limit can serve.

    Without ``--max-loss`` the limit is 5 % of perplexity: the longest context at any loss is no use.
    """
    if asked.memory >= UNLIMITED:
        raise QuantRecipeError(f"--maximize {what} needs a budget", remedy="say --mem 24GB or --hardware NAME")
    limited = replace(asked.for_model(model.context), max_loss=asked.max_loss or DEFAULT_LIMIT)
    at_least = replace(limited, context=1) if what == "context" else replace(limited, batch=1)
    able = [one for one in assess(model, at_least, rules, able_only=True) if not one.rejected]
    most = max((_most(one, limited, what) for one in able), default=0)
    if not most:
        return advise_one(model, limited, rules)
    return advise_one(
        model, replace(limited, context=most) if what == "context" else replace(limited, batch=most), rules
    )


def _most(one: Candidate, asked: Constraints, what: str) -> int:
    """The largest value that the budget holds; 0 where none is."""
    stored = loaded(one.model, one.way, asked)

    def held(value: int) -> bool:
        changed = replace(asked, context=value) if what == "context" else replace(asked, batch=value)
        return (
            combine(one.model, stored, one.way.format, changed.serving(one.kv_bits)).spare(
                asked.room(stored.resident)
            )
            >= 0
        )

    return largest(held, one.model.context if what == "context" else MAX_BATCH)
