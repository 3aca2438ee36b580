"""The engine on the real kernel: every attempt ends once, with the outcome that its client saw."""

from __future__ import annotations

import _socket
import errno
import resource
import select
import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from loads import (
    MILLISECOND,
    SECOND,
    answer_http,
    answer_ping,
    echo,
    greet,
    listening,
    open_loop,
    port_of,
    reset,
    run_engine,
    serving,
    spec_in,
    wait_end,
)

from loadsim.driver.connections import Connections
from loadsim.driver.driver import schedule_of
from loadsim.exchange import Exchange
from loadsim.fates import Outcome
from loadsim.record.journal import Journal
from loadsim.record.recording import records_of
from loadsim.record.records import ATTEMPT, AttemptFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loadsim.driver.engine import Engine

pytestmark = pytest.mark.real

SERVES = {
    Exchange.NONE: wait_end,
    Exchange.HELLO: greet,
    Exchange.ECHO: echo,
    Exchange.HTTP: answer_http,
    Exchange.RAW: answer_ping,
}


def test_open_loop_starts_every_arrival_once(tmp_path: Path) -> None:
    """Each arrival of the schedule is one attempt, numbered in order, never before its time, with stamps in order."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, **open_loop(rate=1000, attempts=40)))
    records = ran.records
    assert list(range(1, 41)) == records["number"].tolist()
    assert [ran.start_ns + k * MILLISECOND for k in range(40)] == records["intended"].tolist()
    assert ran.outcomes() == [Outcome.OK] * 40
    for earlier, later in zip(
        ("intended", "started", "connected", "replied"), ("started", "connected", "replied", "ended"), strict=True
    ):
        assert (records[earlier] <= records[later]).all()


def test_closed_loop_keeps_its_clients_busy(tmp_path: Path) -> None:
    """At most as many attempts as clients are in flight, and each client starts when it is free."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, clients=7, attempts=50))
    records = ran.records
    assert list(range(1, 51)) == sorted(records["number"])
    in_flight = [((records["started"] <= t) & (records["ended"] > t)).sum() for t in records["started"]]
    assert max(in_flight) == 7
    assert set(records["intended"]) <= {ran.start_ns, *records["ended"]}


def test_closed_loop_ends_with_its_time(tmp_path: Path) -> None:
    """A closed loop without a number of attempts starts none after its duration."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, clients=3, attempts=None, duration_s=0.05))
    assert set(ran.outcomes()) == {Outcome.OK}
    assert (ran.records["intended"] < ran.start_ns + 50 * MILLISECOND).all()


@pytest.mark.parametrize("exchange", Exchange)
@pytest.mark.parametrize("hold_s", [0.0, 0.02])
def test_exchanges(tmp_path: Path, exchange: Exchange, hold_s: float) -> None:
    """Every exchange with a server that knows it succeeds, with or without hold."""
    with serving(SERVES[exchange]) as port:
        extra = {"send": "PING\r\n", "expect": "+PONG"} if exchange is Exchange.RAW else {}
        ran = run_engine(spec_in(tmp_path, port, exchange=exchange, clients=3, hold_s=hold_s, **extra))
    assert [Outcome.CONNECTED if exchange is Exchange.NONE else Outcome.OK] * 10 == ran.outcomes()
    assert ((ran.records["replied"] > 0) == (exchange is not Exchange.NONE)).all()
    assert (ran.records["errno"] == 0).all()


def test_hold_keeps_a_connection(tmp_path: Path) -> None:
    """A held connection stays open for the time of the hold, counted from its reply."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, clients=5, attempts=5, hold_s=0.05))
    assert (ran.records["ended"] - ran.records["replied"] >= 50 * MILLISECOND).all()


@pytest.mark.parametrize(
    ("exchange", "portion", "sent"),
    [
        (Exchange.ECHO, "half", bytes(4)),
        (Exchange.ECHO, "none", b""),
        (Exchange.HTTP, "half", b"GET / HTTP/1.1\r\nHost: loadsim\r\nUser-"),
        (Exchange.HTTP, "none", b""),
        (Exchange.RAW, "half", b"PIN"),
        (Exchange.RAW, "none", b""),
    ],
)
def test_clients_that_only_hold_their_connection(tmp_path: Path, exchange: Exchange, portion: str, sent: bytes) -> None:
    """They send only this part of a request, ignore replies, and leave as planned after their hold."""
    heard: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"hurry up")
        everything = b""
        while more := sock.recv(100):
            everything += more
        heard.append(everything)

    with serving(serve) as port:
        settings = {
            "exchange": exchange,
            "send": "PING\r\n",
            "request": portion,
            "hold_s": 0.05,
            "clients": 3,
            "attempts": 6,
        }
        ran = run_engine(spec_in(tmp_path, port, **settings))
    assert heard == [sent] * 6
    assert ran.outcomes() == [Outcome.CONNECTED] * 6
    assert ran.flags() == {AttemptFlag(0)}
    assert (ran.records["ended"] - ran.records["connected"] >= 50 * MILLISECOND).all()
    assert (ran.records["replied"] == 0).all()


