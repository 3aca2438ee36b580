"""The lines that a page draws of a run: few points, and no peak is lost."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_samples import million
from recordings import accept, attempt, failure, recording, sample
from scenes import exhausted, healthy, pausing, phantoms

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.series import Line, Series, series_of, thinned
from loadsim.fates import Fate, Outcome

INTS = np.int64


def series(*args: Any, most: int = 4000, **changes: Any) -> Series:  # noqa: ANN401 -- as for `recording`
    """Return the lines of a recording made as in `recordings.recording`."""
    return series_of(Dataset.of(recording(*args, **changes)), most=most)


def at(line: Line, moment: float) -> float:
    """Return the value that holds at a moment."""
    return line.values[[i for i, second in enumerate(line.at_s) if second <= moment][-1]]


@pytest.mark.slow
@given(
    values=st.lists(st.integers(-5, 5), min_size=1, max_size=300),
    gaps=st.lists(st.integers(0, 50), min_size=300, max_size=300),
    most=st.integers(4, 60),
)
def test_thinned_lines_keep_first_last_and_both_extremes(values: list[int], gaps: list[int], most: int) -> None:
    """However few points are left, the first, the last, the smallest and the largest value are among them, in order."""
    times, numbers = np.cumsum(gaps[: len(values)]).astype(INTS), np.array(values, dtype=INTS)
    keep = thinned(times, numbers, most)
    assert len(keep) <= most
    assert list(keep) == sorted(set(keep.tolist()))
    kept = numbers[keep]
    assert (kept[0], kept[-1], kept.min(), kept.max()) == (values[0], values[-1], min(values), max(values))


def test_each_stretch_keeps_its_own_peak() -> None:
    """A peak of one point survives in every stretch of time, and so does every dip."""
    times = np.arange(10_000, dtype=INTS)
    values = np.full(10_000, 5, dtype=INTS)
    values[50::100], values[70::100] = 9, 1
    keep = thinned(times, values, 400)
    assert (values[keep] == 9).sum() == 100
    assert (values[keep] == 1).sum() == 100


def test_short_lines_are_kept_whole() -> None:
    """Where there is room nothing is left out."""
    times = np.arange(10, dtype=INTS)
    assert thinned(times, times, 10).tolist() == list(range(10))
    assert thinned(times[:0], times[:0], 10).tolist() == []


def test_the_axis_begins_with_the_load() -> None:
    """What held when the load began is the first value, and what came after its end is not shown."""
    samples = [sample(t, open_fds=fds) for t, fds in ((-0.5, 7), (-0.1, 8), (1.0, 20), (9.0, 99))]
    assert series(samples=samples).open_fds == Line(at_s=[0.0, 1.0], values=[8, 20])


def test_descriptors_come_from_samples_and_accepts() -> None:
    """An accept record between two samples shows a peak that neither saw."""
    rows = [attempt(1, 0.5)]
    accepts = [accept(rows[0], 0.0, open_fds=30)]
    lines = series(rows, accepts, samples=[sample(0.0, open_fds=8), sample(1.0, open_fds=9)])
    assert lines.open_fds.values == [8, 30, 9]


def test_the_queue_is_exact_and_never_longer_than_it_holds() -> None:
    """Both journals together show each client that entered and left, up to what the queue holds."""
    data = Dataset.of(pausing(backlog=64, pause_s=0.2))
    lines = series_of(data)
    assert max(lines.queue.values) == 65 == lines.queue_capacity
    assert at(lines.queue, 0.03) == pytest.approx(30, abs=1)
    assert lines.queue.at_s[-1] == lines.span_s
    assert lines.queue.values[0] == 0


def test_a_queue_that_is_left_stays_to_the_end() -> None:
    """Clients that are never accepted are in the queue at the end of the axis."""
    lines = series_of(Dataset.of(exhausted()))
    assert lines.queue.values[-1] == 129
    assert lines.queue.at_s[-1] == pytest.approx(5.0)


def test_overflows_add_up_to_the_counter() -> None:
    """The sum of the bars is the kernel's count, for any distance of the readings."""
    counted = [sample(-0.1, listen_overflows=100)]
    counted += [sample(0.05 * n, listen_overflows=100 + 3 * n) for n in range(100)]
    lines = series(samples=counted)
    assert sum(lines.overflows.values) == 3 * 99
    assert len(lines.overflows.values) < 60


def test_a_shared_namespace_shows_the_listener_alone() -> None:
    """The counter of the whole host is not taken for this server's."""
    samples = [sample(t, listen_overflows=1000 * t, drops=int(t)) for t in (0, 1, 2)]
    assert series(samples=samples, namespace="shared").overflows.values == [1, 1]
    assert series(samples=samples).overflows.values == [1000, 1000]


def test_cpu_is_a_rate_between_readings() -> None:
    """Half a second of CPU in each second is half a core."""
    lines = series(samples=[sample(0.1 * n, cpu_ns=50_000_000 * n) for n in range(51)])
    assert set(lines.cpu_cores.values) == {0.5}
    assert lines.cpu_cores.at_s[0] == pytest.approx(0.05)


