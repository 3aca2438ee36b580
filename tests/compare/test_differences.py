"""Which metrics differ significantly between groups of runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadsim.compare.comparison import Row, Says
from loadsim.compare.statistics import differences, flat_host, flat_settings, pairs_of, rows_of, unlike
from loadsim.fates import Better
from loadsim.metrics import METRICS

DIFFERENT = {Says.BETTER, Says.WORSE, Says.HIGHER, Says.LOWER}


def group(metric: str, *values: float) -> list[dict[str, float]]:
    """Return runs that have one metric."""
    return [{METRICS[metric].json_key: value} for value in values]


def only(rows: list[Row]) -> Row:
    """Return the only row."""
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("metric", "says"),
    [("accept.p99", Says.WORSE), ("attempts.served", Says.BETTER), ("queue.max", Says.HIGHER)],
)
def test_which_way_is_better(metric: str, says: Says) -> None:
    """The table of metrics decides whether a larger value is worse, better, or only higher."""
    low, high = group(metric, 10, 11, 12, 13), group(metric, 20, 21, 22, 23)

    assert [pair.says for row in rows_of([low, high]) for pair in row.pairs] == [says]
    turned = {Says.WORSE: Says.BETTER, Says.BETTER: Says.WORSE, Says.HIGHER: Says.LOWER}[says]
    assert [pair.says for row in rows_of([high, low]) for pair in row.pairs] == [turned]


def test_estimates_of_a_group() -> None:
    """An estimate has median, range and interval of the runs with the metric; without such runs there is none."""
    row = only(rows_of([[*group("fds.max", 10, 30, 20), {}], [{}]]))

    estimate = row.estimates[0]
    assert estimate is not None
    assert (estimate.values, estimate.median, estimate.low, estimate.high) == ([10, 30, 20], 20, 10, 30)
    assert 10 <= estimate.ci_low <= 20 <= estimate.ci_high <= 30
    assert row.estimates[1] is None
    assert row.pairs == []


def test_a_difference_needs_both() -> None:
    """A significant difference that is too small to matter is `same`, and a possible chance is `cannot tell`."""
    small = only(rows_of([group("reply.p99", 100, 101, 102, 103), group("reply.p99", 104, 105, 106, 107)]))
    noisy = only(rows_of([group("reply.p99", 100, 50, 200, 120), group("reply.p99", 150, 90, 220, 60)]))

    assert (small.pairs[0].says, small.pairs[0].p < 0.05) == (Says.SAME, True)
    assert (noisy.pairs[0].says, noisy.pairs[0].repeats_needed) == (Says.CANNOT_TELL, None)


def test_too_few_runs_say_how_many_are_needed() -> None:
    """Three runs of each can never differ significantly: four are needed, and more for more groups."""
    near, far = group("fds.max", 1, 2, 3), group("fds.max", 1000, 2000, 3000)

    pair = only(rows_of([near, far])).pairs[0]
    assert (pair.says, pair.repeats_needed) == (Says.CANNOT_TELL, 4)
    assert pair.p == pytest.approx(0.1)
    more = only(rows_of([near, far, group("fds.max", 5, 6, 7)]))
    assert {pair.repeats_needed for pair in more.pairs} == {5}


def test_same_values_are_the_same() -> None:
    """Equal values are `same` with any number of runs, and so are differences below the smallest effect."""
    equal = only(rows_of([group("fate.dropped", 0, 0), group("fate.dropped", 0, 0)]))
    close = only(rows_of([group("reply.p99", 100, 101, 99, 100), group("reply.p99", 100, 99, 101, 101)]))

    assert [row.pairs[0].says for row in (equal, close)] == [Says.SAME, Says.SAME]
    assert equal.pairs[0].effect == 0


def test_from_zero_is_more_than_any_effect() -> None:
    """A change from zero has no relative size, and differs."""
    pair = only(rows_of([group("emfile.count", 0, 0, 0, 0), group("emfile.count", 1, 2, 1, 3)])).pairs[0]

    assert (pair.effect, pair.says) == (None, Says.WORSE)


def test_equal_medians_have_no_direction() -> None:
    """Groups with equal medians are `same`, even if every difference matters."""
    low, high = group("fds.max", 1, 1, *[5] * 8), group("fds.max", *[5] * 6, *[9] * 4)
    pair = only(rows_of([low, high], min_effect=0.0)).pairs[0]

    assert (pair.p_holm < 0.05, pair.effect, pair.says) == (True, 0, Says.SAME)


def test_correction_is_within_one_metric() -> None:
    """All pairs of a metric share its correction; another metric does not make it stricter."""
    groups = [[{"fds.end": 10.0 * n + k, "fds.limit": 1.0} for k in range(6)] for n in range(5)]

    fds_end = next(row for row in rows_of(groups) if row.metric == "fds.end")
    assert {round(pair.p_holm / pair.p) for pair in fds_end.pairs} >= {10}
    assert all(pair.says is Says.WORSE for pair in fds_end.pairs)
    one_pair = rows_of(groups, pairs=[(0, 1)])
    assert [(pair.a, pair.b, pair.p_holm == pair.p) for pair in one_pair[0].pairs] == [(0, 1, True)]


def test_unlike_hosts_are_judged_by_counts() -> None:
    """Fates, leaks, overflows and EMFILE are judged; times, rates, CPU and memory are only shown."""
    judged = ("fate.dropped", "fds.leaked", "listen.overflows", "emfile.count", "attempts.served")
    shown = ("accept.p99", "emfile.rate", "server.cpu", "server.rss_max", "queue.full_share")
    low, high = ([{METRICS[name].json_key: n + k for name in judged + shown} for k in range(4)] for n in (10, 20))

    says = {row.metric: row.pairs[0].says for row in rows_of([low, high], unlike_hosts=True)}
    assert {name for name, result in says.items() if result is Says.NOT_JUDGED} == set(shown)
    assert {name for name, result in says.items() if result in DIFFERENT} == set(judged)


def test_settings_that_differ() -> None:
    """Differences are listed by name, as text, including missing values; excluded names are left out."""
    excluded = {"thresholds": {"expect": []}, "sweep": {"server": {"backlog": [1, 2]}}}
    settings = [
        {"name": n, "seed": n, **excluded, "server": {"backlog": n, "nofile": 64}, "client": {"hold": 0.5}}
        for n in (1, 2)
    ]

    flat = [flat_settings(one) for one in settings]
    assert flat[0] == {"server.backlog": 1, "server.nofile": 64, "client.hold": 0.5}
    assert [(one.name, one.values) for one in differences(flat)] == [("server.backlog", ["1", "2"])]
    assert differences(flat, but=["server.backlog"]) == []
    assert [one.values for one in differences([{"x": 1}, {}])] == [["1", "-"]]
    assert differences([{"x": 1}, {"x": 1.0}]) == []


def test_many_groups_are_compared_with_neighbours_and_ends() -> None:
    """Up to 12 groups are compared each with each; of more, every group is still in some pair."""
    assert len(pairs_of(12)) == 66
    many = pairs_of(60)
    assert len(many) == 58 * 3
    assert {(0, 59), (0, 30), (30, 31), (30, 59)} <= set(many)
    assert {index for pair in many for index in pair} == set(range(60))


def test_which_hosts_are_unlike() -> None:
    """A different kernel, CPU or number of CPUs makes hosts unlike; a different load or sysctl does not."""
    host: dict[str, Any] = {
        "kernel": "6.18",
        "machine": "x86_64",
        "cpu_model": "A",
        "cpus_usable": 2,
        "load_average": [1, 2, 3],
        "memory_bytes": 25_000_000_000,
        "sysctls": {"net.core.somaxconn": "4096"},
    }
    hosts = [flat_host(host), flat_host({**host, "load_average": [9], "sysctls": {"net.core.somaxconn": "128"}})]

    assert not unlike(hosts)
    assert [one.name for one in differences(hosts)] == ["sysctl net.core.somaxconn"]
    assert hosts[0]["memory"] == "25 GB"
    assert all(unlike([hosts[0], {**hosts[0], name: "other"}]) for name in ("kernel", "cpu_model", "cpus_usable"))


def synthetic(draw: np.random.Generator, scale: float = 1.0) -> dict[str, float]:
    """Return the metrics of one run with realistic noise: skewed times, counts with few values, zeros."""
    metrics = {}
    for place, metric in enumerate(METRICS.values()):
        if metric.unit in {"s", "/s", "cores"}:
            value = 0.001 * (place + 1) * float(draw.lognormal(0, 0.1)) * scale
        elif metric.unit == "share":
            value = float(draw.choice([1.0, 0.999, 0.998]))
        else:
            value = float(draw.poisson(3)) if place % 3 else float(draw.integers(0, 2) * (place % 2))
        metrics[metric.json_key] = value
    return metrics


@pytest.mark.slow
def test_same_settings_seldom_differ() -> None:
    """In 20 comparisons of six runs with six equal ones, at most 5 % of the metrics are reported to differ."""
    draw, differ = np.random.default_rng(5), []
    for _ in range(20):
        rows = rows_of([[synthetic(draw) for _ in range(6)] for _ in range(2)])
        differ += [pair.says in DIFFERENT for row in rows for pair in row.pairs]

    assert len(differ) > 1000
    assert sum(differ) / len(differ) <= 0.05


def test_real_differences_are_found_with_the_defaults() -> None:
    """In five cells of six runs with 10 % noise, times with steps of 1.6 differ in nearly every pair."""
    draw = np.random.default_rng(6)
    groups = [[synthetic(draw, scale=1.6**cell) for _ in range(6)] for cell in range(5)]

    times = [row for row in rows_of(groups) if row.unit == "s" and METRICS[row.metric].better is Better.LOWER]
    found = [pair.says is Says.WORSE for row in times for pair in row.pairs]
    assert sum(found) / len(found) > 0.9


@pytest.mark.slow
def test_a_difference_of_40_percent_is_found_among_ten_pairs() -> None:
    """If one of five cells of six runs with 10 % noise takes 1.4 times as long, it nearly always differs from all."""
    draw = np.random.default_rng(7)
    groups = [[synthetic(draw, scale=scale) for _ in range(6)] for scale in (1, 1, 1, 1, 1.4)]

    times = [row for row in rows_of(groups) if row.unit == "s" and METRICS[row.metric].better is Better.LOWER]
    beside = [pair.says for row in times for pair in row.pairs if pair.b == 4]
    among = [pair.says in DIFFERENT for row in times for pair in row.pairs if pair.b != 4]
    assert sum(says is Says.WORSE for says in beside) / len(beside) > 0.8
    assert sum(among) / len(among) <= 0.05
