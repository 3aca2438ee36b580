"""sock_diag agrees with `ss`, the counters with `nstat`, and each descriptor has the right letter."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
import trio

from loadsim.kernel.fds import FdTable
from loadsim.kernel.procfs import KERNEL_NAMES, Process, TcpCounters
from loadsim.kernel.sockdiag import TCP_STATES, SockDiag, family_of
from loadsim.kernel.timing import Timer
from loadsim.process.launch import launch
from loadsim.process.netns import private_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
#: The names in `ss` of the states in this test.
SS_STATES = {"ESTAB": "ESTABLISHED", "CLOSE-WAIT": "CLOSE_WAIT", "LISTEN": "LISTEN", "FIN-WAIT-2": "FIN_WAIT2"}

#: Fills the accept queue of a listener with backlog 1, then starts four more clients.
OVERFLOW = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0), backlog=1)
clients = [socket.socket() for _ in range(6)]
for client in clients:
    client.setblocking(False)
    client.connect_ex(listener.getsockname())
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    """Yield a sock_diag socket in the host's namespace."""
    with SockDiag() as opened:
        yield opened


@pytest.fixture
def listener(diag: SockDiag) -> Iterator[socket.socket]:
    """Yield a loopback listener with backlog 3, on a port without earlier connections in TIME_WAIT."""
    with ExitStack() as opened:
        while True:
            one = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=3))
            if len(diag.dump(port=port_of(one))) == 1:
                break
        yield one


def port_of(sock: socket.socket) -> int:
    """Return the local port of a socket."""
    return int(sock.getsockname()[1])


def reset(sock: socket.socket) -> None:
    """Close a connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def wait_acknowledged(diag: SockDiag, port: int) -> None:
    """Wait until every FIN is acknowledged, which may take 40 ms."""
    end = time.monotonic() + 20
    while len(diag.dump(port=port, states=["FIN_WAIT1"])) and time.monotonic() < end:
        time.sleep(0.01)


def test_listener_and_its_queue(diag: SockDiag, listener: socket.socket) -> None:
    """Queue, backlog and inode of a listener are current; after its close there is no listener."""
    port = port_of(listener)
    with ExitStack() as clients:
        for waiting in (1, 2, 3):
            clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            state = diag.listener("127.0.0.1", port)
            assert state is not None
            assert (state.queue, state.backlog, state.drops) == (waiting, 3, 0)
            assert (state.inode, state.uid) == (os.fstat(listener.fileno()).st_ino, os.getuid())
        listener.listen(7)
        clients.enter_context(listener.accept()[0])
        state = diag.listener("127.0.0.1", port)
        assert state is not None
        assert (state.queue, state.backlog) == (2, 7)
    listener.close()
    assert diag.listener("127.0.0.1", port) is None


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1"), ("::1", "::1")],  # noqa: S104 - for a moment
)
def test_listener_on_other_addresses(diag: SockDiag, bound: str, asked: str) -> None:
    """A listener is found by any address on which it accepts."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    dual = bound == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((bound, 0), family=family, backlog=9, dualstack_ipv6=dual)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener:
        state = diag.listener(asked, port_of(listener))
        assert state is not None
        assert state.inode == os.fstat(listener.fileno()).st_ino


def test_a_connection_is_not_a_listener(diag: SockDiag, listener: socket.socket) -> None:
    """A lookup of a client's port finds no listener."""
    with socket.create_connection(listener.getsockname()) as client:
        assert diag.listener("127.0.0.1", port_of(client)) is None


