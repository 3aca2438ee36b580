"""The moments between which a run is judged, also where it never came to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.record.arrays import Recording

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
