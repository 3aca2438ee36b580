"""Latencies counted as HdrHistogram counts them: 1 ns to 1 hour, three significant digits.

Counted by numpy, 30 ns a value instead of the 1 to 2 us of `record_value`, into the very same array. Percentiles that
are told to people come from all samples (`measure`); these are for tools that read, merge and plot histograms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hdrh.histogram import HdrHistogram

from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.analysis.columns import Bools, Ints
    from loadsim.analysis.latencies import Latencies

LOWEST_NS, HIGHEST_NS, DIGITS = 1, 3600 * NANOSECONDS, 3
_MS = NANOSECONDS // 1000
#: Rows of a percentile table for each halving of the distance to 100 %, as HdrHistogram writes it by default.
_TICKS = 5

_SHAPE = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
_LENGTH: int = _SHAPE.counts_len
#: The first 2**11 values have a count each; from there on 2**10 counts share each doubling.
_HALF_BITS: int = _SHAPE.sub_bucket_half_count_magnitude
_HALF = 1 << _HALF_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many latencies there were of each size."""

    counts: Ints  # HdrHistogram's own array
    beyond: int  # latencies out of its range, counted here alone

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
    """Yield one interval for each second between two moments, also where nothing ended in it.

    The last one ends with the time, to a millisecond, which is what a log resolves; it is extended where a latency
    ended later.
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
    """Return the percentile table of a histogram, row by row what HdrHistogram's own iterator finds in 250 ms."""
    used = np.flatnonzero(histogram.counts)
    counts = histogram.counts[used]
    mean, deviation = _moments(_median(used), counts)
    return Distribution(
        rows=_rows(_highest(used), np.cumsum(counts)) if len(used) else [],
        mean_ns=mean,
        deviation_ns=deviation,
        max_ns=histogram.max_ns,
        total=histogram.total,
        buckets=_SHAPE.bucket_count,
        sub_buckets=_SHAPE.sub_bucket_count,
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
    """Yield percentages without end; every few of them the distance to 100 halves."""
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
    """Return mean and standard deviation, each value standing in the middle of what its count covers."""
    if not len(values):
        return 0.0, 0.0
    mean = float(np.average(values, weights=counts))
    return mean, math.sqrt(float(np.average((values - mean) ** 2, weights=counts)))


def _in_range(nanoseconds: Ints, indices: Ints) -> Bools:
    inside: Bools = (nanoseconds >= 0) & (indices < _LENGTH)
    return inside


def _index_of(nanoseconds: Ints) -> Ints:
    """Return the place of each latency in the array of counts; beyond its end for those that are too long."""
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
    """Return the largest value that is counted at each of these places."""
    return _lowest(indices) + (1 << _bucket_of(indices)) - 1


def _median(indices: Ints) -> Ints:
    """Return the value in the middle of those that are counted at each of these places."""
    return _lowest(indices) + (1 << _bucket_of(indices) >> 1)
