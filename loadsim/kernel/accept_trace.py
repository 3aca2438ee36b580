"""Traces, for any server, when each connection to a port enters the accept queue and when accept() returns it.

Owns two tracepoints (sock:inet_sock_set_state, and the return of accept4 and accept). They write to rings shared with
the kernel, one for each processor, with CLOCK_MONOTONIC, and disappear with this process. The queue is first in, first
out, so the first accept() returns the connection that entered first. Tracing needs the right to trace all processes
(root, or kernel.perf_event_paranoid <= 0). A trial shows whether it works. If an accept() is not traced (io_uring) or
belongs to another listener of the same processes, the pairs are wrong: then `waiting` differs from the queue, or
`unmatched` is not 0.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from loadsim.kernel.perf import ACCEPTS, NotVisibleError, explained, open_event, remedy, start, tracepoints
from loadsim.kernel.sockdiag import MAPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: linux/perf_event.h: PERF_SAMPLE_TID, PERF_SAMPLE_TIME, PERF_SAMPLE_RAW.
_WANTED: Final = 1 << 1 | 1 << 2 | 1 << 10
_HEADER: Final = struct.Struct("=IHH")  # type, misc, size
_LOST, _SAMPLE = 2, 9
_SAMPLED: Final = struct.Struct("=IIQI")  # pid, tid, time, size of the raw data
_COUNT: Final = struct.Struct("=Q")
_HEAD_AT, _TAIL_AT = 1024, 1032  # in perf_event_mmap_page
#: Data pages of each ring, a power of two: 1 MB holds 10,000 connections between two reads.
_RING_PAGES: Final = 256
#: events/sock/inet_sock_set_state/format: both states, both ports, family, protocol, both IPv4 addresses, an IPv6 one.
_STATE: Final = struct.Struct("=16xiiHHHH4s4s16x16s")
#: An event is in its ring at most this long after its time stamp. Until then, rings of other processors may be ahead.
_SETTLED_NS: Final = 1_000_000
_BECAME_ESTABLISHED: Final = "sport == {port} && oldstate == 3 && newstate == 1"  # from SYN_RECV
_SUCCEEDED: Final = "ret >= 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One connection that was accepted; times are CLOCK_MONOTONIC in nanoseconds."""

    client: bytes  # 16 bytes, IPv4 in the first four
    port: int
    entered_ns: int
    accepted_ns: int


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """An event of one tracepoint."""

    time: int
    pid: int
    entered: tuple[bytes, int] = (b"", 0)  # address and port of the client in the queue; (b"", 0): accept() returned


class AcceptTrace:
    """Pairs the events of all rings; close it, or use it as a context manager."""

    def __init__(self, rings: Sequence[Ring], is_server: Callable[[int], bool]) -> None:
        """Take ownership of the rings. `is_server` returns whether the accept() calls of a pid count."""
        self._rings = list(rings)
        self._is_server = is_server
        self._queue: deque[Event] = deque()
        self._late: list[Event] = []
        self._early: deque[Event] = deque()  # accept() calls traced before their connection
        self.lost = 0  # events that did not fit into a ring: the pairs are wrong
        self.unmatched = 0  # accept() calls without a connection, of another listener: the pairs are wrong

    @classmethod
    def of(cls, port: int, is_server: Callable[[int], bool]) -> Self:
        """Trace the connections to a port from now on.

        Raises NotVisibleError if that is not permitted, or if a trial fails.
        """
        with explained():
            _try_out()
            return cls(_open_rings(port), is_server)

    @property
    def waiting(self) -> int:
        """Connections in the queue at the last `take`."""
        return len(self._queue)

    def take(self, *, settle: bool = False) -> list[Wait]:
        """Return the connections accepted since the last call; the newest events are left for the next call.

        With `settle` none are left, which takes a millisecond.
        """
        if settle:
            time.sleep(_SETTLED_NS / 1e9)
        until = time.monotonic_ns() - (0 if settle else _SETTLED_NS)
        events = sorted(self._late + [event for ring in self._rings for event in ring.read()])
        self.lost = sum(ring.lost for ring in self._rings)
        self._late = [event for event in events if event.time > until]
        waits = list(self._paired(event for event in events if event.time <= until))
        self._drop_early(time.monotonic_ns() - (0 if settle else _SETTLED_NS))
        return waits

    def close(self) -> None:
        """Stop tracing; harmless the second time."""
        for ring in self._rings:
            ring.close()
        self._rings = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _paired(self, events: Iterable[Event]) -> Iterator[Wait]:
        for event in events:
            if event.entered[0]:
                self._drop_early(event.time - _SETTLED_NS)
                self._queue.append(event)
            elif self._is_server(event.pid):
                self._early.append(event)
            while self._queue and self._early:
                entered, accepted = self._queue.popleft(), self._early.popleft()
                client, port = entered.entered
                accepted_ns = max(accepted.time, entered.time)
                yield Wait(client=client, port=port, entered_ns=entered.time, accepted_ns=accepted_ns)

    def _drop_early(self, before: int) -> None:
        """Drop the accept() calls before a moment that still have no connection, as calls of another listener.

        The kernel traces the state change just after the connection is in the queue, so its event may be the later one.
        """
        while self._early and self._early[0].time < before:
            self._early.popleft()
            self.unmatched += 1


