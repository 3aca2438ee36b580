"""The accept queue as the journals of both sides show it: who waited how long, how full it was, when nothing moved.

Exact for the simulated server: 100 samples a second miss up to two thirds of a burst's peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Bools, Ints, came_after_the_end, column, emfile_records, has_flag, known
from loadsim.analysis.host import RunWaits
from loadsim.fates import Fate
from loadsim.record.events import AcceptFlag, AttemptFlag, Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.clock import Clock
    from loadsim.analysis.ledger import Ledger
    from loadsim.record.arrays import Recording

_MS = NANOSECONDS // 1000
#: A socket that is younger than its client's connection by more than this was made late (its age is +-4 ms).
LATE_NS = 10 * _MS
_UNPREEMPTED_PERCENT = 30
#: A connection that is accepted within this has woken the server, whose wake-up delays the client's own stamp.
_WOKEN_NS = _MS
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

    From the moment its handshake was complete, except where the server's socket is far younger than that: then its
    age is the wait. Where the client has no stamp, also the age, from the start of the load at the earliest: a foreign
    client may have come before it, when nobody was to be accepted yet.
    """
    accepts = recording.accepts
    accepted, age = column(accepts, "accepted"), column(accepts, "age_ms") * _MS
    attempt_of = ledger.join.attempt_of
    connected = np.zeros(len(accepts), dtype=np.int64)
    joined = attempt_of >= 0
    stamped = column(recording.attempts, "connected")[attempt_of[joined]]
    took = stamped - column(recording.attempts, "started")[attempt_of[joined]]
    soon = accepted[joined] - stamped < np.maximum(_WOKEN_NS, _LONG_WAIT * took)
    connected[joined] = np.where(soon, completed(recording)[attempt_of[joined]], stamped)
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


def completed(recording: Recording) -> Ints:
    """Return when the handshake of each attempt was complete; 0 = never.

    On loopback that is inside connect(), 2 to 10 us before it returns, and longer before where the connection woke the
    server: waking it, and often being preempted by it, is part of the call. A connect() that took longer than the
    quicker three in ten of them is given their time. `waits_of` uses it for those who were accepted soon;
    for others the plain stamp is right. Without it the error against the kernel's own tracepoints had a median of -6
    to -22 us and a 99th percentile of 211 us (Linux 6.18, two cores).
    """
    attempts = recording.attempts
    started, connected = column(attempts, "started"), column(attempts, "connected")
    inside = (connected > 0) & (started > 0) & (attempts["syn_retransmits"] == 0)
    inside &= ~has_flag(attempts, AttemptFlag.WOKEN)
    if not inside.any():
        return connected
    usual = int(np.percentile((connected - started)[inside], _UNPREEMPTED_PERCENT))
    return np.where(inside, np.minimum(connected, started + usual), connected)


@dataclass(frozen=True, slots=True)
class QueueCurve:
    """The length of the accept queue after each event that changed it."""

    times: Ints  # sorted
    levels: Ints

    @property
    def peak(self) -> int:
        """The most connections at once."""
        return int(self.levels.max()) if len(self.levels) else 0

    def time_at(self, level: int, start: int, stop: int) -> int:
        """Return for how many nanoseconds between two moments the queue held at least this many."""
        begins = self.times.clip(start, stop)
        ends = np.append(self.times[1:], stop).clip(start, stop)
        return int((ends - begins)[self.levels >= level].sum())

    def reached(self, level: int) -> int | None:
        """Return when the queue first held this many; None = never."""
        reached = np.flatnonzero(self.levels >= level)
        return int(self.times[reached[0]]) if len(reached) else None

    def peaks(self, edges: Ints) -> Ints:
        """Return the most connections at once in each of the steps between these moments."""
        place = np.searchsorted(self.times, edges, "right") - 1
        before = np.where(place >= 0, self.levels[place.clip(min=0)], 0) if len(self.levels) else np.zeros_like(edges)
        peaks = before[:-1].copy()
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
    starved: Bools  # the server had no descriptor for an accept() in it
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
    begins = np.maximum(entered, np.append(0, ends[:-1])) if len(ends) else ends
    lengths = (ends - begins).clip(min=0)
    return Pauses(
        lengths=lengths,
        ends=ends,
        starved=_starved(recording, begins, ends),
        by_host=RunWaits.of(recording).within(ends - lengths, ends),
        final=len(left) > 0,
    )


def _starved(recording: Recording, begins: Ints, ends: Ints) -> Bools:
    """Return in which of these times an accept() failed for want of a descriptor."""
    failures = emfile_records(recording, Where.ACCEPT)
    first, last = np.sort(column(failures, "first")), np.sort(column(failures, "last"))
    return np.searchsorted(first, ends, "right") > np.searchsorted(last, begins, "left")
