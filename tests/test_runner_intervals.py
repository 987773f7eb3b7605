"""Intervals cover the truth as often as they say, and degenerate samples stay honest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from quantrecipe.runner.intervals import block_sums, mean_interval, share_interval


def test_independent_windows_give_students_interval() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 30)
    found = mean_interval(values.tolist())
    low, high = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert found.blocks == 30


@pytest.mark.parametrize("count", [2, 39, 40, 79, 80, 81, 410, 1000])
def test_blocks_are_contiguous_even_and_at_least_forty_where_there_are_that_many(count: int) -> None:
    sums = block_sums([1.0] * count)
    sizes = [size for _, size in sums]
    assert sum(sizes) == count == sum(total for total, _ in sums)
    assert max(sizes) - min(sizes) <= 1
    assert len(sums) >= min(count, 40)


def _coverage(draw: object, count: int, trials: int = 1500) -> float:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(trials):
        found = mean_interval(draw(rng, count).tolist())  # type: ignore[operator]
        hits += found.low <= 0.0 <= found.high  # type: ignore[operator]
    return hits / trials


def _normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=count)


def _heavy(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_t(3, size=count)


def _neighbours(rng: np.random.Generator, count: int) -> np.ndarray:
    noise = rng.normal(size=count + 1)
    return noise[1:] + 0.5 * noise[:-1]


@pytest.mark.parametrize(
    ("draw", "count", "least"), [(_normal, 10, 0.935), (_heavy, 60, 0.935), (_neighbours, 400, 0.93)]
)
def test_coverage_by_simulation(draw: object, count: int, least: float) -> None:
    assert least <= _coverage(draw, count) <= 0.975


def test_windows_that_resemble_their_neighbours_need_the_blocks() -> None:
    """Without blocks the same data would be covered far less often; that is what they are for."""
    rng, hits = np.random.default_rng(7), 0
    for _ in range(800):
        values = _neighbours(rng, 400)
        low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
        hits += low <= 0 <= high
    assert hits / 800 < 0.9


def test_all_agree_is_not_certainty() -> None:
    found = share_interval([1.0] * 50, trials=100)
    assert found.high == 1.0
    assert found.low == pytest.approx(stats.binomtest(5000, 5000).proportion_ci(0.95, "exact").low)


def test_one_window_has_no_interval() -> None:
    found = mean_interval([0.5])
    assert (found.value, found.low, found.high) == (0.5, None, None)


def test_map_keeps_the_order() -> None:
    found = mean_interval([0.0, 0.1, 0.2]).map(math.expm1)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
