"""What the next step of each unit is worth around a mix: KL of the model with the mix and one unit changed.

Losses measured one unit at a time leave out how units interact. Around a mix that is chosen already, one more survey
finds for each unit KL with its next coarser option (or, where there is none, the next finer), everything else as in
the mix; the difference against the predicted one is the unit's scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from quantrecipe.mixed.measures.losses import Options
from quantrecipe.mixed.measures.scenarios import Scenario
from quantrecipe.mixed.measures.survey import Order, survey
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.units import Unit
from quantrecipe.plugins.contract import Progress

Losses = Mapping[tuple[str, str], float]
Sizes = Mapping[tuple[str, str], int]
Mix = Mapping[str, Option]
MIX = "mix"
#: A scale outside these says more of noise than of the unit.
LEAST, MOST = 1 / 4, 4.0
#: A step whose losses differ less than by this drowns in noise.
CLEARLY = 1.5


@dataclass(frozen=True, slots=True)
class Space:
    """What a mix is chosen from: the units, the options of each by its name, loss and bytes of each pair."""

    units: Sequence[Unit]
    options: Options
    losses: Losses
    sizes: Sizes

    def loss(self, unit: str, option: Option) -> float:
        """Predicted, nats a token."""
        return 0.0 if option.keeps else self.losses[unit, str(option)]

    def predicted(self, mix: Mix) -> float:
        """Of the whole mix."""
        return sum(self.loss(unit.name, mix[unit.name]) for unit in self.units)

    def bytes(self, mix: Mix) -> int:
        """Of all units."""
        return sum(self.sizes[unit.name, str(mix[unit.name])] for unit in self.units)

    def ladder(self, unit: str) -> list[Option]:
        """The options that none beats in both bytes and loss, the fewest bytes first."""
        order = sorted(self.options[unit], key=lambda one: (self.sizes[unit, str(one)], self.loss(unit, one)))
        found: list[Option] = []
        for one in order:
            if not found or self.loss(unit, one) < self.loss(unit, found[-1]):
                found.append(one)
        return found

    def neighbour(self, unit: str, now: Option) -> tuple[Option, ...]:
        """The nearest option of the ladder that loses clearly more, else clearly less; () where none does."""
        loss = self.loss(unit, now)
        ladder = self.ladder(unit)
        coarser = [one for one in ladder if self.loss(unit, one) > CLEARLY * loss]
        finer = [one for one in ladder if self.loss(unit, one) * CLEARLY < loss]
        return tuple(coarser[-1:] or finer[:1])

    def scaled(self, scales: Mapping[str, float], power: float = 1.0) -> Space:
        """With each unit's losses times its scale to that power."""
        losses = {pair: loss * scales.get(pair[0], 1.0) ** power for pair, loss in self.losses.items()}
        return replace(self, losses=losses)


def scales_around(space: Space, mix: Mix, order: Order, scratch: Path, progress: Progress) -> dict[str, float]:
    """Measured step by predicted step, by unit. order: model and texts; options and scenarios are set here."""
    tried = {unit.name: (mix[unit.name], *space.neighbour(unit.name, mix[unit.name])) for unit in space.units}
    layers = {layer: _quantized(tried[unit.name]) for unit in space.units for layer in unit.layers}
    asked = replace(order, options=layers, solved=layers, scenarios=_scenarios(space, mix, tried))
    kl = {row.layer: row.value for row in survey(asked, scratch, progress)[0] if row.measure == "kl"}
    found = {}
    for unit in space.units:
        near = sorted(tried[unit.name], key=lambda one: space.sizes[unit.name, str(one)])
        steps = [(_kl(kl, unit, one, mix), space.loss(unit.name, one)) for one in near]
        measured, predicted = (sum(a - b for a, b in pairwise(column)) for column in zip(*steps, strict=True))
        if predicted > 0:
            found[unit.name] = min(max(measured / predicted, LEAST), MOST)
    return found


def _scenarios(space: Space, mix: Mix, tried: Mapping[str, Sequence[Option]]) -> tuple[Scenario, ...]:
    base = {layer: mix[unit.name] for unit in space.units for layer in unit.layers if not mix[unit.name].keeps}
    found = [Scenario(MIX, base)]
    for unit in space.units:
        for option in tried[unit.name][1:]:
            changed = {**base, **dict.fromkeys(unit.layers, option)}
            kept = {layer: one for layer, one in changed.items() if not one.keeps}
            found.append(Scenario(f"{unit.name}={option}", kept, MIX))
    return tuple(found)


def _kl(kl: Mapping[str, float], unit: Unit, option: Option, mix: Mix) -> float:
    return kl[MIX] if option == mix[unit.name] else kl[f"{unit.name}={option}"]


def _quantized(options: Sequence[Option]) -> list[Option]:
    return [one for one in options if not one.keeps]
