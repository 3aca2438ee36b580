"""Independent measurements of the same run: the kernel's tracepoints, perf, ss and nstat.

Starts these programs and parses their output; must not know the numbers of loadsim. A check that needs a missing
program is skipped with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRACEFS = Path("/sys/kernel/tracing")
#: Per processor; a record takes about 100 bytes.
_BUFFER_KB = 16_384
#: "  python-4711    [001] ..... 123.456789: sys_accept4 -> 0x9": the thread's name may hold spaces and dashes.
_TRACED = re.compile(r"^\s*.*-(?P<pid>\d+)\s+\[\d+\] \S+\s+(?P<s>\d+)\.(?P<us>\d{6}): (?P<what>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One event of a tracepoint."""

    pid: int  # of the running thread; meaningless for an event in a soft interrupt
    time: int  # monotonic, ns, truncated to microseconds
    what: str


class Trace:
    """A private tracefs instance, which records while it exists."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def events(self) -> list[Traced]:
        """Stop recording and return the events in order."""
        (self._path / "tracing_on").write_text("0")
        stats = [path.read_text() for path in self._path.glob("per_cpu/cpu*/stats")]
        lost = sum(
            int(count)
            for text in stats
            for count in re.findall(r"^(?:overrun|dropped events): (\d+)", text, re.MULTILINE)
        )
        assert lost == 0, f"the trace lost {lost} events"
        return [
            Traced(pid=int(one["pid"]), time=int(one["s"] + one["us"]) * 1000, what=one["what"])
            for one in _TRACED.finditer((self._path / "trace").read_text())
        ]


@contextmanager
def tracing(filters: Mapping[str, str]) -> Iterator[Trace]:
    """Record these tracepoints ("sock/inet_sock_set_state"), each with its filter, on the clock of loadsim."""
    if not os.access(TRACEFS / "instances", os.W_OK):
        pytest.skip(f"{TRACEFS} cannot be written: run as root, with tracefs mounted there")
    path = TRACEFS / "instances" / f"loadsim-check-{os.getpid()}"
    path.mkdir()
    try:
        (path / "trace_clock").write_text("mono")
        (path / "buffer_size_kb").write_text(str(_BUFFER_KB))
        for event, condition in filters.items():
            (path / "events" / event / "filter").write_text(condition)
            (path / "events" / event / "enable").write_text("1")
        yield Trace(path)
    finally:
        (path / "events" / "enable").write_text("0")
        path.rmdir()


class Tally:
    """Counts the events of a tracepoint in all processes of one command, where they are too many to record."""

    def __init__(self, event: str, condition: str, path: Path) -> None:
        """Skip the check where perf cannot count the event; `path` is a file for its output."""
        self._path = path
        self.under = [tool("perf"), "stat", "-x,", "-o", str(path), "-e", event, "--filter", condition, "--"]
        tried = subprocess.run([*self.under, "true"], check=False, capture_output=True, text=True)
        if tried.returncode:
            pytest.skip(f"perf cannot count {event}: {tried.stderr.strip().splitlines()[0]}; run as root")

    @property
    def count(self) -> int:
        """The number of events in the last command."""
        return int(next(line for line in self._path.read_text().splitlines() if line[:1].isdigit()).split(",")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One line of ss."""

    state: str  # as ss writes it: "ESTAB", "SYN-RECV"
    recv_q: int
    send_q: int
    local: str  # address:port
    peer: str


def sockets_of(text: str) -> list[Seen]:
    """Return the sockets in the output of `ss -H`."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return [
        Seen(state=state, recv_q=int(recv_q), send_q=int(send_q), local=local, peer=peer)
        for state, recv_q, send_q, local, peer, *_ in rows
    ]


def counter_of(text: str, name: str) -> int:
    """Return one counter in the output of nstat."""
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def calls_of(text: str) -> dict[str, int]:
    """Return the calls by name in the output of `strace -c`."""
    rows = [line.split() for line in text.splitlines()]
    return {row[-1]: int(row[3]) for row in rows if len(row) in (5, 6) and row[3].isdigit() and row[-1] != "total"}


def tool(name: str) -> str:
    """Return the path of a program; skips where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def show(line: str) -> None:
    """Print a line at once (for `pytest -s`)."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
