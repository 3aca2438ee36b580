"""Few numbers per group, and whether two groups differ: exact, seeded, and free of assumptions about their shape.

The unit is the run: connections of one run are correlated, and a test over them finds differences that are not there.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_RESAMPLES = 9_999
#: Above this product of group sizes the exact distribution takes longer than a reader would wait.
_EXACT_UP_TO = 2_500
ALPHA = 0.05


def median_interval(
    values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median (Efron 1979), both ends the value where there is one."""
    return _interval(_medians(values, seed, resamples), level)


def difference_interval(
    a: Sequence[float], b: Sequence[float], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of median of b - median of a, each group resampled by itself."""
    return _interval(_medians(b, seed + 1, _RESAMPLES) - _medians(a, seed, _RESAMPLES), level)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the exact two-sided p-value of the Mann-Whitney rank test, ties by midranks.

    Twice the smaller tail of the permutation distribution of the rank sum, at most 1; without ties that is what
    `scipy.stats.mannwhitneyu(method="exact")` gives, with ties `scipy.stats.permutation_test`. Above 2,500 pairs of
    values: the normal approximation with corrections for ties and continuity. Raises ValueError where a group is empty.
    """
    if not a or not b:
        raise ValueError("both groups need a value")
    doubled = _doubled_midranks(np.concatenate([np.asarray(a, dtype=float), np.asarray(b, dtype=float)]))
    if len(a) * len(b) > _EXACT_UP_TO:
        return _normal(doubled, len(a))
    ways, observed = _rank_sums(doubled, len(a))
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum())
    return min(1.0, 2 * float(tail) / math.comb(len(doubled), len(a)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): as large as the largest before them, at most 1."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def repeats_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """Return how many runs of each group let the most extreme outcome, 2 / C(2n, n), survive so many comparisons."""
    repeats = 1
    while 2 * comparisons / math.comb(2 * repeats, repeats) > alpha:
        repeats += 1
    return repeats


def _medians(values: Sequence[float], seed: int, resamples: int) -> npt.NDArray[np.float64]:
    """Return the median of each resample."""
    own = np.sort(np.asarray(values, dtype=float))
    low, high = _middles(len(own), seed, resamples)
    medians: npt.NDArray[np.float64] = (own[low] + own[high]) / 2
    return medians


@functools.lru_cache(maxsize=8)
def _middles(size: int, seed: int, resamples: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which of the sorted values are in the middle of each resample: the same for all metrics of a group."""
    drawn = np.sort(np.random.default_rng(seed).integers(size, size=(resamples, size)), axis=1)
    return drawn[:, (size - 1) // 2], drawn[:, size // 2]


def _interval(statistics: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.percentile(statistics, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _doubled_midranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return twice the rank of each value, from 1; equal ones share the middle of theirs, so that all are whole."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    doubled: npt.NDArray[np.int64] = (2 * last - counts + 1)[inverse]
    return doubled


def _rank_sums(ranks: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.float64], int]:
    """Return in how many ways `size` of these ranks add up to each sum, and the sum of the first `size` of them.

    Sums count from the smallest rank in the largest common step, which keeps the table small. Floats are exact up to
    2^53 ways, groups of 28; beyond, nothing is ever subtracted, so that the error stays that of rounding.
    """
    steps = ranks - ranks.min()
    steps //= max(int(np.gcd.reduce(steps)), 1)
    ways = np.zeros((size + 1, int(np.sort(steps)[-size:].sum()) + 1))
    ways[0, 0] = 1
    for step in steps.tolist():
        ways[1:, step:] += ways[:-1, : ways.shape[1] - step]
    return ways[size], int(steps[:size].sum())


def _normal(doubled: npt.NDArray[np.int64], size: int) -> float:
    """Return the two-sided p-value of the rank sum as a normal variable (Lehmann 1975, 1.2 and 1.4)."""
    count, others = len(doubled), len(doubled) - size
    excess = abs(doubled[:size].sum() / 2 - size * (count + 1) / 2)
    _, ties = np.unique(doubled, return_counts=True)
    variance = size * others / 12 * (count + 1 - (ties**3 - ties).sum() / (count * (count - 1)))
    if variance <= 0:
        return 1.0
    return min(1.0, math.erfc(max(excess - 0.5, 0.0) / math.sqrt(2 * variance)))
