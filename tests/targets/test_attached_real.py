"""A server that was already running is observed, not changed, and numbers that are not visible are absent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from perf_rights import needs_perf
from real_runs import Ran, run_scenario, wait_until, write_scenario
from simulated import spec_in

from loadsim.analysis.dataset import Dataset
from loadsim.commands.output import display
from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.sockdiag import namespace_of
from loadsim.record.journal import Journal
from loadsim.record.recording import column, records_of
from loadsim.record.result import Bundle
from loadsim.run.conductor import run as conduct
from loadsim.run.host import Options
from loadsim.scenario.toml import load
from loadsim.targets import readiness as address_module
from loadsim.targets.simulated import simulated_server
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.scenario.specs import ServerSpec

pytestmark = pytest.mark.real

SERVER = str(Path(__file__).parent.parent / "support" / "foreign_server.py")
SCENARIO = """
[client]
rate = "100/s"
attempts = 30
exchange = "none"
hold = "500ms"
connect_timeout = "500ms"
"""
#: Listens on two ports, which it prints.
TWO_PORTS = """
import socket, time
both = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(listener.getsockname()[1] for listener in both), flush=True)
time.sleep(60)
"""
#: Listens on the port of a server in another namespace.
DECOY = """
import socket, time
listener = socket.create_server(("0.0.0.0", 8080), backlog=7)
print("listening", flush=True)
time.sleep(60)
"""


@contextmanager
def started(*words: str, nofile: int = 1024) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the test server under a limit; yields it and its port once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["prlimit", f"--nofile={nofile}", sys.executable, SERVER, str(port), *words]
    with running(argv) as process:
        wait_until(lambda: listens(port))
        yield process, port


@contextmanager
def running(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command in its own process group, which ends with the block."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def listens(port: int) -> bool:
    """Return whether the kernel's table has a listener on this port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines[1:])


def run(folder: Path, *overrides: str) -> Ran:
    """Run the scenario with these overrides."""
    return run_scenario(write_scenario(folder, SCENARIO), folder, *overrides)


def test_a_process_is_observed_and_not_changed(tmp_path: Path) -> None:
    """Its descriptors and its limit are read; it is never stopped and keeps its limit."""
    with started(nofile=200) as (server, port):
        ran = run(tmp_path, f"server.pid={server.pid}")
        changes = os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
        assert (changes, server.poll()) == (None, None)
        assert "200                  200" in Path(f"/proc/{server.pid}/limits").read_text()
    metrics, facts = ran.summary.metrics, ran.recording.facts.server
    assert (ran.summary.ledger["accepted"], ran.summary.ledger["unknown"], ran.summary.balanced) == (30, 0, True)
    assert (metrics["fds.limit"], facts.port, facts.started) == (200, port, False)
    assert metrics["fds.max"] > metrics["fds.baseline"] == metrics["fds.end"]
    assert metrics["server.cpu"] > 0
    assert SERVER in (facts.command or [])
    assert any("keeps running" in notice for notice in ran.summary.notices)


def test_an_address_shows_sockets_and_no_process(tmp_path: Path) -> None:
    """Queue and owners are in the TCP table; descriptors, CPU and EMFILE are absent, not 0."""
    with started() as (_, port):
        ran = run(tmp_path, f"server.address=127.0.0.1:{port}")
    metrics = ran.summary.metrics
    assert (ran.summary.ledger["accepted"], ran.summary.balanced) == (30, True)
    assert metrics["queue.capacity"] == 65
    assert [name for name in metrics if name.startswith(("fds.", "server.", "emfile."))] == []
    assert any("--pid" in notice for notice in ran.summary.notices)


@needs_perf
def test_emfile_of_a_running_process_is_counted_exactly(tmp_path: Path) -> None:
    """The server prints how often accept() failed, and the kernel's counter agrees; its waiting clients are queued."""
    with started("spins", nofile=16) as (server, _):
        ran = run(tmp_path, f"server.pid={server.pid}")
        assert server.stdout is not None
        assert server.stdout.readline() == "EMFILE 1000\n"
    metrics = ran.summary.metrics
    assert metrics["emfile.count"] + metrics["emfile.idle"] == 1000
    assert ran.summary.ledger["queued"] > 0
    assert ran.summary.balanced


