"""Programs to inspect, and their sockets according to `ss` and `lsof`."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: A server with connections of every kind (held, queued, leaked, dup'ed, shared by fork, half-closed, with unread data)
#: over IPv4, IPv6 and both; with unix, UDP, bound and unused sockets, an epoll, a pipe and a deleted file.
ZOO = """
import json, os, select, socket, sys, tempfile
keep = []
def client(listener, family=socket.AF_INET, host="127.0.0.1"):
    one = socket.socket(family)
    one.connect((host, listener.getsockname()[1]))
    keep.append(one)
    return one
v4 = socket.create_server(("127.0.0.1", 0), backlog=7)
v6 = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=5)
dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=3)
held_client = client(v4); held = v4.accept()[0]
held_client.send(b"unread")
left_client = client(v4); left = v4.accept()[0]; left_client.close()
half_client = client(v4); half = v4.accept()[0]; half_client.shutdown(socket.SHUT_WR)
duped_client = client(v4); duped = v4.accept()[0]; twin = os.dup(duped.fileno())
six_client = client(v6, socket.AF_INET6, "::1"); six = v6.accept()[0]
mapped_client = client(dual); mapped = dual.accept()[0]
queued = [client(v4), client(v4), client(v6, socket.AF_INET6, "::1")]
unix = socket.socket(socket.AF_UNIX); unix.bind("\\0loadsim-zoo-%d" % os.getpid()); unix.listen(4)
unix_client = socket.socket(socket.AF_UNIX); unix_client.connect(unix.getsockname()); unix_served = unix.accept()[0]
unix_queued = socket.socket(socket.AF_UNIX); unix_queued.connect(unix.getsockname())
udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 0))
bound = socket.socket(); bound.bind(("127.0.0.1", 0))
unused = socket.socket()
epoll = select.epoll()
pipe = os.pipe()
file = tempfile.TemporaryFile(dir="."); file.write(b"x" * 100_000); file.flush()
names = {name: one.fileno() for name, one in list(globals().items()) if hasattr(one, "fileno") and name != "sys"}
child = os.fork()
if child == 0:
    os.dup2(held.fileno(), 200); os.dup2(pipe[0], 201); os.closerange(0, 200)
    os.read(201, 1)
    os._exit(0)
print(json.dumps(names | {"twin": twin, "pipe": pipe[0], "child": child,
                          "ports": [one.getsockname()[1] for one in (v4, v6, dual)]}), flush=True)
sys.stdin.read()
"""


class Running(NamedTuple):
    """A running program, with the JSON line that it printed when it was ready."""

    pid: int
    report: dict[str, Any]


@contextlib.contextmanager
def running(script: str, *arguments: str, cwd: str | None = None) -> Iterator[Running]:
    """Run a Python program that prints one JSON line when it is ready; the end of its standard input ends it."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd) as process:
        assert process.stdout is not None
        try:
            yield Running(process.pid, json.loads(process.stdout.readline()))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


class Socket(NamedTuple):
    """A TCP socket with one of its descriptors, for comparison between tools."""

    inode: int
    state: str
    recv_q: int
    send_q: int | None
    pid: int  # 0: no process has it
    fd: int  # -1: no process has it


_SS_STATES = {
    "ESTAB": "ESTABLISHED",
    "LISTEN": "LISTEN",
    "CLOSE-WAIT": "CLOSE_WAIT",
    "FIN-WAIT-1": "FIN_WAIT1",
    "FIN-WAIT-2": "FIN_WAIT2",
    "SYN-SENT": "SYN_SENT",
    "SYN-RECV": "SYN_RECV",
    "LAST-ACK": "LAST_ACK",
    "UNCONN": "CLOSE",
}
_USER = re.compile(r"pid=(\d+),fd=(\d+)")
_INODE = re.compile(r"ino:(\d+)")


def ss(ports: Sequence[int]) -> set[Socket]:
    """Return the sockets with one of these ports from `ss -tanpe`, except those in TIME-WAIT."""
    shown = subprocess.run(["ss", "-tanpeHO"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    seen = set()
    for line in shown.splitlines():
        state, recv_q, send_q, local, remote, *_ = line.split()
        ends = {local.rpartition(":")[2], remote.rpartition(":")[2]}
        if state == "TIME-WAIT" or not ends & set(map(str, ports)):
            continue
        inode = _INODE.search(line)
        for pid, fd in _USER.findall(line) or [(0, -1)]:
            number = int(inode[1]) if inode else 0
            seen.add(Socket(number, _SS_STATES[state], int(recv_q), int(send_q), int(pid), int(fd)))
    return seen


def lsof(pids: Sequence[int]) -> set[Socket]:
    """Return the TCP sockets of these processes from `lsof -nP -F`, which does not show backlogs."""
    command = ["lsof", "-nP", "-a", "-p", ",".join(map(str, pids)), "-iTCP", "-Tqs", "-F", "pfdT"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    seen = set()
    for process in re.split(r"^p", shown, flags=re.MULTILINE)[1:]:
        pid = int(process.split("\n", 1)[0])
        for text in re.split(r"^f", process, flags=re.MULTILINE)[1:]:
            fields = dict(re.findall(r"^(d|TST=|TQR=|TQS=)(.*)$", text, re.MULTILINE))
            if "TST=" in fields:
                state = fields["TST="]
                send_q = None if state == "LISTEN" else int(fields["TQS="])
                fd = int(text.split("\n", 1)[0])
                seen.add(Socket(int(fields["d"]), state, int(fields["TQR="]), send_q, pid, fd))
    return seen


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Poll a condition until it is true; fail after the timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"still false after {timeout_s} s"
        time.sleep(0.01)
