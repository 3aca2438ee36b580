"""A run in progress: the numbers that the conductor reports, and a display that prints them as lines."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from loadsim.render.text import printable
from loadsim.units import format_count, some

if TYPE_CHECKING:
    from typing import TextIO

    from loadsim.scenario.plan import Plan

#: Seconds between two lines of `PlainDisplay`.
EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Facts that are known before the first client starts."""

    scenario: str
    description: str
    attempts: int | None  # planned; None: as many as the time allows
    expected_s: float  # from the first client to the end of the last
    length_s: float  # upper bound of `expected_s`
    hint: str  # the command that shows the same sockets; may be empty

    @classmethod
    def of(cls, plan: Plan, hint: str) -> Opening:
        """Return the opening of the planned run."""
        return cls(
            scenario=plan.scenario.name,
            description=plan.scenario.description,
            attempts=plan.expected_attempts,
            expected_s=plan.expected_s,
            length_s=plan.length_s,
            hint=hint,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A run at one moment. None means that a value was not read, or not read yet."""

    elapsed_s: float  # since the first intended start; below 0 during setup
    started: int  # attempts
    rate: float  # recent attempts per second
    in_flight: int
    ok: int
    failed: int
    accepted: int
    open_fds: int | None
    fd_limit: int | None
    queue: int | None
    queue_capacity: int | None  # the most connections that the queue can hold
    emfile: int
    overflows: int | None
    lost_by_generator: int = 0  # attempts that failed at the generator's own limits, or never began
    shared: bool = False  # the namespace is the host's: `overflows` counts all its listeners


class Display(Protocol):
    """Shows one run: redrawn in place, as lines, or not at all."""

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Show that the run starts; `hint` is the command that shows the same sockets."""

    def update(self, progress: Progress) -> None:
        """Show the current numbers."""

    def end(self) -> None:
        """Restore the terminal."""


class SweepDisplay(Protocol):
    """Shows a sweep and gives each of its runs a display."""

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Show that a sweep starts or resumes, with the number of its remaining runs and the expected time."""

    def begin_run(self) -> Display:
        """Return the display of the next run."""

    def end_run(self, label: str, status: str, sentence: str, *, left_s: float) -> None:
        """Show how a run of this cell ended, and how long the remaining runs will take."""


class PlainDisplay:
    """Prints a line when the run begins, then at most one per second."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._due_s = EVERY_S

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Print the first line."""
        self._print(first_line(Opening.of(plan, hint)))

    def update(self, progress: Progress) -> None:
        """Print a line if a second has passed since the last one."""
        if progress.elapsed_s >= self._due_s:
            self._due_s = (progress.elapsed_s // EVERY_S + 1) * EVERY_S
            self._print(progress_line(progress))

    def end(self) -> None:
        """Leave the stream open: its owner closes it."""

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the reader is gone; that must not end the run
            print(text, file=self._stream, flush=True)


def first_line(opening: Opening) -> str:
    """Return the scenario, its load and the hint: "too-many-open-files: 600 clients, about 5 s; see it: ..."."""
    clients = f"{some(opening.attempts, 'client')}, " if opening.attempts is not None else ""
    length = f"{'at most' if opening.expected_s >= opening.length_s else 'about'} {opening.expected_s:.0f} s"
    name, hint = printable(opening.scenario, unicode=False), printable(opening.hint, unicode=False)
    return f"{name}: {clients}{length}" + (f"; see it: {hint}" if hint else "")


def progress_line(progress: Progress) -> str:
    """Return one moment: "  1.0 s    200 clients   64/64 fds   71/129 queued   8 EMFILE   0 SYNs lost"."""
    elapsed = f"{max(progress.elapsed_s, 0.0):.1f} s"
    clients = some(progress.started, "client")
    parts = [
        f"{elapsed:>8} {clients:>15}",
        f"{_of(progress.open_fds, progress.fd_limit)} fds",
        f"{_of(progress.queue, progress.queue_capacity)} queued",
        f"{format_count(progress.emfile)} EMFILE",
        "" if progress.overflows is None else f"{format_count(progress.overflows)} SYNs lost",
        f"{format_count(progress.lost_by_generator)} own failures" if progress.lost_by_generator else "",
    ]
    return "   ".join(part for part in parts if part)


def _of(value: int | None, limit: int | None) -> str:
    if value is None:
        return "?"
    return format_count(value) + (f"/{format_count(limit)}" if limit is not None else "")
