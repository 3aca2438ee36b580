"""Held clients: they connect early, stay, and send requests periodically on their connections.

Run as `python -P -m loadsim.driver.held` with a control channel as standard input (`process.control`), like a driver.
They show how connected clients are served while the server accepts no further ones. Each of the few connections is a
trio task, because nothing here is fast.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager, suppress
from time import monotonic_ns
from typing import TYPE_CHECKING

import trio

from loadsim.driver.driver import send, serve
from loadsim.exchange import Reply, judge, request
from loadsim.fates import Outcome
from loadsim.kernel.sockdiag import family_of
from loadsim.process.control import run_child
from loadsim.record.records import CLIENT_ERRNO
from loadsim.scenario.specs import LoadSpec, source_address
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.process.control import Channel, Message
    from loadsim.record.journal import Journal

_RECEIVE_BYTES = 65_536


def main() -> None:
    """Serve the control channel until it ends."""
    run_child(serve, _hold)


class Held:
    """The held connections, and all requests on them."""

    def __init__(self, spec: LoadSpec, journal: Journal) -> None:
        self._spec = spec
        self._journal = journal
        self._number = 0
        self._every_s = 1 / spec.stages[0][1]
        self._stopping = trio.Event()
        self._waiting: set[trio.CancelScope] = set()  # of the requests that wait for a reply

    async def run(self, channel: Channel, start_ns: int) -> None:
        """Send requests until "stop", then keep the connections open until "exit"."""
        cpu = time.process_time_ns()
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as asking:
                nursery.start_soon(self._obey, channel, nursery.cancel_scope)
                socks = [trio.socket.socket(family_of(self._spec.address)) for _ in range(self._spec.clients)]
                for sock in socks:
                    asking.start_soon(self._ask_periodically, sock, start_ns)
            spent = {"cpu_ns": time.process_time_ns() - cpu, "wall_ns": max(1, monotonic_ns() - start_ns)}
            await send(channel, {"event": "finished", **spent})

    async def _obey(self, channel: Channel, scope: trio.CancelScope) -> None:
        """Stop the requests at "stop", answer "reset" (the exit closes the connections), and end at "exit"."""
        order: Message | None = {}
        while order is not None and order.get("do") != "exit":
            order = await channel.receive()
            if order is not None and order["do"] == "reset":
                await send(channel, {"event": "reset", "closed": 0})
            self._stopping.set()
            for waiting in tuple(self._waiting):
                waiting.cancel()
        scope.cancel()

    async def _ask_periodically(self, sock: trio.socket.SocketType, start_ns: int) -> None:
        """Connect, then send a request periodically; a connection that ends is not replaced."""
        await trio.sleep(_seconds_until(start_ns))
        due, connected, outcome = monotonic_ns(), 0, Outcome.OK
        while not self._stopping.is_set() and outcome in {Outcome.OK, Outcome.ERROR}:
            self._number += 1
            outcome, connected = await self._ask(sock, self._number, due, connected)
            due = max(due + round(self._every_s * NANOSECONDS), monotonic_ns())
            with trio.move_on_after(_seconds_until(due)):
                await self._stopping.wait()

    async def _ask(self, sock: trio.socket.SocketType, number: int, due: int, connected: int) -> tuple[Outcome, int]:
        """Make one exchange and record it; return its outcome and the time of its connection.

        There is no time-out for the reply, because its delay is the measurement. A request without a reply at "stop" is
        unfinished.
        """
        started, replied, ended, error = monotonic_ns(), 0, 0, 0
        outcome, port = Outcome.UNFINISHED, 0
        try:
            if not connected:
                await self._connect(sock)
                connected = monotonic_ns()
            port = sock.getsockname()[1]
            with self._until_stopped():
                _skip_rest(sock)
                spec = self._spec
                await sock.send(request(spec.exchange, number, spec.path, send=spec.send or "", keep=True))
                outcome, replied = await self._read_reply(sock, number)
                ended = monotonic_ns()
        except OSError as failure:
            error, ended = failure.errno or errno.ETIMEDOUT, monotonic_ns()
            meaning = CLIENT_ERRNO.get(error)
            outcome = Outcome.LOCAL if meaning is None else meaning.outcome
        values = (number, due, started, connected, replied, ended, self._spec.first_source, port)
        self._journal.append(*values, error, outcome, 0, 0)
        return outcome, connected

    @contextmanager
    def _until_stopped(self) -> Iterator[None]:
        """Cancel the block at "stop"."""
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)

    async def _connect(self, sock: trio.socket.SocketType) -> None:
        """Connect within the time-out; raises OSError if that fails."""
        if self._spec.first_source:
            await sock.bind((source_address(self._spec.first_source), 0))
        with trio.move_on_after(self._spec.connect_timeout_s):
            await sock.connect((self._spec.address, self._spec.port))
            return
        raise OSError(errno.ETIMEDOUT, "no answer")

    async def _read_reply(self, sock: trio.socket.SocketType, number: int) -> tuple[Outcome, int]:
        """Return the outcome of a request, and the time of the first byte of its reply."""
        received, replied = b"", 0
        while True:
            more = await sock.recv(_RECEIVE_BYTES)
            replied = replied or monotonic_ns()
            if not more:
                return Outcome.EOF, 0
            received += more
            reply = judge(self._spec.exchange, received, number, self._spec.expect)
            if reply is not Reply.INCOMPLETE:
                return (Outcome.OK if reply is Reply.OK else Outcome.ERROR), replied


async def _hold(channel: Channel, spec: LoadSpec, journal: Journal, _: int) -> None:
    order = await channel.receive()
    if order is not None and order["do"] == "go":
        await Held(spec, journal).run(channel, order["start_ns"])


def _seconds_until(moment_ns: int) -> float:
    """Return the seconds until a CLOCK_MONOTONIC time, 0 if it has passed."""
    return max(0, moment_ns - monotonic_ns()) / NANOSECONDS


def _skip_rest(sock: trio.socket.SocketType) -> None:
    """Discard the rest of the previous reply; raises OSError if the connection was reset."""
    with suppress(BlockingIOError):
        while os.read(sock.fileno(), _RECEIVE_BYTES):
            pass


if __name__ == "__main__":
    main()
