"""The facts of a run besides its records: its processes, their limits, and how it ended.

Frozen dataclasses, stored as JSON in `manifest.json`. Times are CLOCK_MONOTONIC
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
    """The target as it was observed."""

    pid: int
    address: str
    port: int
    backlog_asked: int | None  # None: a command's own, which is not visible
    backlog: int | None  # in force, read back from the kernel: min(backlog_asked, somaxconn)
    nofile_soft: int  # read back
    nofile_hard: int
    baseline_fds: int  # open when ready, before the load
    threads: int
    exit_status: int | None = None  # None: it ran to the end of the run; -N: killed by signal N
    exited_ns: int = 0  # when it ended by itself
    command: list[str] | None = None  # as started, [] = not known; None: the simulated server, which writes records
    started: bool = True  # False: it was already running, keeps running, and was never stopped
    process_seen: bool = True  # False: only its address is known; pid, limits, descriptors and threads are 0
    sockets_seen: bool = True  # whether a readable TCP table has its queue and its ends of the connections
    emfile_seen: bool = True  # whether the failures of accept() were counted
    workers: int = 0  # processes that held the listener when the load began; 0 = not known
    restarts: int = 0  # workers, and their replacements, that ended while others kept running
    log_bytes: int | None = None  # written to both outputs between the start of the load and the snapshot of the fates
    log_read: list[tuple[int, int]] = field(default_factory=list)  # a few hundred readings: time, log_bytes until then

    @property
    def died(self) -> bool:
        """Whether it ended during the run, unasked; the exit status of an attached server is not known."""
        return self.exit_status is not None or self.exited_ns > 0

    @property
    def queue_capacity(self) -> int | None:
        """The number of connections that its accept queue holds; None: not known."""
        return None if self.backlog is None else units.queue_capacity(self.backlog)

    @property
    def is_simulated(self) -> bool:
        """Whether it records every accept(); any other server is only observed through the kernel."""
        return self.command is None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """One driver as it was observed."""

    share: int
    pid: int
    cpu_ns: int  # between go and finished
    wall_ns: int
    nofile_soft: int
    run_wait_ns: int = -1  # ready to run and waiting for a CPU, between go and finished; -1: not read
    clamped: str | None = None  # a sentence if its own limit reduces the plan, with the knob
    exit_status: int | None = None  # None: it ran to the end of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class EndState:
    """The kernel's snapshot for the fates: the server no longer accepts, and every socket still exists."""

    queue: int | None  # the listener's accept queue
    server_states: dict[str, int]  # TCP state name -> sockets at the server's port
    open_fds: int | None
    fds_end: int | None  # after the drain, once unchanged
    fd_map: str  # one letter per descriptor, by number: f file, e epoll, s socket, L listening, E W ...; "" = not read


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One step of the timeline as it was made."""

    change: str  # "nofile" | "backlog" | "release"
    asked: float
    done_ns: int
    before: float | None  # read before and after; None: not read, or not readable (release)
    after: float | None
    refused: str | None = None  # a sentence why it was not made
    target_ended: bool = False  # it was not made because the server had already ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the analysis needs to know about a run besides its records."""

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
    degraded: list[str] = field(default_factory=list)  # sentences on settings that are not in force
    watchers_lost: list[str] = field(default_factory=list)  # sentences on observers that died before the end
    notices: list[str] = field(default_factory=list)  # sentences for the reader of the result
    sysctls: dict[str, str] = field(default_factory=dict)  # in force for the run, full names
    end: EndState | None = None
    prediction: dict[str, Any] | None = None  # scenario.plan.Prediction as JSON
    lost_records: dict[str, int] = field(default_factory=dict)  # array -> records that found no space
    steps: list[StepFacts] = field(default_factory=list)  # of the timeline, in the order of execution

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dump."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Facts:
        """Return the facts that `to_json` wrote; unknown keys of a newer minor version are ignored.

        Raises ValueError if a required key is missing or has another type.
        """
        return _reader().validate_json(json.dumps(values), strict=True)


@functools.cache
def _reader() -> TypeAdapter[Facts]:
    return TypeAdapter(Facts)