def test_a_dump_agrees_with_ss(diag: SockDiag, listener: socket.socket) -> None:
    """States, ports and inodes of both ends of a port's connections agree with `ss`."""
    if shutil.which("ss") is None:
        pytest.skip("needs ss (iproute2)")
    port = port_of(listener)
    with ExitStack() as open_:
        clients = [open_.enter_context(socket.create_connection(listener.getsockname())) for _ in range(3)]
        open_.enter_context(listener.accept()[0])
        clients[0].close()
        wait_acknowledged(diag, port)
        sockets = diag.dump(port=port)
        command = ["ss", "-tanOHe", f"( sport = :{port} or dport = :{port} )"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = set()
    for line in shown.splitlines():
        state, _, _, local, remote, *rest = line.split()
        inode = re.search(r"ino:(\d+)", " ".join(rest))
        remote_port = remote.rpartition(":")[2].replace("*", "0")
        expected.add((SS_STATES[state], local.rpartition(":")[2], remote_port, inode[1] if inode else "0"))
    found = zip(*(sockets[name].tolist() for name in ("state", "local_port", "remote_port", "inode")), strict=True)
    assert expected == {(TCP_STATES[state], *map(str, rest)) for state, *rest in found}
    assert len(expected) == 7


def test_dump_of_some_states(diag: SockDiag, listener: socket.socket) -> None:
    """A dump has only sockets in the requested states."""
    with socket.create_connection(listener.getsockname()):
        states = diag.dump(port=port_of(listener), states=["LISTEN"])["state"].tolist()
    assert [TCP_STATES[state] for state in states] == ["LISTEN"]


def test_unread_replies_are_discarded(diag: SockDiag, listener: socket.socket) -> None:
    """A reply that was not read to its end, as after Ctrl-C, is not taken for the reply to the next request."""
    port = port_of(listener)
    diag._ask(1, b"")
    state = diag.listener("127.0.0.1", port)
    assert state is not None
    with ExitStack() as clients:
        for _ in range(400):  # more than fits into one batch
            clients.enter_context(socket.create_connection(listener.getsockname()))
            clients.enter_context(listener.accept()[0])
        next(diag._walk(socket.AF_INET, 0xFFF))
        assert diag.listener("127.0.0.1", port) == state
        next(diag._walk(socket.AF_INET, 0xFFF))
        assert len(diag.dump(port=port)) == 801


def test_requests_from_two_threads(diag: SockDiag, listener: socket.socket) -> None:
    """A dump in one thread does not receive the replies to lookups in another."""
    port = port_of(listener)
    dumped: list[int] = []
    thread = threading.Thread(
        target=lambda: dumped.extend(len(diag.dump(port=port, states=["LISTEN"])) for _ in range(20))
    )
    thread.start()
    limits = [state.backlog for _ in range(200) if (state := diag.listener("127.0.0.1", port))]
    thread.join()
    assert (limits, dumped) == ([3] * 200, [1] * 20)


def test_overflows_agree_with_nstat() -> None:
    """A full queue shows in the listener's drops and in the namespace's counters, which agree with `nstat`."""
    if shutil.which("nstat") is None or shutil.which("nsenter") is None:
        pytest.skip("needs nstat (iproute2) and nsenter (util-linux)")

    async def main() -> None:
        async with private_namespace({}) as namespace:
            if namespace.kind != "private":
                pytest.skip(namespace.reason)
            ours, theirs = socket.socketpair()
            report, answer = os.pipe()
            command = [shutil.which("python3") or "python3", "-c", OVERFLOW]
            with open(report) as pipe, ours:  # noqa: ASYNC230, PTH123 - a descriptor, for one line
                try:
                    child = launch(command, namespace=namespace, control=theirs, stdout=answer)
                finally:
                    os.close(answer)
                with child, TcpCounters(child.pid) as counters:
                    port = int(pipe.readline())
                    state = namespace.diag.listener("127.0.0.1", port)
                    before = counters.read()
                    enter = namespace.enter_hint.removesuffix("ss -tan").split()
                    shown = await trio.run_process([*enter, "nstat", "-asz"], capture_stdout=True)
                    after = counters.read()
            assert state is not None
            assert (state.queue, state.backlog, state.drops) == (2, 1, before.listen_drops)
            assert before.listen_overflows == before.listen_drops >= 4
            shown_by_nstat = dict(
                line.split()[:2] for line in shown.stdout.decode().splitlines() if not line.startswith("#")
            )
            for field, name in KERNEL_NAMES.items():
                number = int(shown_by_nstat["TcpExt" + name.decode()])
                assert getattr(before, field) <= number <= getattr(after, field)

    trio.run(main)


def test_only_one_family(diag: SockDiag, listener: socket.socket) -> None:
    """A dump of one family leaves out the other, and so does a table limited to it."""
    with ExitStack() as open_, Process(os.getpid()) as process:
        other = open_.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        ours = {listener.getsockname()[1], other.getsockname()[1]}
        for family, expected in ((socket.AF_INET, listener), (socket.AF_INET6, other)):
            ports = set(diag.dump(states=["LISTEN"], families=(family,))["local_port"].tolist())
            assert ports & ours == {expected.getsockname()[1]}
            assert family_of(expected.getsockname()[0]) == family
            letters = FdTable(process, diag, families=(family,)).map()
            assert [letters[one.fileno()] for one in (listener, other)].count("L") == 1
            assert letters[expected.fileno()] == "L"


def test_the_letter_of_each_descriptor(diag: SockDiag, listener: socket.socket) -> None:
    """Each open descriptor has the letter of its kind."""
    with ExitStack() as open_, Process(os.getpid()) as process:
        clients = [open_.enter_context(socket.create_connection(listener.getsockname())) for _ in range(3)]
        served = [open_.enter_context(listener.accept()[0]) for _ in clients]
        pipe = os.pipe()
        for fd in pipe:
            open_.callback(os.close, fd)
        unix = open_.enter_context(closing(socket.socket(socket.AF_UNIX)))
        udp = open_.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        epoll = open_.enter_context(select.epoll())
        timer = open_.enter_context(Timer())
        file = open_.enter_context(open("/dev/null"))  # noqa: PTH123 - its descriptor is wanted
        clients[1].close()
        reset(clients[2])
        expected = {
            listener.fileno(): "L",
            clients[0].fileno(): "E",
            served[0].fileno(): "E",
            served[1].fileno(): "W",
            served[2].fileno(): "T",
            pipe[0]: "p",
            pipe[1]: "p",
            unix.fileno(): "s",
            udp.fileno(): "s",
            epoll.fileno(): "e",
            timer.fd: "t",
            file.fileno(): "f",
        }
        letters = FdTable(process, diag).map()
        assert expected == {fd: letters[fd] for fd in expected}
        assert len(letters) - letters.count(".") == process.open_fds()


def test_a_reused_number(diag: SockDiag, listener: socket.socket) -> None:
    """The letter of a reused number follows its present descriptor: file, socket, another socket, none."""
    with Process(os.getpid()) as process, ExitStack() as open_:
        table = FdTable(process, diag)
        number = os.open("/dev/null", os.O_RDONLY)
        open_.callback(os.close, fcntl.fcntl(number, fcntl.F_DUPFD, number + 9))  # the map would end there otherwise
        seen = [table.map()[number]]
        client = open_.enter_context(socket.create_connection(listener.getsockname()))
        served = open_.enter_context(listener.accept()[0])
        for source in (client.fileno(), served.fileno(), listener.fileno()):
            os.dup2(source, number)
            if source == served.fileno():
                client.close()
            seen.append(table.map()[number])
        reset(served)
        os.close(number)
        seen.append(table.map()[number : number + 1])
    assert seen == ["f", "E", "W", "L", "."]


def test_all_listeners_of_a_port_are_found(diag: SockDiag) -> None:
    """All listeners of a SO_REUSEPORT group and of both families are found, each with its backlog and inode."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=3, reuse_port=True))
        port = first.getsockname()[1]
        second = stack.enter_context(socket.create_server(("127.0.0.1", port), backlog=4, reuse_port=True))
        third = stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6, backlog=5))
        found = {one.inode: one.backlog for one in diag.listeners(port)}
        assert found == {os.fstat(one.fileno()).st_ino: n for n, one in enumerate((first, second, third), 3)}
