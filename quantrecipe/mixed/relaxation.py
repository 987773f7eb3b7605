"""The linear relaxation of a multiple-choice knapsack, by the units' convex hulls (Sinha and Zoltners, 1979)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Problem:
    """losses[u][o] >= 0 and sizes[u][o] in bytes of option ``o`` of unit ``u``; units may have unlike counts."""

    losses: tuple[tuple[float, ...], ...]
    sizes: tuple[tuple[int, ...], ...]

    @property
    def least(self) -> int:
        """Bytes of the smallest choice."""
        return sum(map(min, self.sizes))

    @property
    def most(self) -> int:
        """Bytes of the smallest choice that gives every unit its least loss."""
        pairs = (zip(*both, strict=True) for both in zip(self.losses, self.sizes, strict=True))
        return sum(min(options)[1] for options in pairs)

    def loss(self, picks: tuple[int, ...]) -> float:
        """Sum over the units."""
        return sum(self.losses[unit][one] for unit, one in enumerate(picks))

    def size(self, picks: tuple[int, ...]) -> int:
        """Sum over the units, exact."""
        return sum(self.sizes[unit][one] for unit, one in enumerate(picks))


class Relaxed(NamedTuple):
    """picks: a whole choice that fits. bound: the relaxation's least loss. price: loss saved by one more byte."""

    picks: tuple[int, ...]
    bound: float
    price: float


class _Step(NamedTuple):
    """From one corner of a unit's hull to the next: loss saved a byte, unit, option reached, bytes it takes."""

    rate: float
    unit: int
    option: int
    size: int


def undominated(problem: Problem) -> list[list[int]]:
    """Options of each unit by rising size, without those that another beats or equals in both size and loss."""
    found = []
    for losses, sizes in zip(problem.losses, problem.sizes, strict=True):
        order = sorted(range(len(sizes)), key=lambda one: (sizes[one], losses[one], one))
        kept: list[int] = []
        for one in order:
            if not kept or losses[one] < losses[kept[-1]]:
                kept.append(one)
        found.append(kept)
    return found


def relax(problem: Problem, kept: list[list[int]], budget: int) -> Relaxed:
    """The relaxation's optimum: the steps of the best rate first, until one does not fit whole.

    The whole choice goes on behind that step with those that still fit.
    """
    picks = [options[0] for options in kept]
    spare = budget - problem.size(tuple(picks))
    steps = sorted((step for unit in range(len(kept)) for step in _hull(problem, unit, kept[unit])), reverse=True)
    bound, price = None, 0.0
    stopped: set[int] = set()
    for step in steps:
        if step.unit in stopped or step.size > spare:
            if bound is None:
                bound, price = problem.loss(tuple(picks)) - step.rate * spare, step.rate
            stopped.add(step.unit)
            continue
        picks[step.unit] = step.option
        spare -= step.size
    found = tuple(picks)
    return Relaxed(found, problem.loss(found) if bound is None else max(bound, 0.0), price)


def _hull(problem: Problem, unit: int, options: list[int]) -> list[_Step]:
    """The lower convex hull of (size, loss), as steps of falling rate."""
    corners: list[int] = []
    for one in options:
        while len(corners) > 1 and _rate(problem, unit, corners[-2], corners[-1]) <= _rate(
            problem, unit, corners[-1], one
        ):
            corners.pop()
        corners.append(one)
    return [
        _Step(_rate(problem, unit, *pair), unit, pair[1], problem.sizes[unit][pair[1]] - problem.sizes[unit][pair[0]])
        for pair in pairwise(corners)
    ]


def _rate(problem: Problem, unit: int, before: int, after: int) -> float:
    losses, sizes = problem.losses[unit], problem.sizes[unit]
    return (losses[before] - losses[after]) / (sizes[after] - sizes[before])
