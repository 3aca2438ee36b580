"""What happened between two looks at a process, as events; and its pace, from many looks. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.model import CLOSE_WAIT, LISTENING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.inspect.model import Row, Snapshot

OPENED, CLOSED, CHANGED, QUEUE, LIMIT, RELIEF = "opened", "closed", "changed", "queue", "limit", "relief"
#: How far back the pace looks.
_WINDOW_S = 20.0
#: Below this the pace is noise.
_LEAST_PER_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened."""

    kind: str  # "opened" | "closed" | "changed" | "queue" | "limit" | "relief"
    fd: int | None = None
    row: Row | None = None
    was: str = ""  # of "changed": the role before


def events(before: Snapshot, now: Snapshot) -> list[Event]:
    """Return what happened between two looks: closed, opened, changed, queues, the limit."""
    old, new = _by_fd(before), _by_fd(now)
    found: list[Event] = []
    for fd, row in old.items():
        if fd not in new or _what(new[fd]) != _what(row):
            found.append(Event(kind=CLOSED, fd=fd, row=row))
    for fd, row in new.items():
        if fd not in old or _what(old[fd]) != _what(row):
            found.append(Event(kind=OPENED, fd=fd, row=row))
        elif row.fds[0] == fd and old[fd].role != row.role:
            found.append(Event(kind=CHANGED, fd=fd, row=row, was=old[fd].role))
    return [*found, *_queues(old, now), *_limit(before, now)]


def _by_fd(snapshot: Snapshot) -> dict[int, Row]:
    return {fd: row for row in snapshot.rows for fd in row.fds}


def _what(row: Row) -> tuple[object, ...]:
    """Return what makes a descriptor the same one as before; a number is given out again."""
    return (row.kind, row.inode, row.path)


def _queues(old: dict[int, Row], now: Snapshot) -> Iterator[Event]:
    for row in now.rows:
        if row.role != LISTENING:
            continue
        before = old.get(row.fds[0])
        if before is not None and before.inode == row.inode and before.recv_q != row.recv_q:
            yield Event(kind=QUEUE, fd=row.fds[0], row=row)


def _limit(before: Snapshot, now: Snapshot) -> Iterator[Event]:
    if now.full and not before.full:
        yield Event(kind=LIMIT)
    elif before.full and not now.full:
        yield Event(kind=RELIEF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the number of open descriptors changes."""

    per_s: float
    left_s: float | None  # to the limit; None while it does not grow


class Trend:
    """The looks of the last twenty seconds, and the straight line through them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._points: deque[tuple[float, int]] = deque()

    def add(self, at_s: float, open_fds: int) -> None:
        """Take one more look into account; the time before the growth began says nothing about it."""
        self._points.append((at_s, open_fds))
        while self._points[-1][0] - self._points[0][0] > _WINDOW_S:
            self._points.popleft()
        while len(self._points) > 2 and self._points[0][1] == self._points[1][1] < open_fds:
            self._points.popleft()

    def pace(self, room: int) -> Pace | None:
        """Return the slope of the line by least squares, None while there are too few looks for one."""
        if len(self._points) < 3:
            return None
        times = [at for at, _ in self._points]
        fds = [number for _, number in self._points]
        middle, mean = sum(times) / len(times), sum(fds) / len(fds)
        spread = sum((at - middle) ** 2 for at in times)
        if spread == 0:
            return None
        per_s = sum((at - middle) * (number - mean) for at, number in self._points) / spread
        left = room / per_s if per_s > _LEAST_PER_S and room else None
        return Pace(per_s=per_s, left_s=left)


def is_leak(event: Event) -> bool:
    """Return whether an event leaves a descriptor behind that nobody needs any more."""
    return event.kind == CHANGED and event.row is not None and event.row.role == CLOSE_WAIT
