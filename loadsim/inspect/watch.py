"""Looks at a process again and again, and hands over what happened. Reads the clock; ends with the process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.events import Event, Pace, Trend, events
from loadsim.inspect.snapshot import take
from loadsim.inspect.targets import holders_at
from loadsim.kernel.procfs import ProcessGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.inspect.model import Snapshot

_INTERVAL_S = 0.2
#: A look may take this share of the time at most: a process with 20,000 descriptors is looked at less often.
_BUSY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look while watching."""

    now: Snapshot
    events: list[Event]
    pace: Pace | None


def watch(pid: int, *, for_s: float | None = None) -> Iterator[Seen]:
    """Yield a look five times a second, less often where that costs much; ends when the process does, or in time.

    There are two looks at least, however short the time is, unless the process ends before.
    """
    trend = Trend()
    before: Snapshot | None = None
    begun = time.monotonic()
    looks = 0
    while for_s is None or looks < 2 or time.monotonic() - begun <= for_s:
        looks += 1
        asked = time.monotonic()
        try:
            now = take(pid)
        except ProcessGoneError:
            return
        trend.add(now.at_s, now.open_fds)
        yield Seen(now=now, events=events(before, now) if before else [], pace=trend.pace(now.room))
        before = now
        cost = time.monotonic() - asked
        time.sleep(max(_INTERVAL_S - cost, cost * (1 / _BUSY - 1)))


def wait_listener(port: int) -> int:
    """Wait until somebody listens at a port, and return the pid."""
    while True:
        found = holders_at(port)
        if found:
            return found[0]
        time.sleep(_INTERVAL_S)
