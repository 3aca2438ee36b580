"""The engine in the process of the test, against small servers of plain sockets and threads."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from loadsim.driver.driver import schedule_of
from loadsim.driver.engine import Engine
from loadsim.fates import Outcome
from loadsim.record.journal import Journal
from loadsim.record.recording import Records, records_of
from loadsim.record.records import ATTEMPT, COUNTERS, AttemptFlag
from loadsim.scenario.client import Client
from loadsim.scenario.fields import carried
from loadsim.scenario.specs import ClientSettings, LoadSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND
LINGER_RESET = struct.pack("=ii", 1, 0)

#: Ten attempts of one client, one after the other; each waits for a greeting.
PLAIN = LoadSpec(
    **carried(
        Client.model_validate({"clients": 1, "attempts": 10, "connect_timeout": "5s", "reply_timeout": "5s"}),
        ClientSettings,
    ),
    share=0,
    address="127.0.0.1",
    port=0,
    stages=[],
    clients=1,
    duration_s=60.0,
    max_in_flight=1000,
    first_source=0,
    seed=7,
    attempts_path="",
    attempts_capacity=10_000,
)


def spec_in(folder: Path, port: int, **settings: Any) -> LoadSpec:  # noqa: ANN401  # any field of the spec
    """Return a spec with these settings and its journal in a folder."""
    share = settings.get("share", 0)
    return dataclasses.replace(PLAIN, port=port, attempts_path=str(folder / f"attempts-{share}"), **settings)


def open_loop(rate: float, attempts: int) -> dict[str, Any]:
    """Return the settings of an open loop."""
    return {"stages": [[attempts / rate, rate, rate]], "clients": 0, "attempts": attempts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """The records and counters of an engine."""

    start_ns: int
    records: Records
    lost: int
    counters: dict[str, int]  # of the header

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes in the order of the attempts' starts."""
        return [Outcome(value) for value in self.records["outcome"].tolist()]

    def flags(self) -> set[AttemptFlag]:
        """Return every combination of flags that occurs."""
        return {AttemptFlag(value) for value in self.records["flags"].tolist()}


def run_engine(
    spec: LoadSpec, *, start_ns: int = 0, meanwhile: Callable[[Engine], Awaitable[object]] | None = None
) -> Ran:
    """Run a load to its end and return its records; `meanwhile` gets the engine and runs during and after the load."""
    start_ns = start_ns or time.monotonic_ns()
    schedule = schedule_of(spec, start_ns, spec.max_in_flight)

    async def main(journal: Journal) -> None:
        with Engine(spec, journal, schedule, max_in_flight=spec.max_in_flight) as engine:
            async with trio.open_nursery() as nursery:
                if meanwhile is not None:
                    nursery.start_soon(meanwhile, engine)
                await engine.run()

    with Journal.create(Path(spec.attempts_path), ATTEMPT, spec.attempts_capacity) as journal:
        trio.run(main, journal)
        counters = {name: journal.read(name) for name in COUNTERS["attempt"]}
        return Ran(start_ns=start_ns, records=records_of(journal), lost=journal.lost, counters=counters)


@contextmanager
def listening(backlog: int = 100) -> Iterator[socket.socket]:
    """Open a listener that does not accept."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    """Return a listener's port."""
    return int(listener.getsockname()[1])


@contextmanager
def serving(serve: Callable[[socket.socket], None], backlog: int = 100) -> Iterator[int]:
    """Accept connections, call `serve` for each in its own thread, then close it; yields the port."""
    threads: list[threading.Thread] = []

    def handle(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            serve(sock)

    def accept() -> None:
        while True:
            sock, address = listener.accept()
            if address == last.getsockname():
                sock.close()
                return
            threads.append(threading.Thread(target=handle, args=(sock,)))
            threads[-1].start()

    with listening(backlog) as listener, socket.socket() as last:
        last.bind(("127.0.0.1", 0))
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield port_of(listener)
        finally:
            last.connect(listener.getsockname())  # the end of the queue: all earlier connections are served
            for thread in threads:
                thread.join(10)


def greet(sock: socket.socket) -> None:
    """Send a greeting, and wait for the client to leave."""
    sock.sendall(b"!")
    sock.recv(1)


def wait_end(sock: socket.socket) -> None:
    """Wait for the client to leave."""
    sock.recv(1)


def echo(sock: socket.socket) -> None:
    """Echo the client's data until it leaves."""
    while received := sock.recv(100):
        sock.sendall(received)


def answer_http(sock: socket.socket) -> None:
    """Answer one request with 200."""
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")


def answer_ping(sock: socket.socket) -> None:
    """Reply like redis, in two pieces, until the client leaves."""
    while received := sock.recv(100):
        sock.sendall(b"+P" if received == b"PING\r\n" else b"-ERR")
        time.sleep(0.001)
        sock.sendall(b"ONG\r\n")


def reset(sock: socket.socket) -> None:
    """Reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
