"""What the conductor asks of whatever is under test: the simulated server, any command, or one that runs already.

Owns the words. Everything that differs between them is behind them.
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
        """What is known of it; `exit_status` and `exited_ns` say whether and when it died by itself."""

    @property
    def notices(self) -> Sequence[str]:
        """What a reader should know of how it is seen: whole sentences."""

    def pids(self) -> Sequence[int]:
        """Return its processes: whose limit is meant when it is changed."""

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:
        """Return what the sampler reads, open as long as the stack; `diag` sees the server's sockets."""

    async def wait_exited(self) -> int:
        """Wait until it has ended and return its exit status; run it beside the load for an exact `exited_ns`."""

    async def go(self, start_ns: int) -> None:
        """Let the load come, from this moment of CLOCK_MONOTONIC on."""

    async def listen(self, backlog: int) -> None:
        """Have it set another backlog, where it can be told; what came of it is the kernel's to tell."""

    async def freeze(self) -> object:
        """Have it accept and close nothing any more, so that the state of every connection can be looked at."""

    async def drain(self) -> int:
        """Have it give back all it holds and empty its queue, where it can; return how many it took from there."""

    async def leave(self) -> None:
        """Let it end, and wait until it has."""


class Read(Protocol):
    """What is read of a process, or of several as if they were one; see `kernel.procfs.Process`."""

    def open_fds(self) -> int:
        """Return how many descriptors are open."""

    def limits(self) -> Limits:
        """Return RLIMIT_NOFILE."""

    def cpu_ns(self) -> int:
        """Return the CPU time used so far."""

    def run_wait_ns(self) -> int:
        """Return the time for which it was ready to run and waited for a CPU; -1 where that is not seen."""

    def rss(self) -> int:
        """Return the resident memory in bytes."""

    def fd_size(self) -> int:
        """Return the slots of the fd table."""


class Classified(Protocol):
    """Its descriptors by kind; see `kernel.fdtable.FdTable`."""

    def map(self) -> str:
        """Return one letter for each number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a sample is read from; the sampler owns none of it. None: that cannot be seen."""

    process: Read | None
    table: Classified | None
    listener: Callable[[], ListenerState | None]
    counters: TcpCounters | None
