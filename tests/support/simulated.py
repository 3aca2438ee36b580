"""A simulated server for tests: its process, its control channel and its journals, without the conductor."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadsim.exchange import Exchange
from loadsim.record.journal import Journal
from loadsim.record.recording import Records, records_of
from loadsim.scenario.fields import carried
from loadsim.scenario.server import Server
from loadsim.scenario.specs import ServerSettings, ServerSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = ServerSpec(
    **carried(Server(), ServerSettings),
    address="127.0.0.1",
    port=0,
    exchange=Exchange.HELLO,
    expect="",
    seed=7,
    accepts_path="",
    accepts_capacity=10_000,
    failures_path="",
    failures_capacity=10_000,
)


def spec_in(folder: Path, **settings: Any) -> ServerSpec:  # noqa: ANN401 - any field of the spec
    """Return a spec with these settings and its journals in a folder."""
    accepts, failures = str(folder / "accepts"), str(folder / "failures")
    settings["exchange"] = Exchange(settings.get("exchange", "hello"))
    return dataclasses.replace(PLAIN, accepts_path=accepts, failures_path=failures, **settings)


def open_fds(pid: int) -> int:
    """Return the kernel's number of open descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Simulated:
    """A running server in a test."""

    def __init__(self, process: subprocess.Popen[str], control: socket.socket, spec: ServerSpec) -> None:
        self.process = process
        self.spec = spec
        self._control = control
        self._received = b""
        self.ready = self.ask({"do": "prepare", "spec": dataclasses.asdict(spec)})

    @property
    def free_fds(self) -> int:
        """The number of connections that fit under its limit."""
        return int(self.ready["nofile_soft"]) - int(self.ready["open_fds"])

    def tell(self, order: dict[str, Any]) -> None:
        """Send an order that has no answer."""
        self._control.sendall(json.dumps(order).encode() + b"\n")

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order and return the answer, {} if the server has ended."""
        self.tell(order)
        while b"\n" not in self._received:
            more = self._control.recv(65_536)
            if not more:
                return {}
            self._received += more
        line, self._received = self._received.split(b"\n", 1)
        return dict(json.loads(line))

    def go(self) -> None:
        """Let it accept."""
        self.tell({"do": "go", "start_ns": time.monotonic_ns()})

    def connect(self, timeout: float = 2.0) -> socket.socket:
        """Return a new client's socket."""
        return socket.create_connection((self.ready["address"], self.ready["port"]), timeout)

    def accepts(self) -> Records:
        """Return the accept records so far."""
        with Journal.attach(Path(self.spec.accepts_path)) as journal:
            return records_of(journal)

    def failures(self) -> Records:
        """Return the failure records so far."""
        with Journal.attach(Path(self.spec.failures_path)) as journal:
            return records_of(journal)

    def counter(self, name: str) -> int:
        """Return one counter of the accept journal."""
        with Journal.attach(Path(self.spec.accepts_path)) as journal:
            return journal.read(name)

    def wait_counter(self, name: str, least: int, timeout: float = 5.0) -> int:
        """Wait until a counter has reached a value and return it."""
        deadline = time.monotonic() + timeout
        with Journal.attach(Path(self.spec.accepts_path)) as journal:
            while (value := journal.read(name)) < least:
                assert time.monotonic() < deadline, f"{name} is {value} and not {least} after {timeout} s"
                time.sleep(0.005)
            return value

    def wait_open_fds(self, expected: int, timeout: float = 5.0) -> None:
        """Wait until it has `expected` open descriptors: its counters change a moment before close()."""
        deadline = time.monotonic() + timeout
        while (count := self.open_fds()) != expected:
            assert time.monotonic() < deadline, f"{count} descriptors are open and not {expected} after {timeout} s"
            time.sleep(0.005)

    def open_fds(self) -> int:
        """Return the kernel's number of its open descriptors."""
        return open_fds(self.process.pid)


@contextmanager
def simulated(folder: Path, *, go: bool = True, **settings: Any) -> Iterator[Simulated]:  # noqa: ANN401 - as spec_in
    """Run a simulated server with these settings; it must exit at the end of its control channel."""
    spec = spec_in(folder, **settings)
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        with theirs:
            command = [sys.executable, "-P", "-m", "loadsim.simulated.server"]
            process = subprocess.Popen(command, stdin=theirs.fileno(), stderr=subprocess.PIPE, text=True)
        stack.enter_context(process)
        stack.callback(process.kill)
        stack.enter_context(ours)
        ours.settimeout(10)
        server = Simulated(process, ours, spec)
        if go and server.ready.get("event") == "ready":
            server.go()
        yield server
        ours.close()
        process.wait(5)
