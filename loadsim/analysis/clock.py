"""The moments of a run: its start, end and judgement, the steps that made room, and the queue capacity over time."""

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


#: Outcomes of a canary that its own process or host stopped: the server did not cause them.
OWN_LIMITS = (Outcome.LOCAL, Outcome.NOT_STARTED)
#: Outcomes of a canary that say nothing about the server: it never started, or the run ended before its answer.
SAY_NOTHING = (*OWN_LIMITS, Outcome.UNFINISHED)
#: A server was down if a canary had waited this long for an answer when a step made room.
_KEPT_WAITING_NS = NANOSECONDS // 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One time that the server was down and room was made."""

    helped: StepFacts  # the last relief before the answer, or the last one if there was no answer
    tried: int  # how many reliefs it took
    answered_ns: int | None  # the first good answer after the first relief; None: it never came back
    until_ns: int  # the next step of the timeline, or the largest moment: later events do not belong to it

    @property
    def took_ns(self) -> int | None:
        """Return the time from the relief that helped to the answer; None: it never came back."""
        return None if self.answered_ns is None else self.answered_ns - self.helped.done_ns


def reliefs(steps: Sequence[StepFacts]) -> list[StepFacts]:
    """Return the steps that made room: clients left, or the limit rose."""
    return [one for one in steps if (one.change == "release" and not one.refused) or _rose(one)]


def slowest_recovery(steps: Sequence[StepFacts], canaries: Records) -> Recovery | None:
    """Return the slowest recovery, the slowest of all being one that never came; None: no relief met a down server."""
    found = recoveries(steps, telling(canaries))
    return max(found, key=lambda one: np.inf if one.took_ns is None else one.took_ns, default=None)


def recoveries(steps: Sequence[StepFacts], canaries: Records) -> list[Recovery]:
    """Return every recovery in order; each of `canaries` learned something about the server."""
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
    """Return the canaries that learned something about the server."""
    told: Records = canaries[~has_outcome(canaries, *SAY_NOTHING)]
    return told


def settled(canaries: Records) -> Ints:
    """Return when the result of each canary was known."""
    return np.where(has_outcome(canaries, Outcome.OK), column(canaries, "replied"), column(canaries, "ended"))


def _is_down(canaries: Records, moment: int) -> bool:
    """Return whether the newest canary with a known result at a moment had no answer."""
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
        """Return the capacity from the server's start, the steps and the samples; None if none of them shows it.

        Samples are up to 10 ms late, and miss a shorter change by a step.
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
