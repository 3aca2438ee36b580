"""The control channel between the conductor and a child: one JSON object per line, both ways.

Owns how a child of ours ends: a refusal by the kernel is a sentence on its standard error, not a traceback.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Self

import trio

from loadsim.errors import explanation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


Message = dict[str, Any]
_GONE = {errno.EPIPE, errno.ECONNRESET}


class Channel:
    """One end of a control channel; use as an async context manager to close it."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._received = b""
        self._sending = trio.Lock()  # a message may be answered before the task that sent it goes on

    @classmethod
    def of_child(cls) -> Self:
        """Return the child's end: its standard input."""
        sock = socket.socket(fileno=0)
        sock.settimeout(0)
        return cls(sock)

    async def send(self, message: Message) -> None:
        """Send one message; several tasks may.

        Raises trio.BrokenResourceError when the other side is gone, OSError where the kernel refuses us something.
        """
        refusal = None
        async with self._sending:
            try:
                await self._stream.send_all(json.dumps(message).encode() + b"\n")
            except trio.BrokenResourceError as broken:
                refusal = _refusal(broken)
                if refusal is None:
                    raise
        if refusal:
            raise refusal  # not where it is handled: what led to it would be lost

    async def receive(self) -> Message | None:
        """Wait for the next message; None at the end of the other side. Raises OSError as `send` does."""
        while b"\n" not in self._received:
            more, refusal = b"", None
            try:
                more = await self._stream.receive_some(65_536)
            except trio.BrokenResourceError as broken:
                refusal = _refusal(broken)
            if refusal:
                raise refusal
            if not more:
                return None
            self._received += more
        line, self._received = self._received.split(b"\n", 1)
        message: Message = json.loads(line)
        return message

    async def aclose(self) -> None:
        """Close this end; the child takes it as the order to leave."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _refusal(broken: trio.BrokenResourceError) -> OSError | None:
    """Return what the kernel said where that is not that the other side is gone."""
    cause = broken.__cause__
    return cause if isinstance(cause, OSError) and cause.errno not in _GONE else None


def play(part: Callable[..., Awaitable[int | None]], *args: object) -> NoReturn:
    """Run a part to its end, and leave with the exit status that it returns, None = 0; a refusal has its own."""
    try:
        status = trio.run(part, *args)
    except Exception as raised:
        error = explanation(raised)
        if error is None:
            raise
        with suppress(OSError):
            sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.exit(status or 0)
