"""A run as it goes: what does not change, and the plain numbers that do. The conductor fills both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
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


class Watcher(Protocol):
    """Somebody who watches many runs, and each of them."""

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Show that it starts, or goes on: so many runs are to be made, and take about so long."""

    def begin_run(self) -> View:
        """Return who watches the next run."""

    def end_run(self, label: str, verdict: str, sentence: str, *, left_s: float) -> None:
        """Show how a run of this cell ended, and how long the others will take."""


class View(Protocol):
    """Somebody who watches a run: live, as lines, or nobody."""

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Show that it starts; `hint` is the command that shows the same sockets."""

    def update(self, progress: Progress) -> None:
        """Show how far it is."""

    def end(self) -> None:
        """Leave the terminal as it was."""
