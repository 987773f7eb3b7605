"""What the user fixes: ``re:.*down_proj=8``, ``lm_head=16``, ``model.layers.0.mlp.up_proj=w4a16-g64``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantrecipe.errors import QuantRecipeError, did_you_mean
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.units import Unit
from quantrecipe.modeling.plan import targets
from quantrecipe.scheme_facts import WEIGHT_BITS, scheme_facts

_BITS = (*WEIGHT_BITS, 16)


@dataclass(frozen=True, slots=True)
class Pin:
    """target: as in a recipe. bits: of the weights, 16 = as they are; scheme: the one scheme instead of bits."""

    target: str
    bits: int | None = None
    scheme: str | None = None

    def means(self, unit: Unit) -> bool:
        """Whether it names a layer of the unit, and so all of them."""
        return any(targets(self.target, part) for part in unit.parts)

    def narrow(self, tried: Sequence[Option]) -> tuple[Option, ...]:
        """What is left to try; a scheme need not have been among it."""
        if self.scheme is not None:
            methods = dict.fromkeys(one.method for one in tried if not one.keeps)
            return tuple(Option(self.scheme, method) for method in methods)
        return tuple(one for one in tried if one.facts.bits == self.bits)


def parse_pin(text: str) -> Pin:
    """The pin that was written. Raises QuantRecipeError."""
    target, _, wanted = text.rpartition("=")
    if not target or not wanted:
        raise QuantRecipeError(
            "not a pin",
            value=text,
            limit="a layer or pattern, =, bits or a scheme",
            remedy='--pin "re:.*down_proj=8"',
        )
    if not wanted.isascii() or not wanted.isdigit():
        return Pin(target, scheme=_weight_only(wanted))
    if int(wanted) not in _BITS:
        raise QuantRecipeError(f"no such bits in --pin {text}", value=wanted, limit=", ".join(map(str, _BITS)))
    return Pin(target, bits=int(wanted))


def _weight_only(name: str) -> str:
    facts = scheme_facts(name)
    if facts.act_bits < 16 or facts.type != "int":
        raise QuantRecipeError("mixes are of integer weights", value=name, limit="such as w4a16-g64")
    return facts.name


def narrowed(units: Sequence[Unit], tried: Sequence[Option], pins: Sequence[Pin]) -> dict[str, tuple[Option, ...]]:
    """What each unit may try, by its name; a later pin narrows what an earlier one left.

    Raises QuantRecipeError for a pin that means no unit, naming the nearest layers, and for pins that contradict.
    """
    found = {unit.name: tuple(tried) for unit in units}
    for pin in pins:
        meant = [unit for unit in units if pin.means(unit)]
        if not meant:
            raise _matches_nothing(pin, units)
        for unit in meant:
            found[unit.name] = pin.narrow(found[unit.name])
            if not found[unit.name]:
                wanted = pin.scheme or f"{pin.bits} bits"
                raise QuantRecipeError(
                    f"--pin {pin.target} leaves no scheme for {unit.name}", value=wanted,
                    remedy="another pin, or --schemes, excludes it",
                )  # fmt: skip
    return found


def _matches_nothing(pin: Pin, units: Sequence[Unit]) -> QuantRecipeError:
    """Names the nearest layer, or kind of layer where a pattern may have meant one."""
    layers = [layer for unit in units for layer in unit.layers]
    kinds = {layer.rpartition(".")[2]: layer for layer in layers}
    near = did_you_mean(pin.target, layers) or did_you_mean(_last_word(pin.target), kinds)
    return QuantRecipeError(
        "--pin matches no layer that can be chosen for", value=pin.target, remedy=near or f"such as {layers[0]}"
    )


def _last_word(target: str) -> str:
    """``down_proj`` of ``re:.*down_proj$``."""
    return re.split(r"[^A-Za-z0-9_]+", target.rstrip("$"))[-1]
