"""What is known of a run besides its records: who ran, under which limits, and how it ended.

Frozen dataclasses of the standard library that travel as JSON in `manifest.json`. Times are CLOCK_MONOTONIC
nanoseconds, as in the records.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from loadsim import units


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The target as it really was."""

    pid: int
    address: str
    port: int
    backlog_asked: int | None  # None: a command's own, which nobody sees
    backlog: int | None  # in force, read back from the kernel: min(backlog_asked, somaxconn)
    nofile_soft: int  # read back
    nofile_hard: int
    baseline_fds: int  # open when ready, before the load
    threads: int
    exit_status: int | None = None  # None: it ran to the end of the run; -N: killed by signal N
    exited_ns: int = 0  # when it ended by itself
    command: list[str] | None = (
        None  # as it was started, [] = not known; None: the simulated server, which writes records
    )
    started: bool = True  # False: it ran before, and goes on: nothing of it was stopped to look at it
    process_seen: bool = True  # False: only its address is known, and pid, limits, descriptors and threads are 0
    sockets_seen: bool = True  # whether its queue and its ends of the connections are in a table that can be read
    emfile_seen: bool = True  # whether it is known how often accept() failed
    workers: int = 0  # processes that held the listener when the load began; 0 = not known
    restarts: int = 0  # those of them, and of who took their place, that ended while others went on
    log_bytes: int | None = None  # what it wrote to both of its outputs from the start of the load to the judgement
    log_read: list[tuple[int, int]] = field(default_factory=list)  # when, and log_bytes until then; a few hundred

    @property
    def died(self) -> bool:
        """Whether it ended by itself during the run; how is not known of one that was not started here."""
        return self.exit_status is not None or self.exited_ns > 0

    @property
    def queue_capacity(self) -> int | None:
        """How many connections its accept queue holds; None: not known."""
        return None if self.backlog is None else units.queue_capacity(self.backlog)

    @property
    def is_simulated(self) -> bool:
        """Whether it writes down every accept(); of any other server only what the kernel shows is known."""
        return self.command is None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """One driver as it really was."""

    share: int
    pid: int
    cpu_ns: int  # between go and finished
    wall_ns: int
    nofile_soft: int
    run_wait_ns: int = -1  # ready to run and waiting for a CPU, between go and finished; -1: not read
    clamped: str | None = None  # what its own limit took from the plan, a whole sentence with the knob
    exit_status: int | None = None  # None: it ran to the end of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class EndState:
    """What the kernel showed when the fates were judged: the server no longer accepts, every socket still exists."""

    queue: int | None  # the listener's accept queue
    server_states: dict[str, int]  # TCP state name -> sockets at the server's port
    open_fds: int | None
    fds_end: int | None  # after the drain, once unchanged
    fd_map: str  # one letter per descriptor, by number: f file, e epoll, s socket, L listening, E W ...; "" = not read


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One step of the timeline as it was really made."""

    change: str  # "nofile" | "backlog" | "release"
    asked: float
    done_ns: int
    before: float | None  # read before and after; None: not read, or there is no such value (release)
    after: float | None
    refused: str | None = None  # why it was not made, a whole sentence
    target_ended: bool = False  # it was not made because the server had ended by then


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that analysis needs to know of a run besides its records."""

    scenario: str
    description: str
    seed: int
    settings: dict[str, Any]  # the resolved scenario, as nested tables of plain values, durations in seconds
    complete: bool  # False: interrupted, or its conductor was killed
    interrupted: str | None  # "SIGINT", "aborted: emfile.count > 0", ...
    start_ns: int  # the origin of the intended start times
    start_unix_s: float = 0.0  # the wall clock at start_ns, seconds since the epoch; 0 = not noted
    load_end_ns: int  # when the drivers had finished
    judged_ns: int  # when the server had stopped accepting
    server: ServerFacts
    drivers: list[DriverFacts]
    namespace: str  # "private" | "shared"
    degraded: list[str] = field(default_factory=list)  # settings asked for and not in force, whole sentences
    watchers_lost: list[str] = field(default_factory=list)  # who watched and died before the end, whole sentences
    notices: list[str] = field(default_factory=list)  # what a reader should know, whole sentences
    sysctls: dict[str, str] = field(default_factory=dict)  # in force for the run, full names
    end: EndState | None = None
    prediction: dict[str, Any] | None = None  # scenario.plan.Prediction as JSON
    lost_records: dict[str, int] = field(default_factory=dict)  # journal -> records that found no space
    steps: list[StepFacts] = field(default_factory=list)  # of the timeline, in the order in which they were made

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dump."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Facts:
        """Return the facts that `to_json` wrote; unknown keys of a newer minor version are ignored.

        Raises ValueError where one that is needed is missing, or is of another type.
        """
        return _reader().validate_json(json.dumps(values), strict=True)


@functools.cache
def _reader() -> TypeAdapter[Facts]:
    return TypeAdapter(Facts)
