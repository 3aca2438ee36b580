"""Latencies of many runs as percentile curves: histograms are merged, percentiles never averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import between
from loadsim.analysis.comparison import Curve
from loadsim.analysis.histogram import Histogram, distribution
from loadsim.analysis.latencies import accept_latencies, connect_latencies
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.analysis.view import View


def histograms_of(view: View) -> dict[str, Histogram]:
    """Return the latencies of one run by family, those that have any: response times, as its metrics."""
    attempts = view.recording.attempts
    families = {
        "connect": connect_latencies(attempts).nanoseconds,
        "accept": accept_latencies(view).nanoseconds,
        "reply": between(attempts, "intended", "replied"),
    }
    return {name: Histogram.of(nanoseconds) for name, nanoseconds in families.items() if len(nanoseconds)}


def merged(histograms: Sequence[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Return the latencies of several runs as those of one."""
    families = dict.fromkeys(name for one in histograms for name in one)
    return {name: _sum([one[name] for one in histograms if name in one]) for name in families}


def curves_of(groups: Sequence[Mapping[str, Histogram]]) -> list[Curve]:
    """Return the curves of each group of runs, ascending; a family without latencies in a group has none."""
    return [_curve(index, name, histogram) for index, group in enumerate(groups) for name, histogram in group.items()]


def _sum(histograms: Sequence[Histogram]) -> Histogram:
    counts = np.sum([one.counts for one in histograms], axis=0)
    return Histogram(counts=counts, beyond=sum(one.beyond for one in histograms))


def _curve(group: int, family: str, histogram: Histogram) -> Curve:
    rows = distribution(histogram).rows
    return Curve(
        group=group,
        family=family,
        percentiles=[round(100 * row.share, 6) for row in rows],
        values_s=[row.value_ns / NANOSECONDS for row in rows],
        count=histogram.total,
    )
