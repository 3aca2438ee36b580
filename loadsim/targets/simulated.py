"""The conductor's side of the simulated server: its facts, its orders, and when it died, should it die.

Owns what is known of it; the process itself is a `kernel.partner`.
"""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING

from loadsim.kernel.fds import FdTable
from loadsim.kernel.procfs import Process, TcpCounters
from loadsim.kernel.sockdiag import family_of
from loadsim.process.launch import partner
from loadsim.record.facts import ServerFacts
from loadsim.targets.target import Sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import ExitStack
    from pathlib import Path

    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.process.control import Message
    from loadsim.process.launch import ControlledChild, Namespace
    from loadsim.scenario.specs import ServerSpec


class Server:
    """A simulated server that is ready. Orders to one that has died do nothing."""

    def __init__(self, process: ControlledChild, spec: ServerSpec) -> None:
        self.child = process.child
        self._process = process
        self._facts = _facts_of(process.ready, spec)
        self._told_to_leave = False

    @property
    def facts(self) -> ServerFacts:
        """What is known of it; `exit_status` and `exited_ns` say whether and when it died by itself."""
        self._note_exit()
        return self._facts

    @property
    def exited(self) -> int | None:
        """The exit status of a server that died by itself, -N when signal N killed it; None: it did not."""
        return self.facts.exit_status

    @property
    def notices(self) -> list[str]:
        """Nothing: it is seen whole."""
        return []

    def pids(self) -> list[int]:
        """Its one process."""
        return [self._facts.pid]

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:
        """Return what the sampler reads, open as long as the stack; `diag` sees the server's sockets."""
        address, port = self._facts.address, self._facts.port
        process = stack.enter_context(Process(self._facts.pid))
        return Sources(
            process=process,
            table=FdTable(process, diag, families=(family_of(address),)),
            listener=partial(diag.listener, address, port),
            counters=stack.enter_context(TcpCounters(self._facts.pid)),
        )

    async def wait_exited(self) -> int:
        """Wait until it has ended and return its exit status; run it beside the load for an exact `exited_ns`."""
        status = await self.child.wait_exit()
        self._note_exit()
        return status

    async def go(self, start_ns: int) -> None:
        """Let it accept from now on; its pauses count from this moment of CLOCK_MONOTONIC."""
        await self._process.tell({"do": "go", "start_ns": start_ns})

    async def listen(self, backlog: int) -> None:
        """Have it set another backlog; what came of it is the kernel's to tell."""
        await self._process.tell({"do": "listen", "backlog": backlog})

    async def freeze(self) -> Message:
        """Have it accept and close nothing any more: `open_fds`, `accepted`, `closed`; {} where it has died."""
        return await self._ask("freeze", "frozen")

    async def drain(self) -> int:
        """Have it give back all it holds and empty its queue; return how many it took from there, 0 where it died."""
        return int((await self._ask("drain", "drained")).get("after_end", 0))

    async def leave(self) -> None:
        """Let it leave, and wait until it has; one that does not is killed after some seconds."""
        self._note_exit()
        self._told_to_leave = True
        await self._process.leave()

    def _note_exit(self) -> None:
        status = self.child.returncode
        if status is not None and self._facts.exit_status is None and not self._told_to_leave:
            self._facts = dataclasses.replace(self._facts, exit_status=status, exited_ns=monotonic_ns())

    async def _ask(self, order: str, event: str) -> Message:
        answer = await self._process.ask(order, event)
        if answer is None:
            await self._process.wait_ended()
            self._note_exit()
        return answer or {}


@asynccontextmanager
async def simulated_server(
    spec: ServerSpec, *, namespace: Namespace | None, stdout_path: Path, stderr_path: Path
) -> AsyncIterator[Server]:
    """Start a simulated server, wait until it is ready, and have it leave at the end of the block.

    It lowers its own soft limit to `spec.nofile` when it is ready: an import without descriptors would raise. Raises
    EnvironmentRefusedError with its last words when it cannot start.
    """
    module, what = "loadsim.simulated.server", "the simulated server"
    async with partner(
        module, dataclasses.asdict(spec), what=what, namespace=namespace, stdout=stdout_path, stderr=stderr_path
    ) as process:
        server = Server(process, spec)
        yield server
        await server.leave()


def _facts_of(ready: Message, spec: ServerSpec) -> ServerFacts:
    return ServerFacts(
        pid=ready["pid"],
        address=ready["address"],
        port=ready["port"],
        backlog_asked=spec.backlog,
        backlog=ready["backlog"],
        nofile_soft=ready["nofile_soft"],
        nofile_hard=ready["nofile_hard"],
        baseline_fds=ready["open_fds"],
        threads=ready["threads"],
    )
