"""Which attempts are to start when.

Pure: no clock and no socket; times are CLOCK_MONOTONIC nanoseconds that the engine hands in. Both loops answer the
same questions: which attempts are due now, when is the next one due, and is that all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Later than every time stamp.
NEVER = 2**63 - 1
#: A client whose attempt never reached a server that listens waits this long: without it, a closed loop spins.
PAUSE_NS = 10_000_000


class Schedule(Protocol):
    """What the engine asks of a schedule."""

    def take_due(self, now: int, most: int) -> list[int]:
        """Return the intended starts of the attempts that are due, oldest first, at most so many."""

    def next_due(self) -> int:
        """Return when an attempt is next due, NEVER where that depends on a client that is still busy."""

    def give_back(self, *ended: int, pause: bool = False) -> None:
        """Hear when attempts have ended; `pause` where they never reached a server that listens."""

    def stop(self) -> None:
        """Want no further attempts."""

    @property
    def exhausted(self) -> bool:
        """Whether no further attempt will ever be due."""


class OpenLoop(Schedule):
    """Clients arrive when the schedule says so, whatever the server does; `offsets` are from `start_ns`, ascending."""

    def __init__(self, offsets: Iterator[int], *, start_ns: int) -> None:
        self._offsets = offsets
        self._start_ns = start_ns
        self._next = self._following()

    def take_due(self, now: int, most: int) -> list[int]:
        """See Demand."""
        due: list[int] = []
        while self._next <= now and len(due) < most:
            due.append(self._next)
            self._next = self._following()
        return due

    def next_due(self) -> int:
        """See Demand."""
        return self._next

    def give_back(self, *ended: int, pause: bool = False) -> None:
        """Ignore it: nobody waits for an end."""

    def stop(self) -> None:
        """See Demand."""
        self._next = NEVER

    @property
    def exhausted(self) -> bool:
        """See Demand."""
        return self._next == NEVER

    def _following(self) -> int:
        offset = next(self._offsets, None)
        return NEVER if offset is None else self._start_ns + offset


class ClosedLoop(Schedule):
    """A fixed number of clients, each of which starts again when its last connection has ended.

    `attempts` is how many of them this driver may start, None for no bound but `end_ns`.
    """

    def __init__(self, clients: int, *, start_ns: int, end_ns: int, attempts: int | None) -> None:
        self._free = deque([start_ns] * clients)  # since when each idle client has been free, oldest first
        self._paused: deque[int] = deque()  # when each pausing client will be free: a constant later, so in order too
        self._end_ns = end_ns
        self._left = NEVER if attempts is None else attempts
        if not clients:
            self.stop()

    def take_due(self, now: int, most: int) -> list[int]:
        """See Demand."""
        if now >= self._end_ns:
            self.stop()
        due: list[int] = []
        for waiting in (self._paused, self._free):
            room = min(most, self._left) - len(due)
            if waiting and waiting[-1] <= now:  # all of them: nearly always so, and then cheap
                due += [waiting.popleft() for _ in range(min(room, len(waiting)))]
            while waiting and waiting[0] <= now and len(due) < min(most, self._left):
                due.append(waiting.popleft())
        self._left -= len(due)
        return due

    def next_due(self) -> int:
        """See Demand."""
        if self.exhausted:
            return NEVER
        return min((waiting[0] for waiting in (self._paused, self._free) if waiting), default=NEVER)

    def give_back(self, *ended: int, pause: bool = False) -> None:
        """See Demand."""
        if pause:
            self._paused.extend(at + PAUSE_NS for at in ended)
        else:
            self._free.extend(ended)

    def stop(self) -> None:
        """See Demand."""
        self._left = 0

    @property
    def exhausted(self) -> bool:
        """See Demand."""
        return not self._left
