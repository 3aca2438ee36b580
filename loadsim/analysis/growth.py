"""Everything against the growing fd table: accepts, their latency, pauses, failures and losses per band of open fds.

The kernel doubles the table as it grows; in a process with several threads each doubling waits for an RCU grace
period (Linux 6.18: 7-18 ms) and accept() stands still. That is why the bands begin at those points.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Ints, column, emfile_records, known, nearest_rank
from loadsim.analysis.latencies import own_accepts
from loadsim.analysis.summary import Band
from loadsim.record.events import Where
from loadsim.units import NANOSECONDS, format_count

if TYPE_CHECKING:
    from loadsim.analysis.view import View

#: Fewer bands than this hide the curve.
_BANDS = 8
#: From here on p99 is shown.
_ENOUGH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Accepting stood still as the kernel enlarged the fd table."""

    fds: int  # descriptors that no longer fitted: the table's size before
    length_s: float


def bands_of(view: View, baseline: int, highest: int) -> list[Band]:
    """Return the bands between two numbers of open descriptors; `highest` is the most there ever were.

    None for a server that writes no records: who was accepted when is not known.
    """
    if highest <= baseline or not view.recording.facts.server.is_simulated:
        return []
    points = growth_points(view)
    limits = _limits(view)
    starts = _starts(baseline + 1, highest, [*limits, *(above + 1 for above in (*points, *limits))])
    place = _Places(starts=starts, stops=np.append(starts[1:] - 1, highest))
    emfile, overflows = _emfile(view, place), _overflows(view, place)
    return [
        dataclasses.replace(
            _accepts(view, place, index),
            growth_point=int(start) - 1 in points,
            emfile=emfile[index],
            overflows=overflows[index] if overflows else None,
        )
        for index, start in enumerate(starts)
    ]


def growth_points(view: View) -> list[int]:
    """Return the sizes at which the fd table was outgrown, ascending; the next descriptor enlarged it.

    Read ten times a second, so a fast growth skips some: between two readings the table doubled each time.
    """
    _, sizes = known(view.recording.samples, "fd_size")
    if not len(sizes):
        return []
    points, size, last = [], int(sizes[0]), int(sizes.max())
    while 0 < size < last:
        points.append(size)
        size *= 2
    return points


def stalls(view: View) -> list[Stall]:
    """Return how long accepting stood still at each growth of the table, while a client waited and a CPU was free."""
    lengths = np.where(view.pauses.starved, 0, view.pauses.own)
    return [
        Stall(fds=size, length_s=int(lengths[rows].max()) / NANOSECONDS) for size, rows in _rows_at_growth(view).items()
    ]


def stall_rows(view: View) -> list[int]:
    """Return the accept() calls at which the table grew, by index among those of the running server."""
    return [row for rows in _rows_at_growth(view).values() for row in rows]


def _rows_at_growth(view: View) -> dict[int, list[int]]:
    """Return for each size that was outgrown the accept() that met the full table, and the next.

    The next, because the descriptor that did not fit may also have been one that a request opened.
    """
    fds = column(view.recording.accepts, "fd")[view.waits.taken]
    first = {size: np.flatnonzero(fds >= size)[:1] for size in growth_points(view)}
    return {
        size: list(range(int(rows[0]), min(int(rows[0]) + 2, len(fds)))) for size, rows in first.items() if len(rows)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Which band a number of open descriptors falls into; what lies outside goes to the nearest."""

    starts: Ints
    stops: Ints  # inclusive

    def of(self, open_fds: Ints) -> Ints:
        return (np.searchsorted(self.starts, open_fds, "right") - 1).clip(0, len(self.starts) - 1)

    def sum(self, open_fds: Ints, weights: Ints) -> list[int]:
        sums = np.bincount(self.of(open_fds), weights=weights, minlength=len(self.starts))
        return [int(total) for total in sums]


def _starts(low: int, high: int, edges: list[int]) -> Ints:
    """Return where bands begin: at the baseline, each growth and each limit, halved until there are enough of them."""
    starts = sorted({low, *(edge for edge in edges if low < edge <= high)})
    while len(starts) < _BANDS:
        widths = [(stop - start, -start) for start, stop in zip(starts, [*starts[1:], high + 1], strict=True)]
        width, start = max(widths)
        if width < 2:
            break
        starts = sorted({*starts, -start + width // 2})
    return np.array(starts, dtype=np.int64)


def _accepts(view: View, place: _Places, index: int) -> Band:
    """Return one band with what its accept() calls say: of the connections that accept.* counts, and of no others."""
    low, high = int(place.starts[index]), int(place.stops[index])
    open_fds = column(view.recording.accepts, "open_fds")
    waited = np.sort(view.waits.waited[own_accepts(view) & (place.of(open_fds) == index)])
    pauses = view.pauses.lengths[place.of(_open_at_pauses(view, high=int(place.stops[-1]))) == index]
    count = len(waited)
    return Band(
        fds_from=low,
        fds_to=high,
        label=_label(low, high, _limits(view)),
        growth_point=False,
        accepted=count,
        accept_p50_s=nearest_rank(waited, 0.5) / NANOSECONDS if count else None,
        accept_p99_s=nearest_rank(waited, 0.99) / NANOSECONDS if count >= _ENOUGH else None,
        accept_max_s=int(waited[-1]) / NANOSECONDS if count else None,
        pause_max_s=int(pauses.max()) / NANOSECONDS if len(pauses) else None,
        emfile=0,
        overflows=None,
    )


def _open_at_pauses(view: View, *, high: int) -> Ints:
    """Return the open descriptors after each pause; where the run's end is its end, those after the last accept()."""
    open_fds = column(view.recording.accepts, "open_fds")[view.waits.taken]
    return np.append(open_fds, open_fds[-1] if len(open_fds) else high) if view.pauses.final else open_fds


def _limits(view: View) -> list[int]:
    """Return every limit of descriptors that held for a time."""
    return sorted({view.recording.facts.server.nofile_soft, *view.limit_changes.values()})


def _label(low: int, high: int, limits: list[int]) -> str:
    if low == high and low in limits:
        return f"{format_count(low)} = {'the' if len(limits) == 1 else 'a'} limit"
    return f"{format_count(low)} fds" if low == high else f"{format_count(low)} - {format_count(high)} fds"


def _emfile(view: View, place: _Places) -> list[int]:
    failures = emfile_records(view.recording, *Where)
    return place.sum(column(failures, "open_fds"), column(failures, "count"))


def _overflows(view: View, place: _Places) -> list[int] | None:
    """Return what was lost at a full queue in each band; None where no counter was read.

    What happened between two readings counts for the band of the first. In a shared namespace the listener's own
    drops stand in for the counter, which there is everybody's.
    """
    private = view.recording.facts.namespace == "private"
    _, open_fds, lost = known(view.recording.samples, "open_fds", "listen_overflows" if private else "drops")
    return place.sum(open_fds[:-1], np.diff(lost)) if len(lost) else None
