"""Every metric in every group of runs, which of them differ, and what else is not the same.

Owns what "better", "same" and "cannot tell" mean. Must not know where the runs came from.
"""

from __future__ import annotations

import itertools
import statistics as plain
from typing import TYPE_CHECKING, Any

from loadsim.analysis.comparison import Difference, Estimate, Pair, Row, Says
from loadsim.analysis.statistics import (
    ALPHA,
    difference_interval,
    holm,
    mann_whitney,
    median_interval,
    repeats_needed,
)
from loadsim.fates import Better
from loadsim.metrics import METRICS
from loadsim.scenario.tables import flattened

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from loadsim.metrics import Metric

#: Units of metrics that depend on how fast a machine is, and metrics that do whatever their unit. Counts are judged:
#: fates, leaks, overflows, EMFILE.
_OF_THE_MACHINE = frozenset({"s", "/s", "cores", "bytes", "bytes/s"})
_OF_THE_MACHINE_TOO = frozenset({"queue.full_share"})
#: Settings in which runs of one question differ on purpose, or that say nothing about the server.
_NO_SETTING = ("name", "description", "seed", "schema", "thresholds", "sweep")
#: Facts of host.json that make two hosts unlike each other.
_OF_ANOTHER_HOST = ("kernel", "machine", "cpu_model", "cpus_usable")
_ABSENT = "-"
#: So many groups are compared each with each.
EACH_WITH_EACH = 12


def rows_of(
    groups: Sequence[Sequence[Mapping[str, float]]],
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    min_effect: float = 0.05,
    alpha: float = ALPHA,
    seed: int = 1,
    unlike_hosts: bool = False,
) -> list[Row]:
    """Return a row for each metric that a run has, in the order of the table; metrics are keyed as in summary.json.

    `pairs` are the groups that are compared, by default each with each; `min_effect` is the smallest relative
    difference that matters. Between unlike hosts, what depends on the speed of a machine is not judged.
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
    """Return which of so many groups are compared: each with each; of more than 12, with neighbours and both ends.

    The more pairs, the more runs a difference needs to survive the correction, and nobody reads 1,770 of them.
    """
    last = count - 1
    return [
        (a, b)
        for a, b in itertools.combinations(range(count), 2)
        if count <= EACH_WITH_EACH or b == a + 1 or a == 0 or b == last
    ]


class _Judge:
    """One metric of all groups, and what one of them is beside another."""

    def __init__(
        self, metric: Metric, values: Sequence[Sequence[float]], *, min_effect: float, alpha: float, seed: int
    ) -> None:
        self._metric = metric
        self._values = values
        self._min_effect = min_effect
        self._alpha = alpha
        self._seed = seed

    def row(self, compared: Sequence[tuple[int, int]], *, blind: bool) -> Row:
        """Return the row; Holm's correction is for the pairs of this metric."""
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
        said = says or self._says(pair, adjusted, effect)
        few = min(len(self._values[a]), len(self._values[b])) < needed
        return Pair(
            a=a,
            b=b,
            p=p,
            p_holm=adjusted,
            effect=effect,
            says=said,
            repeats_needed=needed if said is Says.CANNOT_TELL and few else None,
        )

    def _says(self, pair: tuple[int, int], adjusted: float, effect: float | None) -> Says:
        before, after = (self._values[index] for index in pair)
        matters = effect is None or (effect != 0 and abs(effect) >= self._min_effect)
        if adjusted <= self._alpha:
            return self._direction(plain.median(after) > plain.median(before)) if matters else Says.SAME
        if set(before) == set(after) and len(set(before)) == 1:
            return Says.SAME
        if min(len(before), len(after)) == 1:  # one run says nothing of chance
            return Says.CANNOT_TELL
        low, high = difference_interval(before, after, seed=self._seed)
        bound = self._min_effect * abs(plain.median(before))
        return Says.SAME if -bound <= low and high <= bound else Says.CANNOT_TELL

    def _direction(self, up: bool) -> Says:  # noqa: FBT001 -- one word decides
        if self._metric.better is Better.NEITHER:
            return Says.HIGHER if up else Says.LOWER
        return Says.BETTER if up == (self._metric.better is Better.HIGHER) else Says.WORSE


def differences(groups: Sequence[Mapping[str, Any]], *, but: Collection[str] = ()) -> list[Difference]:
    """Return what is not the same in all groups, but for these names; sorted, as text."""
    names = sorted({name for group in groups for name in group} - set(but))
    told = [(name, [group.get(name) for group in groups]) for name in names]
    return [
        Difference(name=name, values=[_text(value) for value in values])
        for name, values in told
        if any(value != values[0] for value in values)  # 1 and 1.0 are one setting
    ]


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a summary by dotted name, without those that say nothing about what was run."""
    return flattened({name: value for name, value in settings.items() if name not in _NO_SETTING})


def flat_host(host: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of host.json by name, without what changes from minute to minute."""
    facts = {name: value for name, value in host.items() if name not in ("sysctls", "load_average", "memory_bytes")}
    if isinstance(memory := host.get("memory_bytes"), int):
        facts["memory"] = f"{memory / 1e9:.0f} GB"
    return facts | {f"sysctl {name}": value for name, value in dict(host.get("sysctls") or {}).items()}


def unlike(hosts: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether these are not the runs of one kind of machine under one kernel."""
    return len({kind_of_host(host) for host in hosts}) > 1


def kind_of_host(host: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what two hosts have in common when their times can be compared: kernel, architecture, CPU, cores."""
    return tuple(_text(host.get(name)) for name in _OF_ANOTHER_HOST)


def _depends_on_speed(metric: Metric) -> bool:
    return metric.unit in _OF_THE_MACHINE or metric.name in _OF_THE_MACHINE_TOO


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
    """Return the relative difference; None where it comes from zero."""
    if before == after:
        return 0.0
    return (after - before) / abs(before) if before else None


def _text(value: object) -> str:
    return _ABSENT if value is None else str(value)
