"""The latencies of one run and their statistics, counted as HdrHistogram counts them.

Three significant digits from 1 ns to 1 hour. Metrics and histogram files use the same values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.record.recording import Bools, Ints, column, nearest_rank
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.analysis.dataset import Dataset
    from loadsim.record.recording import Bools, Ints, Records


#: The number of samples from which each percentile is shown.
_ENOUGH = {"p50": 1, "p90": 100, "p99": 100, "p999": 10_000}
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Latencies in the order of their records; both arrays have one element for each."""

    known: Ints  # the moment at which each one ended
    nanoseconds: Ints  # never negative


def connect_latencies(attempts: Records) -> Latencies:
    """Return the response time of each client that was connected: from its intended start to the connection."""
    known, intended = column(attempts, "connected"), column(attempts, "intended")
    done = known > 0
    return Latencies(known=known[done], nanoseconds=(known - intended)[done].clip(min=0))


def accept_latencies(data: Dataset) -> Latencies:
    """Return how long each connection that the running server accepted had waited in the accept queue.

    For a server that writes no records these are upper bounds, unless the kernel was traced.
    """
    if data.bounds is not None:
        return Latencies(known=data.bounds.known, nanoseconds=data.bounds.most)
    ours = own_accepts(data)
    return Latencies(known=data.waits.accepted[ours], nanoseconds=data.waits.waited[ours])


def own_accepts(data: Dataset) -> Bools:
    """Return which accept records are of an attempt and of the running server."""
    ours: Bools = data.waits.taken & (data.ledger.join.attempt_of >= 0)
    return ours


def family(name: str, nanoseconds: Ints) -> dict[str, float]:
    """Return the statistics of a family of times for which there are enough samples; empty without any."""
    if len(nanoseconds) == 0:
        return {}
    ordered = np.sort(nanoseconds)
    shown = {key: share for key, share in _SHARES.items() if len(ordered) >= _ENOUGH[key]}
    ranks = {f"{name}.{key}": nearest_rank(ordered, share) / NANOSECONDS for key, share in shown.items()}
    return {
        **ranks,
        f"{name}.max": int(ordered[-1]) / NANOSECONDS,
        f"{name}.mean": float(ordered.mean()) / NANOSECONDS,
    }


LOWEST_NS, HIGHEST_NS, DIGITS = 1, 3600 * NANOSECONDS, 3
_MS = NANOSECONDS // 1000
#: Rows of a percentile table for each halving of the distance to 100 %, as HdrHistogram writes it by default.
_TICKS = 5