@pytest.mark.parametrize("ends", [reset, lambda _: None])
def test_a_client_that_only_holds_its_connection_is_cut(tmp_path: Path, ends: Callable[[socket.socket], None]) -> None:
    """A connection that the server ends first, by FIN or RST, has the flag CUT."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        ends(sock)

    with serving(serve) as port:
        settings = {"exchange": Exchange.HTTP, "request": "half", "hold_s": 30.0, "attempts": 3}
        ran = run_engine(spec_in(tmp_path, port, **settings))
    assert ran.outcomes() == [Outcome.CONNECTED] * 3
    assert ran.flags() == {AttemptFlag.CUT}


@pytest.mark.parametrize("exchange", [Exchange.NONE, Exchange.HELLO])
@pytest.mark.parametrize(("close", "seen"), [("fin", b""), ("rst", "reset")])
def test_peer_sees_how_the_client_closes(tmp_path: Path, exchange: Exchange, close: str, seen: object) -> None:
    """The server reads end of stream from clients that close by FIN, ECONNRESET from those that close by RST."""
    saw: list[object] = []

    def serve(sock: socket.socket) -> None:
        if exchange is Exchange.HELLO:
            sock.sendall(b"!")
        try:
            saw.append(sock.recv(1))
        except ConnectionResetError:
            saw.append("reset")

    with serving(serve) as port:
        ran = run_engine(spec_in(tmp_path, port, exchange=exchange, close=close, attempts=5))
    assert [seen] * 5 == saw
    assert ran.flags() == {AttemptFlag.RESET_BY_CLIENT if close == "rst" else AttemptFlag(0)}


@pytest.mark.parametrize("exchange", Exchange)
def test_refused_clients_pause(tmp_path: Path, exchange: Exchange) -> None:
    """Without a listener every attempt is refused, and its client starts again after at least 10 ms."""
    with listening() as listener:
        port = port_of(listener)
    ran = run_engine(spec_in(tmp_path, port, attempts=4, exchange=exchange))
    records = ran.records
    assert ran.outcomes() == [Outcome.REFUSED] * 4
    assert set(records["errno"]) == {errno.ECONNREFUSED}
    assert (records["started"][1:] - records["ended"][:-1] >= 10 * MILLISECOND).all()
    assert (records["connected"] == 0).all()


def test_silent_server(tmp_path: Path) -> None:
    """Clients of a server that never accepts connect, and give up after their reply time-out."""
    with listening() as listener:
        ran = run_engine(spec_in(tmp_path, port_of(listener), clients=3, attempts=3, reply_timeout_s=0.05, close="rst"))
    assert ran.outcomes() == [Outcome.REPLY_TIMEOUT] * 3
    assert (ran.records["ended"] - ran.records["connected"] >= 50 * MILLISECOND).all()
    assert ran.flags() == {AttemptFlag.RESET_BY_CLIENT}


def test_connect_timeout(tmp_path: Path) -> None:
    """With a full accept queue connect() gets no answer, and the client gives up after its connect time-out."""
    with listening(backlog=0) as listener, socket.create_connection(listener.getsockname()):
        spec = spec_in(tmp_path, port_of(listener), clients=2, attempts=2, connect_timeout_s=0.05, close="rst")
        ran = run_engine(spec)
    assert ran.outcomes() == [Outcome.CONNECT_TIMEOUT] * 2
    assert (ran.records["ended"] - ran.records["started"] >= 50 * MILLISECOND).all()
    assert (ran.records["connected"] == 0).all()
    assert ran.flags() == {AttemptFlag(0)}


@pytest.mark.parametrize("exchange", [Exchange.NONE, Exchange.HELLO])
def test_late_connection(tmp_path: Path, exchange: Exchange) -> None:
    """After a dropped SYN a client connects by a repeated one: woken by epoll, with its retransmits counted."""
    with listening(backlog=0) as listener, socket.create_connection(listener.getsockname()):

        async def empty_queue(_: Engine) -> None:
            await trio.sleep(0.1)
            listener.accept()[0].close()
            await trio.lowlevel.wait_readable(listener.fileno())
            with listener.accept()[0] as sock:
                sock.sendall(b"!")
                await trio.lowlevel.wait_readable(sock.fileno())

        spec = spec_in(tmp_path, port_of(listener), attempts=1, exchange=exchange)
        ran = run_engine(spec, meanwhile=empty_queue)
    (record,) = ran.records
    assert ran.outcomes() == [Outcome.CONNECTED if exchange is Exchange.NONE else Outcome.OK]
    assert ran.flags() == {AttemptFlag.WOKEN}
    assert record["syn_retransmits"] >= 1
    assert record["connected"] - record["started"] > 100 * MILLISECOND
    assert ran.counters["connected"] == 1


def test_connected_at_the_last_moment(tmp_path: Path) -> None:
    """A connect() that completes just before its time-out is handled has not timed out."""
    with ExitStack() as stack:
        listener = stack.enter_context(listening(backlog=0))
        first = stack.enter_context(socket.create_connection(listener.getsockname()))
        epoll = stack.enter_context(select.epoll())
        spec = spec_in(tmp_path, port_of(listener), exchange=Exchange.NONE, close="rst")
        journal = stack.enter_context(Journal.create(tmp_path / "attempts", ATTEMPT, 1))
        connections = Connections(spec, journal, schedule_of(spec, 0, 1), epoll)
        connections.connect([(1, 0, 0, journal.take(), _socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK))])
        connections.expire(time.monotonic_ns())
        first.close()
        listener.accept()[0].close()
        assert epoll.poll(10), "its second SYN is answered"
        connections.expire(time.monotonic_ns() + 3600 * SECOND)
        (record,) = records_of(journal)
    assert record["outcome"] == Outcome.CONNECTED
    assert record["flags"] == AttemptFlag.WOKEN | AttemptFlag.RESET_BY_CLIENT


@pytest.mark.parametrize("exchange", [Exchange.HELLO, Exchange.ECHO, Exchange.HTTP])
def test_end_before_the_reply(tmp_path: Path, exchange: Exchange) -> None:
    """A server that closes instead of replying gives the outcome `eof`."""

    def leave(sock: socket.socket) -> None:
        if exchange is not Exchange.HELLO:
            sock.recv(4096)

    with serving(leave) as port:
        ran = run_engine(spec_in(tmp_path, port, exchange=exchange))
    assert ran.outcomes() == [Outcome.EOF] * 10


def test_reset_before_the_reply(tmp_path: Path) -> None:
    """A server that resets instead of replying gives the outcome `reset`, and gets no RST in return."""
    with serving(reset) as port:
        ran = run_engine(spec_in(tmp_path, port, close="rst"))
    assert ran.outcomes() == [Outcome.RESET] * 10
    assert set(ran.records["errno"]) <= {errno.ECONNRESET, errno.EPIPE}
    assert ran.flags() == {AttemptFlag(0)}


def test_failed_reply(tmp_path: Path) -> None:
    """An HTTP status of a failure gives the outcome `error`."""

    def fail(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")

    with serving(fail) as port:
        ran = run_engine(spec_in(tmp_path, port, exchange=Exchange.HTTP, attempts=3))
    assert ran.outcomes() == [Outcome.ERROR] * 3


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_reply_in_pieces_then_cut(tmp_path: Path, end: str) -> None:
    """A reply may arrive in pieces; if the server then ends the held connection, it is `ok` with flag CUT."""

    def serve(sock: socket.socket) -> None:
        received = sock.recv(100)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in received:
            sock.sendall(bytes([byte]))
            time.sleep(0.002)
        if end == "rst":
            reset(sock)

    with serving(serve) as port:
        ran = run_engine(spec_in(tmp_path, port, exchange=Exchange.ECHO, attempts=3, hold_s=30.0))
    assert ran.outcomes() == [Outcome.OK] * 3
    assert ran.flags() == {AttemptFlag.CUT}
    assert (ran.records["ended"] - ran.records["replied"] >= 14 * MILLISECOND).all(), "replied is the first byte's time"


def test_attempt_numbers_reach_the_server(tmp_path: Path) -> None:
    """Three drivers share one schedule: the server gets every number once, from the port in the record."""
    heard: dict[int, int] = {}

    def serve(sock: socket.socket) -> None:
        port = sock.getpeername()[1]
        received = sock.recv(100)
        heard[int.from_bytes(received, "big")] = port
        sock.sendall(received)

    recorded: dict[int, int] = {}
    with serving(serve) as port:
        for share in range(3):
            settings = open_loop(rate=2000, attempts=20)
            ran = run_engine(spec_in(tmp_path, port, share=share, processes=3, exchange=Exchange.ECHO, **settings))
            assert list(range(share + 1, 21, 3)) == ran.records["number"].tolist()
            recorded |= dict(zip(ran.records["number"].tolist(), ran.records["port"].tolist(), strict=True))
    assert recorded == heard


def test_sources_take_turns(tmp_path: Path) -> None:
    """With three sources attempt k comes from the k-th address, as its record shows."""
    peers: list[str] = []
    with serving(lambda sock: peers.append(sock.getpeername()[0])) as port:
        ran = run_engine(spec_in(tmp_path, port, sources=3, attempts=6, exchange=Exchange.HELLO))
    assert peers == ["127.0.0.1", "127.0.0.2", "127.0.0.3"] * 2
    assert ran.records["source"].tolist() == [0, 1, 2] * 2


def test_poisson_arrivals_follow_the_seed(tmp_path: Path) -> None:
    """The same seed gives the same intended starts, another seed gives others."""
    offsets = []
    with serving(wait_end) as port:
        for run, seed in enumerate((1, 1, 2)):
            folder = tmp_path / str(run)
            folder.mkdir()
            settings = open_loop(rate=5000, attempts=30) | {"arrivals": "poisson", "exchange": Exchange.NONE}
            ran = run_engine(spec_in(folder, port, seed=seed, **settings))
            offsets.append((ran.records["intended"] - ran.start_ns).tolist())
    assert offsets[0] == offsets[1] != offsets[2]


@pytest.mark.parametrize("rate", [1000, 1_000_000])
def test_max_in_flight_is_a_stop(tmp_path: Path, rate: float) -> None:
    """Arrivals beyond max_in_flight never start, whether they are due one by one or at once."""
    with listening() as listener:
        spec = spec_in(
            tmp_path, port_of(listener), max_in_flight=3, reply_timeout_s=0.2, **open_loop(rate, attempts=10)
        )
        ran = run_engine(spec)
    assert ran.outcomes() == [Outcome.REPLY_TIMEOUT] * 3 + [Outcome.NOT_STARTED] * 7
    assert (ran.records["started"][3:] == 0).all()
    assert (ran.records["ended"] > 0).all()


def test_max_in_flight_does_not_delay_attempts_that_end_at_once(tmp_path: Path) -> None:
    """Arrivals that are due together and end at once all start."""
    with listening() as listener:
        settings = open_loop(rate=1_000_000, attempts=10) | {"exchange": Exchange.NONE}
        ran = run_engine(spec_in(tmp_path, port_of(listener), max_in_flight=3, **settings))
    assert ran.outcomes() == [Outcome.CONNECTED] * 10


def test_hopelessly_late_arrivals_are_not_started(tmp_path: Path) -> None:
    """An attempt that could not start within a second is recorded as not started."""
    with serving(greet) as port:
        settings = open_loop(rate=1, attempts=3)
        ran = run_engine(spec_in(tmp_path, port, **settings), start_ns=time.monotonic_ns() - 10 * SECOND)
    assert ran.outcomes() == [Outcome.NOT_STARTED] * 3


def test_late_clients_of_a_closed_loop_start(tmp_path: Path) -> None:
    """A closed loop has no schedule, so its clients start as soon as the engine can."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, attempts=3), start_ns=time.monotonic_ns() - 10 * SECOND)
    assert ran.outcomes() == [Outcome.OK] * 3


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open `count` further descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        lowest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_own_limit_is_local(tmp_path: Path) -> None:
    """Attempts without a descriptor in the generator are `local`, with EMFILE, and their clients pause."""
    with listening() as listener:

        async def run_out(engine: Engine) -> None:
            with descriptors_left(3):
                await trio.sleep(0.3)
                engine.stop()
                await trio.sleep(0.3)

        spec = spec_in(tmp_path, port_of(listener), clients=5, attempts=None, reply_timeout_s=0.2)
        ran = run_engine(spec, meanwhile=run_out, start_ns=time.monotonic_ns() + 200 * MILLISECOND)
    local = ran.records[ran.records["outcome"] == Outcome.LOCAL]
    assert set(ran.outcomes()) == {Outcome.LOCAL, Outcome.REPLY_TIMEOUT}
    assert set(local["errno"]) == {errno.EMFILE}
    assert (local["started"] == 0).all()
    assert (local["port"] == 0).all()
    assert (local["ended"][2:] - local["ended"][:-2] >= 10 * MILLISECOND).all(), "two clients have no descriptor"


