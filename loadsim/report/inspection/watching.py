"""A process as it goes: a line for each event, its pace now and then, and at the end what leaked."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from loadsim.inspect.events import CHANGED, CLOSED, LIMIT, OPENED, QUEUE, RELIEF, is_leak
from loadsim.inspect.groups import groups_of, name_of, queue_of
from loadsim.inspect.model import LISTENING
from loadsim.inspect.suspects import suspects
from loadsim.report.drawing import ALARM, BAD, GOOD, QUIET, STRONG, WARN, Line, line, paint, paragraph
from loadsim.report.inspection.rows import in_words
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.inspect.events import Event
    from loadsim.inspect.model import Snapshot
    from loadsim.inspect.watch import Seen
    from loadsim.report.drawing import Terminal

#: More events of one kind at once than this become one line.
_MANY = 8
_PACE_EVERY_S = 2.0
_GROWING_PER_S = 0.2
_SIGNS = {OPENED: ("+", GOOD), CLOSED: ("-", QUIET), CHANGED: ("~", WARN)}


class Watching:
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
