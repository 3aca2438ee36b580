"""The moments of a run: those between which it is judged, the steps that made room, and the queue capacity at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.fates import Outcome
from loadsim.record.recording import column, has_outcome, known
from loadsim.units import NANOSECONDS, queue_capacity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.record.facts import StepFacts
    from loadsim.record.recording import Ints, Recording, Records


#: Fields that hold the last moment of a record, by the journal they stand in.
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
        """Return the clock of a recording; what a killed run did not note is taken from its last record."""
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


#: Outcomes of a canary that its own process or host stopped: the server had no part in them.
OWN_LIMITS = (Outcome.LOCAL, Outcome.NOT_STARTED)
#: Outcomes of a canary that say nothing about the server: it never left, or had no time to learn anything.
SAY_NOTHING = (*OWN_LIMITS, Outcome.UNFINISHED)
#: A canary that has waited so long for an answer by the time there is room found a server that was down.
_KEPT_WAITING_NS = NANOSECONDS // 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One time that the server was down and room was made."""

    helped: StepFacts  # the last relief before the answer; the last of all where there was no answer
    tried: int  # how many reliefs it took
    answered_ns: int | None  # the first good answer after the first of them; None: it never came back
    until_ns: int  # the next step of the timeline, or the end of time: what came then is another story

    @property
    def took_ns(self) -> int | None:
        """Return the time from the relief that helped to the answer; None: it never came back."""
        return None if self.answered_ns is None else self.answered_ns - self.helped.done_ns


def reliefs(steps: Sequence[StepFacts]) -> list[StepFacts]:
    """Return the steps that made room: clients that left, a limit that rose."""
    return [one for one in steps if (one.change == "release" and not one.refused) or _rose(one)]


def slowest_recovery(steps: Sequence[StepFacts], canaries: Records) -> Recovery | None:
    """Return the recovery that took longest, one that never came before all; None: nothing was down at any relief."""
    found = recoveries(steps, telling(canaries))
    return max(found, key=lambda one: np.inf if one.took_ns is None else one.took_ns, default=None)


def recoveries(steps: Sequence[StepFacts], canaries: Records) -> list[Recovery]:
    """Return every recovery in order; `canaries` are those that learned something."""
    good = has_outcome(canaries, Outcome.OK)
    answers = np.sort(column(canaries[good], "replied"))
    gave, found, after = reliefs(steps), [], -1
    for first in gave:
        if first.done_ns <= after or not _is_down(canaries, first.done_ns):
            continue
        later = answers[answers >= first.done_ns]
        answered = int(later[0]) if len(later) else None
        tried = [one for one in gave if first.done_ns <= one.done_ns and (answered is None or one.done_ns <= answered)]
        after = np.iinfo(np.int64).max if answered is None else answered
        until = min((one.done_ns for one in steps if one.done_ns > after), default=np.iinfo(np.int64).max)
        found.append(Recovery(helped=tried[-1], tried=len(tried), answered_ns=answered, until_ns=int(until)))
    return found


def telling(canaries: Records) -> Records:
    """Return those canaries that learned something of the server."""
    told: Records = canaries[~has_outcome(canaries, *SAY_NOTHING)]
    return told


def settled(canaries: Records) -> Ints:
    """Return when it was clear what became of each canary."""
    return np.where(has_outcome(canaries, Outcome.OK), column(canaries, "replied"), column(canaries, "ended"))


def _is_down(canaries: Records, moment: int) -> bool:
    """Return whether the newest canary of which one can tell at a moment had found nobody to answer it."""
    intended, good = column(canaries, "intended"), has_outcome(canaries, Outcome.OK)
    answered = good & (settled(canaries) <= moment)
    last_good = int(intended[answered].max(initial=-1))
    waited = good & ~answered & (intended <= moment - _KEPT_WAITING_NS)
    return bool(((intended <= moment) & (intended > last_good) & (~good | waited)).any())


def _rose(step: StepFacts) -> bool:
    return step.change == "nofile" and step.before is not None and step.after is not None and step.after > step.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The queue capacity, min(backlog, somaxconn) + 1; each value holds until the next moment."""

    since: Ints  # ascending, from 0 on
    holds: Ints

    @classmethod
    def of(cls, recording: Recording) -> Capacity | None:
        """Return the capacity from the server's start, the steps and the samples; None where none of them shows it.

        The samples alone would be late by up to 10 ms, and miss what a step changes for a shorter time.
        """
        server, steps = recording.facts.server, recording.facts.steps
        start = [] if server.queue_capacity is None else [(0, server.queue_capacity)]
        backlogs = [(one.done_ns, int(one.after)) for one in steps if one.change == "backlog" and one.after is not None]
        stepped = [(moment, queue_capacity(backlog)) for moment, backlog in backlogs]
        sampled = np.stack(known(recording.samples, "queue_capacity"), axis=1)
        readings = np.concatenate([np.array(start + stepped, dtype=np.int64).reshape(-1, 2), sampled])
        if not len(readings):
            return None
        readings = readings[np.argsort(readings[:, 0], kind="stable")]
        changed = np.flatnonzero(np.diff(readings[:, 1], prepend=-1))
        since = readings[changed, 0]
        since[0] = 0  # whatever it was before the first reading, this is the best that is known
        return cls(since=since, holds=readings[changed, 1])

    def at(self, times: Ints) -> Ints:
        """Return what the queue held at most at each of these moments."""
        in_force: Ints = self.holds[np.searchsorted(self.since, times, "right") - 1]
        return in_force

    @property
    def changes(self) -> bool:
        """Whether it changed during the run."""
        return len(self.since) > 1

    @property
    def highest(self) -> int:
        """The most that it ever was."""
        return int(self.holds.max())
