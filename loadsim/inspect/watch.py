"""Samples a process over time: events between two samples, the pace of its growth, and their text."""

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
OPENED, CLOSED, CHANGED, QUEUE, LIMIT, RELIEF = "opened", "closed", "changed", "queue", "limit", "relief"
_MOST_POINTS = 3000
#: A pace needs this many more descriptors over at least this time.
_ENOUGH, _LEAST_S = 10, 1.0
#: One descriptor an hour; a slower pace is not growth.
_LEAST_PER_S = 1 / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change between two samples."""

    kind: str  # "opened" | "closed" | "changed" | "queue" | "limit" | "relief"
    fd: int | None = None
    row: Row | None = None
    was: str = ""  # the role before, for "changed"


def events(before: Snapshot, now: Snapshot) -> list[Event]:
    """Return the changes between two samples: closed, opened, changed, queues, the limit."""
    old, new = _by_fd(before), _by_fd(now)
    found: list[Event] = []
    for fd, row in old.items():
        if fd not in new or _identity(new[fd]) != _identity(row):
            found.append(Event(kind=CLOSED, fd=fd, row=row))
    for fd, row in new.items():
        if fd not in old or _identity(old[fd]) != _identity(row):
            found.append(Event(kind=OPENED, fd=fd, row=row))
        elif row.fds[0] == fd and old[fd].role != row.role:
            found.append(Event(kind=CHANGED, fd=fd, row=row, was=old[fd].role))
    return [*found, *_queues(old, now), *_limit(before, now)]


def _by_fd(snapshot: Snapshot) -> dict[int, Row]:
    return {fd: row for row in snapshot.rows for fd in row.fds}


def _identity(row: Row) -> tuple[object, ...]:
    # the number identifies nothing: the kernel reuses it
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
    """The rate at which the number of open descriptors changes."""

    per_s: float
    left_s: float | None  # to the limit; None without growth


class Trend:
    """The numbers sampled so far, and the straight line through the latest of them."""

    def __init__(self) -> None:
        """Start without points."""
        self._points: deque[tuple[float, int]] = deque(maxlen=_MOST_POINTS)

    def add(self, at_s: float, open_fds: int) -> None:
        """Add a sample."""
        self._points.append((at_s, open_fds))

    def pace(self, free_fds: int) -> Pace | None:
        """Return the slope of the line by least squares; None if there are too few samples."""
        points = self._latest()
        if len(points) < 3:
            return None
        middle = sum(at for at, _ in points) / len(points)
        mean = sum(number for _, number in points) / len(points)
        spread = sum((at - middle) ** 2 for at, _ in points)
        if spread == 0:
            return None
        per_s = sum((at - middle) * (number - mean) for at, number in points) / spread
        return Pace(per_s=per_s, left_s=free_fds / per_s if per_s > _LEAST_PER_S and free_fds else None)

    def _latest(self) -> list[tuple[float, int]]:
        """Return the fewest latest points that show a pace: ten more descriptors over at least a second.

        Older points would only slow the reaction to a change of pace. Without that growth return all points, but
        leave out the time before the growth began.
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
    """Return whether an event leaves an unneeded descriptor open."""
    return event.kind == CHANGED and event.row is not None and event.row.role == CLOSE_WAIT


