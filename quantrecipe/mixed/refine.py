"""The chosen mix measured, and moved while it pays.

Each round measures what the next step of every unit is worth around the best mix so far (slopes.py), chooses anew
within the same bytes, and measures the mix that comes out: some units go up, others down. It becomes the best only
where its measured KL is less. A uniform recipe within the same bytes is measured too, so the answer is never worse
than that on the measured windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantrecipe.mixed.knapsack import Problem, choose
from quantrecipe.mixed.measures.survey import Order
from quantrecipe.mixed.mix import Measured, MixMeter
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.slopes import Mix, Space, scales_around
from quantrecipe.mixed.table import cache_folder
from quantrecipe.plugins.contract import Progress

#: Rounds at the most, by effort.
ROUNDS = {"low": 0, "default": 1, "high": 4}
#: Steps that a round tries: all the way to the new choice, then half of what its scales say.
POWERS = (1.0, 0.5)


@dataclass(frozen=True, slots=True)
class Trial:
    """One mix. name: ``predicted best``, ``uniform w3a16-g64:gptq``, ``round 1``. predicted: nats a token."""

    name: str
    mix: Mix
    predicted: float
    measured: Measured

    @property
    def kl(self) -> float:
        """Measured, nats a token."""
        return self.measured.mean_kl


@dataclass(frozen=True, slots=True)
class Refined:
    """best: the trial of least measured KL. trials: all, in the order in which they were measured."""

    best: Trial
    trials: tuple[Trial, ...]

    def lines(self) -> list[str]:
        """Predicted against measured, a line a trial."""
        return [
            f"{one.name}: KL {one.kl:.5f} measured, {one.predicted:.5f} predicted ({_ratio(one)})"
            for one in self.trials
        ]


def _ratio(one: Trial) -> str:
    return f"{one.predicted / one.kl:.2f} of it" if one.kl > 0 else "nothing lost"


def refine(  # noqa: PLR0913, PLR0917
    space: Space, room: int, start: Mix, meter: MixMeter, order: Order, rounds: int, progress: Progress
) -> Refined:
    """The best mix within ``room`` bytes of units, from a start that fits. order: model and texts of the surveys."""
    run = _Refinement(space, room, meter, order, progress)
    run.measure("predicted best", start)
    uniform = uniform_within(space, room)
    if uniform is not None:
        run.measure(f"uniform {uniform}", {unit.name: uniform for unit in space.units})
    for number in range(1, rounds + 1):
        if not run.round(number):
            break
    return Refined(run.best, tuple(run.trials))


def uniform_within(space: Space, room: int) -> Option | None:
    """The option that all units have, that fits, and that is predicted to lose least; None where none fits."""
    common = set.intersection(*(set(space.options[unit.name]) for unit in space.units))
    mixes: dict[Option, Mix] = {one: {unit.name: one for unit in space.units} for one in common}
    fitting = [one for one in common if space.bytes(mixes[one]) <= room]
    return min(fitting, key=lambda one: (space.predicted(mixes[one]), str(one)), default=None)


def choose_within(space: Space, room: int) -> dict[str, Option]:
    """The mix of least predicted loss."""
    losses = tuple(tuple(space.loss(unit.name, one) for one in space.options[unit.name]) for unit in space.units)
    sizes = tuple(tuple(space.sizes[unit.name, str(one)] for one in space.options[unit.name]) for unit in space.units)
    picks = choose(Problem(losses, sizes), room).picks
    return {unit.name: space.options[unit.name][pick] for unit, pick in zip(space.units, picks, strict=True)}


class _Refinement:
    """One search under way."""

    def __init__(self, space: Space, room: int, meter: MixMeter, order: Order, progress: Progress) -> None:
        self.space, self.room, self.meter, self.order, self.progress = space, room, meter, order, progress
        self.trials: list[Trial] = []

    @property
    def best(self) -> Trial:
        """Of those measured so far."""
        return min(self.trials, key=lambda one: one.kl)

    def measure(self, name: str, mix: Mix) -> Trial:
        """Measure a mix and note it."""
        trial = Trial(name, dict(mix), self.space.predicted(mix), self.meter.measure(mix))
        self.trials.append(trial)
        self.progress.note(Refined(trial, (trial,)).lines()[0])
        return trial

    def round(self, number: int) -> bool:
        """Try moves around the best; whether one paid."""
        before = self.best
        home = cache_folder(self.meter.home, {"around": str(sorted(_names(before.mix).items()))})
        scales = scales_around(self.space, before.mix, self.order, home, self.progress)
        for power in POWERS:
            found = choose_within(self.space.scaled(scales, power), self.room)
            if any(_names(found) == _names(one.mix) for one in self.trials):
                continue
            if self.measure(f"round {number}", found).kl < before.kl:
                return True
        return False


def _names(mix: Mapping[str, Option]) -> dict[str, str]:
    return {unit: str(option) for unit, option in mix.items()}
