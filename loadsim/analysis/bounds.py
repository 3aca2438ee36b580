"""Accept latencies of a server that writes no records: exactly where the kernel traced them, else between two bounds.

A connection entered the accept queue inside its client's connect(), or, where its socket is far younger, when its age
says (+-4 ms). It was still there at the last look that saw it wait; it had been accepted when a process was
seen to own it, or when its client heard from the server. So each wait lies between two times, and each percentile
between those of the shorter and of the longer ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import AGE_ERROR_NS, Bools, Ints, column, has_flag, has_outcome
from loadsim.analysis.foreign import attempts_of_sockets
from loadsim.analysis.waits import LATE_NS
from loadsim.fates import Fate, Outcome
from loadsim.record.events import AttemptFlag, SocketFlag

if TYPE_CHECKING:
    from loadsim.analysis.ledger import Ledger
    from loadsim.record.arrays import Recording, Records

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """For each attempt whose accept() is known of: how long it waited, in nanoseconds; one element each."""

    least: Ints  # never negative
    most: Ints  # never less
    known: Ints  # the moment at which it had been accepted at the latest
    exact: bool  # least is most: the kernel told


def bounds_of(recording: Recording, ledger: Ledger) -> Bounds:
    """Return how long those waited that the server accepted, of which it is known when they came."""
    attempt = attempts_of_sockets(recording)
    waited = _pairs(recording)
    traced = has_flag(recording.sockets, SocketFlag.TRACED)[waited]
    if traced.any():
        return _traced(recording, attempt, waited[traced])
    attempts = recording.attempts
    connected = column(attempts, "connected")
    seen_waiting, entered = _seen_waiting(recording, attempt, waited)
    is_late = (entered > 0) & (entered > connected + LATE_NS)
    first = np.where(is_late, entered - AGE_ERROR_NS, _connected_at_the_earliest(attempts))
    last = np.where(is_late, entered + AGE_ERROR_NS, connected)
    accepted = _accepted_at_the_latest(recording, attempt)
    ours = ledger.having(Fate.ACCEPTED) & (connected > 0) & (accepted < _NEVER)
    most = (accepted - first)[ours].clip(min=0)
    least = np.where(seen_waiting > 0, seen_waiting - last, 0)[ours].clip(min=0)
    return Bounds(least=np.minimum(least, most), most=most, known=accepted[ours], exact=False)


def _pairs(recording: Recording) -> Ints:
    """Return the rows of those who waited, each followed by the row of its coming: a journal may end in between."""
    sockets = recording.sockets
    followed = np.append(has_flag(sockets, SocketFlag.ENTERED), False)
    return np.flatnonzero(has_flag(sockets, SocketFlag.WAITED) & followed[1:])


def _traced(recording: Recording, attempt: Ints, rows: Ints) -> Bounds:
    """Return what the kernel told of our attempts, of these pairs."""
    ours = rows[attempt[rows] >= 0]
    moments = column(recording.sockets, "time")
    waited = (moments[ours] - moments[ours + 1]).clip(min=0)
    return Bounds(least=waited, most=waited, known=moments[ours], exact=True)


def _seen_waiting(recording: Recording, attempt: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Return for each attempt the last look that saw it wait, and when its socket was made by its age; 0 = neither."""
    moments = column(recording.sockets, "time")
    count = len(recording.attempts)
    last, entered = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    ours = rows[attempt[rows] >= 0]
    last[attempt[ours]], entered[attempt[ours]] = moments[ours], moments[ours + 1]
    return last, entered


def _connected_at_the_earliest(attempts: Records) -> Ints:
    """Return when each connection was complete at the earliest: not before connect() was called.

    Where that took longer than its call, its end was noticed some milliseconds late at most.
    """
    inside = (attempts["syn_retransmits"] == 0) & ~has_flag(attempts, AttemptFlag.WOKEN)
    noticed = column(attempts, "connected") - LATE_NS
    started = column(attempts, "started")
    return np.where(inside, started, np.maximum(noticed, started))


def _accepted_at_the_latest(recording: Recording, attempt: Ints) -> Ints:
    """Return for each attempt the first sign that it had been accepted; the largest number where there is none."""
    attempts, sockets = recording.attempts, recording.sockets
    found = np.full(len(attempts), _NEVER)
    owned: Bools = (sockets["inode"] > 0) & ~has_flag(sockets, SocketFlag.AT_CLIENT) & (attempt >= 0)
    np.minimum.at(found, attempt[owned], column(sockets, "time")[owned])
    replied, ended = column(attempts, "replied"), column(attempts, "ended")
    found = np.where(replied > 0, np.minimum(found, replied), found)
    return np.where(has_outcome(attempts, Outcome.EOF) & (ended > 0), np.minimum(found, ended), found)
