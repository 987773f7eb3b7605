"""Options: the schemes that a unit may take, and its true stored bytes under each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.units import Unit
from quantrecipe.scheme_facts import SchemeFacts, scheme_facts

#: Bits, whether with one scale a row, the group sizes beside that, and whether asymmetric grids are tried too.
_GRID: tuple[tuple[int, bool, tuple[int, ...], bool], ...] = (
    (8, True, (), False),
    (6, True, (), False),
    (5, True, (64, 128), False),
    (4, True, (32, 64, 128), True),
    (3, True, (32, 64, 128), True),
    (2, False, (32, 64, 128), True),
)


@dataclass(frozen=True, slots=True)
class Option:
    """A scheme (a preset's name, ``w16a16`` = as it is) and the method that makes it; ``str()`` is its name."""

    scheme: str
    method: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.method}"

    @property
    def facts(self) -> SchemeFacts:
        """Bits, group and the rest."""
        return scheme_facts(self.scheme)

    @property
    def keeps(self) -> bool:
        """Whether the layers stay as they are."""
        return self.facts.bits == 16

    def group(self) -> dict[str, Any]:
        """The recipe's group of it, without its targets."""
        return {"scheme": self.scheme, "method": self.method}


KEEP = Option("w16a16", "none")


def parse_option(text: str) -> Option:
    """The inverse of ``str(option)``. Raises QuantRecipeError for an unknown scheme."""
    scheme, _, method = text.partition(":")
    return Option(scheme_facts(scheme).name, method or "gptq")


def candidates(method: str = "gptq") -> tuple[Option, ...]:
    """Every scheme worth measuring, whatever the model: the most bytes first."""
    found = [KEEP]
    for bits, whole_rows, groups, asymmetric in _GRID:
        for size in (*groups, 0) if whole_rows else groups:
            name = f"w{bits}a16" + (f"-g{size}" if size else "")
            found += [Option(f"{name}-asym", method)] if asymmetric and size else []
            found.append(Option(name, method))
    return tuple(found)


Fault = Callable[[Option], str | None]


def options_of(unit: Unit, tried: Sequence[Option], faults: Sequence[Fault] = ()) -> tuple[Option, ...]:
    """Those of the tried options that the unit's layers can take, and that nothing speaks against.

    Outside the decoder blocks rounding to nearest takes the place of a method that looks at inputs. faults: each
    says why an option is out, None where it is not. Raises QuantRecipeError where none is left.
    """
    adapted = [one if unit.in_blocks or one.keeps else Option(one.scheme, "rtn") for one in tried]
    said = {one: next((why for fault in faults if (why := fault(one))), None) for one in dict.fromkeys(adapted)}
    left = tuple(one for one in said if said[one] is None and divides(unit, one))
    if not left:
        why = next((text for text in said.values() if text), "no group size divides its inputs")
        raise QuantRecipeError("no scheme is left for a layer", value=unit.name, limit=why)
    return left


def divides(unit: Unit, option: Option) -> bool:
    """Whether the group size divides the inputs of every layer, in more than one group."""
    size = option.facts.group
    return not size or all(part.columns % size == 0 and part.columns > size for part in unit.parts)
