"""One process on a terminal: summary or rows, what is wrong, what helps, reading it, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.inspect.groups import Group, groups_of, name_of
from loadsim.inspect.lessons import by_hand, lessons
from loadsim.inspect.suspects import Suspect, growth, is_left_behind, remedies, suspects
from loadsim.report.drawing import (
    ALARM,
    BAD,
    GOOD,
    NAME,
    QUIET,
    STRONG,
    WARN,
    Line,
    Terminal,
    both_ends,
    gauge,
    line,
    paint,
    paragraph,
)
from loadsim.report.inspection.rows import Columns, row_of, rows_of
from loadsim.report.text import cell_len, clip, flow, left, right, wrap
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.inspect.choice import Choice
    from loadsim.inspect.model import Row, Snapshot

#: Fewer descriptors than this are shown one by one.
FEW = 40
_COUNT = 9
_CHANGE = 8
_MOST_WAITING = 20
_LABEL = 7


def render(
    now: Snapshot,
    before: Snapshot | None,
    terminal: Terminal,
    *,
    choice: Choice,
    all_rows: bool = False,
    port: int | None = None,
) -> str:
    """Return all that is known; rows are listed where there are few, where some are chosen, or for `all_rows`."""
    groups = groups_of(now, before)
    wrong = suspects(now, groups)
    pace = growth(before, now)
    listed = all_rows or choice.chooses or now.open_fds < FEW
    summary = before is not None or not listed
    lines = _head(now, terminal, hard=not summary)
    if summary:
        lines += [*_gauge(now, terminal), line(), *(_groups(groups, before, now, terminal) if groups else [])]
    if listed:
        rows, waiting, knocking = (choice.of(some) for some in (now.rows, now.waiting, now.knocking))
        columns = Columns([*rows, *waiting, *knocking], terminal, now.ports)
        lines += [line(), *rows_of(rows, columns), *_without_fd(now.process.name, waiting, knocking, columns)]
    lines += _wrong(wrong, terminal)
    for label, text in remedies(now, pace, wrong):
        lines += paragraph(text, terminal, mark=label.ljust(_LABEL), mark_style=STRONG)
    if pace is not None and (left_s := pace.left_s(now.room)) is not None and not now.full:
        lines += paragraph(f"about {format_duration(left_s)} to the limit, at {pace.per_s:.1f} more a second", terminal)
    lines += _closing_words(now, terminal, port)
    return paint(lines, terminal)


def _head(now: Snapshot, terminal: Terminal, *, hard: bool) -> list[Line]:
    process = now.process
    command = " ".join(process.argv) or process.unit
    name = terminal.printable(f"{process.name}[{process.pid}]")
    unit = f"{process.unit}, " if process.unit else ""
    limit = f"{format_count(now.open_fds)} of {format_count(now.soft)} fds"
    limit += f", hard limit {format_count(now.hard)}" if hard else ""
    full = ("  FULL", ALARM) if now.full else ("", "")
    room = terminal.edge - cell_len(name) - cell_len(limit + full[0]) - 4
    text = terminal.printable(f"{unit}up {format_duration(process.up_s)}   {command}")
    about = "  " + clip(text, room) if room > 0 else ""
    return both_ends(line((name, STRONG), (about, QUIET)), line(limit, full), terminal)


def _gauge(now: Snapshot, terminal: Terminal) -> list[Line]:
    share = now.open_fds / now.soft if now.soft else 1.0
    numbers = f"  {min(share, 9.99):.0%} of soft {format_count(now.soft)}, hard {format_count(now.hard)}"
    drawn = gauge(min(share, 1.0), max(terminal.edge - 7 - len(numbers), 10), terminal.glyphs)
    return [line("  fds  ", (drawn, BAD if now.full else NAME), numbers)]


def _groups(groups: Sequence[Group], before: Snapshot | None, now: Snapshot, terminal: Terminal) -> list[Line]:
    room = terminal.edge - _COUNT - _CHANGE - 10
    span = f"in {now.at_s - before.at_s:.0f} s" if before is not None else ""
    lines = [line((f"  {left('held by', room - 2)}{right('fds', _COUNT)}{right(span, _CHANGE)}", QUIET))]
    for group in groups:
        style = BAD if is_left_behind(group) else ""
        mark = (
            (("  ◀ leak" if terminal.unicode else "  < leak"), ALARM) if style and (group.change or 0) > 0 else ("", "")
        )
        head, more = _in_room(group, room - 4, terminal)
        change = "" if group.change is None else f"{group.change:+,}" if group.change else "±0"
        numbers = right(format_count(group.fds), _COUNT) + right(terminal.printable(change), _CHANGE)
        lines.append(line("  ", (left(head, room - 2), style), numbers, mark))
        lines += [line("      ", (text, style)) for text in more]
    return lines


def _in_room(group: Group, room: int, terminal: Terminal) -> tuple[str, list[str]]:
    """Return a group's name, with its detail beside it where that fits, else in lines of their own."""
    name, detail = (terminal.printable(text) for text in (name_of(group), group.detail))
    whole = f"{name}  {detail}" if detail else name
    if cell_len(whole) <= room:
        return whole, []
    return terminal.clip(name, room), wrap(detail, room - 4) if detail else []


def _without_fd(name: str, waiting: Sequence[Row], knocking: Sequence[Row], columns: Columns) -> list[Line]:
    waiting = sorted(waiting, key=lambda row: -(row.idle_s or 0.0))
    knocking = sorted(knocking, key=lambda row: (row.role, -row.retransmits))
    titles = (
        (waiting, f"connected, but {name} has no fd for them: they wait in the accept queue"),
        (knocking, "not let in: these clients have no socket here"),
    )
    lines: list[Line] = []
    for rows, title in titles:
        if rows:
            lines += [line(), *paragraph(title, columns.terminal, margin="  ")]
            lines += [one for row in rows[:_MOST_WAITING] for one in row_of(row, columns)]
            if len(rows) > _MOST_WAITING:
                lines.append(line((f"  and {format_count(len(rows) - _MOST_WAITING)} more", QUIET)))
    return lines


def _wrong(found: Sequence[Suspect], terminal: Terminal) -> list[Line]:
    if not found:
        return []
    lines = [line(), line(("WHAT IS WRONG", STRONG))]
    for number, one in enumerate(found, 1):
        style = ALARM if one.leaks else WARN
        lines += paragraph(one.sentence, terminal, mark=f"{number} ", mark_style=style)
    return lines


def _closing_words(now: Snapshot, terminal: Terminal, port: int | None) -> list[Line]:
    lines = [line(), line(("READING IT", STRONG))]
    for text in lessons(now):
        lines += paragraph(text, terminal, margin="  ")
    if now.missing:
        lines += [line(), line(("NOT SEEN", WARN))]
        for text in now.missing:
            lines += paragraph(text, terminal, margin="  ")
    room = terminal.edge - 9
    commands = flow([part for command in by_hand(now, port) for part in wrap(command, room)], room)
    lines.append(line())
    return lines + [line(("by hand  " if i == 0 else " " * 9, GOOD), text) for i, text in enumerate(commands)]
