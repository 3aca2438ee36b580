"""All processes by their share of the limit, and every listener, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.drawing import ALARM, BAD, NAME, QUIET, STRONG, WARN, Line, Terminal, gauge, line, paint, paragraph
from loadsim.report.inspection.rows import named
from loadsim.report.text import clip, left, right
from loadsim.units import format_count

if TYPE_CHECKING:
    from loadsim.inspect.overview import Listener, Overview
    from loadsim.inspect.targets import Candidate

_MOST_PROCESSES = 15
_MOST_LISTENERS = 30
_GAUGE = 10
_TIGHT = 0.8


def render(overview: Overview, terminal: Terminal) -> str:
    """Return both tables, and what to type next."""
    name = max(min(terminal.edge - 54, 40), 12)
    head = f"  {left('process', name)}{right('open', 9)}{right('limit', 10)}{right('hard', 10)}   share"
    lines = [line(("PROCESSES by share of their limit", STRONG)), line((head, QUIET))]
    lines += [_process(one, name, terminal) for one in overview.processes[:_MOST_PROCESSES]]
    if len(overview.processes) > _MOST_PROCESSES:
        lines.append(line((f"  and {format_count(len(overview.processes) - _MOST_PROCESSES)} more", QUIET)))
    lines += [line(), line(("LISTENERS", STRONG))]
    lines.append(line((f"  {left('address', 24)}{right('queue', 7)}{right('of', 8)}{right('drops', 9)}   who", QUIET)))
    lines += [_listener(one, terminal) for one in overview.listeners[:_MOST_LISTENERS]]
    if not overview.listeners:
        lines.append(line("  none in this network namespace"))
    elif len(overview.listeners) > _MOST_LISTENERS:
        lines.append(line((f"  and {format_count(len(overview.listeners) - _MOST_LISTENERS)} more", QUIET)))
    if overview.unreadable:
        text = f"{overview.unreadable} processes may not be looked into by this user: sudo loadsim inspect"
        lines += [line(), *paragraph(text, terminal, mark="! ", mark_style=WARN)]
    return paint(
        [*lines, line(), line(("next", NAME), "  loadsim inspect PID | NAME | :PORT  [--watch] [--fds]")], terminal
    )


def _process(one: Candidate, name: int, terminal: Terminal) -> Line:
    called = clip(terminal.printable(f"{one.process.name}[{one.process.pid}]"), name)
    style = BAD if one.share >= _TIGHT else ""
    numbers = "".join(
        right(format_count(number), width)
        for number, width in ((one.open_fds, 9), (one.limits.soft, 10), (one.limits.hard, 10))
    )
    full = ("  FULL", ALARM) if one.share >= 1 else ("", "")
    return line(
        "  ",
        (left(called, name), style),
        numbers,
        f"  {one.share:>5.1%} ",
        (gauge(min(one.share, 1.0), _GAUGE, terminal.glyphs), style),
        full,
    )


def _listener(one: Listener, terminal: Terminal) -> Line:
    both = " (IPv4, IPv6)" if one.family == "dual-stack" else ""
    host = "*" if one.local in {"0.0.0.0", "::"} else one.local  # noqa: S104  # written, not bound to
    address = left(clip(f"{f'[{host}]' if ':' in host else host}:{one.port}{both}", 24), 24)
    drops = "?" if one.drops is None else format_count(one.drops)
    numbers = f"{right(format_count(one.queue), 7)}{right(format_count(one.queue_capacity), 8)}{right(drops, 9)}"
    who = terminal.printable(named(one.holders) if one.holders else "holder not found")
    return line("  ", address, (numbers, BAD if one.full else ""), "   ", who, ("  FULL", ALARM) if one.full else "")
