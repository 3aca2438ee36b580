"""The conductor's side of a driver: start it, tell it when, hear that it has finished.

Owns the child process and its control channel. Until it is ready a failure is an error with its remedy; from then on
its death is data.
"""

from __future__ import annotations

import dataclasses
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from loadsim.control import Channel
from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.launch import launch
from loadsim.record.facts import DriverFacts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from loadsim.control import Message
    from loadsim.kernel.launch import Child
    from loadsim.kernel.netns import Namespace
    from loadsim.scenario.spec import LoadSpec

#: A driver that says nothing for so long after its start is given up: reserving a large journal may take seconds.
READY_S: Final = 30.0
#: A driver that was told to leave gets this long before it is killed.
LEAVE_S: Final = 5.0
_LAST_LINES: Final = 8
_ARGV = (sys.executable, "-P", "-m", "loadsim.load.driver")


class Driver:
    """A driver that is ready. Orders to one that has died do nothing."""

    def __init__(self, child: Child, channel: Channel, spec: LoadSpec, ready: Message) -> None:
        self.child = child
        self._channel = channel
        self._share = spec.share
        self._ready = ready

    @property
    def clamped(self) -> str | None:
        """What its own limit takes from the plan, a whole sentence; None: nothing."""
        clamped: str | None = self._ready["clamped"]
        return clamped

    async def go(self, start_ns: int) -> None:
        """Start the load at this moment of CLOCK_MONOTONIC."""
        await self._tell({"do": "go", "start_ns": start_ns})

    async def stop(self) -> None:
        """Start no further attempts; those in flight finish."""
        await self._tell({"do": "stop"})

    async def freeze(self) -> None:
        """Book everything in flight as unfinished, now; the sockets stay open."""
        await self._tell({"do": "freeze"})

    async def wait_finished(self) -> DriverFacts:
        """Wait until every attempt has ended or was booked; `exit_status` says if the driver died instead."""
        finished = await self._hear("finished")
        status = None if finished else await self.child.wait_exit()
        took = finished or {"cpu_ns": 0, "wall_ns": 0}
        return DriverFacts(
            share=self._share,
            pid=self._ready["pid"],
            cpu_ns=took["cpu_ns"],
            wall_ns=took["wall_ns"],
            nofile_soft=self._ready["nofile_soft"],
            clamped=self.clamped,
            exit_status=status,
        )

    async def reset(self) -> int:
        """Have it close every socket that is still open by RST; return their number, 0 where it died."""
        await self._tell({"do": "reset"})
        return int((await self._hear("reset") or {}).get("closed", 0))

    async def leave(self) -> None:
        """Let it leave, and wait until it has; one that does not is killed after `LEAVE_S`."""
        await self._tell({"do": "exit"})
        with trio.move_on_after(LEAVE_S) as patience:
            await self.child.wait_exit()
        if patience.cancelled_caught:
            self.child.kill()
            await self.child.wait_exit()

    async def _tell(self, order: Message) -> None:
        try:
            await self._channel.send(order)
        except trio.BrokenResourceError:  # it has died: `wait_finished` says so
            await trio.lowlevel.checkpoint()

    async def _hear(self, event: str) -> Message | None:
        """Wait for an event; None if the driver ends before it."""
        while (message := await self._channel.receive()) is not None:
            if message["event"] == event:
                return message
        return None


@asynccontextmanager
async def driver(spec: LoadSpec, *, namespace: Namespace | None, stderr_path: Path) -> AsyncIterator[Driver]:
    """Start a driver, wait until it is ready, and have it leave at the end of the block.

    Its standard error goes to `stderr_path`. Raises EnvironmentRefusedError with its last words when it cannot start.
    """
    child, channel = _start(namespace, stderr_path)
    with child:
        async with channel:
            started = Driver(child, channel, spec, await _prepare(child, channel, spec, stderr_path))
            try:
                yield started
            finally:
                with trio.CancelScope(shield=True):
                    await started.leave()


def _start(namespace: Namespace | None, stderr_path: Path) -> tuple[Child, Channel]:
    """Start the process with its end of a control channel and return it with ours."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    try:
        with theirs, stderr_path.open("wb") as stderr:
            child = launch(_ARGV, control=theirs, namespace=namespace, stderr=stderr)
    except BaseException:
        ours.close()
        raise
    return child, Channel(ours)


async def _prepare(child: Child, channel: Channel, spec: LoadSpec, stderr_path: Path) -> Message:
    """Tell it its share and return its answer."""
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
    return ready


async def _last_words(child: Child, stderr_path: Path, *, late: bool) -> str:
    """Return why a driver never became ready, with the end of what it wrote."""
    what = f"was not ready after {READY_S:.0f} s"
    if not late:
        what = f"ended with status {await child.wait_exit()} before it was ready"
    return f"a driver {what}; its last words, in {stderr_path}: {_end_of(stderr_path)}"


def _end_of(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines) or "none"
