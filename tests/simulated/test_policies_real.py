"""The simulated server without free descriptors, under each policy, on the real kernel."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from simulated import Simulated, simulated

from loadsim.record.records import AcceptFlag, FailureFlag

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

pytestmark = pytest.mark.real


@contextmanager
def clients(server: Simulated, count: int) -> Iterator[list[socket.socket]]:
    """Connect `count` clients, and close them at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def test_sleep_fails_once_per_delay(tmp_path: Path) -> None:
    """A sleeping server leaves clients in the queue and fails once per delay; failures on an empty queue are idle."""
    with simulated(tmp_path, nofile=20, leak=1.0, emfile_delay_s=0.05) as server, clients(server, server.free_fds):
        server.wait_counter("emfile_idle", 1)
        assert server.counter("emfile_accept") == 0
        with clients(server, 5):
            server.wait_counter("emfile_accept", 5)
            failures = server.failures()
            busy = failures[failures["flags"] != FailureFlag.IDLE]
            assert (np.diff(busy["first"].astype(np.int64)) >= 50_000_000).all()
            server.wait_open_fds(20)


def test_backoff_doubles(tmp_path: Path) -> None:
    """A server that backs off waits twice as long each time."""
    settings: dict[str, Any] = {"nofile": 20, "leak": 1.0, "on_emfile": "backoff", "emfile_delay_s": 0.02}
    with simulated(tmp_path, **settings) as server, clients(server, server.free_fds + 1):
        server.wait_counter("emfile_accept", 4)
        failures = server.failures()
        busy = failures[failures["flags"] != FailureFlag.IDLE]
        gaps = np.diff(busy["first"].astype(np.int64))[:3]
        assert (gaps >= np.array([20_000_000, 40_000_000, 80_000_000])).all()


def test_spin_counts_with_few_records(tmp_path: Path) -> None:
    """A spinning server fails thousands of times, writes at most a record per 10 ms, and obeys orders at once."""
    settings: dict[str, Any] = {"nofile": 20, "leak": 1.0, "on_emfile": "spin"}
    with simulated(tmp_path, **settings) as server, clients(server, server.free_fds + 1):
        server.wait_counter("emfile_accept", 5_000)
        server.ask({"do": "freeze"})
        failures = server.failures()
        busy = failures[failures["flags"] != FailureFlag.IDLE]
        assert busy["count"].sum() == server.counter("emfile_accept")
        assert (np.diff(busy["first"].astype(np.int64)) >= 10_000_000).all()


def test_spin_serves_connected_clients(tmp_path: Path) -> None:
    """A spinning server still answers open connections, and accepts another one when a client leaves."""
    settings: dict[str, Any] = {"nofile": 20, "on_emfile": "spin", "exchange": "echo", "close_after_s": None}
    with simulated(tmp_path, **settings) as server, clients(server, server.free_fds) as inside:
        server.wait_counter("accepted", server.free_fds)
        with clients(server, 1) as (outside,):
            server.wait_counter("emfile_accept", 1_000)
            inside[0].sendall(b"12345678")
            assert inside[0].recv(100) == b"12345678"
            outside.sendall(b"outside!")
            inside[1].close()
            assert outside.recv(100) == b"outside!"


def test_shed_closes_clients_beyond_the_limit(tmp_path: Path) -> None:
    """With a reserved descriptor, clients beyond the limit see an end of stream, and their records are marked shed."""
    with (
        simulated(tmp_path, nofile=20, leak=1.0, on_emfile="shed") as server,
        clients(server, server.free_fds) as inside,
    ):
        assert [client.recv(10) for client in inside] == [b"!"] * server.free_fds
        with clients(server, 6) as outside:
            assert [client.recv(10) for client in outside] == [b""] * 6
        records = server.accepts()
        shed = records[(records["flags"] & AcceptFlag.SHED) != 0]
        assert (len(shed), server.counter("shed")) == (6, 6)
        assert (shed["closed"] >= shed["accepted"]).all()
        assert server.counter("accepted") == server.free_fds + 6
        server.wait_open_fds(20)


def test_shed_keeps_leaks_exact(tmp_path: Path) -> None:
    """Shed clients do not count for the leak."""
    with simulated(tmp_path, nofile=30, leak=1.0, on_emfile="shed") as server:
        for _ in range(60):
            with server.connect() as client:
                client.recv(10)
        server.wait_counter("shed", 60 - server.free_fds)
        assert server.counter("leaked") == server.free_fds == (server.accepts()["closed"] == 0).sum()


