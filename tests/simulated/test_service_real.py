"""Replies, closes and open descriptors of the simulated server, on the real kernel."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import simulated

from loadsim.record.records import AcceptFlag
from loadsim.simulated.connections import wants_close

MS = 1_000_000
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def receive(client: socket.socket, least: int) -> bytes:
    """Return at least `least` bytes, or fewer at the end of the stream."""
    received = b""
    while len(received) < least and (more := client.recv(65_536)):
        received += more
    return received


def read_http(client: socket.socket, answers: int = 1) -> bytes:
    """Return `answers` good responses."""
    received = b""
    while received.count(b"\r\n\r\nok\n") < answers:
        received += (more := client.recv(65_536))
        assert more
    return received


@pytest.mark.parametrize(
    ("request_head", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nCONNECTION: Close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
    ],
)
def test_wants_close(request_head: bytes, expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A client ends its connection with Connection: close, or with HTTP/1.0 and without keep-alive."""
    assert expected == wants_close(request_head)


pytestmark = pytest.mark.real


def test_none_sends_nothing(tmp_path: Path) -> None:
    """Under "none" the server closes without sending data."""
    with simulated(tmp_path, exchange="none") as server, server.connect() as client:
        assert client.recv(10) == b""


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_echo_returns_the_number_and_records_it(tmp_path: Path, delay: float) -> None:
    """Under "echo" the client gets its number back, and the record has it, for early and late requests."""
    with simulated(tmp_path, exchange="echo") as server, server.connect() as client:
        time.sleep(delay)
        client.sendall((4242).to_bytes(8, "big"))
        assert client.recv(100) == (4242).to_bytes(8, "big")
        assert client.recv(100) == b""
        assert server.accepts()["payload"].tolist() == [4242]


def test_echo_waits_for_a_complete_request(tmp_path: Path) -> None:
    """A request in pieces is answered when it is complete; the first number of a connection is recorded."""
    with simulated(tmp_path, exchange="echo", close_after_s=None) as server, server.connect() as client:
        for piece in (b"\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\0\0\0\2"):
            client.sendall(piece)
            time.sleep(0.01)
        assert receive(client, 16) == bytes(7) + b"\1" + bytes(7) + b"\2"
        assert server.accepts()["payload"].tolist() == [1]


def test_http_closes_and_says_so(tmp_path: Path) -> None:
    """A server that closes after its answer announces it."""
    with simulated(tmp_path, exchange="http") as server, server.connect() as client:
        client.sendall(GET)
        assert b"\r\nConnection: close\r\n" in read_http(client)
        assert client.recv(10) == b""


def test_http_keeps_alive(tmp_path: Path) -> None:
    """If the client closes, one connection carries several requests, also several at once."""
    with simulated(tmp_path, exchange="http", close_after_s=None) as server, server.connect() as client:
        for _ in range(3):
            client.sendall(GET)
            assert b"\r\nConnection: keep-alive\r\n" in read_http(client)
        client.sendall(GET + GET)
        assert read_http(client, answers=2).count(b"200 OK") == 2
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"\r\nConnection: close\r\n" in read_http(client)
        assert server.counter("closed") == 0
    assert server.accepts()["closed"][0] > 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("close_after", [0.0, None])
def test_http_satisfies_curl(tmp_path: Path, close_after: float | None) -> None:
    """Curl gets two answers, over one connection if the server keeps it."""
    with simulated(tmp_path, exchange="http", close_after_s=close_after) as server:
        url = f"http://127.0.0.1:{server.ready['port']}/"
        command = [str(shutil.which("curl")), "-sS", "--max-time", "5", url, url]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"ok\nok\n"
        assert server.counter("accepted") == (1 if close_after is None else 2)


