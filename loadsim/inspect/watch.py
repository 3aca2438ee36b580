"""Snapshots of a process over time: what happened between two of them, its pace, and how it is printed."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.diagnosis import suspects
from loadsim.inspect.groups import groups_of, name_of, queue_of
from loadsim.inspect.model import CLOSE_WAIT, LISTENING
from loadsim.inspect.snapshot import take
from loadsim.inspect.targets import holders_at
from loadsim.inspect.text import in_words
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.render.drawing import ALARM, BAD, GOOD, QUIET, STRONG, WARN, Line, line, paint, paragraph
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.inspect.model import Row, Snapshot
    from loadsim.render.drawing import Terminal


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


#: More events of one kind at once than this become one line.
_MANY = 8
_PACE_EVERY_S = 2.0
_GROWING_PER_S = 0.2
_SIGNS = {OPENED: ("+", GOOD), CLOSED: ("-", QUIET), CHANGED: ("~", WARN)}


class WatchText:
    """Turns snapshots into lines; keeps the first one, to report the change at the end."""

    def __init__(self, terminal: Terminal) -> None:
        """Begin with nothing seen."""
        self._terminal = terminal
        self._first: Snapshot | None = None
        self._last: Snapshot | None = None
        self._told_s = 0.0

    def tell(self, seen: Seen) -> str:
        """Return the lines of one snapshot, "" where nothing happened."""
        now = seen.now
        lines: list[Line] = []
        if self._first is None:
            self._first = now
            self._told_s = now.at_s
            lines += self._opening(now)
        self._last = now
        stamp = time.strftime("%H:%M:%S", time.localtime()) + f".{int(time.time() * 10) % 10}"
        lines += [self._stamped(stamp, parts) for parts in self._events(seen)]
        if now.at_s - self._told_s >= _PACE_EVERY_S:
            self._told_s = now.at_s
            lines += [self._stamped(stamp, parts) for parts in self._pace(seen)]
        return paint(lines, self._terminal)

    def end(self, *, ended: bool) -> str:
        """Return what has come since the beginning, and what leaked."""
        first, last = self._first, self._last
        if first is None or last is None:
            return ""
        name = f"{last.process.name}[{last.process.pid}]"
        change = last.open_fds - first.open_fds
        span = format_duration(last.at_s - first.at_s)
        how = " has ended" if ended else ""
        lines = [line(), line((f"{name}{how}: {change:+,} fds in {span}", STRONG), f", now {_of(last)}")]
        groups = groups_of(last, first)
        grown = [group for group in groups if (group.change or 0) > 0]
        lines += [
            line("  ", (f"{group.change:+,}", BAD), f"  {name_of(group)}  {group.detail}".rstrip()) for group in grown
        ]
        leaks = [one.sentence for one in suspects(last, groups) if one.leaks]
        for sentence in leaks:
            lines += paragraph(sentence, self._terminal, mark="LEAK ", mark_style=ALARM)
        if not grown and not leaks:
            lines.append(line("  nothing leaked while it was watched"))
        return paint(lines, self._terminal)

    def _opening(self, now: Snapshot) -> list[Line]:
        name = f"{now.process.name}[{now.process.pid}]"
        doors = [in_words(row, self._terminal, now.ports) for row in now.rows if row.role == LISTENING]
        return [
            line((name, STRONG), f"  {_of(now)}", ("   Ctrl-C ends, and says what leaked", QUIET)),
            *(line("  ", ("LISTENING ", STRONG), door) for door in doors[:_MANY]),
        ]

    def _stamped(self, stamp: str, parts: Line) -> Line:
        return line((f"{stamp}  ", QUIET), parts)

    def _events(self, seen: Seen) -> list[Line]:
        lines: list[Line] = []
        for kind in (CLOSED, OPENED, CHANGED):
            some_ = [one for one in seen.events if one.kind == kind]
            lines += self._many(kind, some_) if len(some_) > _MANY else [self._one(one, seen.now) for one in some_]
        return lines + [self._one(one, seen.now) for one in seen.events if one.kind in {QUEUE, LIMIT, RELIEF}]

    def _many(self, kind: str, found: Sequence[Event]) -> list[Line]:
        sign, style = _SIGNS[kind]
        counts = Counter(f"{one.row.kind} {one.row.role}".strip() for one in found if one.row is not None)
        kinds = ", ".join(f"{number} {name}" for name, number in counts.most_common())
        return [line((f"{sign} {len(found)} fds", style), f"  {kinds}")]

    def _one(self, event: Event, now: Snapshot) -> Line:
        row = event.row
        if row is None:
            if event.kind == LIMIT:
                return line((f"{_of(now)}: accept() will fail now", ALARM))
            return line((f"{_of(now)}: there is room again", GOOD))
        if event.kind == QUEUE:
            at = f":{row.local_port}" if row.local_port else row.local
            return line((f"queue {queue_of(row).removeprefix('accept queue ')}", WARN), f"  at {at}", _full(event))
        sign, style = _SIGNS[event.kind]
        if event.kind == CHANGED:
            leaves = "  the other side has closed" if is_leak(event) else ""
            return line((f"{sign} fd {event.fd} {event.was} -> {row.role}", style), leaves)
        words = in_words(row, self._terminal, now.ports)
        return line((f"{sign} fd {event.fd} ", style), f"{row.role} " if row.role else "", words)

    def _pace(self, seen: Seen) -> list[Line]:
        pace, now = seen.pace, seen.now
        if pace is None or self._first is None or pace.per_s < _GROWING_PER_S:
            return []
        grown = [one for one in groups_of(now, self._first) if (one.change or 0) > 0]
        what = " ".join(name_of(max(grown, key=lambda one: one.change or 0)).split()) if grown else ""
        full = ""
        if pace.left_s is not None:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + pace.left_s))
            full = f", full in about {format_duration(pace.left_s)} ({at})"
        more = [line((f"    most of it {what}", QUIET))] if what else []
        return [line((f"{_of(now)}, {pace.per_s:+.1f}/s{full}", WARN)), *more]


def _full(event: Event) -> tuple[str, str]:
    return ("  FULL: new clients are dropped", ALARM) if event.row is not None and event.row.full else ("", "")


def _of(now: Snapshot) -> str:
    return f"{format_count(now.open_fds)} of {some(now.soft, 'fd')}"