def test_children_are_observed(tmp_path: Path) -> None:
    """Workers that hold the listener belong to the named process."""
    with started("forks") as (server, _):
        ran = run(tmp_path, f"server.pid={server.pid}")
    assert ran.summary.ledger["accepted"] == 30
    assert any("the fullest of the 3 processes" in notice for notice in ran.summary.notices)


def test_a_process_with_several_ports_needs_an_address(tmp_path: Path) -> None:
    """The error names the ports; an address with another port is rejected too."""
    with running([sys.executable, "-c", TWO_PORTS]) as server:
        assert server.stdout is not None
        ports = server.stdout.readline().split()
        with pytest.raises(EnvironmentRefusedError, match=r"several ports.*add --address") as caught:
            run(tmp_path, f"server.pid={server.pid}")
        assert all(f"127.0.0.1:{port}" in str(caught.value) for port in ports)
        with started() as (_, other), pytest.raises(EnvironmentRefusedError, match=r"does not listen on .* but on"):
            run(tmp_path, f"server.pid={server.pid}", f"server.address=127.0.0.1:{other}")
        ran = run(tmp_path, f"server.pid={server.pid}", f"server.address=127.0.0.1:{ports[1]}")
    assert (ran.recording.facts.server.port, ran.summary.ledger["queued"]) == (int(ports[1]), 30)  # it never accepts


def test_errors_name_the_missing_listener_or_process(tmp_path: Path) -> None:
    """There is one for an address without listener, a process without listener, no process, and an ancestor."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(EnvironmentRefusedError, match=r"no server listens on 127\.0\.0\.1:\d+"):
            run(tmp_path, f"server.address=127.0.0.1:{taken.getsockname()[1]}")
    with running(["sleep", "60"]) as idle, pytest.raises(EnvironmentRefusedError, match="do not listen on a TCP port"):
        run(tmp_path, f"server.pid={idle.pid}")
    with pytest.raises(EnvironmentRefusedError, match="process 4194304 does not exist"):
        run(tmp_path, "server.pid=4194304")
    with pytest.raises(EnvironmentRefusedError, match="an ancestor of loadsim"):
        run(tmp_path, f"server.pid={os.getppid()}")


def test_without_visible_sockets_only_a_reply_proves_a_fate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another host: a connected client without a reply is unknown, and its queue has no metrics."""
    monkeypatch.setattr(address_module, "_is_of_this_host", lambda _: False)
    with started() as (_, port):
        ran = run(tmp_path, f"server.address=127.0.0.1:{port}")
    unseen = ("fds.", "server.", "emfile.", "queue.", "listen.", "accept.")
    assert (ran.summary.ledger["unknown"], ran.summary.outcomes["connected"]) == (30, 30)
    assert [name for name in ran.summary.metrics if name.startswith(unseen)] == []
    assert any("only if it got a reply" in notice for notice in ran.summary.notices)
    assert any(finding.id == "fates-unknown" for finding in ran.summary.findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="without root unshare(1) may be refused: run as root")
def test_a_process_in_another_network_namespace_needs_an_address(tmp_path: Path) -> None:
    """Its listener is in no readable table; the error has both remedies."""
    with running(["unshare", "--net", sys.executable, SERVER, "8080"]) as server:
        wait_until(lambda: Path(f"/proc/{server.pid}/cmdline").read_bytes().startswith(sys.executable.encode()))
        with pytest.raises(EnvironmentRefusedError, match=r"another network namespace.*--address.*nsenter"):
            run(tmp_path, f"server.pid={server.pid}")


@pytest.mark.skipif(os.geteuid() != 0, reason="without root unshare(1) may be refused: run as root")
@needs_perf
def test_a_process_in_another_network_namespace_is_read_there(tmp_path: Path) -> None:
    """Queue, descriptors and EMFILE are read from it, not from a local server on its port; fates need a reply."""
    server_argv = ["prlimit", "--nofile=16", sys.executable, SERVER, "8080", "everywhere", "spins"]
    with running(["unshare", "--net", "sleep", "60"]) as outside, running(["unshare", "--net", *server_argv]) as server:
        ours = namespace_of("self")
        for process in (outside, server):
            wait_until(partial(moved, process.pid, ours))
        here = ["nsenter", "-t", str(outside.pid), "-n"]
        connect(outside.pid, server.pid)
        decoy = [*here, sys.executable, "-c", DECOY]
        with running(decoy) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "listening\n"
            where = ["--pid", str(server.pid), "--address", "10.77.0.2:8080", "--allow-remote"]
            command = ["-m", "loadsim", "run", write_scenario(tmp_path, SCENARIO), *where, "--out", str(tmp_path)]
            argv = [*here, sys.executable, *command, "--ui", "none"]
            subprocess.run(argv, check=False, capture_output=True, timeout=60)
        assert server.stdout is not None
        assert server.stdout.readline() == "EMFILE 1000\n"
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["emfile.count"] + metrics["emfile.idle"] == 1000
    assert (metrics["queue.capacity"], metrics["fds.limit"]) == (65, 16)
    assert metrics["fds.max"] == 16
    assert metrics["queue.max"] > 0
    assert metrics["fate.unknown"] == 30
    notices = json.loads((folder / "summary.json").read_text())["notices"]
    assert any("are read at 0.0.0.0:8080" in notice for notice in notices)


