"""The conductor's side of the simulated server: its facts, its orders, and the time of its death.

`process.launch` owns the process itself.
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
from loadsim.process.launch import controlled_child
from loadsim.record.facts import ServerFacts
from loadsim.targets import Sources

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
        self._leaving = False

    @property
    def facts(self) -> ServerFacts:
        """Its facts so far; `exit_status` and `exited_ns` are set if it died by itself."""
        self._note_exit()
        return self._facts

    @property
    def exited(self) -> int | None:
        """The exit status of a server that died by itself, -N if signal N killed it; None: it did not die."""
        return self.facts.exit_status

    @property
    def notices(self) -> list[str]:
        """No sentences: its own records are complete."""
        return []

    def pids(self) -> list[int]:
        """Return its only process."""
        return [self._facts.pid]

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:
        """Return the sources of the sampler; the stack closes them. `diag` reads the server's sockets."""
        address, port = self._facts.address, self._facts.port
        process = stack.enter_context(Process(self._facts.pid))
        return Sources(
            process=process,
            table=FdTable(process, diag, families=(family_of(address),)),
            listener=partial(diag.listener, address, port),
            counters=stack.enter_context(TcpCounters(self._facts.pid)),
        )

    async def wait_exited(self) -> int:
        """Wait until it has ended and return its exit status; run it during the load for an exact `exited_ns`."""
        status = await self.child.wait_exit()
        self._note_exit()
        return status

    async def go(self, start_ns: int) -> None:
        """Let it accept from now on; its pauses count from this CLOCK_MONOTONIC time."""
        await self._process.tell({"do": "go", "start_ns": start_ns})

    async def listen(self, backlog: int) -> None:
        """Change its backlog; the kernel shows the result."""
        await self._process.tell({"do": "listen", "backlog": backlog})

    async def freeze(self) -> Message:
        """Stop accepting and closing; return `open_fds`, `accepted` and `closed`, {} if it has died."""
        return await self._ask("freeze", "frozen")

    async def drain(self) -> int:
        """Let it close everything and empty its queue; return how many connections were queued, 0 if it died."""
        return int((await self._ask("drain", "drained")).get("after_end", 0))

    async def leave(self) -> None:
        """Ask it to exit and wait for that; it is killed if it does not exit within some seconds."""
        self._note_exit()
        self._leaving = True
        await self._process.leave()

    def _note_exit(self) -> None:
        status = self.child.returncode
        if status is not None and self._facts.exit_status is None and not self._leaving:
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
    """Start a simulated server, wait until it is ready, and let it exit at the end of the block.

    It lowers its own soft limit to `spec.nofile` when it is ready, because an import without descriptors raises. Raises
    EnvironmentRefusedError, with its last output, if it cannot start.
    """
    module, what = "loadsim.simulated.server", "the simulated server"
    async with controlled_child(
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
