"""The accept queue, computed from the journals of both sides: waits, length, and pauses of accepting.

For a server that writes no records the waits are exact if the kernel was traced. Otherwise they are between two bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.join import attempts_of_sockets, watchers
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import (
    AGE_ERROR_NS,
    Bools,
    Ints,
    came_after_the_end,
    column,
    emfile_records,
    has_flag,
    has_outcome,
    known,
)
from loadsim.record.records import AcceptFlag, AttemptFlag, SocketFlag, Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.clock import Capacity, Clock
    from loadsim.analysis.ledger import Ledger
    from loadsim.record.recording import Recording, Records


_MS = NANOSECONDS // 1000
#: A socket was made late if it is younger than its client's connection by more than this (its age is +-4 ms).
LATE_NS = 10 * _MS
#: The wait of a connection that is accepted within this may have begun with waking the server, inside connect().
_WOKEN_NS = _MS
#: connect() returns this much after the handshake if the handshake has woken a server on another CPU.
_RETURN_NS = 2_000
#: The handshake takes this share of the time from connect() to accept() if the server ran on the CPU of its client and
#: connect() returned only after that. Cold caches lengthen both parts (the share was 0.55 to 0.59 in seven loads).
_HANDSHAKE_SHARE = 0.57
#: A handshake takes at most this many usual ones: beyond that the server had no CPU.
_SLOWEST_HANDSHAKE = 4
#: A server that accepts within this many usual connect() times after connect() was waking up as connect() returned.
_AT_ONCE = 2
#: A wait is long if it is this many times its connect(), even if that call was slow.
_LONG_WAIT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """For each accept record, in the order of accept(): its wait in the accept queue, in nanoseconds."""

    accepted: Ints  # when accept() returned
    entered: Ints  # when the connection was complete at the server
    waited: Ints  # accepted - entered, never negative
    late: Bools  # its handshake was completed long after its client was connected
    taken: Bools  # the running server accepted it; False: it was taken from the queue after the judgement
    left: Bools  # it was in the queue when the run was judged


def waits_of(recording: Recording, ledger: Ledger) -> Waits:
    """Return how long every accepted connection had waited.

    A wait begins when the handshake is complete. If the server's socket is far younger than that, its age is the wait.
    If the client has no stamp, the wait is also the age, but it begins with the load at the earliest: a foreign client
    may have connected before, when the server did not accept yet.
    """
    accepts = recording.accepts
    accepted, age = column(accepts, "accepted"), column(accepts, "age_ms") * _MS
    attempt_of = ledger.join.attempt_of
    connected = np.zeros(len(accepts), dtype=np.int64)
    joined = attempt_of >= 0
    connected[joined] = _completed(recording.attempts[attempt_of[joined]], accepted[joined])
    watched = ledger.join.watcher_of >= 0
    connected[watched] = _completed(watchers(recording)[ledger.join.watcher_of[watched]], accepted[watched])
    since = np.where(connected > 0, accepted - connected, age).clip(min=0)
    late = (connected > 0) & (since > age + LATE_NS)
    waited = np.where(late, age, since)
    waited[~joined] = np.minimum(waited, (accepted - recording.facts.start_ns).clip(min=0))[~joined]
    taken = ~has_flag(accepts, AcceptFlag.AFTER_END)
    return Waits(
        accepted=accepted,
        entered=accepted - waited,
        waited=waited,
        late=late,
        taken=taken,
        left=~taken & ~came_after_the_end(recording),
    )


def _completed(attempts: Records, accepted: Ints) -> Ints:
    """Return when the handshake of each accepted attempt was complete; 0 = it has no stamp.

    On loopback the handshake completes inside connect(), and the server is woken there, too. A slow connect() was slow
    before the handshake was complete (cold caches) or after it (the server was woken first). The moment of accept()
    distinguishes the two:

    - If the server accepted after connect() had returned, the handshake was complete right before the return. If it
      accepted at once, the handshake took no longer than a usual one: connect() was late because it woke the server.
    - If it accepted before, the server ran on this CPU during connect(), and the handshake took its share of the time.

    A long wait is counted from the stamp. Without this the 90th percentile was up to 20 % too long at 200 clients a
    second, and with the plain stamp the median up to 17 % too short (Linux 6.18, two cores).
    """
    started, connected = column(attempts, "started"), column(attempts, "connected")
    took, after = connected - started, accepted - connected
    inside = (connected > 0) & (started > 0) & (attempts["syn_retransmits"] == 0)
    inside &= ~has_flag(attempts, AttemptFlag.WOKEN) & (after < np.maximum(_WOKEN_NS, _LONG_WAIT * took))
    returned = inside & (after >= 0)
    if not inside.any():
        return connected
    usual = int(np.median(took[returned])) - _RETURN_NS if returned.any() else int(took[inside].min())
    at_once = returned & (after < _AT_ONCE * usual)
    between = (_HANDSHAKE_SHARE * (accepted - started)).astype(np.int64).clip(max=_SLOWEST_HANDSHAKE * usual)
    handshake = np.where(returned, took - _RETURN_NS, between)
    handshake = np.where(at_once, np.minimum(handshake, usual), handshake).clip(min=0)
    return np.where(inside, started + handshake, connected)


@dataclass(frozen=True, slots=True)
class QueueCurve:
    """The length of the accept queue after each event that changed it."""

    times: Ints  # sorted
    levels: Ints

    @property
    def peak(self) -> int:
        """The most connections at once."""
        return int(self.levels.max()) if len(self.levels) else 0

    def within(self, capacity: Capacity | None) -> QueueCurve:
        """Return the curve, cut at the highest capacity until each moment.

        Both stamps of a connection are a few microseconds late: together they can show one connection too many. A queue
        keeps its length when the backlog is lowered below it.
        """
        if capacity is None:
            return self
        highest = np.maximum.accumulate(capacity.holds)[np.searchsorted(capacity.since, self.times, "right") - 1]
        return QueueCurve(self.times, np.minimum(self.levels, highest))

    def time_full(self, capacity: Capacity, start: int, stop: int) -> int:
        """Return for how many nanoseconds between two moments the queue was full."""
        moments, full = self._fullness(capacity)
        begins = moments.clip(start, stop)
        ends = np.append(moments[1:], stop).clip(start, stop)
        return int((ends - begins)[full].sum())

    def first_full(self, capacity: Capacity) -> int | None:
        """Return when the queue was first full; None = never."""
        moments, full = self._fullness(capacity)
        return int(moments[full][0]) if full.any() else None

    def levels_at(self, times: Ints) -> Ints:
        """Return the length of the queue at each of these moments."""
        if not len(self.levels):
            return np.zeros_like(times)
        place = np.searchsorted(self.times, times, "right") - 1
        return np.where(place >= 0, self.levels[place.clip(min=0)], 0)

    def _fullness(self, capacity: Capacity) -> tuple[Ints, Bools]:
        """Return the moments at which the queue or its capacity changed, and whether it was full from then on."""
        moments = np.concatenate([self.times, capacity.since])
        levels = np.concatenate([self.levels, self.levels_at(capacity.since)])
        order = np.argsort(moments, kind="stable")
        moments = moments[order]
        return moments, levels[order] >= capacity.at(moments)

    def peaks(self, edges: Ints) -> Ints:
        """Return the longest queue in each step between these moments."""
        peaks = self.levels_at(edges)[:-1].copy()
        step = np.searchsorted(edges, self.times, "right") - 1
        inside = (step >= 0) & (step < len(peaks))
        np.maximum.at(peaks, step[inside], self.levels[inside])
        return peaks


def queue_curve(recording: Recording, ledger: Ledger, waits: Waits) -> QueueCurve:
    """Return the accept queue over time: connected minus accepted clients of both journals, without phantoms.

    For a server that writes no records the samples show it.
    """
    if not recording.facts.server.is_simulated:
        return QueueCurve(*known(recording.samples, "queue"))
    orphans = column(recording.attempts, "connected")[ledger.having(Fate.ORPHANED)]
    arrivals = np.concatenate([waits.entered, orphans[orphans > 0]])
    departures = waits.accepted[waits.taken]
    # Arrivals go first: a connection that was accepted in the same nanosecond had been in the queue.
    times = np.concatenate([arrivals, departures])
    order = np.argsort(times, kind="stable")
    return QueueCurve(times=times[order], levels=np.cumsum(np.where(order < len(arrivals), 1, -1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Times in which a client waited in the accept queue and none was accepted.

    Each accepted connection ends one at its accept(). The end of the run ends another if clients still waited.
    """

    lengths: Ints  # nanoseconds, never negative
    ends: Ints
    starved: Bools  # an accept() failed at its beginning or in it because no descriptor was free
    by_host: Ints  # the time in each for which the server waited for a CPU
    final: bool  # the end of the run ended the last one, not an accept()

    @property
    def own(self) -> Ints:
        """The lengths without the time for which the server was ready to run and waited for a CPU."""
        return self.lengths - self.by_host

    @property
    def longest(self) -> int:
        """The longest one; 0 = there was none."""
        return int(self.lengths.max()) if len(self.lengths) else 0


