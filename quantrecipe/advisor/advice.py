"""The answer: what is recommended, why, what else was weighed, and what to change if nothing fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.draft import draft_recipe
from quantrecipe.model import ModelSpec
from quantrecipe.rules.rule import Rule

if TYPE_CHECKING:
    from quantrecipe.recipe import Recipe
    from quantrecipe.rules.conflicts import Conflict, Deadlock


@dataclass(frozen=True, slots=True)
class Offer:
    """A change that would make something fit: what to change, what then fits, and its bytes."""

    change: str
    candidate: str
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Advice:
    """``recommended`` is None where nothing fits; ``offers`` then say what would.

    alternatives: candidates that were weighed and not taken, best first, each with its reason. frontier: those
    that no other beats in both memory and predicted loss, whatever the budget. conflicts: where rules disagree about
    the recommendation, and requirements that no candidate can meet.
    """

    model: ModelSpec
    asked: Constraints
    recommended: Candidate | None
    reasons: list[Rule]
    alternatives: list[Candidate]
    frontier: list[Candidate]
    warnings: list[str] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    conflicts: list[Conflict | Deadlock] = field(default_factory=list)

    @property
    def recipe_data(self) -> dict[str, Any] | None:
        """The recipe as plain data; None where nothing fits."""
        return draft_recipe(self.recommended, self.asked, self.reasons) if self.recommended else None

    @property
    def recipe(self) -> Recipe | None:
        """The recipe, validated; None where nothing fits."""
        from quantrecipe.recipe import Recipe

        data = self.recipe_data
        return Recipe.model_validate(data) if data is not None else None

    @property
    def exit_code(self) -> int:
        """0, or 1 where nothing fits."""
        return 0 if self.recommended else 1

    def to_json(self) -> dict[str, Any]:
        """The object that ``--format json`` prints; its schema is docs/advice.schema.json."""
        from quantrecipe.advisor.as_json import advice_json

        return advice_json(self)
