"""The rules behind a recommendation, in the order in which a reader wants them."""

from __future__ import annotations

from collections.abc import Iterable

from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.candidates import Way
from quantrecipe.rules.rule import EFFECTS, Rule


def reasons_for(chosen: Candidate, candidates: Iterable[Candidate]) -> list[Rule]:
    """The rules behind the recommendation: what forbade the same scheme by other means, then what speaks for it.

    Strongest effect first, then the heaviest weight, then the most specific; what speaks against it comes last.
    """
    fired = [f.rule for f in chosen.judgement.firings if f.outcome not in ("forbidden", "violated")]
    against = [rule for rule in fired if rule.effect == "prefer" and rule.weight <= 0]
    near = (*_ruled_out(chosen, candidates), *_told_of_neighbours(chosen, candidates))
    found = {rule.id: rule for rule in (*near, *fired) if rule not in against}
    order = sorted(found.values(), key=lambda r: (EFFECTS.index(r.effect), -r.weight, -len(r.when)))
    return [*order, *against]


def _told_of_neighbours(chosen: Candidate, candidates: Iterable[Candidate]) -> list[Rule]:
    """Notes about this very model that fire for other groups of the same width and method, such as conflicts."""
    way = chosen.way
    near = (
        c for c in candidates
        if c.model is chosen.model and _width(c.way) == _width(way) and c.way.method == way.method
    )  # fmt: skip
    noted = (rule for one in near for rule in one.judgement.with_outcome("noted"))
    return [rule for rule in noted if any(name.startswith("model.") for line in rule.when for name in line.facts)]


def _width(way: Way) -> tuple[int, int, str]:
    return way.scheme.bits, way.scheme.act_bits, way.scheme.type


def _ruled_out(chosen: Candidate, candidates: Iterable[Candidate]) -> list[Rule]:
    """The rules that forbid the same scheme by another method."""
    same = (c for c in candidates if c.model is chosen.model and c.way.scheme == chosen.way.scheme)
    return [rule for one in same for rule in one.judgement.with_outcome("forbidden")]