@pytest.mark.parametrize("exchange", Exchange)
def test_unreachable_is_local(tmp_path: Path, exchange: Exchange) -> None:
    """An attempt whose SYN cannot be sent is `local`, with the errno of connect()."""
    ran = run_engine(spec_in(tmp_path, 1, address="255.255.255.255", attempts=2, exchange=exchange))
    assert ran.outcomes() == [Outcome.LOCAL] * 2
    assert set(ran.records["errno"]) <= {errno.ENETUNREACH, errno.EACCES}
    assert (ran.records["started"] == 0).all()


def test_freeze_keeps_the_sockets(tmp_path: Path) -> None:
    """After freeze, attempts in flight are pending and the server sees no change; after reset it sees RST."""
    states: list[object] = []
    with listening() as listener:

        async def freeze(engine: Engine) -> None:
            await trio.sleep(0.05)
            engine.freeze()
            await trio.sleep(0.05)
            accepted = [listener.accept()[0] for _ in range(3)]
            for sock in accepted:
                sock.settimeout(0)
                with pytest.raises(BlockingIOError):
                    sock.recv(1)
            states.append(engine.reset())
            for sock in accepted:
                with sock, pytest.raises(ConnectionResetError):
                    sock.recv(1)
            states.append(engine.reset())

        spec = spec_in(tmp_path, port_of(listener), clients=3, attempts=None, exchange=Exchange.HELLO)
        ran = run_engine(spec, meanwhile=freeze)
    assert states == [3, 0]
    assert ran.outcomes() == [Outcome.UNFINISHED] * 3
    assert ran.flags() == {AttemptFlag.PENDING}
    assert (ran.records["ended"] == 0).all()
    assert ran.counters["in_flight"] == 3


