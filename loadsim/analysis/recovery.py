"""Whether the server was down when descriptors became free, and how long it then took to answer a canary.

Owns which steps of a timeline are a relief, and what counts as down and as recovered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.fates import Outcome
from loadsim.record.recording import Ints, Records, column, has_outcome
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.record.facts import StepFacts

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
