"""What `inspect` shows of real programs is what `ss` and `lsof` show, and more."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from inspected import ZOO, Running, Seen, lsof, running, ss, wait_until

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
    """Give a server with one of everything."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        wait_until(lambda: row_of(take(ready.pid), ready, "left").state == "CLOSE_WAIT")
        wait_until(lambda: row_of(take(ready.pid), ready, "half").state == "CLOSE_WAIT")
        yield ready


def row_of(seen: Snapshot, ready: Running, name: str) -> Row:
    """Return the row of what the zoo calls by a name."""
    return next(row for row in seen.rows if ready.said[name] in row.fds)


def seen_by_us(*pids: int) -> set[Seen]:
    """Return the TCP rows of processes in the form for comparison; no other tool has those that are only bound."""
    found = set()
    for pid in pids:
        taken = take(pid)
        for row in taken.rows:
            if row.kind == "TCP" and row.state not in {"", "CLOSE"}:
                found |= {Seen(row.inode or 0, row.state, row.recv_q or 0, row.send_q, pid, fd) for fd in row.fds}
        found |= {Seen(0, row.state, row.recv_q or 0, row.send_q, 0, -1) for row in taken.waiting}
    return found


def as_lsof_has_it(*pids: int) -> set[Seen]:
    """Return what we see, without what lsof has no word for: accept queues, and the backlog of a listener."""
    ours = {one for one in seen_by_us(*pids) if one.pid}
    return {one._replace(send_q=None) if one.state == "LISTEN" else one for one in ours}


@needs_ss
def test_every_row_is_what_ss_shows(zoo: Running) -> None:
    """Inode, state, queues, pid and fd of every TCP socket are equal, of those in accept queues as well."""
    shown = ss(zoo.said["ports"])
    orphans = {one for one in shown if one.pid == 0 and one.state.startswith("FIN_WAIT")}  # the client that left
    assert seen_by_us(zoo.pid, zoo.said["child"]) == shown - orphans
    assert len(shown) > 20
    assert len(orphans) == 1


@needs_lsof
def test_every_row_is_what_lsof_shows(zoo: Running) -> None:
    """Of sockets with a descriptor lsof shows the same; it shows none in an accept queue, and no backlog."""
    pids = (zoo.pid, zoo.said["child"])
    assert as_lsof_has_it(*pids) == lsof(pids)


def test_what_ss_and_lsof_do_not_show(zoo: Running) -> None:
    """Both ends with pid and fd, other holders, what closing does, sockets that are only bound: ours alone."""
    seen = take(zoo.pid)
    held = row_of(seen, zoo, "held")
    assert held.other is not None
    assert [(one.pid, one.fd) for one in held.other.holders] == [(zoo.pid, zoo.said["held_client"])]
    assert [(one.pid, one.fd) for one in held.others] == [(zoo.said["child"], 200)]
    assert closing(held) == "ends nothing yet: 1 more holder found"
    assert held.recv_q == len("unread")
    duped = row_of(seen, zoo, "duped")
    assert set(duped.fds) == {zoo.said["duped"], zoo.said["twin"]}
    listener = row_of(seen, zoo, "v4")
    assert (listener.recv_q, listener.capacity) == (2, 8)
    assert closing(listener) == f"frees port {listener.local_port} and resets the 2 that wait"
    bound = row_of(seen, zoo, "bound")
    assert (bound.role, closing(bound)) == ("BOUND", f"frees port {bound.local_port}")
    assert row_of(seen, zoo, "unused").role == "UNCONNECTED"


def test_both_ends_of_each_kind(zoo: Running) -> None:
    """A connection that was not accepted, one whose client left, one half-closed, one over each family."""
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
    """Each number that /proc lists is in exactly one row, with the kind of its link."""
    seen = take(zoo.pid)
    numbers = sorted(fd for row in seen.rows for fd in row.fds)
    assert numbers == sorted(map(int, os.listdir(f"/proc/{zoo.pid}/fd")))  # noqa: PTH208 - names are enough
    assert seen.open_fds == len(numbers)
    file = row_of(seen, zoo, "file")
    assert file.held_bytes >= 100_000
    assert closing(file).startswith("frees ")
    assert row_of(seen, zoo, "epoll").kind == "epoll"
    assert [(one.pid, one.fd) for one in row_of(seen, zoo, "pipe").others] == [(zoo.said["child"], 201)]


@needs_ss
@needs_lsof
def test_http_server(tmp_path: Path) -> None:
    """The standard library's web server, with a client that says nothing, is shown as ss shows it."""
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
        assert seen_by_us(server.pid) == {one for one in ss([port]) if one.pid in {0, server.pid}}
        assert as_lsof_has_it(server.pid) == lsof([server.pid])


@needs_ss
@needs_lsof
def test_the_simulated_server() -> None:
    """Out of descriptors: who is held, who has left and was leaked, and who waits in its queue."""
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
        assert seen_by_us(pid) == shown
        assert {one.state for one in shown} == {"LISTEN", "ESTABLISHED", "CLOSE_WAIT"}
        assert {one.pid for one in shown} == {0, pid}  # some wait in the queue, without a descriptor
        assert as_lsof_has_it(pid) == lsof([pid])


@needs_ss
@needs_lsof
@needs_nc
def test_netcats() -> None:
    """One netcat is accepted, the queue of another takes what it can; each row is what ss shows."""
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
        assert seen_by_us(*pids) == {one for one in ss([port]) if one.pid in {0, *pids}}  # others may too
        assert as_lsof_has_it(*pids) == lsof(pids)
        served = next(row for row in take(server.pid).rows if row.role == "CONNECTED")
        assert served.other is not None
        assert [(one.pid, one.name) for one in served.other.holders] == [(client.pid, "nc")]
