"""From what was measured to additive losses in nats of KL a token.

For one unit the KL of the whole model grows in proportion to the unit's Hessian-weighted error, as long as it is
small (to second order KL is a quadratic form in the perturbation). So one measured KL, at an *anchor* option coarse
enough to stand above the noise of 16-bit arithmetic, gives the others:
loss(u, o) = KL(u, a) error(u, o) / error(u, a).

That noise is measured too: a change too small to matter makes every later block round otherwise, and gives a KL of
its own, less the later the block. It is taken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from quantrecipe.mixed.measures.errors import Row
from quantrecipe.mixed.measures.unit_errors import Found, UnitErrors, cheap_figures
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.table import Cell, LossTable
from quantrecipe.mixed.units import Unit

Effort = Literal["low", "default", "high"]
Options = Mapping[str, Sequence[Option]]
#: The scheme nearest to this is the anchor: bits, weights a group. Noise is measured with at least so many bits.
ANCHOR, QUIET_BITS = (3, 64), 8
#: A measured KL counts by itself where it is this many times the noise; else it is taken from one that does.
ABOVE_NOISE = 4.0
#: What is left of a KL that the noise would take whole.
LEAST_SHARE = 0.05
#: Names of scenarios: all units at their anchors; noise, by the block where it begins.
ALL, NOISE = "all", "noise"


def anchor_of(options: Iterable[Option]) -> Option | None:
    """The option to measure KL at; None where the unit can only stay as it is."""
    return _nearest(options, *ANCHOR)


def _nearest(options: Iterable[Option], bits: int, group: int) -> Option | None:
    def distance(one: Option) -> tuple[float, float, str]:
        facts = one.facts
        return abs(facts.bits - bits), abs((facts.group or 1024) - group) + (not facts.symmetric) * 0.5, str(one)

    return min((one for one in options if not one.keeps), key=distance, default=None)


def representatives(options: Iterable[Option]) -> list[Option]:
    """Of each number of bits up to 4 the option nearest to groups of 64: those that are solved at default effort."""
    found = {one.facts.bits for one in options if not one.keeps and one.facts.bits <= 4}
    chosen = [_nearest((one for one in options if one.facts.bits == bits), bits, ANCHOR[1]) for bits in sorted(found)]
    return [one for one in (*chosen, anchor_of(options)) if one is not None]


def scenario_name(unit: Unit, option: Option) -> str:
    """Of the model with one unit under an option."""
    return f"{unit.name}={option}"


def tabulate(table: LossTable, rows: Iterable[Row], units: Sequence[Unit], options: Options, effort: Effort) -> None:
    """Put every measure into the table, and ``loss`` by what the effort has measured."""
    found: Found = {(row.measure, row.layer, row.option): row.value for row in rows}
    errors = UnitErrors(found)
    for unit in units:
        for (measure, option), value in cheap_figures(errors, unit, options[unit.name]).items():
            table.put(measure, Cell(unit.name, option), value)
        for measure in ("block", "kl"):
            for one in options[unit.name]:
                measured = found.get((measure, scenario_name(unit, one), ""))
                if measured is not None:
                    table.put(measure, Cell(unit.name, str(one)), measured)
    if effort == "low":
        _share_out(table, errors, units, options, found["kl", ALL, ""])
    else:
        noise = Noise(found)
        for unit in units:
            _extrapolate(table, errors, unit, options[unit.name], noise)


def _share_out(table: LossTable, errors: UnitErrors, units: Sequence[Unit], options: Options, kl: float) -> None:
    """KL of the model with all units at their anchors, shared out by the cheap error."""
    mine = {unit: options[unit.name] for unit in units}
    anchors = {unit: one for unit in units if (one := anchor_of(mine[unit])) is not None}
    whole = sum(errors(unit, one, mine[unit]) for unit, one in anchors.items())
    for unit in units:
        for option in mine[unit]:
            table.put("loss", Cell(unit.name, str(option)), kl * _ratio(errors(unit, option, mine[unit]), whole))


class Noise:
    """KL of what 16-bit arithmetic makes of nothing, by the block where it begins; between blocks linear."""

    def __init__(self, found: Found) -> None:
        known = {name.split(":")[1]: kl for (measure, name, _), kl in found.items() if _is_noise(measure, name)}
        self.points = sorted((int(block), kl) for block, kl in known.items())

    def at(self, block: int | None) -> float:
        """Behind the last block and where nothing is known: 0."""
        if block is None or not self.points:
            return 0.0
        before = [point for point in self.points if point[0] <= block] or self.points[:1]
        after = [point for point in self.points if point[0] >= block] or self.points[-1:]
        (low, first), (high, second) = before[-1], after[0]
        return first if high <= low else first + (second - first) * (block - low) / (high - low)


def _is_noise(measure: str, name: str) -> bool:
    return measure == "kl" and name.startswith(f"{NOISE}:")


def _extrapolate(table: LossTable, errors: UnitErrors, unit: Unit, options: Sequence[Option], noise: Noise) -> None:
    """Measured KL where it stands above the noise; elsewhere from the least that does, or the unit's greatest."""
    measured, floor = table.figures.get("kl", {}), noise.at(_first_block(unit))
    mine = {one: measured[cell] for one in options if (cell := Cell(unit.name, str(one))) in measured}
    clear = {one: max(kl - floor, LEAST_SHARE * kl) for one, kl in mine.items()}
    sure = {one: clear[one] for one, kl in mine.items() if kl >= ABOVE_NOISE * floor}
    anchor = min(sure, key=sure.__getitem__) if sure else max(clear, key=clear.__getitem__, default=None)
    for option in options:
        value = sure.get(option, 0.0)
        if option not in sure and anchor is not None:
            value = clear[anchor] * _ratio(errors(unit, option, options), errors(unit, anchor, options))
        table.put("loss", Cell(unit.name, str(option)), value)


def _first_block(unit: Unit) -> int | None:
    return min((part.block for part in unit.parts if part.block is not None), default=None)


def _ratio(error: float, whole: float) -> float:
    return error / whole if whole > 0 else 0.0
