"""A run in progress, redrawn in place on a terminal: gauges for descriptors and queue, counters, a command to see more.

`frame` draws from plain numbers with `drawing`, as all renderers do. rich only keeps the lines in place: it counts
them, clips them to the height of the terminal, and prints messages above them. No thread is started: the conductor
calls `update`, and at most four frames a second are drawn (a frame holds the GIL for some milliseconds).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadsim.render.drawing import ALARM, BAD, NAME, QUIET, STRONG, WARN, Line, Terminal, both_ends, gauge, line, paint
from loadsim.render.progress import Opening
from loadsim.render.text import left, right, widest, wrap
from loadsim.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.render.progress import Progress
    from loadsim.scenario.plan import Plan

PER_SECOND = 4
_LABEL = 16
_NEARLY = 0.8
_HEAD_BAR = 24
_SEE = "  see it yourself: "


def frame(opening: Opening, progress: Progress, terminal: Terminal) -> list[Line]:
    """Return the lines for one moment, at most `terminal.edge` columns wide."""
    lines = [*_head(opening, progress, terminal), line(), *_clients(opening, progress, terminal)]
    words = widest([_full(limit) for limit in (progress.fd_limit, progress.queue_capacity)])
    room = max(terminal.edge - _LABEL - words - 2, 0)
    lost = "met a full queue anywhere on this host (shared)" if progress.shared else "met a full accept queue"
    lines += [
        _gauge("open fds", (progress.open_fds, progress.fd_limit), room, terminal),
        _gauge("accept queue", (progress.queue, progress.queue_capacity), room, terminal),
        _counter("EMFILE", progress.emfile, '"Too many open files"'),
        _counter("SYNs lost", progress.overflows, lost),
    ]
    if progress.lost_by_generator:
        lines.append(_counter("own failures", progress.lost_by_generator, "attempts lost by the generator itself"))
    if opening.hint:
        hint = wrap(terminal.printable(opening.hint), terminal.edge - len(_SEE))
        lines += [line(), line((_SEE, QUIET), (hint[0], NAME))]
        lines += [line(" " * len(_SEE), (text, NAME)) for text in hint[1:]]
    return lines


class LiveDisplay:
    """The live view on standard error; it is erased when the run ends."""

    def __init__(self) -> None:
        self._stream = sys.stderr  # rich replaces sys.stderr
        console = Console(stderr=True, highlight=False, emoji=False, markup=False)
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._opening: Opening | None = None
        self._drawn = -1

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Start drawing in the lower part of the terminal."""
        self._opening = Opening.of(plan, hint)
        with self._until_gone():
            self._live.start()

    def update(self, progress: Progress) -> None:
        """Draw this moment, unless the last one was drawn in the same quarter of a second."""
        quarter = int(progress.elapsed_s * PER_SECOND)
        if self._opening is None or quarter == self._drawn:
            return
        self._drawn = quarter
        terminal = Terminal.of(self._stream, os.environ)
        with self._until_gone():
            painted = paint(frame(self._opening, progress, terminal), terminal).removesuffix("\n")
            self._live.update(Text.from_ansi(painted, no_wrap=True), refresh=True)

    def end(self) -> None:
        """Erase the view."""
        with self._until_gone():
            self._live.stop()

    @contextmanager
    def _until_gone(self) -> Iterator[None]:
        """Stop drawing once the terminal is gone: that must not end the run."""
        try:
            yield
        except OSError:
            self._opening = None


def _head(opening: Opening, progress: Progress, terminal: Terminal) -> list[Line]:
    elapsed = max(progress.elapsed_s, 0.0)
    late = elapsed > opening.expected_s or opening.expected_s >= opening.length_s
    whole = opening.length_s if late else opening.expected_s
    time = f"{elapsed:.1f} s of {'at most ' if late else 'about '}{whole:.0f} s "
    share = elapsed / whole if whole > 0 else 1.0
    bar = gauge(share, min(_HEAD_BAR, max(terminal.edge - len(time) - 20, 0)), terminal.glyphs)
    room = max(terminal.edge - len(time) - len(bar) - 2, _LABEL)
    name = terminal.clip(opening.scenario, room)
    lines = both_ends(line((name, STRONG)), line(time, (bar, NAME)), terminal)
    if opening.description:
        lines.append(line((terminal.clip(opening.description, terminal.edge), QUIET)))
    return lines


def _clients(opening: Opening, progress: Progress, terminal: Terminal) -> list[Line]:
    of = f" of {format_count(opening.attempts)}" if opening.attempts is not None else ""
    dot = terminal.glyphs.dot
    seen = [f"{format_count(progress.started)}{of} started", f"{format_count(progress.rate)}/s"]
    seen.append(f"{format_count(progress.in_flight)} under way")
    ended = [f"{format_count(progress.accepted)} accepted", f"{format_count(progress.ok)} ok"]
    failed = (f"{dot}{format_count(progress.failed)} failed", BAD if progress.failed else "")
    return [line(left("  clients", _LABEL), dot.join(seen)), line(" " * _LABEL, dot.join(ended), failed)]


def _gauge(label: str, measured: tuple[int | None, int | None], room: int, terminal: Terminal) -> Line:
    """Return a value against its limit; bar and track take `room` columns."""
    value, limit = measured
    name = left(f"  {label}", _LABEL)
    if value is None or limit is None:
        return line(name, ("not read" if value is None else format_count(value), QUIET))
    share = value / limit if limit > 0 else 1.0
    drawn = gauge(share, room, terminal.glyphs)
    filled = len(drawn.rstrip(terminal.glyphs.track))
    style = ALARM if share >= 1 else WARN if share >= _NEARLY else NAME
    words = _full(limit) if value == limit else f"{format_count(value)} of {format_count(limit)}"
    return line(name, (drawn[:filled], style), (drawn[filled:], QUIET), "  ", (words, ALARM if share >= 1 else ""))


def _full(limit: int | None) -> str:
    return "" if limit is None else f"{format_count(limit)} of {format_count(limit)}  FULL"


def _counter(label: str, value: int | None, meaning: str) -> Line:
    name = left(f"  {label}", _LABEL)
    if value is None:
        return line(name, ("not read", QUIET))
    return line(name, (right(format_count(value), 7), ALARM if value else ""), (f"  {meaning}", QUIET))
