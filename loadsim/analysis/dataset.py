"""One recording, with the ledger, the waits and the queue that all other modules of this folder use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsim.analysis.accept_queue import (
    Bounds,
    Pauses,
    QueueCurve,
    RunWaits,
    Waits,
    bounds_of,
    pauses_of,
    queue_curve,
    waits_of,
)
from loadsim.analysis.clock import Capacity, Clock
from loadsim.analysis.ledger import Ledger, settle
from loadsim.analysis.recovery import slowest_recovery
from loadsim.record.recording import column, emfile_records, known
from loadsim.record.records import Where

if TYPE_CHECKING:
    from loadsim.analysis.recovery import Recovery
    from loadsim.record.recording import Ints, Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A recording, its ledger, and its accept queue over time."""

    recording: Recording
    clock: Clock
    ledger: Ledger
    waits: Waits
    queue: QueueCurve
    capacity: Capacity | None  # of the accept queue; None = not read
    pauses: Pauses
    bounds: Bounds | None  # of accept latencies, where the server writes no records and its sockets are seen

    @classmethod
    def of(cls, recording: Recording) -> Dataset:
        """Return the dataset of a recording."""
        clock, ledger, server = Clock.of(recording), settle(recording), recording.facts.server
        waits = waits_of(recording, ledger)
        return cls(
            recording=recording,
            clock=clock,
            ledger=ledger,
            waits=waits,
            queue=queue_curve(recording, ledger, waits),
            capacity=Capacity.of(recording),
            pauses=pauses_of(recording, ledger, waits, clock),
            bounds=None if server.is_simulated or not server.sockets_seen else bounds_of(recording, ledger),
        )

    @property
    def run_waits(self) -> RunWaits:
        """How long the server had waited for a CPU, sample by sample."""
        return RunWaits.of(self.recording)

    @property
    def fd_limit(self) -> int:
        """RLIMIT_NOFILE of the server, as read back.

        If a timeline changes it: the value when a descriptor was missing first, or the lowest one if none was missing.
        """
        if not self.limit_changes:
            return self.recording.facts.server.nofile_soft
        missed = column(emfile_records(self.recording, *Where), "first")
        return int(self.limits_at(missed).flat[missed.argmin()]) if len(missed) else min(self._limits.values())

    @property
    def limit_changes(self) -> dict[int, int]:
        """The limits that steps of the timeline set, by the moment from which each was in force."""
        steps = [one for one in self.recording.facts.steps if one.change == "nofile" and one.after != one.before]
        return {one.done_ns: int(one.after) for one in steps if one.after is not None}

    def limits_at(self, times: Ints) -> Ints:
        """Return RLIMIT_NOFILE of the server at each of these moments."""
        since, limits = np.array(list(self._limits)), np.array(list(self._limits.values()))
        in_force: Ints = limits[np.searchsorted(since, times, "right") - 1]
        return in_force

    @property
    def recovery(self) -> Recovery | None:
        """The slowest recovery after a step that made room; None: the server was never down at such a step."""
        return slowest_recovery(self.recording.facts.steps, self.recording.canary)

    @property
    def _limits(self) -> dict[int, int]:
        return {0: self.recording.facts.server.nofile_soft, **self.limit_changes}

    @property
    def queue_peak(self) -> tuple[int, int | None]:
        """The longest queue, and its capacity at that moment; None = not read."""
        curve = self.queue.within(self.capacity)
        times, seen = known(self.recording.samples, "queue")
        moments, levels = np.concatenate([curve.times, times]), np.concatenate([curve.levels, seen])
        longest = int(levels.max(initial=0))
        if self.capacity is None:
            return longest, None
        reached = moments[levels == longest].min() if len(levels) and longest else self.clock.start
        return longest, int(self.capacity.at(np.array([reached]))[0])

    @property
    def queue_full_at_s(self) -> float | None:
        """When the accept queue first was full, in seconds from the start of the load; None = never."""
        if self.capacity is None:
            return None
        times, seen = known(self.recording.samples, "queue")
        moments = [self.queue.first_full(self.capacity), *times[seen >= self.capacity.at(times)][:1].tolist()]
        reached = [moment for moment in moments if moment is not None]
        return self.clock.at(min(reached)) if reached else None

    def setting(self, table: str, key: str) -> Any:  # noqa: ANN401 -- any value of a scenario
        """Return a setting of the scenario; None if it is not set."""
        return self.recording.facts.settings.get(table, {}).get(key)