_INTERVAL_S = 0.2
#: Sampling may use this share of the time at most: a process with 20,000 descriptors is sampled less often.
_BUSY = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One snapshot of a watched process, with the changes since the one before."""

    now: Snapshot
    events: list[Event]
    pace: Pace | None


def watch(pid: int, *, for_s: float | None = None) -> Iterator[Sample]:
    """Yield a sample five times a second, less often for a large process, until the process or the time ends.

    At least two samples are taken, however short the time is, unless the process ends first.
    """
    trend = Trend()
    before: Snapshot | None = None
    begun = time.monotonic()
    samples = 0
    while for_s is None or samples < 2 or time.monotonic() - begun <= for_s:
        samples += 1
        sampled_at = time.monotonic()
        try:
            now = take(pid)
        except ProcessGoneError:
            return
        trend.add(now.at_s, now.open_fds)
        yield Sample(now=now, events=events(before, now) if before else [], pace=trend.pace(now.free_fds))
        before = now
        cost = time.monotonic() - sampled_at
        time.sleep(max(_INTERVAL_S - cost, cost * (1 / _BUSY - 1)))


def wait_listener(port: int) -> int:
    """Wait until a process listens on a port, and return its pid."""
    while True:
        found = holders_at(port)
        if found:
            return found[0]
        time.sleep(_INTERVAL_S)


#: More events of one kind than this in one sample become one line.
_MANY = 8
_PACE_EVERY_S = 2.0
_GROWING_PER_S = 0.2
_SIGNS = {OPENED: ("+", GOOD), CLOSED: ("-", QUIET), CHANGED: ("~", WARN)}


class WatchText:
    """Turns samples into lines; keeps the first snapshot to report the change at the end."""

    def __init__(self, terminal: Terminal) -> None:
        """Start without samples."""
        self._terminal = terminal
        self._first: Snapshot | None = None
        self._last: Snapshot | None = None
        self._pace_at_s = 0.0

    def lines(self, sample: Sample) -> str:
        """Return the lines of one sample, "" without events."""
        now = sample.now
        lines: list[Line] = []
        if self._first is None:
            self._first = now
            self._pace_at_s = now.at_s
            lines += self._opening(now)
        self._last = now
        stamp = time.strftime("%H:%M:%S", time.localtime()) + f".{int(time.time() * 10) % 10}"
        lines += [self._stamped(stamp, parts) for parts in self._events(sample)]
        if now.at_s - self._pace_at_s >= _PACE_EVERY_S:
            self._pace_at_s = now.at_s
            lines += [self._stamped(stamp, parts) for parts in self._pace(sample)]
        return paint(lines, self._terminal)

    def summary(self, *, ended: bool) -> str:
        """Return the change since the first sample, and the leaks."""
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
            lines.append(line("  no leak in this time"))
        return paint(lines, self._terminal)

    def _opening(self, now: Snapshot) -> list[Line]:
        name = f"{now.process.name}[{now.process.pid}]"
        listeners = [in_words(row, self._terminal, now.ports) for row in now.rows if row.role == LISTENING]
        return [
            line((name, STRONG), f"  {_of(now)}", ("   Ctrl-C ends with a summary of leaks", QUIET)),
            *(line("  ", ("LISTENING ", STRONG), one) for one in listeners[:_MANY]),
        ]

    def _stamped(self, stamp: str, parts: Line) -> Line:
        return line((f"{stamp}  ", QUIET), parts)

    def _events(self, sample: Sample) -> list[Line]:
        lines: list[Line] = []
        for kind in (CLOSED, OPENED, CHANGED):
            found = [one for one in sample.events if one.kind == kind]
            lines += self._many(kind, found) if len(found) > _MANY else [self._one(one, sample.now) for one in found]
        return lines + [self._one(one, sample.now) for one in sample.events if one.kind in {QUEUE, LIMIT, RELIEF}]

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
            return line((f"{_of(now)}: descriptors are free again", GOOD))
        if event.kind == QUEUE:
            at = f":{row.local_port}" if row.local_port else row.local
            return line((f"queue {queue_of(row).removeprefix('accept queue ')}", WARN), f"  at {at}", _full(event))
        sign, style = _SIGNS[event.kind]
        if event.kind == CHANGED:
            leaves = "  the peer has closed" if is_leak(event) else ""
            return line((f"{sign} fd {event.fd} {event.was} -> {row.role}", style), leaves)
        words = in_words(row, self._terminal, now.ports)
        return line((f"{sign} fd {event.fd} ", style), f"{row.role} " if row.role else "", words)

    def _pace(self, sample: Sample) -> list[Line]:
        pace, now = sample.pace, sample.now
        if pace is None or self._first is None or pace.per_s < _GROWING_PER_S:
            return []
        grown = [one for one in groups_of(now, self._first) if (one.change or 0) > 0]
        what = " ".join(name_of(max(grown, key=lambda one: one.change or 0)).split()) if grown else ""
        full = ""
        if pace.left_s is not None:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + pace.left_s))
            full = f", full in about {format_duration(pace.left_s)} ({at})"
        more = [line((f"    mostly {what}", QUIET))] if what else []
        return [line((f"{_of(now)}, {pace.per_s:+.1f}/s{full}", WARN)), *more]


def _full(event: Event) -> tuple[str, str]:
    return ("  FULL: new clients are dropped", ALARM) if event.row is not None and event.row.full else ("", "")


def _of(now: Snapshot) -> str:
    return f"{format_count(now.open_fds)} of {some(now.soft, 'fd')}"
