"""A run in progress: its plain numbers, which the conductor fills, and how they are printed as lines."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is known before the first client."""

    scenario: str
    description: str
    attempts: int | None  # of the plan; None: as many as the time allows
    expected_s: float  # from the first client to the end of the last
    length_s: float  # the same, at most
    hint: str  # the command that shows the same sockets; "" where there is none

    @classmethod
    def of(cls, plan: Plan, hint: str) -> Opening:
        """Return what a plan says of the run to come."""
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
    """A run at one moment; None: not read, or not yet."""

    elapsed_s: float  # since the first intended start; below 0 while everybody gets ready
    started: int  # attempts
    rate: float  # attempts started per second, lately
    in_flight: int
    ok: int
    failed: int
    accepted: int
    open_fds: int | None
    fd_limit: int | None
    queue: int | None
    queue_capacity: int | None  # connections that the queue holds at most
    emfile: int
    overflows: int | None
    lost_by_generator: int = 0  # attempts that failed at the generator's own limits, or never began
    shared: bool = False  # the namespace is the host's, and so is `overflows`


class SweepDisplay(Protocol):
    """Somebody who watches many runs, and each of them."""

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Show that it starts, or goes on: so many runs are to be made, and take about so long."""

    def begin_run(self) -> Display:
        """Return who watches the next run."""

    def end_run(self, label: str, status: str, sentence: str, *, left_s: float) -> None:
        """Show how a run of this cell ended, and how long the others will take."""


class Display(Protocol):
    """Somebody who watches a run: live, as lines, or nobody."""

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Show that it starts; `hint` is the command that shows the same sockets."""

    def update(self, progress: Progress) -> None:
        """Show how far it is."""

    def end(self) -> None:
        """Leave the terminal as it was."""


EVERY_S = 1.0


def first_line(opening: Opening) -> str:
    """Return what is about to run, and how to see it: "too-many-open-files: 600 clients, about 5 s"."""
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


class PlainDisplay:
    """A line at the beginning, and one for every second that has begun since the last."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._due_s = EVERY_S

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Say what is about to run."""
        self._print(first_line(Opening.of(plan, hint)))

    def update(self, progress: Progress) -> None:
        """Print this moment once a second has passed since the last line."""
        if progress.elapsed_s >= self._due_s:
            self._due_s = (progress.elapsed_s // EVERY_S + 1) * EVERY_S
            self._print(progress_line(progress))

    def end(self) -> None:
        """Leave nothing open: the stream is not ours."""

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # whoever read our progress has gone; the run is worth more
            print(text, file=self._stream, flush=True)


def _of(value: int | None, limit: int | None) -> str:
    if value is None:
        return "?"
    return format_count(value) + (f"/{format_count(limit)}" if limit is not None else "")
