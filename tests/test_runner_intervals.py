"""Intervals cover the truth as often as they say, p-values are their inversion, degenerate samples stay honest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantrecipe.runner.intervals import mean_interval
from quantrecipe.runner.stats.evidence import Exact, Quantity, relative_increase
from quantrecipe.runner.stats.mean import Mean, block_sums, student, without_skew
from quantrecipe.runner.stats.share import Accuracy, Drop, Share
from quantrecipe.runner.stats.spending import ALPHA, holm, look_sizes, spent


def test_one_part_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 30).tolist()
    part = student(values, 30)
    low, high = stats.t.interval(0.95, 29, np.mean(values), stats.sem(values))
    assert (part.low(0.025), part.high(0.025)) == pytest.approx((low, high))
    assert part.p_over(0.4) == pytest.approx(stats.ttest_1samp(values, 0.4, alternative="greater").pvalue)
    assert part.p_under(1.2) == pytest.approx(stats.ttest_1samp(values, 1.2, alternative="less").pvalue)


@pytest.mark.parametrize("count", [2, 39, 40, 79, 80, 81, 410, 1000])
def test_blocks_are_contiguous_even_and_at_least_forty_where_there_are_that_many(count: int) -> None:
    sums = block_sums([1.0] * count, Mean([1.0] * count).blocks)
    sizes = [size for _, size in sums]
    assert sum(sizes) == count == sum(total for total, _ in sums)
    assert max(sizes) - min(sizes) <= 1
    assert len(sums) >= min(count, 40)


def test_halls_transformation_is_undone_and_leans_to_the_long_tail() -> None:
    values = np.random.default_rng(1).exponential(size=50).tolist()
    plain, bent = student(values, 50), without_skew(values, 50)
    for t in (-3.0, -1.0, 0.5, 4.0):
        assert bent._untransformed(bent._transformed(t)) == pytest.approx(t)
    assert bent.high(0.025) > plain.high(0.025)
    assert bent.low(0.025) > plain.low(0.025)


QUANTITIES: list[Quantity] = [
    Mean(np.random.default_rng(2).lognormal(size=300).tolist()),
    relative_increase(Mean((0.01 + 0.02 * np.random.default_rng(3).normal(size=90)).tolist())),
    Share(np.random.default_rng(4).binomial(30, 0.9, 60) / 30, 30),
    Accuracy(37, 50),
    Drop(9, 3, 80),
]


@given(st.sampled_from(QUANTITIES), st.floats(0.5, 0.999), st.booleans())
def test_p_values_invert_the_interval(quantity: Quantity, confidence: float, upper: bool) -> None:
    found, alpha = quantity.interval(confidence), (1 - confidence) / 2
    assert found.low is not None
    assert found.high is not None
    p_value = quantity.p_under(found.high) if upper else quantity.p_over(found.low)
    assert found.low <= quantity.value <= found.high
    assert p_value <= alpha + 1e-9 or isinstance(quantity, Share | Drop)
    assert quantity.p_over(found.low - 1e-3) <= alpha + 1e-6
    assert quantity.p_under(found.high + 1e-3) <= alpha + 1e-6


def _normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=count)


def _heavy(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_t(3, size=count)


def _skewed(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.exponential(size=count) - 1


def _neighbours(rng: np.random.Generator, count: int) -> np.ndarray:
    noise = rng.normal(size=count + 1)
    return noise[1:] + 0.5 * noise[:-1]


def _five_documents(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=count) + 0.5 * rng.normal(size=5)[np.arange(count) * 5 // count]


@pytest.mark.parametrize(
    ("draw", "count"), [(_normal, 40), (_heavy, 60), (_skewed, 40), (_neighbours, 400), (_five_documents, 80)]
)
def test_each_side_errs_at_most_one_time_in_twenty(draw: object, count: int) -> None:
    """Nominally one in forty; the slack of the test is two standard errors of the simulation."""
    rng, over, under, trials = np.random.default_rng(7), 0, 0, 400
    for _ in range(trials):
        found = mean_interval(draw(rng, count).tolist())  # type: ignore[operator]
        over += found.low > 0  # type: ignore[operator]
        under += found.high < 0  # type: ignore[operator]
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
    assert over / trials <= most
    assert under / trials <= most


def test_windows_that_resemble_their_neighbours_need_the_blocks() -> None:
    """Without blocks the same data would be covered far less often; that is what they are for."""
    rng, hits = np.random.default_rng(7), 0
    for _ in range(400):
        values = _neighbours(rng, 400)
        low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
        hits += low <= 0 <= high
    assert hits / 400 < 0.9


def test_all_agree_is_not_certainty() -> None:
    share = Share([1.0] * 50, trials=100)
    found = share.interval()
    assert found.high == 1.0
    assert found.low == pytest.approx(stats.binomtest(5000, 5000).proportion_ci(0.95, "exact").low)
    assert share.p_over(0.999) == pytest.approx(stats.binomtest(5000, 5000, 0.999, "greater").pvalue)
    assert share.p_under(1.0) == 1.0


def test_wilsons_interval_is_scipys() -> None:
    found = Accuracy(7, 20).interval()
    reference = stats.binomtest(7, 20).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_a_drop_without_one_changed_answer_has_room_for_doubt() -> None:
    found = Drop(0, 0, 40).interval()
    assert found.value == 0
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high < 0.1


def test_drop_covers_for_few_questions() -> None:
    rng, misses = np.random.default_rng(5), 0
    for _ in range(1000):
        lost, won = rng.multinomial(60, [0.1, 0.05, 0.85])[:2]
        found = Drop(int(lost), int(won), 60).interval()
        misses += not found.low <= 0.05 <= found.high  # type: ignore[operator]
    assert misses / 1000 <= 0.065


def test_one_window_has_no_interval_and_settles_nothing() -> None:
    found = mean_interval([0.5])
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert Mean([0.5]).p_over(-1) == Mean([0.5]).p_under(1) == 1.0


def test_without_spread_the_mean_is_compared_as_it_is() -> None:
    same = Mean([0.25] * 10)
    assert (same.p_under(0.25), same.p_over(0.25), same.p_under(0.2), same.p_over(0.3)) == (0, 0, 1, 1)
    assert (Exact(3).p_over(2), Exact(3).p_over(3)) == (0, 1)


@given(st.integers(2, 500), st.integers(2, 5000))
def test_looks_are_at_most_five_rise_and_spend_alpha(first: int, most: int) -> None:
    sizes = look_sizes(first, most)
    assert len(sizes) <= 5
    assert sizes[-1] == most
    assert sizes == sorted(set(sizes))
    assert sizes[0] == min(first, most)
    assert sum(spent(sizes)) == pytest.approx(ALPHA)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}
