"""Made-up snapshots: an incident, five netcats, and their rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loadsim.inspect.model import HostFacts, OtherEnd, Row, Snapshot
from loadsim.kernel.processes import Holder, Identity

HOST = HostFacts(file_nr=9120, file_max=1_000_000, inotify=12, inotify_max=128)


def identity(**changes: Any) -> Identity:  # noqa: ANN401 -- of any field
    """Return the identity of a process, with changes."""
    plain = Identity(pid=4242, name="checkout-api", argv=("checkout-api",), uid=1000, unit="", up_s=529_200.0)
    return replace(plain, **changes)


def snapshot_of(rows: list[Row], **changes: Any) -> Snapshot:  # noqa: ANN401 -- of any field
    """Return a snapshot of a process with these rows, with changes."""
    plain = Snapshot(
        process=identity(),
        at_s=0.0,
        open_fds=sum(len(row.fds) for row in rows),
        soft=1024,
        hard=524_288,
        rows=tuple(rows),
        waiting=(),
        knocking=(),
        host=HOST,
        passive_opens=0,
    )
    return replace(plain, **changes)


def tcp(fd: int, state: str = "ESTABLISHED", **changes: Any) -> Row:  # noqa: ANN401 -- of any field
    """Return a TCP connection, with changes."""
    role = {"ESTABLISHED": "CONNECTED", "LISTEN": "LISTENING"}.get(state, state.replace("_", "-"))
    local_port = changes.pop("local_port", 40_000 + fd)
    remote_port = changes.pop("remote_port", 5432)
    remote = changes.pop("remote", f"10.0.3.7:{remote_port}")
    plain = Row(
        fds=(fd,),
        inode=100_000 + fd,
        kind="TCP",
        role=role,
        state=state,
        family="IPv4",
        local=f"10.0.3.1:{local_port}",
        remote=remote,
        local_port=local_port,
        remote_port=remote_port,
        recv_q=0,
        send_q=0,
        idle_s=60.0,
        other=OtherEnd(where="remote"),
    )
    return replace(plain, **changes)


def listener(fd: int, port: int, **changes: Any) -> Row:  # noqa: ANN401 -- of any field
    """Return a listener, with changes."""
    plain = Row(
        fds=(fd,),
        inode=100_000 + fd,
        kind="TCP",
        role="LISTENING",
        state="LISTEN",
        family="IPv4",
        local=f"0.0.0.0:{port}",
        local_port=port,
        recv_q=0,
        send_q=128,
        drops=0,
    )
    return replace(plain, **changes)


def file(fd: int, path: str, **changes: Any) -> Row:  # noqa: ANN401 -- of any field
    """Return an open file, with changes."""
    return replace(Row(fds=(fd,), inode=fd, kind="file", path=path), **changes)


def incident(left: int = 781) -> Snapshot:
    """Return a service at its limit that has leaked this many connections to a database."""
    rows = [listener(3, 8080, recv_q=129, queued=129, drops=4310)]
    rows += [tcp(10 + i, "CLOSE_WAIT", idle_s=50_400.0 - i) for i in range(left)]
    rows += [tcp(900 + i, local_port=8080, remote=f"10.0.9.{i % 41}:{50_000 + i}") for i in range(96)]
    rows += [tcp(1000 + i, remote="10.0.3.9:6379", remote_port=6379) for i in range(16)]
    rows += [file(1100 + i, f"/srv/checkout/{i}.tmpl") for i in range(58)]
    rows.append(file(1200, "/srv/checkout/old.log (deleted)", held_bytes=2_100_000_000))
    rows += [Row(fds=(1300 + i,), inode=None, kind="pipe", path=f"pipe:[{i}]") for i in range(40)]
    rows += [Row(fds=(1400 + i,), inode=None, kind="eventfd", path="anon_inode:[eventfd]") for i in range(31)]
    rows = [replace(row, fds=(number,)) for number, row in enumerate(rows)]
    waiting = tcp(0, role="QUEUED", fds=(), inode=0, local_port=8080, remote="10.0.9.9:5000")
    process = identity(unit="checkout-api.service")
    return snapshot_of(rows, process=process, waiting=(waiting,) * 129)


def netcats() -> Snapshot:
    """Return a netcat with one accepted client, two queued ones, and two with unanswered SYNs."""

    def nc(pid: int, inode: int) -> OtherEnd:
        return OtherEnd(where="held", inode=inode, state="ESTABLISHED", holders=(Holder(pid, "nc", 3),))

    def knocker(port: int, pid: int, inode: int, again: int) -> Row:
        waits = queued(port, pid, inode, 0.0, role="SYN-SENT", state="SYN_SENT", retransmits=again)
        return replace(waits, inode=None)

    def queued(port: int, pid: int, inode: int, since_s: float, **changes: Any) -> Row:  # noqa: ANN401 -- of any field
        plain = tcp(
            0,
            local_port=9999,
            remote=f"127.0.0.1:{port}",
            remote_port=port,
            fds=(),
            inode=0,
            role="QUEUED",
            idle_s=since_s,
            other=nc(pid, inode),
        )
        return replace(plain, **changes)

    rows = [
        Row(fds=(0, 1, 2), inode=4, kind="terminal", path="/dev/pts/1"),
        listener(3, 9999, inode=12_134_645, recv_q=2, send_q=1, queued=2, drops=5),
        tcp(4, local_port=9999, remote="127.0.0.1:39010", inode=12_134_646, other=nc(3_217_244, 12_159_488)),
    ]
    return snapshot_of(
        rows,
        process=identity(pid=3_211_711, name="nc", argv=("nc", "-l", "9999"), up_s=65.0),
        waiting=(queued(39_012, 3_217_301, 12_159_490, 4.1), queued(39_014, 3_217_302, 12_159_493, 3.2)),
        knocking=(knocker(39_016, 3_217_303, 12_159_500, 2), knocker(39_018, 3_217_304, 12_159_501, 1)),
    )
