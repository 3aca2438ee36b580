"""`inspect` agrees with `ss` and `lsof` on real programs, and shows more."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from inspected import ZOO, Running, Socket, lsof, running, ss, wait_until

from loadsim.inspect.diagnosis import closing
from loadsim.inspect.snapshot import take
from loadsim.inspect.targets import find, holders_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loadsim.inspect.model import Row, Snapshot

pytestmark = pytest.mark.real

NC = shutil.which("nc") or "nc"

needs_ss = pytest.mark.skipif(shutil.which("ss") is None, reason="needs ss (iproute2)")
needs_lsof = pytest.mark.skipif(shutil.which("lsof") is None, reason="needs lsof")
needs_nc = pytest.mark.skipif(shutil.which("nc") is None, reason="needs nc")


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Running]:
    """Yield a server with sockets of every kind."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        wait_until(lambda: row_of(take(ready.pid), ready, "left").state == "CLOSE_WAIT")
        wait_until(lambda: row_of(take(ready.pid), ready, "half").state == "CLOSE_WAIT")
        yield ready


def row_of(seen: Snapshot, ready: Running, name: str) -> Row:
    """Return the row of a descriptor that the zoo reported by name."""
    return next(row for row in seen.rows if ready.report[name] in row.fds)


def sockets_of(*pids: int) -> set[Socket]:
    """Return the TCP rows of processes for the comparison, without bound sockets, which no other tool shows."""
    found = set()
    for pid in pids:
        taken = take(pid)
        for row in taken.rows:
            if row.kind == "TCP" and row.state not in {"", "CLOSE"}:
                found |= {Socket(row.inode or 0, row.state, row.recv_q or 0, row.send_q, pid, fd) for fd in row.fds}
        found |= {Socket(0, row.state, row.recv_q or 0, row.send_q, 0, -1) for row in taken.waiting}
    return found


def comparable_with_lsof(*pids: int) -> set[Socket]:
    """Return the TCP rows without accept queues and backlogs, which lsof does not show."""
    ours = {one for one in sockets_of(*pids) if one.pid}
    return {one._replace(send_q=None) if one.state == "LISTEN" else one for one in ours}


@needs_ss
def test_every_row_agrees_with_ss(zoo: Running) -> None:
    """Inode, state, queues, pid and fd of every TCP socket agree with ss, in accept queues too."""
    shown = ss(zoo.report["ports"])
    orphans = {one for one in shown if one.pid == 0 and one.state.startswith("FIN_WAIT")}  # the client that left
    assert sockets_of(zoo.pid, zoo.report["child"]) == shown - orphans
    assert len(shown) > 20
    assert len(orphans) == 1


@needs_lsof
def test_every_row_agrees_with_lsof(zoo: Running) -> None:
    """Every socket with a descriptor agrees with lsof, except for the backlog."""
    pids = (zoo.pid, zoo.report["child"])
    assert comparable_with_lsof(*pids) == lsof(pids)


def test_inspect_shows_more_than_ss_and_lsof(zoo: Running) -> None:
    """Only `inspect` shows both ends with pid and fd, other holders, the effect of closing, and bound sockets."""
    seen = take(zoo.pid)
    held = row_of(seen, zoo, "held")
    assert held.other is not None
    assert [(one.pid, one.fd) for one in held.other.holders] == [(zoo.pid, zoo.report["held_client"])]
    assert [(one.pid, one.fd) for one in held.others] == [(zoo.report["child"], 200)]
    assert closing(held) == "ends nothing yet: 1 more holder found"
    assert held.recv_q == len("unread")
    duped = row_of(seen, zoo, "duped")
    assert set(duped.fds) == {zoo.report["duped"], zoo.report["twin"]}
    listener = row_of(seen, zoo, "v4")
    assert (listener.recv_q, listener.capacity) == (2, 8)
    assert closing(listener) == f"frees port {listener.local_port} and resets 2 queued clients"
    bound = row_of(seen, zoo, "bound")
    assert (bound.role, closing(bound)) == ("BOUND", f"frees port {bound.local_port}")
    assert row_of(seen, zoo, "unused").role == "UNCONNECTED"