def test_until_close_waits_for_a_close(tmp_path: Path) -> None:
    """A server that waits for a close fails once, and resumes at once when a client leaves."""
    settings: dict[str, Any] = {"nofile": 20, "on_emfile": "until_close", "close_after_s": None}
    with simulated(tmp_path, **settings) as server, clients(server, server.free_fds) as inside:
        server.wait_counter("accepted", server.free_fds)
        with clients(server, 2) as outside:
            server.wait_counter("emfile_accept", 1)
            time.sleep(0.05)
            assert server.counter("emfile_accept") == 1
            inside[0].close()
            assert outside[0].recv(10) == b"!"
            inside[1].close()
            assert outside[1].recv(10) == b"!"


def test_exit_dies(tmp_path: Path) -> None:
    """The policy `exit` ends the server with status 1 and a message; its journal is readable."""
    with simulated(tmp_path, nofile=20, leak=1.0, on_emfile="exit") as server, clients(server, server.free_fds):
        with suppress(ConnectionResetError):  # the server can exit before connect() returns
            server.connect().close()
        assert server.process.wait(5) == 1
        assert server.process.stderr is not None
        assert server.process.stderr.read() == "simulated server: accept: Too many open files (20 of 20); exiting\n"
        assert server.counter("emfile_accept") == 1
        assert len(server.accepts()) == server.free_fds


@pytest.mark.parametrize("nofile", range(8, 24))
def test_every_limit_from_none_to_spare(tmp_path: Path, nofile: int) -> None:
    """The server accepts exactly as many clients as it has free descriptors, and drains the rest."""
    with simulated(tmp_path, nofile=nofile, leak=1.0) as server, clients(server, 7):
        free = max(min(server.free_fds, 7), 0)
        server.wait_counter("accepted", free)
        if free < 7:
            server.wait_counter("emfile_accept", 1)
        assert server.ask({"do": "freeze"})["accepted"] == free
        assert server.ask({"do": "drain"})["after_end"] == 7 - free
        server.wait_open_fds(server.ready["open_fds"])


@contextmanager
def strace(pid: int, trace: str, output: Path) -> Iterator[None]:
    """Log these system calls of a process to a file; skip the test if strace cannot attach."""
    command = shutil.which("strace")
    if command is None:
        pytest.skip("needs strace")
    process = subprocess.Popen([command, "-qq", "-f", "-p", str(pid), "-e", f"trace={trace}", "-o", str(output)])
    try:
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            if process.poll() is not None:
                pytest.skip("strace may not attach to a process here")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("policy", ["sleep", "spin"])
def test_counts_what_strace_counts(tmp_path: Path, policy: str) -> None:
    """Every EMFILE of accept() is counted once, idle or not, with or without its own record."""
    settings: dict[str, Any] = {"nofile": 20, "leak": 1.0, "on_emfile": policy, "emfile_delay_s": 0.02, "go": False}
    calls = tmp_path / "calls"
    with simulated(tmp_path, **settings) as server, strace(server.process.pid, "accept4", calls):
        server.go()
        with clients(server, server.free_fds + 3):
            server.wait_counter("emfile_accept", 10)
            server.ask({"do": "freeze"})
        counted = server.counter("emfile_accept") + server.counter("emfile_idle")
    assert counted == calls.read_text().count("EMFILE")


def test_needs_only_the_descriptors_under_test(tmp_path: Path) -> None:
    """A ready server only opens descriptors for connections and requests."""
    settings: dict[str, Any] = {"nofile": 20, "leak": 1.0, "extra_fds": 1, "exchange": "http", "go": False}
    calls = tmp_path / "calls"
    trace = "open,openat,socket,socketpair,pipe2,dup,dup2,fcntl,epoll_create1,eventfd2,timerfd_create,memfd_create"
    with simulated(tmp_path, **settings) as server, strace(server.process.pid, trace, calls):
        server.go()
        for _ in range(server.free_fds):
            with server.connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        server.wait_counter("emfile_handler", 1)
        server.ask({"do": "freeze"})
        server.ask({"do": "drain"})
    opened = calls.read_text().splitlines()
    assert {True} == {"/dev/null" in line for line in opened if "exited" not in line}
