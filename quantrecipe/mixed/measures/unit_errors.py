"""The cheap errors of whole units, from those of their layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantrecipe.mixed.measures.errors import CHEAP
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.units import Unit

#: By (measure, layer or scenario, option or '').
Found = Mapping[tuple[str, str, str], float]


class UnitErrors:
    """The best cheap error of a unit under an option, absolute.

    Hessian-weighted where the option was solved. Where it was not, the diagonal error of rounding to nearest times
    what solving gained at the solved option of the nearest bits; the diagonal or plain error where none was solved.
    """

    def __init__(self, found: Found) -> None:
        self.found = found

    def __call__(self, unit: Unit, option: Option, options: Sequence[Option]) -> float:
        """options: all of the unit's."""
        if option.keeps:
            return 0.0
        if self.has("hessian", unit, str(option)):
            return self.of("hessian", unit, str(option))
        if not self.has("diagonal", unit, str(option)):
            return self.of("weight", unit, str(option))
        return self.of("diagonal", unit, str(option)) * self._gain(unit, option, options)

    def _gain(self, unit: Unit, option: Option, options: Sequence[Option]) -> float:
        solved = [one for one in options if not one.keeps and self.has("hessian", unit, str(one))]
        if not solved:
            return 1.0
        near = min(solved, key=lambda one: (abs(one.facts.bits - option.facts.bits), str(one)))
        rounded = self.of("diagonal", unit, str(near))
        return self.of("hessian", unit, str(near)) / rounded if rounded > 0 else 1.0

    def has(self, measure: str, unit: Unit, option: str) -> bool:
        """Whether it was measured for some layer of the unit."""
        return any((measure, layer, option) in self.found for layer in unit.layers)

    def of(self, measure: str, unit: Unit, option: str) -> float:
        """Summed over the unit's layers; option '' = what errors are against."""
        return sum(self.found.get((measure, layer, option), 0.0) for layer in unit.layers)

    def relative(self, measure: str, unit: Unit, option: Option) -> float | None:
        """As a share of what the unit itself has; None where it was not measured."""
        if option.keeps:
            return 0.0
        whole = self.of(measure, unit, "")
        known = whole > 0 and self.has(measure, unit, str(option))
        return self.of(measure, unit, str(option)) / whole if known else None


def cheap_figures(errors: UnitErrors, unit: Unit, options: Sequence[Option]) -> dict[tuple[str, str], float]:
    """(measure, option) -> relative error, of those that were measured."""
    found = {(name, str(one)): errors.relative(name, unit, one) for name in CHEAP for one in options}
    return {key: value for key, value in found.items() if value is not None}