def test_closes_after_a_while(tmp_path: Path) -> None:
    """A connection is closed `close_after` after its reply, or when its client leaves earlier."""
    with simulated(tmp_path, close_after_s=0.05) as server, server.connect() as client:
        with server.connect() as early:
            early.recv(1)
        assert receive(client, 2) == b"!"
        server.wait_counter("closed", 2)
        records = server.accepts()
        took = (records["closed"] - records["accepted"]).astype(np.int64)
        assert took[0] >= 50 * MS
        assert took[1] < took[0]


@pytest.mark.parametrize("exchange", ["none", "hello", "echo", "http"])
@pytest.mark.parametrize("abort", [False, True])
def test_closes_when_the_client_does(tmp_path: Path, exchange: str, abort: bool) -> None:  # noqa: FBT001 - as above
    """A server that waits for its client closes at end of stream or reset, not before."""
    with simulated(tmp_path, exchange=exchange, close_after_s=None) as server, server.connect() as client:
        client.sendall(GET)
        server.wait_counter("accepted", 1)
        time.sleep(0.02)
        assert server.counter("closed") == 0
        if abort:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.wait_counter("closed", 1)
        server.wait_open_fds(server.ready["open_fds"])


@pytest.mark.parametrize("exchange", ["none", "hello", "echo", "http"])
@pytest.mark.parametrize("close_after", [0.0, 0.01, None])
def test_leaked_connections_stay(tmp_path: Path, exchange: str, close_after: float | None) -> None:
    """A leaked connection is served normally and never closed, after a FIN or a RST of its client."""
    settings: dict[str, Any] = {"exchange": exchange, "close_after_s": close_after, "leak": 1.0}
    with simulated(tmp_path, **settings) as server:
        for number in range(6):
            with server.connect() as client:
                client.sendall(GET if exchange == "http" else bytes(8))
                if exchange != "none":
                    assert client.recv(1)
                if number % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.wait_counter("leaked", 6)
        time.sleep(0.05)
        assert server.counter("closed") == 0
        server.wait_open_fds(server.ready["open_fds"] + 6)
        assert set(server.accepts()["flags"]) == {AcceptFlag.LEAKED}


def test_extra_descriptors_live_as_long_as_the_connection(tmp_path: Path) -> None:
    """The extra descriptors of a request are open while its connection is, and are closed with it."""
    with simulated(tmp_path, extra_fds=3, close_after_s=None) as server:
        with server.connect() as client:
            client.recv(1)
            server.wait_open_fds(server.ready["open_fds"] + 4)
        server.wait_counter("closed", 1)
        server.wait_open_fds(server.ready["open_fds"])


def test_leak_of_extra_descriptors(tmp_path: Path) -> None:
    """If extra descriptors leak, connections are closed and a share of the requests leaves theirs open."""
    with simulated(tmp_path, extra_fds=2, leak=0.5, leak_of="extra", exchange="http") as server:
        for _ in range(20):
            with server.connect() as client:
                client.sendall(GET)
                read_http(client)
        assert server.wait_counter("closed", 20) == 20
        server.wait_open_fds(server.ready["open_fds"] + 20)
        assert server.counter("leaked") == 20


def test_failing_handler_answers_500(tmp_path: Path) -> None:
    """A handler out of descriptors is an HTTP 500, counted as the handler's failure and not as accept()'s."""
    with simulated(tmp_path, nofile=20, extra_fds=50, exchange="http") as server:
        for _ in range(3):
            with server.connect() as client:
                client.sendall(GET)
                assert client.recv(100).startswith(b"HTTP/1.1 500 ")
        server.wait_counter("closed", 3)
        assert (server.counter("emfile_handler"), server.counter("emfile_accept")) == (3, 0)
        assert set(server.accepts()["flags"]) == {AcceptFlag.FAILED}
        assert server.failures()["count"].sum() == 3
        server.wait_open_fds(server.ready["open_fds"])


