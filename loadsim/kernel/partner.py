"""A child of ours that takes orders: started, prepared, told, asked, and gone when its block ends.

Owns the process and the control channel. Until it is ready a failure is an error with its last words; from then on
its death is data: orders to one that has died do nothing. Must not know what its orders mean.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from loadsim.control import Channel
from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.launch import launch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from loadsim.control import Message
    from loadsim.kernel.launch import Child
    from loadsim.kernel.netns import Namespace

#: A child that says nothing for so long after its start is given up.
READY_S: Final = 30.0
#: A child that was told to leave gets this long before it is killed.
LEAVE_S: Final = 5.0
_LAST_LINES: Final = 8


class Partner:
    """A child that is ready; `ready` holds its own words about itself."""

    def __init__(self, child: Child, channel: Channel) -> None:
        self.child = child
        self.ready: Message = {}
        self._channel = channel

    async def tell(self, order: Message) -> None:
        """Send an order; nothing happens when it has died."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._channel.send(order)

    async def hear(self, event: str) -> Message | None:
        """Wait for an event; None when it ends before that."""
        while (message := await self._channel.receive()) is not None:
            if message["event"] == event:
                return message
        return None

    async def ask(self, order: str, event: str) -> Message | None:
        """Send an order and wait for its answer; None when it ends before that."""
        await self.tell({"do": order})
        return await self.hear(event)

    async def leave(self) -> None:
        """Let it leave, and wait until it has; one that does not is killed after `LEAVE_S`."""
        await self.tell({"do": "exit"})
        await self.wait_ended()

    async def wait_ended(self) -> int:
        """Wait until one has ended that was told to leave, or is heard no more; return its exit status.

        One that does not is killed after `LEAVE_S`: without its channel nobody could ever tell it anything.
        """
        with trio.move_on_after(LEAVE_S):
            return await self.child.wait_exit()
        self.child.kill()
        return await self.child.wait_exit()


@asynccontextmanager
async def partner(
    module: str,
    spec: Message,
    *,
    what: str,
    namespace: Namespace | None,
    stdout: Path | None = None,
    stderr: Path,
) -> AsyncIterator[Partner]:
    """Run a module of ours as a child that has been prepared with a spec; it leaves at the end of the block.

    `what` names it in errors: "the simulated server". Must be entered in the main thread. At the end of a block that
    was left by an error it is killed at once. Raises EnvironmentRefusedError where it does not become ready.
    """
    child, channel = _start(module, namespace, stdout, stderr)
    with child:
        async with channel:
            one = Partner(child, channel)
            one.ready = await _prepare(one, spec, what, stderr)
            yield one
            with trio.CancelScope(shield=True):
                await one.leave()


def _start(module: str, namespace: Namespace | None, stdout: Path | None, stderr: Path) -> tuple[Child, Channel]:
    """Start the process with its end of a control channel and return it with ours."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    argv = (sys.executable, "-P", "-m", module)
    with contextlib.ExitStack() as undo, theirs, contextlib.ExitStack() as files:
        undo.callback(ours.close)
        out = files.enter_context(stdout.open("wb")) if stdout else None
        errors = files.enter_context(stderr.open("wb"))
        child = launch(argv, control=theirs, namespace=namespace, stdout=out, stderr=errors)
        undo.pop_all()
    return child, Channel(ours)


async def _prepare(one: Partner, spec: Message, what: str, stderr: Path) -> Message:
    """Tell it what to be and return what it says it has become."""
    answer: Message | None = None
    with trio.move_on_after(READY_S) as patience, contextlib.suppress(trio.BrokenResourceError):
        await one._channel.send({"do": "prepare", "spec": spec})  # noqa: SLF001 -- a silent loss would wait for nothing
        answer = await one._channel.receive()  # noqa: SLF001 -- "ready" or "failed"
    if answer is None:
        raise EnvironmentRefusedError(await _last_words(one.child, what, stderr, late=patience.cancelled_caught))
    if answer["event"] == "failed":
        raise EnvironmentRefusedError(answer["error"])
    return answer


async def _last_words(child: Child, what: str, stderr: Path, *, late: bool) -> str:
    """Return why a child never became ready, with the end of what it wrote."""
    how = f"was not ready after {READY_S:.0f} s"
    if not late:
        how = f"ended with status {await child.wait_exit()} before it was ready"
    return f"{what} {how}; its last words, in {stderr}: {_end_of(stderr)}"


def _end_of(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines) or "none"