def test_both_ends_of_each_kind(zoo: Running) -> None:
    """Unaccepted, abandoned and half-closed connections, in each family, have the right other end."""
    seen = take(zoo.pid)
    ends = {name: row_of(seen, zoo, name).other for name in ("left", "half", "six", "mapped", "unix_served")}
    where = {name: end.where if end is not None else None for name, end in ends.items()}
    assert where == {"left": "closed", "half": "held", "six": "held", "mapped": "held", "unix_served": "held"}
    families = {name: row_of(seen, zoo, name).family for name in ("v4", "v6", "dual", "six", "mapped")}
    assert families == {"v4": "IPv4", "v6": "IPv6", "dual": "dual-stack", "six": "IPv6", "mapped": "IPv4 in IPv6"}
    waiting = {row.remote_port: row.other.holders[0].pid for row in seen.waiting if row.other is not None}
    assert len(waiting) == 3
    assert set(waiting.values()) == {zoo.pid}
    unaccepted = row_of(seen, zoo, "unix_queued").other
    assert unaccepted is not None
    assert unaccepted.where == "queue"
    unix = row_of(seen, zoo, "unix")
    assert (unix.role, unix.recv_q, unix.capacity) == ("LISTENING", 1, 5)


def test_all_descriptors_are_accounted_for(zoo: Running) -> None:
    """Every descriptor in /proc is in exactly one row, with the kind of its link."""
    seen = take(zoo.pid)
    numbers = sorted(fd for row in seen.rows for fd in row.fds)
    assert numbers == sorted(map(int, os.listdir(f"/proc/{zoo.pid}/fd")))  # noqa: PTH208 - names are enough
    assert seen.open_fds == len(numbers)
    file = row_of(seen, zoo, "file")
    assert file.held_bytes >= 100_000
    assert closing(file).startswith("frees ")
    assert row_of(seen, zoo, "epoll").kind == "epoll"
    assert [(one.pid, one.fd) for one in row_of(seen, zoo, "pipe").others] == [(zoo.report["child"], 201)]


@needs_ss
@needs_lsof
def test_http_server(tmp_path: Path) -> None:
    """The standard library's web server with a silent client is shown as in ss and lsof."""
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
        server = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tmp_path))
        stack.callback(server.kill)
        wait_until(lambda: holders_at(port) == [server.pid])
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        wait_until(lambda: any(row.role == "CONNECTED" for row in take(server.pid).rows))
        assert find(f":{port}").pids == [server.pid]
        assert sockets_of(server.pid) == {one for one in ss([port]) if one.pid in {0, server.pid}}
        assert comparable_with_lsof(server.pid) == lsof([server.pid])


@needs_ss
@needs_lsof
def test_the_simulated_server() -> None:
    """Held, leaked and queued connections of a server without free descriptors agree with ss and lsof."""
    settings = ("server.nofile=18", "server.leak=1", "server.backlog=4", "server.emfile_delay=1s")
    chosen = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-u", "-m", "loadsim", "serve", *chosen]
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serving = stack.enter_context(subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL))
        stack.callback(serving.terminate)
        wait_until(lambda: len(holders_at(port)) == 1, timeout_s=15)
        [pid] = holders_at(port)
        for number in range(11):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            if number < 3:
                client.recv(1)  # served, and leaves: the server never closes
                client.close()
        wait_until(lambda: take(pid).full and len(take(pid).waiting) > 0)
        shown = {one for one in ss([port]) if one.pid in {0, pid} and not one.state.startswith("FIN_WAIT")}
        assert sockets_of(pid) == shown
        assert {one.state for one in shown} == {"LISTEN", "ESTABLISHED", "CLOSE_WAIT"}
        assert {one.pid for one in shown} == {0, pid}  # 0: in the queue, without a descriptor
        assert comparable_with_lsof(pid) == lsof([pid])


@needs_ss
@needs_lsof
@needs_nc
def test_netcats() -> None:
    """A netcat server and its client agree with ss and lsof."""
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            quiet = subprocess.DEVNULL
            process = stack.enter_context(
                subprocess.Popen([NC, *arguments], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
            )
            stack.callback(process.kill)
            return process

        server = start("-l", "127.0.0.1", str(port))
        wait_until(lambda: holders_at(port) == [server.pid])
        client = start("127.0.0.1", str(port))
        wait_until(lambda: any(row.role == "CONNECTED" for row in take(server.pid).rows))
        pids = (server.pid, client.pid)
        assert sockets_of(*pids) == {one for one in ss([port]) if one.pid in {0, *pids}}  # others may too
        assert comparable_with_lsof(*pids) == lsof(pids)
        served = next(row for row in take(server.pid).rows if row.role == "CONNECTED")
        assert served.other is not None
        assert [(one.pid, one.name) for one in served.other.holders] == [(client.pid, "nc")]