def test_emfile_is_counted_per_second() -> None:
    """Calls that failed are spread over the step in which they did; without any there is no line."""
    lines = series(failures=[failure(1.0, count=30), failure(1.05, count=20)])
    assert max(lines.emfile_per_s.values) == pytest.approx(500)
    assert sum(lines.emfile_per_s.values) == pytest.approx(500)
    assert series().emfile_per_s == Line(at_s=[], values=[])


def test_percentiles_need_a_hundred() -> None:
    """In a step of 100 accepts the 99th percentile is shown, with fewer the longest."""
    lines = {}
    for count in (99, 100):
        rows = [attempt(n + 1, 1.0) for n in range(count)]
        accepts = [accept(row, 0.001 * (n + 1) / count) for n, row in enumerate(rows)]
        lines[count] = series(rows, accepts).accept
    longest, p99 = (next(v for v in lines[n].high_s if v is not None) for n in (99, 100))
    assert longest == pytest.approx(0.001, abs=3e-6)
    assert p99 == pytest.approx(0.00099, abs=3e-6)


def test_steps_without_an_accept_have_no_percentiles() -> None:
    """A gap is a gap: None, and a count of 0."""
    rows = [attempt(1, 0.0), attempt(2, 4.0)]
    spread = series(rows, [accept(row) for row in rows]).accept
    assert len(spread.at_s) == len(spread.p50_s) == len(spread.high_s) == len(spread.count) == 240
    assert sum(spread.count) == 2
    assert [value is None for value in spread.p50_s] == [not count for count in spread.count]


def test_curves_reach_from_the_fastest_to_the_slowest() -> None:
    """The curve is ascending, ends with the largest at 100 %, and its median is the one of the metrics."""
    rows = [attempt(n, 0.001 * n, connected=0.001 * n + 1e-6 * n) for n in range(1, 1001)]
    curve = next(curve for curve in series(rows).curves if curve.family == "connect")
    assert curve.count == 1000
    assert (curve.percentiles[-1], curve.values_s[-1]) == (100.0, 0.001)
    assert curve.percentiles == sorted(curve.percentiles)
    assert curve.values_s == sorted(curve.values_s)
    near_p99 = min(range(len(curve.percentiles)), key=lambda i: abs(curve.percentiles[i] - 99))
    assert curve.values_s[near_p99] == pytest.approx(0.00099, rel=0.002)
    assert sum(p > 90 for p in curve.percentiles) > len(curve.percentiles) / 3


def test_families_without_latencies_have_no_curve() -> None:
    """Without a reply there is no curve of replies."""
    rows = [attempt(1, replied=None, outcome=Outcome.CONNECTED)]
    assert [curve.family for curve in series(rows, [accept(rows[0])]).curves] == ["connect", "accept"]
    assert series().curves == []


def test_waits_by_descriptors_keep_the_longest() -> None:
    """At each number of open descriptors the longest wait is told, however many there were."""
    rows = [attempt(n + 1, 0.01 * n) for n in range(100)]
    accepts = [accept(row, 0.001 * (1 + n % 2), open_fds=9 + n // 50) for n, row in enumerate(rows)]
    waits = series(rows, accepts).waits
    assert waits.open_fds == [9, 10]
    assert waits.longest_s == pytest.approx([0.002, 0.002], abs=1e-6)


def test_many_descriptors_are_told_in_few_points() -> None:
    """Of ten thousand numbers of descriptors the small ones are told apart, and the longest wait of all is kept."""
    rows = [attempt(n + 1, 0.0001 * n) for n in range(10_000)]
    accepts = [accept(row, 0.5 if n == 7777 else 0.0001, open_fds=9 + n) for n, row in enumerate(rows)]
    waits = series(rows, accepts).waits
    assert len(waits.open_fds) <= 600
    assert waits.open_fds[:3] == [9, 10, 11]
    assert max(zip(waits.longest_s, waits.open_fds, strict=True))[1] == 7786


@pytest.mark.parametrize("scene", [recording, healthy, exhausted, pausing, phantoms])
def test_lines_are_plain_values(scene: Any) -> None:  # noqa: ANN401 -- a scene
    """Everything goes into JSON as it is, also of a run in which nothing happened, and moments never go back."""
    lines = series_of(Dataset.of(scene()))
    json.dumps(dataclasses.asdict(lines), allow_nan=False)
    for line in (
        lines.open_fds,
        lines.queue,
        lines.queue_samples,
        lines.overflows,
        lines.cpu_cores,
        lines.emfile_per_s,
    ):
        assert line.at_s == sorted(line.at_s)
        assert len(line.at_s) == len(line.values)
        assert all(0 <= second <= lines.span_s for second in line.at_s)


@pytest.mark.slow
def test_a_million_attempts_are_few_points() -> None:
    """The lines of a million attempts are made in a second or two, and fit into half a megabyte."""
    data = Dataset.of(million())
    assert data.ledger.having(Fate.ACCEPTED).all()
    began = time.monotonic()
    lines = series_of(data)
    assert time.monotonic() - began < 3
    assert len(json.dumps(dataclasses.asdict(lines))) < 500_000
    assert max(len(lines.open_fds.at_s), len(lines.queue.at_s) - 1) <= 4000
