"""The moments of a run: its start, end and judgement, and the queue capacity in force at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.record.recording import known
from loadsim.units import NANOSECONDS, queue_capacity

if TYPE_CHECKING:
    from loadsim.record.recording import Ints, Recording


#: Fields that hold the last moment of a record, by journal.
_MOMENTS = {
    "attempts": ("started", "connected", "ended"),
    "accepts": ("accepted", "closed"),
    "failures": ("last",),
    "samples": ("time",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Start and end of a run in nanoseconds of the monotonic clock."""

    start: int  # the origin of the intended start times
    load_end: int  # when the drivers had finished
    judged: int  # when the server stopped accepting, or ended by itself

    @classmethod
    def of(cls, recording: Recording) -> Clock:
        """Return the clock of a recording; for a killed run the last record replaces what it did not note."""
        facts = recording.facts
        load_end = facts.load_end_ns or _last_record(recording)
        judged = facts.server.exited_ns or facts.judged_ns or load_end
        return cls(start=facts.start_ns, load_end=max(load_end, facts.start_ns), judged=judged)

    def at(self, moment: int) -> float:
        """Return a moment in seconds from the start of the load."""
        return (moment - self.start) / NANOSECONDS

    @property
    def load_s(self) -> float:
        """How long the load lasted, until its last client had ended."""
        return (self.load_end - self.start) / NANOSECONDS


def _last_record(recording: Recording) -> int:
    """Return the last moment in any record; the start where there is none."""
    moments = [recording.facts.start_ns]
    for journal, names in _MOMENTS.items():
        records = getattr(recording, journal)
        moments += [int(records[name].max()) for name in names if len(records)]
    return max(moments)


#: A reading of the capacity can be older than its stamp by this much: two samples, on a busy host.
_LATE_NS = NANOSECONDS // 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The queue capacity, min(backlog, somaxconn) + 1; each value holds until the next moment."""

    since: Ints  # ascending, from 0 on
    holds: Ints

    @classmethod
    def of(cls, recording: Recording) -> Capacity | None:
        """Return the capacity from the server's start, the steps and the samples; None if none of them shows it.

        Samples are up to 10 ms late, and miss a shorter change by a step.
        """
        server, steps = recording.facts.server, recording.facts.steps
        start = [] if server.queue_capacity is None else [(0, server.queue_capacity)]
        backlogs = [(one.done_ns, int(one.after)) for one in steps if one.change == "backlog" and one.after is not None]
        stepped = [(moment, queue_capacity(backlog)) for moment, backlog in backlogs]
        sampled = np.stack(known(recording.samples, "queue_capacity"), axis=1)
        for moment, capacity in stepped:  # a sample that began before the step can be stamped after it
            late = (sampled[:, 0] >= moment) & (sampled[:, 0] < moment + _LATE_NS) & (sampled[:, 1] != capacity)
            sampled = sampled[~late]
        readings = np.concatenate([np.array(start + stepped, dtype=np.int64).reshape(-1, 2), sampled])
        if not len(readings):
            return None
        readings = readings[np.argsort(readings[:, 0], kind="stable")]
        changed = np.flatnonzero(np.diff(readings[:, 1], prepend=-1))
        since = readings[changed, 0]
        since[0] = 0  # the first reading is the best that is known about the time before it
        return cls(since=since, holds=readings[changed, 1])

    def at(self, times: Ints) -> Ints:
        """Return the capacity at each of these moments."""
        in_force: Ints = self.holds[np.searchsorted(self.since, times, "right") - 1]
        return in_force

    @property
    def changes(self) -> bool:
        """Whether it changed during the run."""
        return len(self.since) > 1

    @property
    def highest(self) -> int:
        """The highest value."""
        return int(self.holds.max())
