"""The pictures of a run: open descriptors and accept queue over time, and the fd table with a letter per descriptor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadsim.render.drawing import ALARM, BAD, GOOD, NAME, QUIET, STRONG, WARN, Line, line
from loadsim.render.text import flow, left, right, widest
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.summary import Mark, Summary
    from loadsim.render.drawing import Part, Terminal

_LABEL = 14
#: Columns between two labels of the time axis, at least.
_TICK = 9
#: Steps of a time axis: seconds between two ticks, seconds of the unit of the labels, name of that unit.
_TICKS = [
    *(
        (step, 1.0, "s")
        for exponent in range(-6, 2)
        for step in (10.0**exponent, 2 * 10.0**exponent, 5 * 10.0**exponent)
    ),
    *((60.0 * step, 60.0, "min") for step in (1, 2, 5, 10, 20)),
    *((3600.0 * step, 3600.0, "h") for step in (1, 2, 5, 10, 20, 50)),
]
_MARKS = "123456789abcdefghijklmnopqrstuvwxyz"

#: Letter of the fd map -> its style and meaning, in the order of the legend.
LETTERS = {
    "L": (STRONG, "listening"),
    "W": (BAD, "CLOSE_WAIT: the client has left, the server never closed"),
    "E": (GOOD, "ESTABLISHED: a client is connected"),
    "T": (WARN, "TCP in another state, or reset"),
    "f": (QUIET, "file"),
    "p": (QUIET, "pipe"),
    "e": (QUIET, "epoll"),
    "t": (QUIET, "timer or event"),
    "s": (QUIET, "other socket"),
    ".": (QUIET, "free"),
}
#: Letters per row and per group; the first pair that fits is used. Powers of two, as the sizes of the fd table.
_SETTINGS = [(64, 8), (64, 16), (32, 8), (16, 8), (8, 8)]
#: A larger table is drawn with one letter for several descriptors.
_MOST_LETTERS = 512


def picture(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return the open descriptors and the accept queue over time, with marks; no lines if neither was read."""
    timeline = summary.timeline
    rows = [
        ("open fds", timeline.open_fds, timeline.fd_limit, summary.metrics.get("fds.max")),
        ("queue", timeline.queue, timeline.queue_capacity, summary.metrics.get("queue.max")),
    ]
    rows = [row for row in rows if any(value is not None for value in row[1])]
    if not rows:
        return []
    peaks = [_of(peak, limit) for _, _, limit, peak in rows]
    columns = terminal.edge - _LABEL - widest([*peaks, "peak", "99.9 % answered" if timeline.canary else ""]) - 2
    span_s = timeline.step_s * max(len(values) for _, values, _, _ in rows)
    axis = left(time_axis(span_s, columns), columns + 2)
    lines = [line(" " * _LABEL, (axis, QUIET), ("peak", QUIET))]
    for (label, values, limit, peak), shown in zip(rows, peaks, strict=True):
        full = peak is not None and limit is not None and peak >= limit
        drawn = sparkline(values, limit, columns, terminal)
        lines.append(line(left(f"  {label}", _LABEL), drawn, "  ", (shown, ALARM if full else "")))
    if timeline.canary:
        lines.append(_canaries(timeline.canary, summary.metrics.get("canary.availability"), columns, terminal))
    return lines + _marks(timeline.marks, span_s, columns, terminal)


def _canaries(answered: Sequence[bool | None], share: float | None, columns: int, terminal: Terminal) -> Line:
    up, down = (terminal.glyphs.up, GOOD), (terminal.glyphs.down, BAD)
    failed = _resampled([None if one is None else int(not one) for one in answered], columns)
    drawn = [" " if bad is None else down if bad else up for bad in failed]
    availability = "" if share is None else f"{share:.1%} answered".replace("%", " %")
    return line(left("  canary", _LABEL), *drawn, "  ", (availability, "" if share == 1 else BAD))


