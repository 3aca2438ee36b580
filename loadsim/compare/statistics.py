"""Estimates for groups with few runs, and tests whether groups differ: exact, seeded, distribution-free.

The unit is the run. Owns the estimates, the tests and the words `better`, `worse`, `same` and `cannot tell`.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics as plain
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsim.compare.comparison import Difference, Estimate, Pair, Row, Says
from loadsim.fates import Better
from loadsim.metrics import METRICS
from loadsim.scenario.fields import flattened

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy.typing as npt

    from loadsim.metrics import Metric

ALPHA = 0.05
#: Up to this number of groups, each is compared with each.
EACH_WITH_EACH = 12
_RESAMPLES = 9_999
#: Above this product of group sizes the exact distribution takes too long.
_EXACT_UP_TO = 2_500
#: Units of metrics that depend on the speed of the machine, and further such metrics. All others, such as fates, leaks,
#: overflows and EMFILE, are judged also between different hosts.
_SPEED_UNITS = frozenset({"s", "/s", "cores", "bytes", "bytes/s"})
_SPEED_METRICS = frozenset({"queue.full_share"})
#: Settings that are not compared.
_NOT_COMPARED = ("name", "description", "seed", "schema", "thresholds", "sweep")
#: Facts of host.json that must be equal to compare times.
_HOST_KIND = ("kernel", "machine", "cpu_model", "cpus_usable")
_ABSENT = "-"


def rows_of(
    groups: Sequence[Sequence[Mapping[str, float]]],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    min_effect: float = 0.05,
    alpha: float = ALPHA,
    seed: int = 1,
    unlike_hosts: bool = False,
) -> list[Row]:
    """Return a row for each metric that any run has, in the order of the metrics table; keys as in summary.json.

    `pairs` are the groups to compare, by default as in `pairs_of`. `min_effect` is the smallest relative difference
    that matters. Between unlike hosts, metrics that depend on the speed of the machine are not judged.
    """
    compared = pairs_of(len(groups)) if pairs is None else list(pairs)
    rows = []
    for metric in METRICS.values():
        values = [[run[metric.json_key] for run in group if metric.json_key in run] for group in groups]
        if any(values):
            judge = _Judge(metric, values, min_effect=min_effect, alpha=alpha, seed=seed)
            rows.append(judge.row(compared, blind=unlike_hosts and _depends_on_speed(metric)))
    return rows


def pairs_of(count: int) -> list[tuple[int, int]]:
    """Return the pairs of `count` groups: each with each; above 12 groups, each with its neighbours and both ends.

    With more pairs, a difference needs more runs to survive the correction, and 1,770 pairs are too many to read.
    """
    last = count - 1
    return [
        (a, b)
        for a, b in itertools.combinations(range(count), 2)
        if count <= EACH_WITH_EACH or b == a + 1 or a == 0 or b == last
    ]


def differences(groups: Sequence[Mapping[str, Any]], *, but: Collection[str] = ()) -> list[Difference]:
    """Return the facts that differ between groups, sorted by name, as text; names in `but` are left out."""
    names = sorted({name for group in groups for name in group} - set(but))
    facts = [(name, [group.get(name) for group in groups]) for name in names]
    return [
        Difference(name=name, values=[_text(value) for value in values])
        for name, values in facts
        if any(value != values[0] for value in values)  # 1 and 1.0 are one setting
    ]


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a summary by dotted name, without names, descriptions, seeds, thresholds and the sweep."""
    return flattened({name: value for name, value in settings.items() if name not in _NOT_COMPARED})


