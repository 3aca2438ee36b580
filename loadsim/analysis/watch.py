"""What the canary saw, what those saw who were in, and how long the server took to come back once there was room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Ints, column, emfile_records, has_outcome
from loadsim.analysis.latencies import family
from loadsim.analysis.relief import settled, telling
from loadsim.fates import Outcome
from loadsim.record.events import Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.view import View
    from loadsim.record.arrays import Records

_TURNED_AWAY = (Outcome.REFUSED, Outcome.RESET, Outcome.EOF, Outcome.ERROR)


def watch_metrics(view: View) -> dict[str, float]:
    """Return canary.*, recovery.* and held.*; nothing where there was no canary."""
    canaries = telling(view.recording.canary)
    numbers: dict[str, float] = {}
    if len(canaries):
        numbers |= {
            "canary.availability": float(has_outcome(canaries, Outcome.OK).mean()),
            "canary.longest_outage": _longest_outage(canaries),
            "canary.silent": int(has_outcome(canaries, Outcome.REPLY_TIMEOUT).sum()),
            "canary.unreachable": int(has_outcome(canaries, Outcome.CONNECT_TIMEOUT).sum()),
            "canary.turned_away": int(has_outcome(canaries, *_TURNED_AWAY).sum()),
            **_recovery(view, canaries),
        }
    return numbers | _held(view.recording.held)


def _longest_outage(canaries: Records) -> float:
    """Return the longest time in seconds from a bad canary's start to the next good one's answer."""
    good = has_outcome(canaries, Outcome.OK)
    intended = column(canaries, "intended")
    over = settled(canaries)
    longest, since = 0, None
    for is_good, at, end in zip(good.tolist(), intended.tolist(), over.tolist(), strict=True):
        if is_good and since is None:
            continue
        since = at if since is None else since
        longest = max(longest, end - since)
        since = None if is_good else since
    return longest / NANOSECONDS


def _recovery(view: View, canaries: Records) -> dict[str, float]:
    recovery = view.recovery
    if recovery is None:
        return {}
    begun, until = recovery.helped.done_ns, recovery.until_ns
    bad = column(canaries[~has_outcome(canaries, Outcome.OK)], "intended")
    missed = emfile_records(view.recording, *Where)
    first = column(missed, "first")
    numbers: dict[str, float] = {
        "recovery.last_bad": max(int(bad[bad < until].max(initial=0)) - begun, 0) / NANOSECONDS,
        "recovery.emfile": int(column(missed, "count")[(first >= begun) & (first < until)].sum()),
    }
    if recovery.took_ns is not None:
        numbers["recovery.time"] = recovery.took_ns / NANOSECONDS
    return numbers


def _held(held: Records) -> dict[str, float]:
    if not len(held):
        return {}
    ports: Ints = np.unique(column(held, "port"))
    ended = ~has_outcome(held, Outcome.OK, Outcome.ERROR, Outcome.UNFINISHED)
    answered = has_outcome(held, Outcome.OK, Outcome.ERROR)
    late = (column(held, "replied") - column(held, "intended"))[answered].clip(min=0)
    return {
        "held.count": len(ports),
        "held.cut": int(ended.sum()),
        "held.unanswered": int(has_outcome(held, Outcome.UNFINISHED).sum()),
        **family("held.reply", late),
    }
