"""From what was measured to additive losses in nats of KL a token.

For one unit the KL of the whole model grows in proportion to the unit's Hessian-weighted error, as long as it is
small (to second order KL is a quadratic form in the perturbation). So one measured KL, at an *anchor* option coarse
enough to stand above the noise of 16-bit arithmetic, gives the others:
loss(u, o) = KL(u, a) error(u, o) / error(u, a).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from quantrecipe.mixed.measures.errors import CHEAP, Row
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.table import Cell, LossTable
from quantrecipe.mixed.units import Unit

Effort = Literal["low", "default", "high"]
Options = Mapping[str, Sequence[Option]]
#: The scheme nearest to this is the anchor: bits, weights a group.
ANCHOR = (3, 64)
#: A KL must be this many times the least of all to stand above the noise.
ABOVE_NOISE = 8.0
#: Names of scenarios: one unit under an option; all units at their anchors.
ALL = "all"


def anchor_of(options: Iterable[Option]) -> Option | None:
    """The option to measure KL at; None where the unit can only stay as it is."""
    bits, group = ANCHOR

    def distance(one: Option) -> tuple[float, float, str]:
        facts = one.facts
        return abs(facts.bits - bits), abs((facts.group or 1024) - group) + (not facts.symmetric) * 0.5, str(one)

    return min((one for one in options if not one.keeps), key=distance, default=None)


def scenario_name(unit: Unit, option: Option) -> str:
    """Of the model with one unit under an option."""
    return f"{unit.name}={option}"


def tabulate(table: LossTable, rows: Iterable[Row], units: Sequence[Unit], options: Options, effort: Effort) -> None:
    """Put every measure into the table, and ``loss`` by what the effort has measured."""
    found = {(row.measure, row.layer, row.option): row.value for row in rows}
    for measure in CHEAP:
        _put_cheap(table, measure, found, units, options)
    for measure in ("block", "kl"):
        for unit in units:
            for option in options[unit.name]:
                value = found.get((measure, scenario_name(unit, option), ""))
                if value is not None:
                    table.put(measure, Cell(unit.name, str(option)), value)
    error = Errors(found, units)
    if effort == "low":
        _share_out(table, error, units, options, found["kl", ALL, ""])
    else:
        _extrapolate(table, error, units, options)


class Errors:
    """The best cheap error of a unit, absolute: Hessian-weighted where there is one, then diagonal, then plain."""

    def __init__(self, found: Mapping[tuple[str, str, str], float], units: Sequence[Unit]) -> None:
        self.found = found
        self.measure = {unit.name: self._best(unit) for unit in units}

    def _best(self, unit: Unit) -> str:
        there = {name for name in CHEAP if any((name, layer, "") in self.found for layer in unit.layers)}
        return max(there, key=CHEAP.index)

    def __call__(self, unit: Unit, option: Option) -> float:
        """Summed over the unit's layers."""
        return 0.0 if option.keeps else self.of(self.measure[unit.name], unit, str(option))

    def of(self, measure: str, unit: Unit, option: str) -> float:
        """Summed over the unit's layers; option '' = what errors are against."""
        return sum(self.found.get((measure, layer, option), 0.0) for layer in unit.layers)


def _put_cheap(
    table: LossTable,
    measure: str,
    found: Mapping[tuple[str, str, str], float],
    units: Sequence[Unit],
    options: Options,
) -> None:
    errors = Errors(found, units)
    for unit in units:
        whole = errors.of(measure, unit, "")
        for option in options[unit.name]:
            if whole > 0:
                value = 0.0 if option.keeps else errors.of(measure, unit, str(option)) / whole
                table.put(measure, Cell(unit.name, str(option)), value)


def _share_out(table: LossTable, error: Errors, units: Sequence[Unit], options: Options, kl: float) -> None:
    """KL of the model with all units at their anchors, shared out by the cheap error."""
    anchors = {unit.name: anchor_of(options[unit.name]) for unit in units}
    whole = sum(error(unit, one) for unit in units if (one := anchors[unit.name]) is not None)
    for unit in units:
        for option in options[unit.name]:
            table.put("loss", Cell(unit.name, str(option)), kl * error(unit, option) / whole if whole else 0.0)


def _extrapolate(table: LossTable, error: Errors, units: Sequence[Unit], options: Options) -> None:
    """Measured KL where it stands above the noise; elsewhere from the least that does, or the unit's greatest."""
    measured = table.figures.get("kl", {})
    floor = ABOVE_NOISE * min((value for value in measured.values() if value > 0), default=0.0)
    for unit in units:
        mine = {one: measured[cell] for one in options[unit.name] if (cell := Cell(unit.name, str(one))) in measured}
        sure = {one: kl for one, kl in mine.items() if kl >= floor}
        anchor = min(sure, key=sure.__getitem__) if sure else max(mine, key=mine.__getitem__, default=None)
        for option in options[unit.name]:
            value = 0.0
            if option in sure:
                value = sure[option]
            elif anchor is not None and not option.keeps:
                value = mine[anchor] * _ratio(error(unit, option), error(unit, anchor))
            table.put("loss", Cell(unit.name, str(option)), value)


def _ratio(error: float, at_anchor: float) -> float:
    return error / at_anchor if at_anchor > 0 else 1.0
