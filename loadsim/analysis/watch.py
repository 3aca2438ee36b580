"""What the canary saw, what those saw who were in, and how long the server took to come back once there was room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Ints, column, emfile_records, has_outcome
from loadsim.analysis.latencies import family
from loadsim.record.events import Outcome, Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.view import View
    from loadsim.record.arrays import Records

#: Canaries that say nothing about the server: they never left, or had no time to learn anything.
_SAY_NOTHING = (Outcome.LOCAL, Outcome.NOT_STARTED, Outcome.UNFINISHED)
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


def telling(canaries: Records) -> Records:
    """Return those canaries that learned something of the server."""
    told: Records = canaries[~has_outcome(canaries, *_SAY_NOTHING)]
    return told


def _longest_outage(canaries: Records) -> float:
    """Return the longest time in seconds from a bad canary's start to the next good one's answer."""
    good = has_outcome(canaries, Outcome.OK)
    intended = column(canaries, "intended")
    over = np.where(good, column(canaries, "replied"), column(canaries, "ended"))
    longest, since = 0, None
    for is_good, at, end in zip(good.tolist(), intended.tolist(), over.tolist(), strict=True):
        if is_good and since is None:
            continue
        since = at if since is None else since
        longest = max(longest, end - since)
        since = None if is_good else since
    return longest / NANOSECONDS


def _recovery(view: View, canaries: Records) -> dict[str, float]:
    relief = view.relief
    if relief is None:
        return {}
    good = has_outcome(canaries, Outcome.OK)
    answers = column(canaries[good], "replied")
    answers = answers[answers >= relief.done_ns]
    bad = column(canaries[~good], "intended")
    missed = emfile_records(view.recording, *Where)
    numbers: dict[str, float] = {
        "recovery.last_bad": max(int(bad.max(initial=0)) - relief.done_ns, 0) / NANOSECONDS,
        "recovery.emfile": int(column(missed, "count")[column(missed, "first") >= relief.done_ns].sum()),
    }
    if len(answers):
        numbers["recovery.time"] = (int(answers.min()) - relief.done_ns) / NANOSECONDS
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