def test_frozen_engine_starts_nothing(tmp_path: Path) -> None:
    """A frozen engine does not start due attempts."""
    ended: list[int] = []
    with serving(wait_end) as port:

        async def freeze(engine: Engine) -> None:
            await trio.sleep(0.05)
            ended.append(time.monotonic_ns())
            engine.freeze()

        settings = open_loop(rate=5000, attempts=100_000) | {"exchange": Exchange.NONE}
        ran = run_engine(spec_in(tmp_path, port, **settings), meanwhile=freeze)
    assert (ran.records["started"] <= ended[0]).all()


def test_freeze_records_connects_in_progress(tmp_path: Path) -> None:
    """A connect() in progress is pending after freeze, with its retransmitted SYNs."""
    with listening(backlog=0) as listener, socket.create_connection(listener.getsockname()):

        async def freeze(engine: Engine) -> None:
            await trio.sleep(1.2)
            engine.freeze()

        ran = run_engine(spec_in(tmp_path, port_of(listener), attempts=1), meanwhile=freeze)
    (record,) = ran.records
    assert ran.flags() == {AttemptFlag.PENDING}
    assert record["connected"] == 0
    assert record["syn_retransmits"] >= 1


def test_stop_lets_the_rest_finish(tmp_path: Path) -> None:
    """A stopped open loop starts no further attempts, and attempts in flight finish normally."""
    with serving(greet) as port:

        async def stop(engine: Engine) -> None:
            await trio.sleep(0.02)
            engine.stop()

        settings = open_loop(rate=10, attempts=1000)
        ran = run_engine(spec_in(tmp_path, port, hold_s=0.1, **settings), meanwhile=stop)
    assert ran.outcomes() == [Outcome.OK]
    assert ran.records["ended"][0] - ran.records["replied"][0] >= 100 * MILLISECOND


def test_journal_that_is_too_small(tmp_path: Path) -> None:
    """When no slot is free, records are counted instead of written, and the load continues."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, attempts=10, attempts_capacity=4))
    assert ran.records["number"].tolist() == [1, 2, 3, 4]
    assert (ran.lost, ran.counters["ended"], ran.counters["ok"]) == (6, 10, 10)


def test_counters_agree_with_the_records(tmp_path: Path) -> None:
    """The counters in the header agree with the records."""
    with serving(greet) as port:
        ran = run_engine(spec_in(tmp_path, port, clients=4, attempts=30))
    counters = dict(ran.counters)
    lag = (ran.records["started"] - ran.records["intended"]).max()
    assert lag == counters.pop("lag_max_ns")
    assert counters == {
        "started": 30,
        "connected": 30,
        "ended": 30,
        "ok": 30,
        "failed": 0,
        "local": 0,
        "not_started": 0,
        "in_flight": 0,
    }