#: HdrHistogram's layout for these digits: the first 2**11 values have a count each; from there on 2**10 counts share
#: each doubling, up to the highest value.
_HALF_BITS = 10
_HALF = 1 << _HALF_BITS
_BUCKETS = (HIGHEST_NS // (2 * _HALF)).bit_length() + 1
_LENGTH = (_BUCKETS + 1) * _HALF


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many latencies there were of each size."""

    counts: Ints  # HdrHistogram's own array
    beyond: int  # latencies out of its range, counted only here

    @classmethod
    def of(cls, nanoseconds: Ints) -> Histogram:
        """Return the histogram of these latencies."""
        indices = _index_of(nanoseconds)
        inside = _in_range(nanoseconds, indices)
        return cls(
            counts=np.bincount(indices[inside], minlength=_LENGTH),
            beyond=len(nanoseconds) - int(inside.sum()),
        )

    @property
    def total(self) -> int:
        """Latencies within the range."""
        return int(self.counts.sum())

    @property
    def max_ns(self) -> int:
        """The largest latency, to three digits and rounded up as HdrHistogram does; 0 without any."""
        used = np.flatnonzero(self.counts)
        return int(_highest(used[-1:])[0]) if len(used) else 0

    def encoded(self) -> str:
        """Return the histogram in HdrHistogram's compressed form (V2), in base64."""
        from hdrh.histogram import HdrHistogram  # noqa: PLC0415 -- most readers of this module need no histogram

        hdr = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
        np.frombuffer(hdr.counts, dtype=np.int64)[:] = self.counts
        hdr.total_count, hdr.max_value = self.total, self.max_ns
        text: str = hdr.encode().decode("ascii")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The latencies that ended in one step of the run."""

    start_s: float  # from the start of the load
    length_s: float
    histogram: Histogram


def intervals(latencies: Latencies, *, start_ns: int, end_ns: int) -> Iterator[Interval]:
    """Yield one interval for each second between two moments, also for seconds without a latency.

    The last one ends at the second moment, to a millisecond (the resolution of a log), or with a later latency.
    """
    last = int(latencies.known.max(initial=start_ns))
    span = max((end_ns - start_ns) // _MS, (last - start_ns) // _MS + 1) * _MS
    steps = -(-span // NANOSECONDS)
    seconds = (latencies.known - start_ns).clip(min=0) // NANOSECONDS
    order = np.argsort(seconds, kind="stable")
    edges = np.searchsorted(seconds[order], np.arange(steps + 1))
    for step in range(steps):
        inside = order[edges[step] : edges[step + 1]]
        yield Interval(
            start_s=float(step),
            length_s=min(NANOSECONDS, span - step * NANOSECONDS) / NANOSECONDS,
            histogram=Histogram.of(latencies.nanoseconds[inside]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a percentile table: this share of the latencies was at most this long."""

    value_ns: int
    share: float
    count: int  # how many were at most this long
    one_in: float | None  # 1 / (1 - share); None = all


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A histogram as HdrHistogram's percentile table shows it."""

    rows: list[Row]  # empty without any latency
    mean_ns: float
    deviation_ns: float
    max_ns: int
    total: int
    buckets: int
    sub_buckets: int


def distribution(histogram: Histogram) -> Distribution:
    """Return the percentile table of a histogram, with the same rows as HdrHistogram's iterator, which takes 250 ms."""
    used = np.flatnonzero(histogram.counts)
    counts = histogram.counts[used]
    mean, deviation = _moments(_median(used), counts)
    return Distribution(
        rows=_rows(_highest(used), np.cumsum(counts)) if len(used) else [],
        mean_ns=mean,
        deviation_ns=deviation,
        max_ns=histogram.max_ns,
        total=histogram.total,
        buckets=_BUCKETS,
        sub_buckets=2 * _HALF,
    )


def _rows(values: Ints, reached: Ints) -> list[Row]:
    """Return a row for each level until the last value is reached, and one at 100 %."""
    percents, last, rows = 100.0 * reached / reached[-1], len(values) - 1, []
    for percent in _levels():
        place = int(np.searchsorted(percents, percent))
        rows.append(_row(values, reached, place, percent))
        if place == last:
            break
    return [*rows, _row(values, reached, last, 100.0)]


def _levels() -> Iterator[float]:
    """Yield percentages without end; the distance to 100 halves every _TICKS of them."""
    percent = 0.0
    while True:
        yield percent
        halvings = math.log(100 / (100.0 - percent)) / math.log(2)
        percent += 100.0 / (_TICKS * 2.0 ** (halvings + 1))


def _row(values: Ints, reached: Ints, place: int, percent: float) -> Row:
    return Row(
        value_ns=int(values[place]),
        share=percent / 100,
        count=int(reached[place]),
        one_in=1 / (1 - percent / 100) if percent < 100 else None,
    )


def _moments(values: Ints, counts: Ints) -> tuple[float, float]:
    """Return mean and standard deviation of values that are the middles of their counts' ranges."""
    if not len(values):
        return 0.0, 0.0
    mean = float(np.average(values, weights=counts))
    return mean, math.sqrt(float(np.average((values - mean) ** 2, weights=counts)))


def _in_range(nanoseconds: Ints, indices: Ints) -> Bools:
    inside: Bools = (nanoseconds >= 0) & (indices < _LENGTH)
    return inside


def _index_of(nanoseconds: Ints) -> Ints:
    """Return the index of each latency in the array of counts; beyond its end for a latency that is too long."""
    _, bits = np.frexp(nanoseconds.astype(np.float64))
    bucket = (bits.astype(np.int64) - _HALF_BITS - 1).clip(min=0)
    indices: Ints = (bucket << _HALF_BITS) + (nanoseconds >> bucket)
    return indices


def _bucket_of(indices: Ints) -> Ints:
    return ((indices >> _HALF_BITS) - 1).clip(min=0)


def _lowest(indices: Ints) -> Ints:
    bucket = _bucket_of(indices)
    return (indices - (bucket << _HALF_BITS)) << bucket


def _highest(indices: Ints) -> Ints:
    """Return the largest value that is counted at each of these indices."""
    return _lowest(indices) + (1 << _bucket_of(indices)) - 1


def _median(indices: Ints) -> Ints:
    """Return the middle of the values that are counted at each of these indices."""
    return _lowest(indices) + (1 << _bucket_of(indices) >> 1)
