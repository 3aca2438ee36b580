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
#: Looks that are kept: ten minutes of them.
_MOST_POINTS = 3000
#: So many descriptors more, over so long at least, make a pace.
_ENOUGH, _LEAST_S = 10, 1.0
#: Below this, one an hour, it does not grow.
_LEAST_PER_S = 1 / 3600


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
    """The looks so far, and the straight line through the latest of them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._points: deque[tuple[float, int]] = deque(maxlen=_MOST_POINTS)

    def add(self, at_s: float, open_fds: int) -> None:
        """Take one more look into account."""
        self._points.append((at_s, open_fds))

    def pace(self, room: int) -> Pace | None:
        """Return the slope of the line by least squares, None while there are too few looks for one."""
        points = self._latest()
        if len(points) < 3:
            return None
        middle = sum(at for at, _ in points) / len(points)
        mean = sum(number for _, number in points) / len(points)
        spread = sum((at - middle) ** 2 for at, _ in points)
        if spread == 0:
            return None
        per_s = sum((at - middle) * (number - mean) for at, number in points) / spread
        return Pace(per_s=per_s, left_s=room / per_s if per_s > _LEAST_PER_S and room else None)

    def _latest(self) -> list[tuple[float, int]]:
        """Return as few looks as show a pace: ten descriptors more, over a second at least; all where there are none.

        A pace changes: what was long ago says little. The time before the growth began says nothing about it.
        """
        points = list(self._points)
        last_s, last = points[-1] if points else (0.0, 0)
        for i in range(len(points) - 1, -1, -1):
            at_s, number = points[i]
            if last - number >= _ENOUGH and last_s - at_s >= _LEAST_S:
                return points[i:]
        flat = next((i for i, (_, number) in enumerate(points) if number != points[0][1]), 0)
        return points[max(flat - 1, 0) :]


def is_leak(event: Event) -> bool:
    """Return whether an event leaves a descriptor behind that nobody needs any more."""
    return event.kind == CHANGED and event.row is not None and event.row.role == CLOSE_WAIT
