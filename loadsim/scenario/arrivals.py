"""Intended start times of an open loop, decided before anything runs.

The load is a piecewise linear rate. Attempt k of a constant schedule starts when the integral of the rate reaches k;
a Poisson schedule maps the events of a unit process through the same integral. One seed gives one schedule, on every
machine and for every number of drivers. For the drivers it imports only the standard library.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING

from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: One stage is [for_s, rate_from, rate_to], as in `LoadSpec.stages`.
Stage = tuple[float, float, float]

#: A sum of floats within this distance of a whole number counts as that number: 200/s for 3 s is 600, not 601.
_SLACK = 1e-6


def offsets(
    stages: Sequence[Sequence[float]], *, arrivals: str, seed: int, attempts: int | None, duration_s: float
) -> Iterator[int]:
    """Yield the intended start times of the whole load in nanoseconds from its start, ascending.

    The schedule ends after `attempts`; if that is None, at the end of the stages or after `duration_s`, at the earlier
    one. If `attempts` need longer than the stages, the last rate continues. A driver takes the indices i with
    i % processes == its share.
    """
    last = math.inf if attempts is not None else duration_s
    times = _start_times(_stages(stages, endless=attempts is not None), _sums(arrivals, seed))
    for time_s in itertools.islice(times, attempts):
        if time_s >= last:
            return
        yield round(time_s * NANOSECONDS)


def expected_count(stages: Sequence[Sequence[float]], *, attempts: int | None, duration_s: float) -> int:
    """Return the planned number of attempts; for Poisson arrivals without `attempts` it is the mean."""
    if attempts is not None:
        return attempts
    total, left = 0.0, duration_s
    for for_s, start, end in _stages(stages, endless=False):
        lasts = min(for_s, left)
        total += lasts * (start + (start + (end - start) * lasts / for_s)) / 2
        left -= lasts
    return max(0, math.ceil(total - _SLACK))


def upper_count(stages: Sequence[Sequence[float]], *, arrivals: str, attempts: int | None, duration_s: float) -> int:
    """Return an upper bound of the number of attempts, for which space for records is reserved.

    A Poisson count with mean m exceeds m + 8 sqrt(m) + 16 with a probability below 1e-9.
    """
    mean = expected_count(stages, attempts=attempts, duration_s=duration_s)
    if attempts is not None or arrivals == "constant":
        return mean
    return math.ceil(mean + 8 * math.sqrt(mean) + 16)


def _stages(stages: Iterable[Sequence[float]], *, endless: bool) -> Iterator[Stage]:
    """Yield the stages as tuples; if endless, then the last rate without end."""
    rate = 0.0
    for for_s, start, end in stages:
        yield for_s, start, end
        rate = end
    if endless and rate > 0:
        yield math.inf, rate, rate


def _sums(arrivals: str, seed: int) -> Iterator[float]:
    """Yield the integrals of the rate at which attempts start: 0, 1, 2 ..., or the events of a Poisson process."""
    if arrivals == "constant":
        yield from map(float, itertools.count())
    generator = random.Random(f"arrivals {seed}")  # noqa: S311 -- a schedule, not a secret
    total = 0.0
    while True:
        total -= math.log(1.0 - generator.random())
        yield total


def _start_times(stages: Iterable[Stage], sums: Iterator[float]) -> Iterator[float]:
    """Yield the time in seconds at which the integral of the rate reaches each sum, until the stages end."""
    begins, before, wanted = 0.0, 0.0, next(sums)
    for for_s, start, end in stages:
        holds = math.inf if math.isinf(for_s) else for_s * (start + end) / 2
        while wanted - before < holds - _SLACK:
            yield begins + _time_within(max(0.0, wanted - before), start, (end - start) / for_s)
            wanted = next(sums)
        begins, before = begins + for_s, before + holds


def _time_within(area: float, start: float, slope: float) -> float:
    """Return t with start * t + slope * t^2 / 2 = area, by a formula that loses no digits for a small slope."""
    if area <= 0:
        return 0.0
    return 2 * area / (start + math.sqrt(max(0.0, start * start + 2 * slope * area)))
