"""The control channel between the conductor and a child: one JSON object a line, both ways.

The child's end is its standard input, so that it costs no extra descriptor and ends with the conductor: at end of
file the child leaves. Carries orders and answers, never measurements; those go through the journals.

    conductor -> child    {"do": "prepare", "spec": {...}}, "go" (start_ns), "stop", "freeze", "exit"
                          to the server also "listen" (backlog), "drain"; to a driver "release" (share), "reset"
    child -> conductor    {"event": "ready", ...}, "finished", "frozen", "drained" | "reset", or "failed" (error)
"""

from __future__ import annotations

import json
import socket
from typing import Any, Self

import trio

Message = dict[str, Any]


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
        """Send one message; several tasks may. Raises trio.BrokenResourceError when the other side is gone."""
        async with self._sending:
            await self._stream.send_all(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """Wait for the next message; None at the end of the other side."""
        while b"\n" not in self._received:
            try:
                more = await self._stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return None
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
