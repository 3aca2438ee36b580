"""Latencies are counted exactly as HdrHistogram counts them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import accept, attempt, ns, recording, summarise, unanswered

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.latency import (
    DIGITS,
    HIGHEST_NS,
    LOWEST_NS,
    Histogram,
    Latencies,
    accept_latencies,
    connect_latencies,
    distribution,
    intervals,
)
from loadsim.record.records import AcceptFlag

if TYPE_CHECKING:
    from loadsim.record.recording import Ints

#: Around every power of two something changes in the layout.
EDGES = sorted({max(2**bit + step, 0) for bit in range(45) for step in (-1, 0, 1)})
SECOND = 1_000_000_000


def ints(values: object) -> Ints:
    """Return numbers as an array of latencies."""
    return np.array(values, dtype=np.int64)


def one_by_one(values: list[int]) -> tuple[HdrHistogram, int]:
    """Return HdrHistogram's own count of these values, and how many it refused."""
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    refused = [value for value in values if not histogram.record_value(value)]
    return histogram, len(refused)


def skewed(count: int) -> list[int]:
    """Return latencies as they are: most near 30 us, some a thousand times that."""
    return [int(value) for value in np.random.default_rng(7).lognormal(10.3, 1.7, count)]


def log_of(known: list[float], *, end: float) -> list[tuple[float, float, int]]:
    """Return start, length and total of the intervals of a run, given the seconds at which its latencies ended."""
    moments = ints([ns(second) for second in known])
    latencies = Latencies(known=moments, nanoseconds=np.full_like(moments, 1000))
    found = intervals(latencies, start_ns=ns(0), end_ns=ns(end))
    return [(step.start_s, step.length_s, step.histogram.total) for step in found]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 2**43) | st.sampled_from(EDGES), max_size=50))
def test_a_batch_counts_as_one_by_one(values: list[int]) -> None:
    """Every value has the index at which record_value counts it; values that it refuses are beyond."""
    theirs, refused = one_by_one(values)
    ours = Histogram.of(ints(values))
    assert list(theirs.counts) == ours.counts.tolist()
    assert (theirs.get_total_count(), refused, theirs.get_max_value()) == (ours.total, ours.beyond, ours.max_ns)


def test_every_power_of_two_is_counted_in_its_place() -> None:
    """The layout holds at all its edges, up to and past the longest latency that it can count."""
    values = [*EDGES, HIGHEST_NS, 2**62, sys.maxsize, -1]
    theirs, refused = one_by_one(values)
    ours = Histogram.of(ints(values))
    assert list(theirs.counts) == ours.counts.tolist()
    assert refused == ours.beyond > 0


@pytest.mark.parametrize("values", [[], [0], [1], [31_000], [5, 5, 5], skewed(1_000)], ids=len)
def test_what_was_encoded_decodes_to_the_same(values: list[int]) -> None:
    """HdrHistogram encodes its own count of these values to the same text, and reads the same back."""
    theirs, _ = one_by_one(values)
    ours = Histogram.of(ints(values))
    assert theirs.encode().decode() == ours.encoded()
    decoded = HdrHistogram.decode(ours.encoded())
    assert decoded.get_total_count() == len(values)
    assert [decoded.get_count_at_index(index) for index in range(decoded.counts_len)] == ours.counts.tolist()


@pytest.mark.parametrize("values", [[], [0], [31_000], [1, 2, 3], [7] * 90 + [8] * 10, skewed(20_000)], ids=len)
def test_the_table_is_that_of_the_iterator(values: list[int]) -> None:
    """Rows, mean and deviation equal the ones of HdrHistogram's own percentile iterator."""
    theirs, _ = one_by_one(values)
    found = distribution(Histogram.of(ints(values)))
    expected = [
        (row.value_iterated_to, row.percentile_level_iterated_to / 100, row.total_count_to_this_value)
        for row in theirs.get_percentile_iterator(5)
    ]
    assert expected == [(row.value_ns, row.share, row.count) for row in found.rows]
    assert theirs.get_mean_value() == pytest.approx(found.mean_ns)
    assert theirs.get_stddev() == pytest.approx(found.deviation_ns)
    assert (theirs.get_max_value(), theirs.bucket_count) == (found.max_ns, found.buckets)


def test_every_second_has_its_interval() -> None:
    """A second without a latency is an empty interval; the last interval ends with the load."""
    assert log_of([0.2, 0.9999, 2.0], end=3.25) == [
        (0.0, 1.0, 2), (1.0, 1.0, 0), (2.0, 1.0, 1), (3.0, 0.25, 0),
    ]  # fmt: skip


def test_intervals_hold_what_ended_outside_of_the_load() -> None:
    """A latency that ended after the load extends the last interval; one from before stands in the first."""
    assert log_of([-0.01, 1.7], end=1.5) == [(0.0, 1.0, 1), (1.0, 0.701, 1)]


def test_no_interval_is_shorter_than_a_log_resolves() -> None:
    """A load that ends microseconds after a full second has no interval of its own for them, but one that it needs."""
    assert log_of([0.5], end=1.0003) == [(0.0, 1.0, 1)]
    assert log_of([0.5, 1.0001], end=1.0003) == [(0.0, 1.0, 1), (1.0, 0.001, 1)]


def test_a_run_without_latencies_has_empty_intervals() -> None:
    """The log covers the whole load without any latency."""
    assert log_of([], end=1.5) == [(0.0, 1.0, 0), (1.0, 0.5, 0)]


def test_the_sum_of_the_intervals_is_the_whole() -> None:
    """No latency is lost between two intervals, and none is counted twice."""
    values = ints(skewed(5_000))
    known = np.random.default_rng(8).integers(ns(0), ns(4), 5_000)
    steps = list(intervals(Latencies(known=known, nanoseconds=values), start_ns=ns(0), end_ns=ns(4)))
    assert len(steps) == 4
    assert np.sum([step.histogram.counts for step in steps], axis=0).tolist() == Histogram.of(values).counts.tolist()


def test_histograms_hold_the_latencies_of_the_metrics() -> None:
    """Connect counts from the intended start; accept leaves out foreign connections and those taken after the end."""
    late, quick, silent, waits = attempt(1, started=0.25), attempt(2, 0.5), unanswered(3, 0.6), attempt(4, 0.7)
    late |= {"connected": 0.25003}
    accepts = [accept(late, 0.002), accept(quick, 0.004), accept(waits, 2.0, flags=AcceptFlag.AFTER_END)]
    run = recording([late, quick, silent, waits], [*accepts, accept(attempt(99), 1.0, age_ms=40)])
    connects, waited = connect_latencies(run.attempts), accept_latencies(Dataset.of(run))
    assert connects.nanoseconds.tolist() == [250_030_000, 30_000, 30_000]
    assert connects.known.tolist() == [ns(0.25003), ns(0.50003), ns(0.70003)]
    assert waited.nanoseconds.tolist() == [2_000_000, 4_000_000]
    assert waited.known.tolist() == [ns(0.25203), ns(0.50403)]
    metrics = summarise(run).metrics
    assert metrics["connect.max_s"] == connects.nanoseconds.max() / SECOND
    assert metrics["accept.samples"] == len(waited.nanoseconds)
