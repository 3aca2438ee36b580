"""Statistics compared with scipy: the rank test, ties, the bootstrap, the correction for multiple comparisons."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadsim.compare.statistics import (
    difference_interval,
    holm,
    mann_whitney,
    median_interval,
    repeats_needed,
)

SHAPES = [(1, 1), (3, 4), (4, 4), (6, 6), (5, 9), (12, 10), (30, 30), (50, 50), (2, 900)]


@pytest.mark.parametrize(("size", "other"), SHAPES)
@pytest.mark.parametrize("shift", [0.0, 0.7, 5.0])
def test_rank_test_without_ties(size: int, other: int, shift: float) -> None:
    """The exact p-value equals that of scipy."""
    draw = np.random.default_rng(size * 100 + other)
    a, b = draw.normal(size=size), draw.normal(shift, size=other)

    expected = stats.mannwhitneyu(a, b, method="exact").pvalue
    assert mann_whitney(a.tolist(), b.tolist()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 1, 2, 3, 3], [2, 3, 3, 4, 4]),
        ([0, 0, 0, 0, 0, 0], [0, 0, 0, 5, 7, 9]),
        ([129, 129, 129], [129, 129, 130, 131]),
        ([2, 2], [2, 2, 2]),
        ([1, 4, 4, 9, 9, 9], [1, 1, 4]),
    ],
)
def test_rank_test_with_ties(a: list[float], b: list[float]) -> None:
    """The p-value equals that of scipy's permutation test over all permutations."""
    test = stats.permutation_test(
        (a, b),
        lambda x, y, axis: stats.mannwhitneyu(x, y, axis=axis).statistic,
        n_resamples=np.inf,
        vectorized=True,
        permutation_type="independent",
    )

    assert mann_whitney(a, b) == pytest.approx(test.pvalue, rel=1e-9)


FEW = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@given(FEW, FEW)
def test_rank_test_counts_every_division(a: list[int], b: list[int]) -> None:
    """With any number of ties, the p-value counts the smaller tail of all divisions of the midranks."""
    ranks = (2 * stats.rankdata([*a, *b])).astype(int).tolist()
    sums = [sum(division) for division in itertools.combinations(ranks, len(a))]

    observed = sum(ranks[: len(a)])
    tail = min(sum(one <= observed for one in sums), sum(one >= observed for one in sums))
    assert mann_whitney(a, b) == pytest.approx(min(1, 2 * tail / len(sums)), rel=1e-12)


def test_rank_test_of_one_against_many_ties() -> None:
    """If nearly all values are equal, the p-value equals a count by hand."""
    a, b = [0.0] * 30, [*[0.0] * 29, 1.0]

    assert mann_whitney(a, b) == 1
    assert mann_whitney(a, [*[0.0] * 25, *[1.0] * 5]) == pytest.approx(
        2 * math.comb(30, 5) / math.comb(60, 5), rel=1e-12
    )


def test_rank_test_of_many_values() -> None:
    """For large groups the p-value equals scipy's normal approximation, also with ties."""
    draw = np.random.default_rng(1)
    a, b = draw.integers(0, 20, 60), draw.integers(3, 23, 70)

    expected = stats.mannwhitneyu(a, b, method="asymptotic").pvalue
    assert mann_whitney(a.tolist(), b.tolist()) == pytest.approx(expected, rel=1e-9)
    assert mann_whitney([1.0] * 60, [1.0] * 60) == 1


def test_rank_test_needs_two_groups() -> None:
    """An empty group raises ValueError."""
    with pytest.raises(ValueError, match="both groups need a value"):
        mann_whitney([], [1.0])


def test_bootstrap_of_the_median() -> None:
    """The interval is near the exact one over all resamples, and the seed determines it."""
    values = [3.0, 5.0, 4.0, 9.0]
    medians = sorted(float(np.median(drawn)) for drawn in itertools.product(values, repeat=4))

    interval = median_interval(values, seed=7, level=0.8)
    assert interval == pytest.approx(tuple(np.percentile(medians, [10, 90])), abs=0.3)
    assert interval == median_interval(values, seed=7, level=0.8)
    assert median_interval([4.2], seed=7) == (4.2, 4.2)
    low, high = median_interval(values, seed=7, resamples=1)
    assert low == high
    assert low in medians


def test_bootstrap_agrees_with_scipy() -> None:
    """The percentile intervals of a median and of a difference of medians equal scipy's."""
    draw = np.random.default_rng(3)
    a, b = draw.normal(10, 1, 25), draw.normal(12, 2, 25)
    options = {"method": "percentile", "n_resamples": 9999, "rng": np.random.default_rng(4)}

    own = stats.bootstrap((a,), np.median, **options).confidence_interval
    both = stats.bootstrap((b, a), lambda x, y, axis: np.median(x, axis) - np.median(y, axis), **options)
    assert median_interval(a.tolist(), seed=1) == pytest.approx((own.low, own.high), abs=0.05)
    expected = (both.confidence_interval.low, both.confidence_interval.high)
    assert difference_interval(a.tolist(), b.tolist(), seed=1) == pytest.approx(expected, abs=0.1)


def test_holm_by_hand() -> None:
    """The smallest of n values is multiplied by n, the next by n - 1, and none is smaller than its predecessor."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_none_and_bonferroni(p_values: list[float]) -> None:
    """Corrected values keep their order and are between the raw values and Bonferroni's."""
    adjusted = holm(p_values)

    assert all(raw <= one <= min(1, raw * len(p_values)) + 1e-12 for raw, one in zip(p_values, adjusted, strict=True))
    assert sorted(adjusted) == [one for _, one in sorted(zip(p_values, adjusted, strict=True))]


@pytest.mark.parametrize(("comparisons", "repeats"), [(1, 4), (10, 6), (15, 6), (21, 6), (28, 7)])
def test_repeats_needed(comparisons: int, repeats: int) -> None:
    """With one run fewer per group, the smallest possible p-value does not survive the correction."""
    assert repeats_needed(comparisons) == repeats
    extreme = [2 * comparisons / math.comb(2 * n, n) for n in (repeats - 1, repeats)]
    assert extreme[0] > 0.05 >= extreme[1]
    apart = mann_whitney(list(range(repeats)), list(range(repeats, 2 * repeats)))
    assert apart * comparisons == pytest.approx(extreme[1])
