"""The simulated server on the real kernel: limits, leaks, policies and exchanges, over loopback."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest
from simulated import simulated

from loadsim.record.records import AcceptFlag

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def test_ready_reports_values_in_force(tmp_path: Path) -> None:
    """A ready server reports one thread, its limit, and the kernel's number of descriptors."""
    with simulated(tmp_path, nofile=64, backlog=8, go=False) as server:
        ready = server.ready
        assert (ready["threads"], ready["nofile_soft"], ready["backlog"]) == (1, 64, 8)
        server.wait_open_fds(ready["open_fds"])


def test_closes_served_connections(tmp_path: Path) -> None:
    """Without a leak every connection is greeted and closed, and no descriptor is missing afterwards."""
    with simulated(tmp_path) as server:
        for _ in range(20):
            with server.connect() as client:
                assert client.recv(10) == b"!"
                assert client.recv(10) == b""
        assert (server.counter("accepted"), server.wait_counter("closed", 20)) == (20, 20)
        records = server.accepts()
        assert (records["closed"] >= records["accepted"]).all()
        server.wait_open_fds(server.ready["open_fds"])


def test_record_of_an_accept(tmp_path: Path) -> None:
    """A record holds the descriptor, the open descriptors after it, and the client's address and port."""
    with simulated(tmp_path, leak=1.0) as server, server.connect() as client:
        client.recv(1)
        (record,) = server.accepts()
        assert (server.open_fds(), client.getsockname()[1]) == (record["open_fds"], record["port"])
        assert socket.inet_aton("127.0.0.1") == record["peer"].tobytes()[:4]
        assert (record["state"], record["flags"], record["closed"]) == (1, AcceptFlag.LEAKED, 0)


@pytest.mark.parametrize("leak", [0.25, 1 / 3, 1.0])
def test_leaks_exactly_its_share(tmp_path: Path, leak: float) -> None:
    """Of 30 connections the share, give or take less than one, is still open when all clients have left."""
    with simulated(tmp_path, leak=leak) as server:
        for _ in range(30):
            with server.connect() as client:
                client.recv(1)
        server.wait_counter("accepted", 30)
        leaked = int((server.accepts()["flags"] == AcceptFlag.LEAKED).sum())
        assert abs(leaked - leak * 30) < 1
        server.wait_counter("leaked", leaked)
        server.wait_counter("closed", 30 - leaked)
        server.wait_open_fds(server.ready["open_fds"] + leaked)
        assert leaked == (server.accepts()["closed"] == 0).sum()


def test_end_of_a_run(tmp_path: Path) -> None:
    """A frozen server does not accept; a drained one has closed everything and marked the queued connections."""
    with simulated(tmp_path, nofile=20, leak=1.0) as server:
        clients = [server.connect() for _ in range(server.free_fds + 7)]
        server.wait_counter("accepted", server.free_fds)
        frozen = server.ask({"do": "freeze"})
        assert (20, server.free_fds, 0) == (frozen["open_fds"], frozen["accepted"], frozen["closed"])
        late = server.connect()
        assert server.ask({"do": "drain"}) == {"event": "drained", "after_end": 8}
        server.wait_open_fds(server.ready["open_fds"])
        records = server.accepts()
        assert (records["flags"] == AcceptFlag.AFTER_END).sum() == 8
        assert (records["closed"] == 0).sum() == server.free_fds
        for client in [*clients, late]:
            client.close()


@pytest.mark.parametrize("order", ["exit", "end of file", "SIGTERM"])
def test_exits_on_request(tmp_path: Path, order: str) -> None:
    """It exits with status 0 on "exit", on the end of its control channel, and on SIGTERM."""
    with simulated(tmp_path) as server:
        if order == "exit":
            server.tell({"do": "exit"})
        elif order == "SIGTERM":
            server.process.send_signal(signal.SIGTERM)
    assert server.process.returncode == 0
