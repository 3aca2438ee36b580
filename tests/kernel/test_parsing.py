"""Replies and files of the kernel, recorded on Linux 6.18, are parsed correctly."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest

from loadsim.kernel.fds import LETTERS, inode_in, letter_of_link
from loadsim.kernel.limits import Limits
from loadsim.kernel.procfs import (
    KERNEL_NAMES,
    Counters,
    parse_netstat,
    parse_nofile,
    parse_number,
    parse_run_wait,
    parse_state,
)
from loadsim.kernel.sockdiag import TCP_STATES, ListenerState, ends_dump, parse_listener, parse_sockets
from loadsim.kernel.sockets import InetSocket

DATA = Path(__file__).parent.parent / "data"
LOOPBACK = [0x0100007F, 0, 0, 0]


def recorded(name: str) -> bytes:
    """Return recorded bytes."""
    return (DATA / name).read_bytes()


def test_listener() -> None:
    """An exact lookup gives queue, backlog, drops, owner and inode of a listener with a full queue."""
    reply = recorded("sock_diag-listener-6.18.bin")
    expected = ListenerState(queue=4, backlog=3, drops=2, inode=11160005, uid=0)
    assert expected == parse_listener(reply, len(reply))


def test_no_listener() -> None:
    """ENOENT means that there is no listener."""
    reply = recorded("sock_diag-no-listener-6.18.bin")
    assert parse_listener(reply, len(reply)) is None


def test_another_error_is_raised() -> None:
    """Every other errno is raised, in lookups and dumps."""
    header = struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.EPERM) + bytes(16)
    with pytest.raises(PermissionError, match="sock_diag"):
        parse_listener(header, len(header))
    with pytest.raises(PermissionError, match="sock_diag"):
        parse_sockets([recorded("sock_diag-dump-ipv6-6.18.bin"), header])


def test_reply_without_drop_counter() -> None:
    """A reply without SKMEMINFO is an error, not zero drops."""
    reply = recorded("sock_diag-listener-6.18.bin")[:88]
    with pytest.raises(ValueError, match="SKMEMINFO"):
        parse_listener(reply, len(reply))


def test_dump() -> None:
    """A dump has every socket, also those in TIME_WAIT with their shorter messages."""
    sockets = parse_sockets([recorded("sock_diag-dump-ipv4-6.18.bin")])
    found = [
        (TCP_STATES[state], local, remote, inode)
        for state, local, remote, inode in zip(
            sockets["state"].tolist(),
            sockets["local_port"].tolist(),
            sockets["remote_port"].tolist(),
            sockets["inode"].tolist(),
            strict=True,
        )
    ]
    expected = [
        ("LISTEN", 9999, 0, 11160005),
        ("ESTABLISHED", 9999, 41004, 0),
        ("CLOSE_WAIT", 9999, 41001, 11160011),
        ("ESTABLISHED", 9999, 41002, 11160012),
        ("TIME_WAIT", 9999, 41003, 0),
        ("ESTABLISHED", 9999, 41011, 0),
        ("ESTABLISHED", 9999, 41010, 0),
        ("ESTABLISHED", 9999, 41005, 0),
        ("FIN_WAIT2", 41001, 9999, 0),
        ("ESTABLISHED", 41002, 9999, 11160008),
        ("ESTABLISHED", 41004, 9999, 11160010),
        ("ESTABLISHED", 41005, 9999, 11160014),
        ("ESTABLISHED", 41010, 9999, 11160016),
        ("ESTABLISHED", 41011, 9999, 11160017),
        ("SYN_SENT", 41012, 9999, 11160018),
        ("SYN_SENT", 41013, 9999, 11160019),
    ]
    assert expected == found
    assert sockets["local"].tolist() == [LOOPBACK] * len(expected)
    assert (sockets["rqueue"][0], sockets["wqueue"][0], sockets["rqueue"][2]) == (4, 3, 1)


def test_dump_of_both_families() -> None:
    """Batches of several walks are one table; an IPv6 address fills four words."""
    sockets = parse_sockets([recorded("sock_diag-dump-ipv4-6.18.bin"), recorded("sock_diag-dump-ipv6-6.18.bin")])
    assert len(sockets) == 17
    assert sockets["family"].tolist() == [2] * 16 + [10]
    assert sockets["local"][16].tolist() == [0, 0, 0, 0x01000000]


@pytest.mark.parametrize("name", ["sock_diag-dump-ipv4-6.18.bin", "sock_diag-dump-ipv6-6.18.bin"])
def test_end_of_a_dump(name: str) -> None:
    """A dump ends with "done", as a separate batch or behind the last sockets, or with an error."""
    dump = recorded(name)
    done = dump[-20:]
    assert [ends_dump(batch) for batch in (b"", dump[:-20], done, dump)] == [False, False, True, True]
    assert ends_dump(struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno.EPERM) + bytes(16))


def test_empty_dump() -> None:
    """A dump without sockets is an empty table with the same fields."""
    assert parse_sockets([struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)])["inode"].tolist() == []


def test_netstat() -> None:
    """The counters are read by their kernel names."""
    counters = parse_netstat(recorded("proc-pid-netstat-6.18.txt"))
    assert counters == Counters(listen_overflows=2, listen_drops=2, cookies=0)


def test_netstat_columns_by_name() -> None:
    """Columns are found by name, in any order, beside other groups."""
    names = b" ".join(reversed(KERNEL_NAMES.values()))
    counters = parse_netstat(b"TcpExt: New " + names + b"\nTcpExt: 99 3 2 1\nIpExt: A\nIpExt: 7\n")
    assert [getattr(counters, field) for field in KERNEL_NAMES] == [1, 2, 3]


def test_netstat_of_an_old_kernel() -> None:
    """A counter that the kernel does not have is 0."""
    counters = parse_netstat(b"TcpExt: ListenOverflows\nTcpExt: 7\n")
    assert (counters.listen_overflows, counters.cookies) == (7, 0)


def test_nofile() -> None:
    """Soft and hard RLIMIT_NOFILE are read from /proc/PID/limits."""
    assert parse_nofile(recorded("proc-pid-limits-6.18.txt")) == Limits(soft=20000, hard=20000)


def test_nofile_missing() -> None:
    """A text without the line is an error, not a limit."""
    with pytest.raises(ValueError, match="Max open files"):
        parse_nofile(b"Limit  Soft Limit\n")


@pytest.mark.parametrize(("name", "expected"), [("FDSize", 256), ("Threads", 1), ("NStgid", 12398)])
def test_status(name: str, expected: int) -> None:
    """A number of /proc/PID/status is found by the name of its line."""
    assert expected == parse_number(name, recorded("proc-pid-status-6.18.txt"))


def test_status_without_the_line() -> None:
    """A missing line is an error; a line with a longer name does not match."""
    with pytest.raises(ValueError, match='"Thread"'):
        parse_number("Thread", recorded("proc-pid-status-6.18.txt"))


@pytest.mark.parametrize(("name", "expected"), [(b"python", b"R"), (b"a) Z (b", b"R")])
def test_state(name: bytes, expected: bytes) -> None:
    """The state follows the name, which may contain parentheses."""
    assert expected == parse_state(recorded("proc-pid-stat-6.18.txt").replace(b"python", name))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("/dev/null", "f"),
        ("/var/log/app.log (deleted)", "f"),
        ("/memfd:buffer (deleted)", "f"),
        ("pipe:[4711]", "p"),
        ("anon_inode:[eventpoll]", "e"),
        ("anon_inode:[timerfd]", "t"),
        ("anon_inode:[eventfd]", "t"),
        ("net:[4026531840]", "t"),
    ],
)
def test_letters(link: str, expected: str) -> None:
    """The prefix of a link gives the letter of its descriptor."""
    assert expected == letter_of_link(link)
    assert expected in LETTERS


@pytest.mark.parametrize(("state", "expected"), [("ESTABLISHED", 7.5), ("SYN_SENT", None)])
def test_idle_time_starts_with_the_connection(state: str, expected: float | None) -> None:
    """A socket that is not yet connected has no idle time: the kernel reports the age of the host."""
    number = next(number for number, name in TCP_STATES.items() if name == state)
    info = struct.pack("=HH44xIII", 4 + 56, 2, 7500, 0, 7500)
    one = InetSocket("TCP", socket.AF_INET, number, 0, bytes(36), False, 0, 0, 0, 1, info)  # noqa: FBT003

    assert one.idle_s == expected


def test_inode() -> None:
    """A socket's link names its inode."""
    assert inode_in("socket:[11160012]") == inode_in("pipe:[11160012]") == 11160012
    assert inode_in("anon_inode:[eventpoll]") is None


def test_run_wait() -> None:
    """The second number in schedstat is the time that a thread waited for a CPU."""
    assert parse_run_wait(b"48203374 1250931 77\n") == 1_250_931
