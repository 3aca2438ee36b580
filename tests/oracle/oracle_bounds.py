"""Bounds of a metric: exact where the records are exact, and as wide as the records leave open elsewhere.

Owns the statistics of a family of times, with their definitions of a percentile.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from oracle_records import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


NS = 1_000_000_000
#: p90 and p99 are shown from 100 samples on, p999 from 10,000.
FEW, MANY = 100, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The interval of a metric, and whether the metric may be absent."""

    low: float
    high: float
    may_lack: bool = False

    def holds(self, value: float | None) -> bool:
        """Return whether a value of summary.json lies inside."""
        if value is None:
            return self.may_lack
        slack = 1e-9 + 1e-6 * abs(value)
        return self.low - slack <= value <= self.high + slack

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.6g}"
        return f"{self.low:.6g} .. {self.high:.6g}"


#: A metric that must be absent.
ABSENT = None
Expected = dict[str, Bounds | None]


def exactly(value: float) -> Bounds:
    """Return bounds around one value."""
    return Bounds(low=float(value), high=float(value))


def column(rows: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return a column as signed integers: times are unsigned in the records, and their differences would wrap."""
    return rows[name].astype(np.int64)


def outcomes_of(rows: NDArray[Any]) -> Counter[str]:
    """Return how often each outcome occurs."""
    return Counter(OUTCOMES[code] for code in rows["outcome"])


def statistics(name: str, low: Iterable[float], high: Iterable[float] | None = None) -> Expected:
    """Return the statistics of a family of times from their lower and upper bounds, in seconds.

    Each order statistic of the times lies between the same order statistics of the bounds.
    """
    lows = np.sort(np.array(list(low), dtype=float)) / NS
    highs = lows if high is None else np.sort(np.array(list(high), dtype=float)) / NS
    count = len(lows)
    values: Expected = {}
    for one, share, needed in (("p50", 0.5, 1), ("p90", 0.9, FEW), ("p99", 0.99, FEW), ("p999", 0.999, MANY)):
        values[f"{name}.{one}_s"] = percentile(lows, highs, share) if count >= needed else ABSENT
    for one, function in (("max", np.max), ("mean", np.mean)):
        both = Bounds(low=float(function(lows)), high=float(function(highs))) if count else ABSENT
        values[f"{name}.{one}_s"] = both
    return values


def percentile(lows: NDArray[Any], highs: NDArray[Any], share: float) -> Bounds:
    """Return a percentile by either definition, nearest rank or interpolated, from two sorted bounds."""
    last = len(lows) - 1
    at = {math.floor(last * share), math.ceil(last * share), min(last, max(0, math.ceil(len(lows) * share) - 1))}
    return Bounds(low=float(lows[min(at)]), high=float(highs[max(at)]))
