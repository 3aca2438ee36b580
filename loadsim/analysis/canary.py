"""The results of the canary and of the held clients, and how long the server took to recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.latency import family
from loadsim.analysis.recovery import OWN_LIMITS, SAY_NOTHING, settled, telling
from loadsim.fates import Outcome
from loadsim.record.recording import column, emfile_records, has_outcome
from loadsim.record.records import Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.dataset import Dataset
    from loadsim.record.recording import Recording, Records

_TURNED_AWAY = (Outcome.REFUSED, Outcome.RESET, Outcome.EOF, Outcome.ERROR)


def watch_metrics(data: Dataset) -> dict[str, float]:
    """Return canary.*, recovery.* and held.*; nothing without a canary."""
    canaries = telling(data.recording.canary)
    numbers = _own_failures(data.recording)
    if len(canaries):
        numbers |= {
            "canary.count": len(canaries),
            "canary.availability": float(has_outcome(canaries, Outcome.OK).mean()),
            "canary.longest_outage": _longest_outage(canaries, _down_until(data.recording)),
            "canary.silent": int(has_outcome(canaries, Outcome.REPLY_TIMEOUT).sum()),
            "canary.unreachable": int(has_outcome(canaries, Outcome.CONNECT_TIMEOUT).sum()),
            "canary.turned_away": int(has_outcome(canaries, *_TURNED_AWAY).sum()),
            **_recovery(data, canaries),
        }
    return numbers | _held(data.recording.held)


def _own_failures(recording: Recording) -> dict[str, float]:
    """Return how often the canary and the held clients failed at their own limits."""
    both = (recording.canary, recording.held)
    return (
        {"canary.local": sum(int(has_outcome(one, *OWN_LIMITS).sum()) for one in both)} if any(map(len, both)) else {}
    )


def _down_until(recording: Recording) -> int:
    """Return until when a server that ended was down, which is the end of the run; 0 if it did not end."""
    facts = recording.facts
    return (facts.judged_ns or facts.load_end_ns) if facts.server.exited_ns else 0


def _longest_outage(canaries: Records, down_until: int) -> float:
    """Return the longest time in seconds from a bad canary's start to the next good one's answer.

    Without a later answer it lasts to the end of the last canary, or until a moment by which the server is known to
    have been down.
    """
    good = has_outcome(canaries, Outcome.OK)
    intended = column(canaries, "intended")
    over = settled(canaries)
    longest, since, waited_until = 0, None, down_until
    for is_good, at, end in zip(good.tolist(), intended.tolist(), over.tolist(), strict=True):
        if not is_good:
            since = at if since is None else since
            waited_until = max(waited_until, end)
        elif since is not None:
            longest = max(longest, end - since)
            since, waited_until = None, down_until
    if since is not None:
        longest = max(longest, waited_until - since)
    return longest / NANOSECONDS


def _recovery(data: Dataset, canaries: Records) -> dict[str, float]:
    recovery = data.recovery
    if recovery is None:
        return {}
    begun, until = recovery.helped.done_ns, recovery.until_ns
    bad = column(canaries[~has_outcome(canaries, Outcome.OK)], "intended")
    missed = emfile_records(data.recording, *Where)
    first = column(missed, "first")
    numbers: dict[str, float] = {
        "recovery.last_bad": max(int(bad[bad < until].max(initial=0)) - begun, 0) / NANOSECONDS,
        "recovery.emfile": int(column(missed, "count")[(first >= begun) & (first < until)].sum()),
    }
    if recovery.took_ns is not None:
        numbers["recovery.time"] = recovery.took_ns / NANOSECONDS
    return numbers


def _held(held: Records) -> dict[str, float]:
    """Return held.*. A held client that its own process stopped says nothing about the server."""
    if not len(held):
        return {}
    told = held[~has_outcome(held, *SAY_NOTHING) | has_outcome(held, Outcome.UNFINISHED)]
    ended = ~has_outcome(told, Outcome.OK, Outcome.ERROR, Outcome.UNFINISHED)
    answered = has_outcome(told, Outcome.OK, Outcome.ERROR)
    late = (column(told, "replied") - column(told, "intended"))[answered].clip(min=0)
    return {
        "held.count": _connections(held),
        "held.cut": int(ended.sum()),
        "held.unanswered": int(has_outcome(told, Outcome.UNFINISHED).sum()),
        **family("held.reply", late),
    }


def _connections(held: Records) -> int:
    """Return how many connections there were.

    All requests on one connection have the same time of connecting, and two connections may use one port after each
    other. A connection that failed has exactly one record, without port and time.
    """
    connected, port = column(held, "connected"), column(held, "port")
    made = np.unique(np.stack([connected, port])[:, connected > 0], axis=1)
    never_left = (connected == 0) & has_outcome(held, *OWN_LIMITS)
    return int(made.shape[1]) + int(((connected == 0) & ~never_left).sum())
