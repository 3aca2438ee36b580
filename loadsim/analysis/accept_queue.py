"""The accept queue as the journals of both sides show it: waits, fullness, pauses.

For a server that writes no records the waits are exact where the kernel was traced, else between two bounds.
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
#: A socket that is younger than its client's connection by more than this was made late (its age is +-4 ms).
LATE_NS = 10 * _MS
#: The wait of a connection that is accepted within this may have begun with waking the server, inside connect().
_WOKEN_NS = _MS
#: connect() returns this much after the handshake, where that has woken a server on another CPU.
_RETURN_NS = 2_000
#: Of the time from before connect() to accept() the handshake takes this share, where the server ran on the CPU of its
#: client and connect() returned only after it. Cold caches make both parts longer alike (0.55 to 0.59 in seven loads).
_HANDSHAKE_SHARE = 0.57
#: It takes no longer than so many usual ones: beyond that the server had no CPU.
_SLOWEST_HANDSHAKE = 4
#: A server that accepts within this many usual times of connect() after it was being woken up while that returned.
_AT_ONCE = 2
#: A wait of so many times its connect() is long, however slow that call was.
_LONG_WAIT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """For each accept record, in the order of accept(): its wait in the accept queue, in nanoseconds."""

    accepted: Ints  # when accept() returned
    entered: Ints  # when the connection was complete at the server
    waited: Ints  # accepted - entered, never negative
    late: Bools  # its handshake was completed long after its client had been told "connected"
    taken: Bools  # by the running server; False: taken from the queue after the run had been judged
    left: Bools  # in the queue when the run was judged


def waits_of(recording: Recording, ledger: Ledger) -> Waits:
    """Return how long every accepted connection had waited.

    From the moment at which its handshake was complete, except where the server's socket is far younger than that:
    then its age is the wait. Where the client has no stamp, also the age, from the start of the load at the earliest: a
    foreign client may have come before it, when the server did not accept yet.
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

    On loopback that is inside connect(), and so is waking the server. A slow connect() may have been slow before the
    handshake was complete (cold caches) or after it (the server was woken up first); what tells them apart is when the
    server accepted:

    - after connect() had returned: right before that. Where it was at once, also no later than a usual handshake takes,
      since waking the server was then what connect() returned late for;
    - before: the server ran on this CPU, in between, and the handshake had its share of the time.

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
        """Return the curve cut at the most that the queue held until then.

        Both stamps of a connection are taken a few microseconds after the fact: together they can show one more than
        there was. A queue that is longer than a backlog that was lowered meanwhile stays as it is.
        """
        if capacity is None:
            return self
        highest = np.maximum.accumulate(capacity.holds)[np.searchsorted(capacity.since, self.times, "right") - 1]
        return QueueCurve(self.times, np.minimum(self.levels, highest))

    def time_full(self, capacity: Capacity, start: int, stop: int) -> int:
        """Return for how many nanoseconds between two moments the queue held all that it could."""
        moments, full = self._fullness(capacity)
        begins = moments.clip(start, stop)
        ends = np.append(moments[1:], stop).clip(start, stop)
        return int((ends - begins)[full].sum())

    def first_full(self, capacity: Capacity) -> int | None:
        """Return when the queue first held all that it could; None = never."""
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
        """Return the most connections at once in each of the steps between these moments."""
        peaks = self.levels_at(edges)[:-1].copy()
        step = np.searchsorted(edges, self.times, "right") - 1
        inside = (step >= 0) & (step < len(peaks))
        np.maximum.at(peaks, step[inside], self.levels[inside])
        return peaks


def queue_curve(recording: Recording, ledger: Ledger, waits: Waits) -> QueueCurve:
    """Return the accept queue over time: connected minus accepted over both journals, phantoms excluded.

    Of a server that writes no records it is what the samples show.
    """
    if not recording.facts.server.is_simulated:
        return QueueCurve(*known(recording.samples, "queue"))
    orphans = column(recording.attempts, "connected")[ledger.having(Fate.ORPHANED)]
    arrivals = np.concatenate([waits.entered, orphans[orphans > 0]])
    departures = waits.accepted[waits.taken]
    # Arrivals first: one that was accepted in the same nanosecond had been in the queue.
    times = np.concatenate([arrivals, departures])
    order = np.argsort(times, kind="stable")
    return QueueCurve(times=times[order], levels=np.cumsum(np.where(order < len(arrivals), 1, -1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Times in which somebody waited in the accept queue and nobody was accepted.

    One for each connection that was taken, ending at its accept(), and one at the end of the run where some were
    still waiting then.
    """

    lengths: Ints  # nanoseconds, never negative
    ends: Ints
    starved: Bools  # an accept() failed for want of a descriptor, at its beginning or in it
    by_host: Ints  # of each, the time for which the server waited for a CPU
    final: bool  # the last one was ended by the end of the run, not by an accept()

    @property
    def own(self) -> Ints:
        """The lengths without the time for which the server was ready to run and waited for a CPU."""
        return self.lengths - self.by_host

    @property
    def longest(self) -> int:
        """The longest one; 0 = there was none."""
        return int(self.lengths.max()) if len(self.lengths) else 0


def pauses_of(recording: Recording, ledger: Ledger, waits: Waits, clock: Clock) -> Pauses:
    """Return the pauses of accepting: from the accept() before, or from the first to wait, to the next accept()."""
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
    """Return before which of these accept() calls another one failed for want of a descriptor.

    The queue is first in, first out: a failure after the accept() before was that of the client which this pause is
    about. It begins the pause, and can be stamped before the client's own stamp. There may be only one, from a server
    that waits for a close.
    """
    failures = emfile_records(recording, Where.ACCEPT)
    first, last = np.sort(column(failures, "first")), np.sort(column(failures, "last"))
    return np.searchsorted(first, ends, "right") > np.searchsorted(last, accepted_before, "left")


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


@dataclass(frozen=True, slots=True)
class RunWaits:
    """How long the server had waited for a CPU by each sample, nanoseconds since the first of them."""

    times: Ints
    waited: Ints  # never falls

    @classmethod
    def of(cls, recording: Recording) -> RunWaits:
        """Return those of a recording; empty where none were read."""
        times, readings = known(recording.samples, "run_wait_ns")
        grown = np.diff(readings, prepend=readings[:1]).clip(min=0)  # the sum over processes falls where one ends
        return cls(times, np.cumsum(grown))

    def within(self, begins: Ints, ends: Ints) -> Ints:
        """Return for how much of each of these times the server waited for a CPU; 0 where that is not known."""
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
