"""The start times of attempts, in open and closed loops.

Pure: no clock and no socket; the engine passes times as CLOCK_MONOTONIC nanoseconds. Both loops return the attempts
that are due now, the time of the next one, and whether it was the last one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Later than every time stamp.
NEVER = 2**63 - 1
#: A client pauses this long after an attempt that did not reach a listening server; otherwise a closed loop spins.
PAUSE_NS = 10_000_000


class Schedule(Protocol):
    """The engine's view of a schedule."""

    def take_due(self, now: int, most: int) -> list[int]:
        """Return the intended starts of at most `most` due attempts, oldest first."""

    def next_due(self) -> int:
        """Return when the next attempt is due, NEVER if that depends on a client that is still busy."""

    def give_back(self, *ended: int, pause: bool = False) -> None:
        """Report the ends of attempts; `pause` if they did not reach a listening server."""

    def stop(self) -> None:
        """Start no further attempts."""

    @property
    def exhausted(self) -> bool:
        """Whether no further attempt will ever be due."""


class OpenLoop(Schedule):
    """Clients arrive on schedule, independent of the server; `offsets` are ascending and relative to `start_ns`."""

    def __init__(self, offsets: Iterator[int], *, start_ns: int) -> None:
        self._offsets = offsets
        self._start_ns = start_ns
        self._next = self._following()

    def take_due(self, now: int, most: int) -> list[int]:
        """Take the due attempts."""
        due: list[int] = []
        while self._next <= now and len(due) < most:
            due.append(self._next)
            self._next = self._following()
        return due

    def next_due(self) -> int:
        """Return the time of the next attempt."""
        return self._next

    def give_back(self, *ended: int, pause: bool = False) -> None:
        """Do nothing: arrivals do not depend on ends."""

    def stop(self) -> None:
        """Start no further attempts."""
        self._next = NEVER

    @property
    def exhausted(self) -> bool:
        """Whether the last attempt has been taken."""
        return self._next == NEVER

    def _following(self) -> int:
        offset = next(self._offsets, None)
        return NEVER if offset is None else self._start_ns + offset


class ClosedLoop(Schedule):
    """A fixed number of clients; each starts again when its last connection has ended.

    `attempts` is the number that this driver may start; None: only `end_ns` is a bound.
    """

    def __init__(self, clients: int, *, start_ns: int, end_ns: int, attempts: int | None) -> None:
        self._free = deque([start_ns] * clients)  # when each idle client became free, oldest first
        self._paused: deque[int] = deque()  # when each pausing client will be free; a constant later, so also in order
        self._end_ns = end_ns
        self._left = NEVER if attempts is None else attempts
        if not clients:
            self.stop()

    def take_due(self, now: int, most: int) -> list[int]:
        """Take the due attempts."""
        if now >= self._end_ns:
            self.stop()
        due: list[int] = []
        for waiting in (self._paused, self._free):
            wanted = min(most, self._left) - len(due)
            if waiting and waiting[-1] <= now:  # all are due: the usual, cheap case
                due += [waiting.popleft() for _ in range(min(wanted, len(waiting)))]
            while waiting and waiting[0] <= now and len(due) < min(most, self._left):
                due.append(waiting.popleft())
        self._left -= len(due)
        return due

    def next_due(self) -> int:
        """Return the time of the next attempt."""
        if self.exhausted:
            return NEVER
        return min((waiting[0] for waiting in (self._paused, self._free) if waiting), default=NEVER)

    def give_back(self, *ended: int, pause: bool = False) -> None:
        """Make the clients of these attempts free."""
        if pause:
            self._paused.extend(at + PAUSE_NS for at in ended)
        else:
            self._free.extend(ended)

    def stop(self) -> None:
        """Start no further attempts."""
        self._left = 0

    @property
    def exhausted(self) -> bool:
        """Whether the last attempt has been taken."""
        return not self._left
