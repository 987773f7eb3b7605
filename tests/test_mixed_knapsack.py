"""The knapsack against brute force, and at the size of a real model."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.knapsack import Choice, choose, frontier
from quantrecipe.mixed.relaxation import Problem

LOSS = st.one_of(st.integers(0, 6).map(float), st.floats(0, 1, width=32), st.floats(1e-9, 1e-7))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    scale = draw(st.sampled_from([1, 7, 1_000_003]))
    losses = tuple(tuple(draw(LOSS) for _ in range(count)) for count in counts)
    sizes = tuple(tuple(scale * draw(st.integers(1, 30)) for _ in range(count)) for count in counts)
    return Problem(losses, sizes)


def _all(problem: Problem) -> list[tuple[int, float]]:
    """(size, loss) of every choice."""
    every = itertools.product(*(range(len(options)) for options in problem.sizes))
    return [(problem.size(picks), problem.loss(picks)) for picks in every]


def _check(problem: Problem, one: Choice, budget: int) -> None:
    """What must hold of any choice, whatever the optimum."""
    assert len(one.picks) == len(problem.sizes)
    assert one.size == problem.size(one.picks) <= budget
    assert one.loss == problem.loss(one.picks) and one.bound <= one.loss


@settings(max_examples=150, deadline=None)
@given(problems(), st.floats(0, 1.1))
def test_the_choice_is_the_best_of_all_that_fit(problem: Problem, share: float) -> None:
    most = sum(map(max, problem.sizes))
    budget = max(problem.least, int(problem.least + share * (most - problem.least)))
    one = choose(problem, budget)
    _check(problem, one, budget)
    best = min(loss for size, loss in _all(problem) if size <= budget)
    assert one.loss == pytest.approx(best, rel=1e-9, abs=1e-15)
    assert one.bound <= best * (1 + 1e-9) + 1e-15 and one.gap < 1e-6
    if one.sated:
        assert best == pytest.approx(sum(map(min, problem.losses)), rel=1e-9, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_the_frontier_is_every_choice_that_none_beats(problem: Problem) -> None:
    wanted: list[tuple[int, float]] = []
    for size, loss in sorted(set(_all(problem))):
        if not wanted or loss < wanted[-1][1] * (1 - 1e-9) - 1e-15:
            wanted.append((size, loss))
    found = [(one.size, one.loss) for one in frontier(problem)][::-1]
    kept: list[tuple[int, float]] = []
    for size, loss in found:
        if not kept or loss < kept[-1][1] * (1 - 1e-9) - 1e-15:
            kept.append((size, loss))
    assert [size for size, _ in kept] == [size for size, _ in wanted]
    assert [loss for _, loss in kept] == pytest.approx([loss for _, loss in wanted], rel=1e-9, abs=1e-15)


def _model(units: int, options: int, seed: int = 0) -> Problem:
    """Units of a model's shapes; loss falls about fourfold a bit, unevenly."""
    import random

    chooser = random.Random(seed)
    shapes = [576 * 960, 576 * 576, 2 * 1536 * 576, 1536 * 576]
    losses, sizes = [], []
    for unit in range(units):
        weight, sensitivity = shapes[unit % 4], 10 ** chooser.uniform(-3, -1)
        bits = sorted(chooser.uniform(2, 9) for _ in range(options))
        losses.append(tuple(sensitivity * 4.0 ** -(one - 2) * chooser.uniform(0.7, 1.3) for one in bits))
        sizes.append(tuple(int(weight * one / 8) // 16 * 16 for one in bits))
    return Problem(tuple(losses), tuple(sizes))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.37, 0.6, 0.95])
def test_two_hundred_units_of_twelve_options_are_solved_to_the_end(share: float) -> None:
    problem = _model(200, 12)
    budget = int(problem.least + share * (problem.most - problem.least))
    start = time.perf_counter()
    one = choose(problem, budget)
    assert time.perf_counter() - start < 10
    _check(problem, one, budget)
    assert one.gap < 1e-6 and one.used > 0.995 and one.price > 0


def test_the_price_is_what_a_little_more_saves() -> None:
    problem = _model(200, 12)
    budget = (problem.least + problem.most) // 2
    one, more = choose(problem, budget), choose(problem, budget + 1_000_000)
    assert (one.loss - more.loss) / 1_000_000 == pytest.approx(one.price, rel=0.1)


def test_a_budget_below_the_smallest_names_the_least() -> None:
    with pytest.raises(QuantRecipeError, match="at least 30 bytes"):
        choose(Problem(((0.0, 1.0),), ((40, 30),)), 29)


def test_more_than_enough_gives_every_unit_its_least_loss_in_its_least_bytes() -> None:
    one = choose(Problem(((3.0, 0.0, 0.0), (1.0, 0.5, 2.0)), ((1, 9, 8), (2, 4, 99))), 1000)
    assert one.picks == (2, 1) and one.sated and one.size == 12


def test_nothing_but_the_caller_writes_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS prints a line on this one, and an answer in JSON shares its output."""
    problem = _model(200, 12, seed=1)
    print("before")
    choose(problem, (problem.least + problem.most) // 2)
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"
