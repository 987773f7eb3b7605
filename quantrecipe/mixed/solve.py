"""From measured losses to the best mix: the knapsack of a question, its answer and its frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.budget import below_the_least
from quantrecipe.mixed.cache import Cache
from quantrecipe.mixed.knapsack import Choice, Problem, choose, frontier
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.question import Question

Losses = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Mix:
    """One answer. chosen: the option of each unit by its name. cache: None where it does not count."""

    chosen: dict[str, Option]
    cache: Cache | None
    choice: Choice

    @property
    def kv_bits(self) -> int:
        """Of the KV cache."""
        return 16 if self.cache is None else self.cache.bits


def check_room(question: Question) -> None:
    """Before anything is measured. Raises QuantRecipeError, with the least bytes, where no mix can fit."""
    least = sum(min(row) for row in _sizes(question))
    if least > question.room:
        raise below_the_least(question.budget, question.room, least)


def problem_of(question: Question, losses: Losses) -> Problem:
    """The knapsack: units in their order, then the KV cache where it counts."""
    rows = [tuple(_loss(losses, unit.name, one) for one in question.options[unit.name]) for unit in question.units]
    if question.caches:
        rows.append(tuple(one.loss for one in question.caches))
    return Problem(tuple(rows), _sizes(question))


def _sizes(question: Question) -> tuple[tuple[int, ...], ...]:
    sizes = question.unit_bytes()
    rows = [tuple(sizes[unit.name, str(one)] for one in question.options[unit.name]) for unit in question.units]
    if question.caches:
        rows.append(tuple(one.nbytes for one in question.caches))
    return tuple(rows)


def _loss(losses: Losses, unit: str, option: Option) -> float:
    if option.keeps:
        return 0.0
    if (unit, str(option)) not in losses:
        raise QuantRecipeError("not measured", value=f"{unit} at {option}", remedy="measure again")
    return losses[unit, str(option)]


def solve(question: Question, losses: Losses) -> Mix:
    """The mix of least loss within the budget, proved."""
    return mix_of(question, choose(problem_of(question, losses), question.room))


def mix_of(question: Question, choice: Choice) -> Mix:
    """A choice in the question's words."""
    names = [unit.name for unit in question.units]
    chosen = {name: question.options[name][pick] for name, pick in zip(names, choice.picks, strict=False)}
    return Mix(chosen, question.caches[choice.picks[-1]] if question.caches else None, choice)


def frontier_of(question: Question, losses: Losses, points: int) -> list[Mix]:
    """About that many optimal mixes over the whole range of sizes, the smallest first; each is exact."""
    problem = problem_of(question, losses)
    step = max((problem.most - problem.least) // max(points - 1, 1), 1)
    return [mix_of(question, one) for one in frontier(problem, step)][::-1]


def bytes_of(question: Question, mix: Mix) -> int:
    """What the mix takes of the budget: its files, to the byte; or memory with what must stay free (``spare``)."""
    if question.budget.files:
        return question.ledger.sizes.file_bytes(mix.chosen)
    memory = question.ledger.memory(question.units, mix.chosen, mix.kv_bits)
    return question.budget.limit - memory.spare(question.budget.limit)


def bits_of(question: Question, mix: Mix) -> float:
    """Bits a weight over all units, scales and zero points included; those that stay count with theirs."""
    taken = sum(question.ledger.sizes.option_bytes(unit, mix.chosen[unit.name], False) for unit in question.units)
    return 8 * taken / sum(unit.weights for unit in question.units)
