"""Where rules disagree about a candidate, or leave none that meets a requirement: always reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from quantrecipe.rules.judgement import Judgement, strength
from quantrecipe.rules.rule import Rule


class Conflict(NamedTuple):
    """Two rules that pull one candidate apart; ``winner`` is None where neither effect is stronger."""

    kind: str
    winner: Rule | None
    rules: tuple[Rule, Rule]

    def line(self) -> str:
        """The conflict as one line."""
        names = f"{self.rules[0].id} and {self.rules[1].id}"
        end = f"{self.winner.id} decides" if self.winner else "neither decides"
        return f"{self.kind}: {names}; {end}"


def conflicts(judgement: Judgement) -> list[Conflict]:
    """Stronger rules against weaker ones, preferences against each other, settings with different values."""
    return [*_beaten(judgement), *_opposed(judgement), *_different_values(judgement)]


class Deadlock(NamedTuple):
    """A require rule that no candidate can meet and survive, and the rules that reject those that meet it."""

    rule: Rule
    against: tuple[Rule, ...]

    def line(self) -> str:
        """The deadlock as one line."""
        others = ", ".join(rule.id for rule in self.against) or "no candidate does what it asks"
        return f"{self.rule.id} can be met by none of the candidates: {others}"


def deadlocks(judgements: Iterable[Judgement]) -> list[Deadlock]:
    """Require rules that reject candidates while every candidate that meets them is rejected by others."""
    judged = list(judgements)
    violated = {rule.id: rule for one in judged for rule in one.with_outcome("violated")}
    result = []
    for rule in violated.values():
        meeting = [one for one in judged if rule in one.with_outcome("met")]
        if not any(one.allowed for one in meeting):
            against = {other.id: other for one in meeting for other in one.rejections}
            result.append(Deadlock(rule, tuple(against.values())))
    return result


def _beaten(judgement: Judgement) -> Iterator[Conflict]:
    """Weaker rules that speak for what a stronger one rejects, about the same facts of the candidate."""
    forbidding = judgement.with_outcome("forbidden")
    rejecting = judgement.rejections
    for weak in judgement.with_outcome("met"):
        yield from (Conflict("forbid beats require", f, (f, weak)) for f in forbidding if _meet(f, weak))
    for weak in judgement.with_outcome("preferred"):
        if weak.weight > 0:
            yield from (Conflict(f"{r.effect} beats prefer", r, (r, weak)) for r in rejecting if _meet(r, weak))


def _opposed(judgement: Judgement) -> Iterator[Conflict]:
    """Prefer rules with opposite signs about the same facts; the heavier decides the sum's sign."""
    preferred = judgement.with_outcome("preferred")
    for good in (rule for rule in preferred if rule.weight > 0):
        for bad in (rule for rule in preferred if rule.weight < 0 and _meet(rule, good)):
            total = good.weight + bad.weight
            winner = None if total == 0 else good if total > 0 else bad
            yield Conflict("prefer against prefer", winner, (good, bad))


def _different_values(judgement: Judgement) -> Iterator[Conflict]:
    rules = [firing.rule for firing in judgement.firings if firing.rule.value]
    for index, one in enumerate(rules):
        for other in rules[index + 1 :]:
            if any(other.value.get(name, value) != value for name, value in one.value.items()):
                strong, weak = sorted((one, other), key=strength)
                winner = None if strength(strong) == strength(weak) else strong
                yield Conflict("different values", winner, (one, other))


def _meet(one: Rule, other: Rule) -> bool:
    return not _subject(one).isdisjoint(_subject(other))


def _subject(rule: Rule) -> set[str]:
    """The candidate's facts that a rule decides on: what it demands, or else what it reads."""
    lines = rule.require or rule.when
    return {name for line in lines for name in line.facts if name.startswith("candidate.")}