@pytest.mark.parametrize("exchange", ["hello", "echo"])
def test_failing_handler_hangs_up(tmp_path: Path, exchange: str) -> None:
    """In a protocol without error reply, a handler out of descriptors closes without a reply."""
    settings: dict[str, Any] = {"nofile": 20, "extra_fds": 50, "exchange": exchange, "close_after_s": None}
    with simulated(tmp_path, **settings) as server, server.connect() as client:
        if exchange == "echo":
            client.sendall(bytes(8))
        assert client.recv(10) == b""
        assert server.counter("emfile_handler") == 1


def test_accept_delay_spaces_accepts_and_serves_meanwhile(tmp_path: Path) -> None:
    """Two accepts are at least the delay apart, and an open connection is answered between them."""
    settings: dict[str, Any] = {"accept_delay_s": 0.2, "exchange": "echo", "close_after_s": None}
    with simulated(tmp_path, **settings) as server, server.connect() as first, server.connect(), server.connect():
        server.wait_counter("accepted", 1)
        first.sendall(bytes(8))
        assert first.recv(100) == bytes(8)
        assert server.counter("accepted") < 3
        server.wait_counter("accepted", 3)
        assert (np.diff(server.accepts()["accepted"].astype(np.int64)) >= 200 * MS).all()


def test_pause_stops_everything(tmp_path: Path) -> None:
    """During a pause, a server neither accepts nor answers, but obeys its control channel."""
    settings: dict[str, Any] = {"pause_s": 10.0, "pause_every_s": 0.1, "exchange": "echo", "close_after_s": None}
    with simulated(tmp_path, **settings) as server, server.connect() as early:
        early.sendall(bytes(8))
        assert early.recv(100) == bytes(8)
        time.sleep(0.15)
        early.settimeout(0.1)
        early.sendall(bytes(8))
        with pytest.raises(TimeoutError):
            early.recv(100)
        with server.connect():
            assert server.ask({"do": "freeze"})["accepted"] == 1


def test_pauses_come_again(tmp_path: Path) -> None:
    """No connection is accepted during the pause of each period."""
    with simulated(tmp_path, pause_s=0.05, pause_every_s=0.1) as server:
        while (np.diff(server.accepts()["accepted"].astype(np.int64)) >= 50 * MS).sum() < 3:
            with server.connect() as client:
                client.recv(1)


def test_idle_threads_and_prewarm(tmp_path: Path) -> None:
    """The requested idle threads exist, and a prewarmed table is large although it has few descriptors."""
    with simulated(tmp_path, idle_threads=3, prewarm_fds=3_000, go=False) as server:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert "Threads:\t4\n" in status
        size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("FDSize:"))
        assert size >= 3_000
        assert server.open_fds() == server.ready["open_fds"] < 20


def test_ipv6(tmp_path: Path) -> None:
    """An IPv6 address serves IPv6 clients, and the record has the complete client address."""
    with simulated(tmp_path, address="::1") as server:
        with server.connect() as client:
            assert client.recv(1) == b"!"
        (record,) = server.accepts()
        assert record["peer"].tobytes() == socket.inet_pton(socket.AF_INET6, "::1")


def test_full_journal_is_counted(tmp_path: Path) -> None:
    """Accepts without a slot in the journal are served and counted as lost, and nothing else changes."""
    with simulated(tmp_path, accepts_capacity=5, leak=0.5) as server:
        for _ in range(20):
            with server.connect() as client:
                assert client.recv(1) == b"!"
        server.wait_counter("closed", 10)
        server.wait_counter("leaked", 10)
        assert (server.counter("accepted"), server.counter("leaked"), len(server.accepts())) == (20, 10, 5)


def test_imports_nothing_that_starts_threads() -> None:
    """The server's process imports neither numpy nor pydantic nor rich nor psutil nor click."""
    code = "import sys, loadsim.simulated.server; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-P", "-c", code]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert not imported & {"numpy", "pydantic", "rich", "psutil", "click", "hdrh"}
    assert "trio" in imported
