"""The control channel between the conductor and a child: one JSON object per line in both directions.

Owns the exit of a child too: an error from the kernel becomes a sentence on its standard error, not a traceback.
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
        self._sending = trio.Lock()  # the reply may be handled before the sending task continues

    @classmethod
    def of_child(cls) -> Self:
        """Return the child's end: its standard input."""
        sock = socket.socket(fileno=0)
        sock.settimeout(0)
        return cls(sock)

    async def send(self, message: Message) -> None:
        """Send one message; several tasks may.

        Raises trio.BrokenResourceError if the other end is closed, OSError for any other error of the kernel.
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
            raise refusal  # not in the except block, which would replace its context

    async def receive(self) -> Message | None:
        """Wait for the next message; None when the other end is closed. Raises OSError like `send`."""
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
        """Close this end, which is the order to a child to exit."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _refusal(broken: trio.BrokenResourceError) -> OSError | None:
    """Return the kernel's error; None if it only means that the other end is closed."""
    cause = broken.__cause__
    return cause if isinstance(cause, OSError) and cause.errno not in _GONE else None


def run_child(main: Callable[..., Awaitable[int | None]], *args: object) -> NoReturn:
    """Run the main function of a child and exit with the status that it returns; None is 0.

    An error with an explanation is printed as a sentence and has its own exit status.
    """
    try:
        status = trio.run(main, *args)
    except Exception as raised:
        error = explanation(raised)
        if error is None:
            raise
        with suppress(OSError):
            sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.exit(status or 0)
