"""What the conductor asks of whatever is under test: the simulated server, any command, or one that runs already.

Owns the words. Everything that differs between them is behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.record.facts import ServerFacts
    from loadsim.record.sampler import Sources


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
