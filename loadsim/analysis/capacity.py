"""How many connections the accept queue holds, over time: a step of a timeline or a second listen() changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import known
from loadsim.units import queue_capacity

if TYPE_CHECKING:
    from loadsim.analysis.columns import Ints
    from loadsim.record.arrays import Recording


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