class Ring:
    """The events of one tracepoint on one processor."""

    def __init__(self, fd: int, *, is_state: bool) -> None:
        """Take ownership of the descriptor and start it."""
        self.lost = 0
        self._fd = fd
        self._is_state = is_state
        try:
            self._shared = mmap.mmap(fd, (1 + _RING_PAGES) * mmap.PAGESIZE)
            start(fd)
        except OSError:
            os.close(fd)
            raise

    def read(self) -> list[Event]:
        """Return the events since the last read."""
        head, tail = (_COUNT.unpack_from(self._shared, at)[0] for at in (_HEAD_AT, _TAIL_AT))
        if head == tail:
            return []
        begin, size = mmap.PAGESIZE, _RING_PAGES * mmap.PAGESIZE
        first, last = begin + tail % size, begin + head % size
        data = self._shared[first:last] if first < last else self._shared[first:] + self._shared[begin:last]
        _COUNT.pack_into(self._shared, _TAIL_AT, head)
        return list(self._events(data))

    def close(self) -> None:
        """Close the descriptor."""
        self._shared.close()
        os.close(self._fd)

    def _events(self, data: bytes) -> Iterator[Event]:
        at = 0
        while at < len(data):
            kind, _, length = _HEADER.unpack_from(data, at)
            if kind == _LOST:
                self.lost += _COUNT.unpack_from(data, at + _HEADER.size + _COUNT.size)[0]
            elif kind == _SAMPLE:
                yield self._event(data, at + _HEADER.size)
            at += length

    def _event(self, data: bytes, at: int) -> Event:
        pid, _, moment, _ = _SAMPLED.unpack_from(data, at)
        if not self._is_state:
            return Event(moment, pid)
        _, _, _, port, family, _, _, ipv4, ipv6 = _STATE.unpack_from(data, at + _SAMPLED.size)
        return Event(moment, pid, (ipv4.ljust(16, b"\0") if family == socket.AF_INET else _unmapped(ipv6), port))


def _unmapped(address: bytes) -> bytes:
    """Return an IPv4 address of an IPv6 socket in the form of an IPv4 socket."""
    return address[12:].ljust(16, b"\0") if address.startswith(MAPPED) else address


def _open_rings(port: int) -> list[Ring]:
    state = tracepoints("sock/inet_sock_set_state")
    calls = tracepoints(*(f"syscalls/sys_exit_{call}" for call in ACCEPTS))
    if not state or not calls:
        raise NotVisibleError("this kernel lacks the tracepoints; use one with CONFIG_FTRACE_SYSCALLS")
    wanted = [(state[0], _BECAME_ESTABLISHED.format(port=port)), *((call, _SUCCEEDED) for call in calls)]
    with contextlib.ExitStack() as undo:
        rings = []
        for processor in _processors():
            for number, condition in wanted:
                fd = open_event(number, processor=processor, sampled=_WANTED, condition=condition)
                rings.append(Ring(fd, is_state=number == state[0]))
                undo.callback(rings[-1].close)
        undo.pop_all()
        return rings


def _try_out() -> None:
    """Accept a connection to a listener of our own and check that both of its events are traced."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with (
            AcceptTrace(_open_rings(address[1]), os.getpid().__eq__) as trace,
            socket.create_connection(address) as client,
            listener.accept()[0],
        ):
            if [one.port for one in trace.take(settle=True)] != [client.getsockname()[1]]:
                raise NotVisibleError(f"a test connection was not traced; {remedy()}")


def _processors() -> list[int]:
    """Return the numbers of the online processors; the kernel lists them as "0-3,6"."""
    found: list[int] = []
    for part in Path("/sys/devices/system/cpu/online").read_text().strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
