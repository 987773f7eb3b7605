"""Whether a sibling at other bits would be better in the same budget."""

from __future__ import annotations

import math
from collections.abc import Iterator

from quantrecipe.advisor.assess import Place, assess
from quantrecipe.advisor.candidate import TIE, Candidate, choose
from quantrecipe.advisor.constraints import UNLIMITED, Constraints
from quantrecipe.advisor.scale import scale_of
from quantrecipe.catalog import lookup
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import RuleSet
from quantrecipe.units import format_bytes

# A sibling outside these sizes relative to the model is not weighed: fewer bits cannot bring it in, or its
# baseline is too far behind.
SMALLEST, LARGEST = 0.3, 4.5
LOSSY = 0.1  # from this loss on a smaller sibling that might be better is named too


def sibling_line(chosen: Candidate, asked: Constraints, rules: RuleSet) -> Iterator[str]:
    """The best sibling, where it is predicted to be better than the recommendation."""
    if asked.memory >= UNLIMITED or asked.objective != "quality":
        return
    scale = scale_of(near(chosen.model, asked), chosen.model)
    own = scale.offsets[chosen.model.id]
    places = {name: Place(offset - own, scale.rates[name]) for name, offset in scale.offsets.items()}
    siblings = [one for one in near(chosen.model, asked) if one.id in places]
    found = [_best(sibling, asked, rules, places[sibling.id]) for sibling in siblings]
    best = min((one for one in found if one), key=lambda one: one.score, default=None)
    if best is None:
        return
    gain = chosen.score - best.score
    what = f"{best.model.id} as {best.label} ({format_bytes(best.memory.total_bytes)})"
    if gain > TIE:
        yield f"a sibling is predicted to be better in this budget, by {math.expm1(gain):.0%} of perplexity: {what}"
    elif chosen.loss > LOSSY and best.score < math.log1p(chosen.prediction.high if chosen.prediction else 0):
        yield f"at such a loss a sibling may be better in this budget: {what}"


def near(model: ModelSpec, asked: Constraints) -> list[ModelSpec]:
    """Siblings of comparable size that read the context: other sizes of the same tokenizer."""
    return [
        one
        for one in lookup.siblings(model)
        if SMALLEST < one.parameters / model.parameters < LARGEST and one.context >= asked.context
    ]


def _best(model: ModelSpec, asked: Constraints, rules: RuleSet, place: Place) -> Candidate | None:
    return choose([one for one in assess(model, asked, rules, place, able_only=True) if not one.rejected], asked)
