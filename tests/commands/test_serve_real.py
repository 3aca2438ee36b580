"""`loadsim serve` on the real kernel, with clients of another load generator."""

from __future__ import annotations

import re
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
from simulated import spec_in

from loadsim.commands.serve import serve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


class Terminal:
    """Collects the lines of a server, and waits for one that matches."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = trio.Event()

    def add(self, line: str) -> None:
        """Take a line."""
        self.lines.append(line)
        self._more.set()
        self._more = trio.Event()

    def has(self, pattern: str) -> re.Match[str] | None:
        """Return the last match of a pattern in the lines so far."""
        return next(filter(None, (re.search(pattern, line) for line in reversed(self.lines))), None)

    async def wait_line(self, pattern: str) -> re.Match[str]:
        """Wait until a line matches."""
        with trio.fail_after(10):
            while (match := self.has(pattern)) is None:
                await self._more.wait()
        return match


async def serve_clients(folder: Path, count: int, until: str, **settings: Any) -> Terminal:  # noqa: ANN401 - as spec_in
    """Serve this number of clients, which all stay, until a line matches; then press Ctrl-C."""
    terminal = Terminal()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, spec_in(folder, **settings), terminal.add)
        port = int((await terminal.wait_line(r"^simulated server on .*:(\d+), pid \d+$"))[1])
        address = settings.get("address", "127.0.0.1")
        clients = [await trio.to_thread.run_sync(socket.create_connection, (address, port)) for _ in range(count)]
        await terminal.wait_line(until)
        if terminal.has("died") is None:
            signal.raise_signal(signal.SIGINT)
    for client in clients:
        client.close()
    return terminal


def test_prints_each_accept_and_the_totals(tmp_path: Path) -> None:
    """Each accept is a line with its descriptor, the open ones and its peer; Ctrl-C ends it with the totals."""
    terminal = trio.run(lambda: serve_clients(tmp_path, 3, r"fd 13 ", nofile=64, leak=1.0))
    accepts = [line for line in terminal.lines if "  accept   fd " in line]
    assert len(accepts) == 3
    assert re.search(r"fd 11 +12 of 64 open   from 127\.0\.0\.1:\d+   never closed$", accepts[0])
    assert terminal.has(r"^\d.*: 3 accepted, 0 closed, 3 still open$")


def test_sums_up_failures(tmp_path: Path) -> None:
    """Failures are counted with the waiting clients; the last lines count clients that were never served."""
    settings: dict[str, Any] = {"nofile": 16, "leak": 1.0, "on_emfile": "spin"}
    terminal = trio.run(
        lambda: serve_clients(tmp_path, 9, r"EMFILE .*, [\d,]+ times; 4 waiting in the queue", **settings)
    )
    assert terminal.has(r"^[\d,]+ times accept\(\) found no free descriptor \(EMFILE\)$")
    assert terminal.has(r"^4 waiting in the accept queue: connected, never served$")
    assert len([line for line in terminal.lines if " EMFILE " in line]) < 5


def test_prints_how_the_server_died(tmp_path: Path) -> None:
    """A server that dies of its policy ends the command, with its exit status and last words."""
    settings: dict[str, Any] = {"nofile": 16, "leak": 1.0, "on_emfile": "exit"}
    terminal = trio.run(lambda: serve_clients(tmp_path, 6, r"^the server died with status 1$", **settings))
    assert terminal.has(r"^simulated server: accept: Too many open files \(16 of 16\); exiting$")


def test_brackets_an_ipv6_address(tmp_path: Path) -> None:
    """IPv6 addresses are in brackets, before their port."""
    terminal = trio.run(lambda: serve_clients(tmp_path, 1, r"from \[::1\]:\d+", address="::1"))
    assert terminal.has(r"^simulated server on \[::1\]:\d+, ")