def flat_host(host: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of host.json by name, without the load average; memory is rounded to GB."""
    facts = {name: value for name, value in host.items() if name not in ("sysctls", "load_average", "memory_bytes")}
    if isinstance(memory := host.get("memory_bytes"), int):
        facts["memory"] = f"{memory / 1e9:.0f} GB"
    return facts | {f"sysctl {name}": value for name, value in dict(host.get("sysctls") or {}).items()}


def unlike(hosts: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether these hosts are of more than one kind."""
    return len({kind_of_host(host) for host in hosts}) > 1


def kind_of_host(host: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the facts that two hosts must share to compare their times: kernel, architecture, CPU, cores."""
    return tuple(_text(host.get(name)) for name in _HOST_KIND)


def median_interval(
    values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median (Efron 1979); for one value, both ends are that value."""
    return _interval(_medians(values, seed, resamples), level)


def difference_interval(
    a: Sequence[float], b: Sequence[float], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of median of b - median of a; each group is resampled separately."""
    return _interval(_medians(b, seed + 1, _RESAMPLES) - _medians(a, seed, _RESAMPLES), level)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the exact two-sided p-value of the Mann-Whitney rank test; ties get midranks.

    It is twice the smaller tail of the permutation distribution of the rank sum, at most 1. Without ties it equals
    `scipy.stats.mannwhitneyu(method="exact")`, with ties `scipy.stats.permutation_test`. Above 2,500 pairs of values
    the normal approximation is used, corrected for ties and continuity. Raises ValueError if a group is empty.
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
    """Return p-values corrected for multiple comparisons (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def repeats_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """Return the runs per group with which the smallest p-value, 2 / C(2n, n), survives the correction."""
    repeats = 1
    while 2 * comparisons / math.comb(2 * repeats, repeats) > alpha:
        repeats += 1
    return repeats


class _Judge:
    """Compares all groups in one metric."""

    def __init__(
        self, metric: Metric, values: Sequence[Sequence[float]], *, min_effect: float, alpha: float, seed: int
    ) -> None:
        self._metric = metric
        self._values = values
        self._min_effect = min_effect
        self._alpha = alpha
        self._seed = seed

    def row(self, compared: Sequence[tuple[int, int]], *, blind: bool) -> Row:
        """Return the row of the metric; Holm's correction covers the pairs of this metric."""
        possible = [(a, b) for a, b in compared if self._values[a] and self._values[b]]
        raw = [mann_whitney(self._values[a], self._values[b]) for a, b in possible]
        needed = repeats_needed(len(possible), self._alpha) if possible else 0
        return Row(
            metric=self._metric.name,
            unit=self._metric.unit,
            better=str(self._metric.better),
            estimates=[_estimate(values, self._seed) for values in self._values],
            pairs=[
                self._pair(pair, p, adjusted, Says.NOT_JUDGED if blind else None, needed)
                for pair, p, adjusted in zip(possible, raw, holm(raw), strict=True)
            ],
        )

    def _pair(self, pair: tuple[int, int], p: float, adjusted: float, says: Says | None, needed: int) -> Pair:  # noqa: PLR0917
        a, b = pair
        effect = _effect(plain.median(self._values[a]), plain.median(self._values[b]))
        result = says or self._says(pair, adjusted, effect)
        few = min(len(self._values[a]), len(self._values[b])) < needed
        return Pair(
            a=a,
            b=b,
            p=p,
            p_holm=adjusted,
            effect=effect,
            says=result,
            repeats_needed=needed if result is Says.CANNOT_TELL and few else None,
        )

    def _says(self, pair: tuple[int, int], adjusted: float, effect: float | None) -> Says:
        before, after = (self._values[index] for index in pair)
        matters = effect is None or (effect != 0 and abs(effect) >= self._min_effect)
        if adjusted <= self._alpha:
            return self._direction(plain.median(after) > plain.median(before)) if matters else Says.SAME
        if set(before) == set(after) and len(set(before)) == 1:
            return Says.SAME
        if min(len(before), len(after)) == 1:  # one run does not show the influence of chance
            return Says.CANNOT_TELL
        low, high = difference_interval(before, after, seed=self._seed)
        bound = self._min_effect * abs(plain.median(before))
        return Says.SAME if -bound <= low and high <= bound else Says.CANNOT_TELL

    def _direction(self, up: bool) -> Says:  # noqa: FBT001 -- one word decides
        if self._metric.better is Better.NEITHER:
            return Says.HIGHER if up else Says.LOWER
        return Says.BETTER if up == (self._metric.better is Better.HIGHER) else Says.WORSE


def _estimate(values: Sequence[float], seed: int) -> Estimate | None:
    if not values:
        return None
    low, high = median_interval(values, seed=seed)
    return Estimate(
        values=list(values),
        median=plain.median(values),
        low=min(values),
        high=max(values),
        ci_low=low,
        ci_high=high,
    )


def _effect(before: float, after: float) -> float | None:
    """Return the relative difference; None if only `before` is 0."""
    if before == after:
        return 0.0
    return (after - before) / abs(before) if before else None


def _depends_on_speed(metric: Metric) -> bool:
    return metric.unit in _SPEED_UNITS or metric.name in _SPEED_METRICS


def _text(value: object) -> str:
    return _ABSENT if value is None else str(value)


def _medians(values: Sequence[float], seed: int, resamples: int) -> npt.NDArray[np.float64]:
    """Return the median of each resample."""
    own = np.sort(np.asarray(values, dtype=float))
    low, high = _middles(len(own), seed, resamples)
    medians: npt.NDArray[np.float64] = (own[low] + own[high]) / 2
    return medians


@functools.lru_cache(maxsize=8)
def _middles(size: int, seed: int, resamples: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the indexes of the two middle values of each sorted resample; all metrics of a group share them."""
    drawn = np.sort(np.random.default_rng(seed).integers(size, size=(resamples, size)), axis=1)
    return drawn[:, (size - 1) // 2], drawn[:, size // 2]


def _interval(statistics: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.percentile(statistics, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _doubled_midranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return twice the rank of each value, from 1; equal values share their mean rank. Doubled, all are integers."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    doubled: npt.NDArray[np.int64] = (2 * last - counts + 1)[inverse]
    return doubled


def _rank_sums(ranks: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.float64], int]:
    """Return how many choices of `size` ranks have each sum, and the sum of the first `size` ranks.

    To keep the table small, sums count from the smallest rank in units of the greatest common divisor. Floats are exact
    up to 2^53 choices (groups of 28). Above that, only rounding errors occur, because nothing is subtracted.
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