def pauses_of(recording: Recording, ledger: Ledger, waits: Waits, clock: Clock) -> Pauses:
    """Return the pauses: each from the previous accept(), or the arrival of a client, to the next accept()."""
    ends, entered = waits.accepted[waits.taken], waits.entered[waits.taken]
    orphans = column(recording.attempts, "connected")[ledger.having(Fate.ORPHANED)]
    left = np.concatenate([waits.entered[waits.left], orphans[orphans > 0]])
    if len(left):
        ends, entered = np.append(ends, clock.judged), np.append(entered, left.min())
    accepted_before = np.append(0, ends[:-1]) if len(ends) else ends
    lengths = (ends - np.maximum(entered, accepted_before)).clip(min=0)
    return Pauses(
        lengths=lengths,
        ends=ends,
        starved=_starved(recording, accepted_before, ends),
        by_host=RunWaits.of(recording).within(ends - lengths, ends),
        final=len(left) > 0,
    )


def _starved(recording: Recording, accepted_before: Ints, ends: Ints) -> Bools:
    """Return before which of these accept() calls another one failed because no descriptor was free.

    The queue is first in, first out: a failure after the previous accept() concerned the client that waits in this
    pause. It begins the pause, and can be stamped before the client's own stamp. A server that waits for a close fails
    only once.
    """
    failures = emfile_records(recording, Where.ACCEPT)
    first, last = np.sort(column(failures, "first")), np.sort(column(failures, "last"))
    return np.searchsorted(first, ends, "right") > np.searchsorted(last, accepted_before, "left")


