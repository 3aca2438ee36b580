"""The conductor's side of the simulated server: start it, wait until it is ready, give it orders.

Owns the child process and its control channel. Until it is ready a failure is an error with its remedy; from then on
its death is data.
"""

from __future__ import annotations

import dataclasses
import socket
import sys
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import trio

from loadsim.control import Channel
from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.launch import launch
from loadsim.record.facts import ServerFacts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from loadsim.control import Message
    from loadsim.kernel.launch import Child
    from loadsim.kernel.limits import Limits
    from loadsim.kernel.netns import Namespace
    from loadsim.scenario.spec import ServerSpec

#: A server that says nothing for so long after its start is given up.
READY_S: Final = 30.0
#: A server that was told to leave gets this long before it is killed.
LEAVE_S: Final = 5.0
_LAST_LINES: Final = 8
_ARGV = (sys.executable, "-P", "-m", "loadsim.target.server")


class Server:
    """A simulated server that is ready. Orders to one that has died do nothing."""

    def __init__(self, child: Child, channel: Channel, facts: ServerFacts) -> None:
        self.child = child
        self._channel = channel
        self._facts = facts
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

    async def wait_exited(self) -> int:
        """Wait until it has ended and return its exit status; run it beside the load for an exact `exited_ns`."""
        status = await self.child.wait_exit()
        self._note_exit()
        return status

    async def go(self, start_ns: int) -> None:
        """Let it accept from now on; its pauses count from this moment of CLOCK_MONOTONIC."""
        await self._tell({"do": "go", "start_ns": start_ns})

    async def freeze(self) -> Message:
        """Have it accept and close nothing any more: `open_fds`, `accepted`, `closed`; {} where it has died."""
        return await self._ask("freeze", "frozen")

    async def drain(self) -> int:
        """Have it give back all it holds and empty its queue; return how many it took from there, 0 where it died."""
        return int((await self._ask("drain", "drained")).get("after_end", 0))

    async def leave(self) -> None:
        """Let it leave, and wait until it has; one that does not is killed after `LEAVE_S`."""
        self._note_exit()
        self._told_to_leave = True
        await self._tell({"do": "exit"})
        with trio.move_on_after(LEAVE_S) as patience:
            await self.child.wait_exit()
        if patience.cancelled_caught:
            self.child.kill()
            await self.child.wait_exit()

    def _note_exit(self) -> None:
        status = self.child.returncode
        if status is not None and self._facts.exit_status is None and not self._told_to_leave:
            self._facts = dataclasses.replace(self._facts, exit_status=status, exited_ns=monotonic_ns())

    async def _tell(self, order: Message) -> None:
        try:
            await self._channel.send(order)
        except trio.BrokenResourceError:  # it has died: `exited` says so
            await trio.lowlevel.checkpoint()

    async def _ask(self, order: str, event: str) -> Message:
        await self._tell({"do": order})
        while (message := await self._channel.receive()) is not None:
            if message["event"] == event:
                return message
        await self.wait_exited()
        return {}


@asynccontextmanager
async def simulated_server(
    spec: ServerSpec,
    *,
    namespace: Namespace | None,
    nofile: Limits | None,
    stdout_path: Path,
    stderr_path: Path,
) -> AsyncIterator[Server]:
    """Start a simulated server, wait until it is ready, and have it leave at the end of the block.

    `nofile` is what it starts under, None = as inherited; it lowers its own soft limit to `spec.nofile` when ready.
    Raises EnvironmentRefusedError with its last words when it cannot start.
    """
    child, channel = _start(namespace, nofile, stdout_path, stderr_path)
    with child:
        async with channel:
            server = Server(child, channel, await _prepare(child, channel, spec, stderr_path))
            try:
                yield server
            finally:
                with trio.CancelScope(shield=True):
                    await server.leave()


def _start(
    namespace: Namespace | None, nofile: Limits | None, stdout_path: Path, stderr_path: Path
) -> tuple[Child, Channel]:
    """Start the process with its end of a control channel and return it with ours."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    try:
        with theirs, stdout_path.open("wb") as stdout, stderr_path.open("wb") as stderr:
            child = launch(_ARGV, control=theirs, namespace=namespace, nofile=nofile, stdout=stdout, stderr=stderr)
    except BaseException:
        ours.close()
        raise
    return child, Channel(ours)


async def _prepare(child: Child, channel: Channel, spec: ServerSpec, stderr_path: Path) -> ServerFacts:
    """Tell it what to be and return what it has become."""
    ready: Message | None = None
    with trio.move_on_after(READY_S) as patience:
        try:
            await channel.send({"do": "prepare", "spec": dataclasses.asdict(spec)})
            ready = await channel.receive()
        except trio.BrokenResourceError:
            ready = None
    if ready is None:
        raise EnvironmentRefusedError(await _last_words(child, stderr_path, late=patience.cancelled_caught))
    if ready["event"] == "failed":
        raise EnvironmentRefusedError(ready["error"])
    return ServerFacts(
        pid=ready["pid"],
        address=ready["address"],
        port=ready["port"],
        backlog_asked=spec.backlog,
        queue_limit=ready["backlog"],
        nofile_soft=ready["nofile_soft"],
        nofile_hard=ready["nofile_hard"],
        baseline_fds=ready["open_fds"],
        threads=ready["threads"],
    )


async def _last_words(child: Child, stderr_path: Path, *, late: bool) -> str:
    """Return why a server never became ready, with the end of what it wrote."""
    what = f"was not ready after {READY_S:.0f} s"
    if not late:
        what = f"ended with status {await child.wait_exit()} before it was ready"
    return f"the simulated server {what}; its last words, in {stderr_path}: {_end_of(stderr_path)}"


def _end_of(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines) or "none"
