"""Which attempt is to start when.

Pure: no clock and no socket; times are CLOCK_MONOTONIC nanoseconds that the engine hands in. Both loops answer the
same three questions: what is due now, when is the next one due, and is that all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Later than every time stamp.
NEVER = 2**63 - 1
#: What `take` returns when nothing is due.
NOT_YET = -1
#: A client whose attempt never reached the server waits this long: without it a closed loop against nothing spins.
PAUSE_NS = 10_000_000


class Demand(Protocol):
    """What the engine asks a schedule."""

    def take(self, now: int) -> int:
        """Return the intended start of the next attempt if that is due, else NOT_YET."""

    def next_due(self) -> int:
        """Return when the next attempt is due, NEVER where that depends on a client that is still busy."""

    def give_back(self, at: int, *, pause: bool) -> None:
        """Hear that an attempt ended; `pause` where it never reached a server that listens."""

    def stop(self) -> None:
        """Want no further attempts."""

    @property
    def exhausted(self) -> bool:
        """Whether no further attempt will ever be due."""


class OpenLoop:
    """Clients arrive when the schedule says so, whatever the server does."""

    def __init__(self, offsets: Iterator[int], *, start_ns: int) -> None:
        self._offsets = offsets
        self._start_ns = start_ns
        self._due = self._following()

    def take(self, now: int) -> int:
        due = self._due
        if due > now:
            return NOT_YET
        self._due = self._following()
        return due

    def next_due(self) -> int:
        return self._due

    def give_back(self, at: int, *, pause: bool) -> None:
        """Ignore it: nobody waits for an end."""

    def stop(self) -> None:
        self._due = NEVER

    @property
    def exhausted(self) -> bool:
        return self._due == NEVER

    def _following(self) -> int:
        offset = next(self._offsets, None)
        return NEVER if offset is None else self._start_ns + offset


class ClosedLoop:
    """A fixed number of clients, each of which starts again when its last connection has ended.

    `attempts` is how many this driver may start, None for no bound but `end_ns`.
    """

    def __init__(self, clients: int, *, start_ns: int, end_ns: int, attempts: int | None) -> None:
        self._free = deque([start_ns] * clients)  # when each idle client became free, oldest first
        self._paused: deque[int] = deque()  # the same for those that pause: a constant later, so also oldest first
        self._end_ns = end_ns
        self._left = NEVER if attempts is None else attempts

    def take(self, now: int) -> int:
        if now >= self._end_ns or not self._left:
            self._left = 0
            return NOT_YET
        waiting = self._free or self._paused
        if self._paused and self._paused[0] <= now:
            waiting = self._paused
        if not waiting or waiting[0] > now:
            return NOT_YET
        self._left -= 1
        return waiting.popleft()

    def next_due(self) -> int:
        if not self._left:
            return NEVER
        waiting = [queue[0] for queue in (self._free, self._paused) if queue]
        return min(waiting, default=NEVER)

    def give_back(self, at: int, *, pause: bool) -> None:
        if pause:
            self._paused.append(at + PAUSE_NS)
        else:
            self._free.append(at)

    def stop(self) -> None:
        self._left = 0

    @property
    def exhausted(self) -> bool:
        return not self._left
