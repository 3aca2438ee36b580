"""How is a server reached? Simulated, a command, or one that is already running.

The package itself owns the protocol between the conductor and any of them.

    simulated  the conductor's side of the simulated server
    command    a command, started and ended by loadsim
    attached   a running server, only observed
    readiness  where a server listens, and when it is ready
    observed   the kernel's view of a server without records

A server that was already running is never started, limited, stopped or ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from loadsim.kernel.limits import Limits
    from loadsim.kernel.procfs import TcpCounters
    from loadsim.kernel.sockdiag import ListenerState, SockDiag
    from loadsim.record.facts import ServerFacts


class Target(Protocol):
    """A server that is ready. Orders to one that has died do nothing."""

    @property
    def facts(self) -> ServerFacts:
        """Its facts so far; `exit_status` and `exited_ns` are set if it died by itself."""

    @property
    def notices(self) -> Sequence[str]:
        """Sentences about how it is observed, for the reader of the result."""

    def pids(self) -> Sequence[int]:
        """Return the processes to which a changed limit applies."""

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:
        """Return the sources of the sampler; the stack closes them. `diag` reads the server's sockets."""

    async def wait_exited(self) -> int:
        """Wait until it has ended and return its exit status; run it during the load for an exact `exited_ns`."""

    async def go(self, start_ns: int) -> None:
        """Expect the load, from this CLOCK_MONOTONIC time on."""

    async def listen(self, backlog: int) -> None:
        """Change its backlog, if it takes orders; the kernel shows the result."""

    async def freeze(self) -> object:
        """Stop accepting and closing, for the snapshot of every connection."""

    async def drain(self) -> int:
        """Let it close everything and empty its queue, if it takes orders; return how many connections were queued."""

    async def leave(self) -> None:
        """End it, and wait until it has ended."""


class Read(Protocol):
    """The readings of a process, or of several together; see `kernel.procfs.Process`."""

    def open_fds(self) -> int:
        """Return the number of open descriptors."""

    def limits(self) -> Limits:
        """Return RLIMIT_NOFILE."""

    def cpu_ns(self) -> int:
        """Return the CPU time used so far."""

    def run_wait_ns(self) -> int:
        """Return the time that it was ready to run and waited for a CPU; -1: not visible."""

    def rss(self) -> int:
        """Return the resident memory in bytes."""

    def fd_size(self) -> int:
        """Return the slots of the fd table."""


class Classified(Protocol):
    """The kinds of its descriptors; see `kernel.fds.FdTable`."""

    def map(self) -> str:
        """Return one letter for each descriptor number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources of a sample, which the sampler does not own; None: not readable."""

    process: Read | None
    table: Classified | None
    listener: Callable[[], ListenerState | None]
    counters: TcpCounters | None
