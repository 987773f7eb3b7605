"""What the rules say of one candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from quantrecipe.rules.facts import CandidateFacts
from quantrecipe.rules.rule import EFFECTS, Rule, Setting

if TYPE_CHECKING:
    from quantrecipe.rules.conflicts import Conflict

Outcome = Literal["forbidden", "violated", "met", "unchecked", "preferred", "noted"]
REJECTING: tuple[Outcome, ...] = ("forbidden", "violated")


class Firing(NamedTuple):
    """A rule whose ``when`` lines all held, and what came of it."""

    rule: Rule
    outcome: Outcome


class Judgement(NamedTuple):
    """Every rule that fired for a candidate."""

    candidate: CandidateFacts
    firings: tuple[Firing, ...]

    @property
    def allowed(self) -> bool:
        """Does no forbid rule fire, and no require rule fail?"""
        return not any(firing.outcome in REJECTING for firing in self.firings)

    @property
    def rejections(self) -> list[Rule]:
        """The rules that reject the candidate: forbid before require."""
        return sorted(self.with_outcome(*REJECTING), key=lambda rule: EFFECTS.index(rule.effect))

    @property
    def rejected_because(self) -> str | None:
        """The strongest rejection in words, with its rule's id; None where the candidate is allowed."""
        rejections = self.rejections
        return f"{rejections[0].title} ({rejections[0].id})" if rejections else None

    @property
    def weight(self) -> float:
        """The sum of the weights of the prefer rules: orders candidates that tie."""
        return sum(firing.rule.weight for firing in self.firings if firing.outcome == "preferred")

    @property
    def notes(self) -> list[Rule]:
        """Rules whose text goes with the answer: notes, and requirements that could not be checked."""
        return self.with_outcome("noted", "unchecked")

    @property
    def settings(self) -> dict[str, Setting]:
        """What the fired rules recommend; the stronger effect, then the heavier weight, then the earlier wins."""
        result: dict[str, Setting] = {}
        for rule in sorted((firing.rule for firing in self.firings if firing.rule.value), key=strength):
            for name, value in rule.value.items():
                result.setdefault(name, value)
        return result

    @property
    def conflicts(self) -> list[Conflict]:
        """Where the fired rules disagree about this candidate."""
        from quantrecipe.rules.conflicts import conflicts  # late: only the answer's own conflicts are asked for

        return conflicts(self)

    def with_outcome(self, *outcomes: Outcome) -> list[Rule]:
        """The fired rules with one of these outcomes, in the order of the packs."""
        return [firing.rule for firing in self.firings if firing.outcome in outcomes]


def strength(rule: Rule) -> tuple[int, float]:
    """Sorts rules from the strongest effect, and within it from the heaviest weight."""
    return EFFECTS.index(rule.effect), -abs(rule.weight)
