"""Why a mix is as it is: the layers that got more than most, and the figures behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from quantrecipe.mixed.options import Option
from quantrecipe.mixed.patterns import patterns
from quantrecipe.mixed.question import Question
from quantrecipe.mixed.solve import Losses, Mix
from quantrecipe.mixed.units import Unit
from quantrecipe.units import format_bytes

_SHOWN = 6
#: A gap above this is no rounding: the mix is not the knapsack's optimum.
_PROVED = 1e-6


class More(NamedTuple):
    """Units whose option takes more bytes than most weights get. usual: loss if they had that too."""

    option: Option
    units: tuple[Unit, ...]
    loss: float
    usual: float
    extra: int

    @property
    def saved(self) -> float:
        """Loss that the extra bytes save."""
        return self.usual - self.loss


def usual_option(question: Question, chosen: Mapping[str, Option]) -> Option:
    """The option of the most weights."""
    weights: dict[Option, int] = defaultdict(int)
    for unit in question.units:
        weights[chosen[unit.name]] += unit.weights
    return max(weights, key=lambda one: (weights[one], str(one)))


def more_than_usual(question: Question, mix: Mix, losses: Losses) -> list[More]:
    """The options that take more than the usual one, by what they save."""
    usual = usual_option(question, mix.chosen)
    sizes = question.ledger.sizes
    found: dict[Option, list[Unit]] = defaultdict(list)
    for unit in question.units:
        one = mix.chosen[unit.name]
        comparable = usual in question.options[unit.name]
        if comparable and sizes.option_bytes(unit, one, False) > sizes.option_bytes(unit, usual, False):
            found[one].append(unit)
    more = [_more(question, one, usual, units, losses) for one, units in found.items()]
    return sorted(more, key=lambda one: -one.saved)


def _more(question: Question, one: Option, usual: Option, units: list[Unit], losses: Losses) -> More:
    sizes = question.ledger.sizes
    extra = sum(sizes.option_bytes(u, one, False) - sizes.option_bytes(u, usual, False) for u in units)
    return More(
        one, tuple(units), sum(loss_of(losses, u, one) for u in units),
        sum(loss_of(losses, u, usual) for u in units), extra,
    )  # fmt: skip


def loss_of(losses: Losses, unit: Unit, option: Option) -> float:
    """The measured loss; none where the unit stays as it is."""
    return 0.0 if option.keeps else losses[unit.name, str(option)]


def more_lines(question: Question, mix: Mix, losses: Losses) -> list[str]:
    """One sentence for each option above the usual one."""
    usual = usual_option(question, mix.chosen)
    linears = question.skeleton.linears()
    lines = []
    for one in more_than_usual(question, mix, losses)[:_SHOWN]:
        layers = [layer for unit in one.units for layer in unit.layers]
        named = ", ".join(short(pattern) for pattern in patterns(linears, layers))
        lines.append(
            f"{_words(one.option)} for {named}: at {usual.scheme} they would lose {one.usual:.3g} nats a token, "
            f"so they lose {one.loss:.3g}; that takes {format_bytes(one.extra)} more"
        )
    return lines


def short(pattern: str) -> str:
    """A pattern for people to read."""
    return pattern.removeprefix("re:").removesuffix("$").replace(r"\.", ".").replace(r"\d+", "*")


def _words(option: Option) -> str:
    return "16 bits" if option.keeps else option.scheme


def proof_line(question: Question, mix: Mix) -> str:
    """What is proved of the mix under the measured losses."""
    choice, budget = mix.choice, question.budget
    if choice.sated:
        return (
            f"every layer has the scheme that loses least of those tried: more bytes than these would not help "
            f"({budget.written} {budget.name} are more than enough)"
        )
    if choice.gap > _PROVED:
        return (
            f"the losses of layers measured alone would have it otherwise ({choice.bound:.4g} nats a token at the "
            f"least, {choice.loss:.4g} for this mix), but this one measured better as a whole"
        )
    return (
        f"no other choice of these schemes in {budget.written} {budget.name} loses less, by the measured losses: "
        f"{choice.loss:.4g} nats a token, and at least {choice.bound:.4g} for any (HiGHS, gap {choice.gap:.1e})"
    )


def price_line(mix: Mix) -> str:
    """What more bytes would save."""
    return f"{mix.choice.price * 1e6:.3g} nats a token less for each MB more"