def sparkline(values: Sequence[int | None], limit: int | None, columns: int, terminal: Terminal) -> Line:
    """Return values as `columns` characters, each the largest value of its step; the last level is the limit.

    Without a limit the largest value takes its place. Values that were not read are blank.
    """
    levels = terminal.glyphs.levels
    known = [value for value in values if value is not None]
    top = limit or max(known, default=0) or 1
    drawn: list[Part] = []
    for value in _resampled(values, columns):
        if value is None:
            drawn.append((" ", ""))
        elif value >= top:
            drawn.append((levels[-1], BAD if limit else NAME))
        else:
            drawn.append((levels[1 + value * (len(levels) - 2) // top if value > 0 else 0], NAME))
    return line(*drawn)


def time_axis(span_s: float, columns: int) -> str:
    """Return the labels of a time axis: "0 s       1         2"."""
    if span_s <= 0 or columns < _TICK:
        return "0 s"[: max(columns, 0)]
    step, scale, unit = next((tick for tick in _TICKS if tick[0] * columns >= _TICK * span_s), _TICKS[-1])
    axis = f"0 {unit}"
    for tick in range(1, math.floor(span_s / step * (1 + 1e-9)) + 1):
        at = round(tick * step / span_s * columns)
        label = f"{tick * step / scale:,.10g}"
        if len(axis) < at and at + len(label) <= columns:
            axis = axis.ljust(at) + label
    return axis


def fd_table(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return the fd table at the end, a letter per descriptor, with a legend; no lines if it was not read."""
    table = summary.fd_map.rstrip(". ")
    if not table:
        return []
    letters, each = fd_letters(table, most=_MOST_LETTERS)
    limit = summary.metrics.get("fds.limit")
    title = "  the fd table at the end"
    if limit is not None:
        changed = summary.timeline.fd_limit is None
        title += f"{terminal.glyphs.dot}RLIMIT_NOFILE " + ("was changed" if changed else f"= {format_count(limit)}")
    lines = [line(title), *_letter_rows(letters, each, terminal)]
    if each > 1:
        lines.append(line(f"  one letter stands for {each} descriptors and shows the most frequent kind"))
    meanings = [f"{letter} {LETTERS[letter][1]}" for letter in LETTERS if letter in letters]
    return lines + [line("  ", (text, QUIET)) for text in flow(meanings, terminal.edge - 2)]


def fd_letters(table: str, *, most: int) -> tuple[str, int]:
    """Return at most `most` letters for a table, each the most frequent of N descriptors, and N, a power of two."""
    each = 1
    while len(table) > each * most:
        each *= 2
    parts = (table[at : at + each] for at in range(0, len(table), each))
    return "".join(max(sorted(set(part)), key=part.count) for part in parts), each


def _of(peak: float | None, limit: int | None) -> str:
    if peak is None:
        return ""
    return format_count(peak) + (f" of {format_count(limit)}" if limit is not None else "")


def _resampled(values: Sequence[int | None], columns: int) -> list[int | None]:
    """Return the largest known value of each of `columns` equal parts; parts overlap if there are fewer values."""
    count = len(values)
    parts = (
        values[i * count // columns : max((i + 1) * count // columns, i * count // columns + 1)] for i in range(columns)
    )
    return [max((value for value in part if value is not None), default=None) for part in parts]


def _marks(marks: Sequence[Mark], span_s: float, columns: int, terminal: Terminal) -> list[Line]:
    """Return a line of marks under the axis, and their meanings beside or below it."""
    marks = sorted(marks, key=lambda mark: mark.at_s)[: len(_MARKS)]
    if not marks or span_s <= 0:
        return []
    row = ""
    for sign, mark in zip(_MARKS, marks, strict=False):
        at = min(int(max(mark.at_s, 0.0) / span_s * columns), columns - 1)
        row = row.ljust(at) + sign
    row = row[-columns:] if len(row) > columns else row
    meanings = [
        f"{sign} {mark.label} ({format_duration(max(mark.at_s, 0.0))})"
        for sign, mark in zip(_MARKS, marks, strict=False)
    ]
    beside = flow(meanings, terminal.edge - _LABEL - len(row) - 4)
    signs = line(" " * _LABEL, (row, STRONG))
    if len(beside) == 1 and not beside[0].endswith("..."):
        return [line(signs, "    ", (beside[0], QUIET))]
    return [signs, *(line(" " * _LABEL, (text, QUIET)) for text in flow(meanings, terminal.edge - _LABEL))]


def _letter_rows(letters: str, each: int, terminal: Terminal) -> list[Line]:
    """Return the letters in groups, as many per row as fit; of several rows, each begins with a descriptor number."""
    per_row, group, numbers = next(
        (per_row, group, numbers)
        for per_row, group in _SETTINGS
        for numbers in [len(format_count(len(letters) * each)) + 2 if len(letters) > per_row else 0]
        if 2 + numbers + per_row + per_row // group - 1 <= terminal.edge or per_row == group
    )
    lines = []
    for at in range(0, len(letters), per_row):
        row: list[str | Part] = ["  "]
        if numbers:
            row.append((right(format_count(at * each), numbers - 2) + "  ", QUIET))
        for i, letter in enumerate(letters[at : at + per_row]):
            row.append(" " if i and i % group == 0 else "")
            row.append((letter, LETTERS.get(letter, (WARN, ""))[0]))
        lines.append(line(*row))
    return lines
