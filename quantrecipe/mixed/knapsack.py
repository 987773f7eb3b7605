"""The multiple-choice knapsack: one option a unit, least total loss within a budget of bytes, proved optimal.

minimise sum_u loss[u, o(u)] subject to sum_u size[u, o(u)] <= budget. Bounds and the price of a byte come from the
linear relaxation (mixed/relaxation.py), the optimum from HiGHS through scipy.optimize.milp.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.quiet import quiet
from quantrecipe.mixed.relaxation import Problem, Relaxed, relax, undominated

__all__ = ["Choice", "Problem", "choose", "frontier"]

#: What HiGHS's objective is scaled to, far above its absolute tolerance of 1e-6.
_SCALE = 1e4
#: The largest size in HiGHS's constraint: its absolute tolerance of 1e-6 is then far below a byte in a thousand
#: million, and far above what doubles lose in a sum.
_ROW = 1e3


class Choice(NamedTuple):
    """picks: index of each unit's option. size: bytes. bound: no choice within the budget loses less.

    price: loss saved by one more byte, in the linear relaxation; 0 where more bytes cannot help.
    """

    picks: tuple[int, ...]
    loss: float
    size: int
    budget: int
    bound: float
    price: float

    @property
    def gap(self) -> float:
        """What of the loss is not proved to be necessary, as a share of it."""
        return max(self.loss - self.bound, 0.0) / self.loss if self.loss > 0 else 0.0

    @property
    def used(self) -> float:
        """Share of the budget that is used."""
        return self.size / self.budget

    @property
    def sated(self) -> bool:
        """Whether every unit has its least loss, so that more bytes cannot help."""
        return self.price == 0.0


def choose(problem: Problem, budget: int) -> Choice:
    """The choice of least loss that fits. Raises QuantRecipeError, naming the least bytes, where none does."""
    least = problem.least
    if least > budget:
        raise QuantRecipeError("no choice fits the budget", value=f"{budget} bytes", limit=f"at least {least} bytes")
    kept = undominated(problem)
    relaxed = relax(problem, kept, budget)
    if relaxed.price == 0.0:
        return _choice(problem, relaxed.picks, budget, relaxed.bound, 0.0)
    open_ = _reduced(problem, kept, relaxed)
    picks, bound = _solve(problem, open_, budget, relaxed)
    return _choice(problem, picks, budget, bound, relaxed.price)


def frontier(problem: Problem, step: int = 1) -> Iterator[Choice]:
    """Optimal choices from the most useful bytes down to the least, each at least ``step`` bytes below the last.

    With ``step`` 1 it is every point that no choice beats in both bytes and loss.
    """
    least, budget = problem.least, problem.most
    held: Choice | None = None
    while budget >= least:
        one = choose(problem, budget)
        if held is not None and one.loss > held.loss:
            yield held
        held = one
        budget = one.size - step if one.size - step >= least or one.size == least else least
    if held is not None:
        yield held


def _choice(problem: Problem, picks: tuple[int, ...], budget: int, bound: float, price: float) -> Choice:
    loss = problem.loss(picks)
    return Choice(picks, loss, problem.size(picks), budget, min(bound, loss), price)


def _reduced(problem: Problem, kept: list[list[int]], relaxed: Relaxed) -> list[list[int]]:
    """The options that a choice better than the known one could still have, by their reduced costs."""
    slack = (problem.loss(relaxed.picks) - relaxed.bound) * (1 + 1e-9) + 1e-12 * abs(relaxed.bound)
    found = []
    for unit, options in enumerate(kept):
        costs = [problem.losses[unit][one] + relaxed.price * problem.sizes[unit][one] for one in options]
        least = min(costs)
        found.append(
            [one for one, cost in zip(options, costs, strict=True)
             if cost - least <= slack or one == relaxed.picks[unit]]
        )  # fmt: skip
    return found


def _solve(problem: Problem, open_: list[list[int]], budget: int, relaxed: Relaxed) -> tuple[tuple[int, ...], float]:
    """The optimum over the open options, and HiGHS's bound; sizes are added up again in whole numbers.

    HiGHS keeps a constraint to a tolerance: where its choice is over the budget, it is asked again for a byte less
    than that choice.
    """
    base = sum(min(problem.sizes[unit][one] for one in options) for unit, options in enumerate(open_))
    limit = budget
    while limit >= base:
        result = _highs(problem, open_, limit, relaxed)
        if result.x is None:
            break
        picks = _picked(open_, result.x)
        if problem.size(picks) <= budget:
            better = picks if problem.loss(picks) <= problem.loss(relaxed.picks) else relaxed.picks
            return better, max(relaxed.bound, _bound(result, problem, open_, relaxed))
        limit = min(limit, problem.size(picks)) - 1
    return relaxed.picks, relaxed.bound


def _scale(problem: Problem, relaxed: Relaxed) -> float:
    """What losses are multiplied by."""
    return _SCALE / max(problem.loss(relaxed.picks), 1e-300)


def _bound(result: Any, problem: Problem, open_: list[list[int]], relaxed: Relaxed) -> float:
    floor = sum(min(problem.losses[unit][one] for one in options) for unit, options in enumerate(open_))
    return float(result.mip_dual_bound) / _scale(problem, relaxed) + floor


def _highs(problem: Problem, open_: list[list[int]], limit: int, relaxed: Relaxed) -> Any:
    """scipy's result; variables in the order of ``open_``. Losses and sizes count from each unit's least."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, vstack

    units = np.repeat(np.arange(len(open_)), [len(options) for options in open_])
    loss, size = [], []
    for unit, options in enumerate(open_):
        low = min(problem.losses[unit][one] for one in options)
        small = min(problem.sizes[unit][one] for one in options)
        loss += [problem.losses[unit][one] - low for one in options]
        size += [problem.sizes[unit][one] - small for one in options]
        limit -= small
    unit_size = max(size) / _ROW or 1.0
    one_each = csr_array((np.ones(len(units)), (units, np.arange(len(units)))), shape=(len(open_), len(units)))
    sizes = csr_array(np.array([size], dtype=np.float64) / unit_size)
    rows = vstack([one_each, sizes])
    low_row, high_row = np.ones(len(open_) + 1), np.ones(len(open_) + 1)
    low_row[-1], high_row[-1] = -np.inf, limit / unit_size
    with quiet():
        return milp(
            np.array(loss) * _scale(problem, relaxed),
            constraints=LinearConstraint(rows, low_row, high_row),
            integrality=np.ones(len(units)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )


def _picked(open_: list[list[int]], values: Any) -> tuple[int, ...]:
    """Each unit's option of the largest value."""
    picks, start = [], 0
    for options in open_:
        part = values[start : start + len(options)]
        picks.append(options[int(part.argmax())])
        start += len(options)
    return tuple(picks)
