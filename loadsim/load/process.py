"""The conductor's side of a driver: start it, tell it when, hear that it has finished.

Owns the child process and its control channel. A driver that dies while the load runs is data, not an exception.
"""

from __future__ import annotations

import dataclasses
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

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

#: A driver that has been told to leave gets this long before it is killed.
LEAVE_S = 5.0
_ARGV = (sys.executable, "-P", "-m", "loadsim.load.driver")


class Driver:
    """One driver process that is ready. Every order to one that has died does nothing."""

    def __init__(self, child: Child, channel: Channel, spec: LoadSpec, ready: Message) -> None:
        self.child = child
        self.ready = ready  # the driver's own words: pid, threads, open_fds, nofile_soft, nofile_hard, clamped
        self._channel = channel
        self._share = spec.share

    @property
    def clamped(self) -> str | None:
        """A sentence on what the driver's own limit takes from the plan, None where nothing is taken."""
        clamped: str | None = self.ready["clamped"]
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
        """Wait until every attempt has ended or was booked; `exit_status` tells where the driver died instead."""
        finished = await self._hear("finished")
        if finished is None:
            return self._facts(cpu_ns=0, wall_ns=0, exit_status=await self.child.wait_exit())
        return self._facts(cpu_ns=finished["cpu_ns"], wall_ns=finished["wall_ns"], exit_status=None)

    async def reset(self) -> int:
        """Close every socket that is still open by RST and return their number, 0 where the driver has died."""
        await self._tell({"do": "reset"})
        answer = await self._hear("reset")
        return 0 if answer is None else int(answer["closed"])

    async def leave(self) -> None:
        """Let the driver leave and wait until it has; one that does not is killed after `LEAVE_S`."""
        await self._tell({"do": "exit"})
        with trio.move_on_after(LEAVE_S):
            await self.child.wait_exit()

    def _facts(self, *, cpu_ns: int, wall_ns: int, exit_status: int | None) -> DriverFacts:
        return DriverFacts(
            share=self._share,
            pid=self.ready["pid"],
            cpu_ns=cpu_ns,
            wall_ns=wall_ns,
            nofile_soft=self.ready["nofile_soft"],
            clamped=self.clamped,
            exit_status=exit_status,
        )

    async def _tell(self, order: Message) -> None:
        try:
            await self._channel.send(order)
        except trio.BrokenResourceError:  # it has died: `wait_finished` says so
            await trio.lowlevel.checkpoint()

    async def _hear(self, event: str) -> Message | None:
        """Wait for an event, None if the driver ends before it."""
        while (message := await self._channel.receive()) is not None:
            if message["event"] == event:
                return message
        return None


@asynccontextmanager
async def driver(spec: LoadSpec, *, namespace: Namespace | None, stderr_path: Path) -> AsyncIterator[Driver]:
    """Start a driver and wait until it is ready; at the end of the block it is told to leave, or killed.

    Its standard error goes to `stderr_path`. Raises EnvironmentRefusedError, with the remedy, when it cannot start.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with theirs, stderr_path.open("wb") as stderr:
        try:
            child = launch(_ARGV, control=theirs, namespace=namespace, stderr=stderr)
        except BaseException:
            ours.close()
            raise
    try:
        async with Channel(ours) as channel:
            ready = await _prepare(child, channel, spec, stderr_path)
            yield Driver(child, channel, spec, ready)
            with trio.CancelScope(shield=True):
                await channel.aclose()
                with trio.move_on_after(LEAVE_S):
                    await child.wait_exit()
    finally:
        if child.returncode is None:
            child.kill()
        with trio.CancelScope(shield=True):
            await child.wait_exit()
        child.close()


async def _prepare(child: Child, channel: Channel, spec: LoadSpec, stderr_path: Path) -> Message:
    """Tell the driver what to do and return its answer."""
    try:
        await channel.send({"do": "prepare", "spec": dataclasses.asdict(spec)})
        answer = await channel.receive()
    except trio.BrokenResourceError:
        answer = None
    if answer is None:
        status = await child.wait_exit()
        last = stderr_path.read_text(errors="replace").strip().splitlines()[-1:]
        raise EnvironmentRefusedError(
            f"a driver ended with status {status} before it was ready: {' '.join(last)}; see {stderr_path}"
        )
    if answer["event"] == "failed":
        raise EnvironmentRefusedError(answer["error"])
    return answer