def moved(pid: int, ours: str) -> bool:
    """Return whether a process has entered another network namespace."""
    return namespace_of(pid) != ours


def connect(outside: int, inside: int) -> None:
    """Connect two network namespaces by a veth pair with the addresses 10.77.0.1 and 10.77.0.2."""
    there = ["nsenter", "-t", str(inside), "-n", "ip"]
    here = ["nsenter", "-t", str(outside), "-n", "ip"]
    for words in (
        [*here, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(inside)],
        *([*ip, "address", "add", f"{address}/24", "dev", dev] for ip, address, dev in (
            (here, "10.77.0.1", "v0"), (there, "10.77.0.2", "v1"),
        )),
        [*here, "link", "set", "v0", "up"],
        [*there, "link", "set", "v1", "up"],
        [*here, "link", "set", "lo", "up"],
    ):  # fmt: skip
        subprocess.run(words, check=True)


@pytest.mark.parametrize("exchange", ["none", "hello"])
def test_the_servers_own_stamps_lie_between_the_bounds(exchange: str, tmp_path: Path) -> None:
    """The simulated server's own records agree with the bounds from observing it as a foreign server."""
    spec = spec_in(tmp_path, accept_delay_s=0.01, backlog=100, exchange=exchange, close_after_s=None)
    ran = trio.run(observed, spec, tmp_path, f"client.exchange={exchange}")
    with Journal.attach(Path(spec.accepts_path)) as journal:
        own = records_of(journal)
    accepted = dict(zip(own["port"].tolist(), column(own, "accepted").tolist(), strict=True))
    recording = ran.recording
    bounds = Dataset.of(recording).bounds

    assert bounds is not None
    assert not bounds.exact
    assert len(bounds.most) == len(own) == len(recording.attempts) == 60
    stamps = np.array([accepted[port] for port in recording.attempts["port"].tolist()])  # just after accept()
    at_least, at_most = (stamps - column(recording.attempts, name) for name in ("connected", "started"))
    assert at_least.max() > 0.2 * NANOSECONDS
    assert (bounds.least <= at_most).all()
    assert (at_least <= bounds.most + NANOSECONDS // 1000).all()
    assert np.median(bounds.most - bounds.least) < 0.1 * NANOSECONDS


async def observed(spec: ServerSpec, folder: Path, *overrides: str) -> Ran:
    """Run the simulated server, and a scenario that knows only its address."""
    files = {"stdout_path": folder / "stdout", "stderr_path": folder / "stderr"}
    async with simulated_server(spec, namespace=None, **files) as server:
        await server.go(time.monotonic_ns())
        where = f"server.address=127.0.0.1:{server.facts.port}"
        load_ = (where, "client.rate=400/s", "client.attempts=60", "client.hold=1s", *overrides)
        scenario = load(write_scenario(folder, SCENARIO), load_)
        finished = await conduct(scenario, Options(out=folder, argv=["test"]), display("none"))
    return Ran(folder=finished.folder, summary=finished.summary, recording=Bundle(finished.folder).read())


def test_a_running_server_that_dies_is_data(tmp_path: Path) -> None:
    """The time of its death is known, its status is not; the later clients are refused."""
    with started() as (server, _):
        threading.Timer(0.5, server.kill).start()
        ran = run(tmp_path, f"server.pid={server.pid}", "client.attempts=80")
    assert ran.recording.facts.server.exited_ns > 0
    assert "server.exit" not in ran.summary.metrics
    assert ran.summary.ledger["refused"] > 0
    ended = next(finding for finding in ran.summary.findings if finding.id == "target-ended")
    assert "its own log" in (ended.remedy or "")
    assert ran.summary.balanced