_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long each attempt waited for an accept() that is known, in nanoseconds; one element for each."""

    least: Ints  # never negative
    most: Ints  # never less
    known: Ints  # the latest moment of its accept()
    exact: bool  # least equals most: the kernel was traced


def bounds_of(recording: Recording, ledger: Ledger) -> Bounds:
    """Return how long each accepted client waited if it is known when it connected."""
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
    """Return the rows of waits that are followed by the row of their beginning: a journal may end in between."""
    sockets = recording.sockets
    followed = np.append(has_flag(sockets, SocketFlag.ENTERED), False)
    return np.flatnonzero(has_flag(sockets, SocketFlag.WAITED) & followed[1:])


def _traced(recording: Recording, attempt: Ints, rows: Ints) -> Bounds:
    """Return the waits of the attempts among these pairs, which the kernel traced."""
    ours = rows[attempt[rows] >= 0]
    moments = column(recording.sockets, "time")
    waited = (moments[ours] - moments[ours + 1]).clip(min=0)
    return Bounds(least=waited, most=waited, known=moments[ours], exact=True)


def _seen_waiting(recording: Recording, attempt: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Return when each attempt was last seen waiting, and when its socket was made by its age; 0 = not known."""
    moments = column(recording.sockets, "time")
    count = len(recording.attempts)
    last, entered = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    ours = rows[attempt[rows] >= 0]
    last[attempt[ours]], entered[attempt[ours]] = moments[ours], moments[ours + 1]
    return last, entered


def _connected_at_the_earliest(attempts: Records) -> Ints:
    """Return the earliest moment at which each connection was complete: not before connect() was called.

    A connect() that did not end in its call was noticed at most some milliseconds late.
    """
    inside = (attempts["syn_retransmits"] == 0) & ~has_flag(attempts, AttemptFlag.WOKEN)
    noticed = column(attempts, "connected") - LATE_NS
    started = column(attempts, "started")
    return np.where(inside, started, np.maximum(noticed, started))


def _accepted_at_the_latest(recording: Recording, attempt: Ints) -> Ints:
    """Return the first moment that proves the accept() of each attempt; the largest number where none does."""
    attempts, sockets = recording.attempts, recording.sockets
    found = np.full(len(attempts), _NEVER)
    owned: Bools = (sockets["inode"] > 0) & ~has_flag(sockets, SocketFlag.AT_CLIENT) & (attempt >= 0)
    np.minimum.at(found, attempt[owned], column(sockets, "time")[owned])
    replied, ended = column(attempts, "replied"), column(attempts, "ended")
    found = np.where(replied > 0, np.minimum(found, replied), found)
    return np.where(has_outcome(attempts, Outcome.EOF) & (ended > 0), np.minimum(found, ended), found)


@dataclass(frozen=True, slots=True)
class RunWaits:
    """How long the server had waited for a CPU at each sample, in nanoseconds since the first sample."""

    times: Ints
    waited: Ints  # never falls

    @classmethod
    def of(cls, recording: Recording) -> RunWaits:
        """Return the waits of a recording; empty if none were read."""
        times, readings = known(recording.samples, "run_wait_ns")
        grown = np.diff(readings, prepend=readings[:1]).clip(min=0)  # the sum over processes falls where one ends
        return cls(times, np.cumsum(grown))

    def within(self, begins: Ints, ends: Ints) -> Ints:
        """Return how long the server waited for a CPU in each of these times; 0 if that is not known."""
        if not len(self.times):
            return np.zeros_like(begins)
        last = len(self.times) - 1
        before = (np.searchsorted(self.times, begins, "right") - 1).clip(min=0)
        after = np.searchsorted(self.times, ends, "left").clip(max=last)
        waited: Ints = np.minimum(self.waited[after] - self.waited[before], ends - begins).clip(min=0)
        return waited

    def steps(self, begin: int, end: int) -> Ints:
        """Return the waits between the samples of a time."""
        during = (self.times >= begin) & (self.times <= end)
        return np.diff(self.waited[during])
