"""The epoll engine: one trio task starts, watches and ends all connections of a driver.

An epoll descriptor is itself pollable, so one task can own thousands of sockets: it waits for its own epoll with
`trio.lowlevel.wait_readable`. A task per connection costs four times as much (134 us against 33 us of CPU per
connect-and-close, Linux 6.18). A timerfd in the same epoll paces arrivals and time-outs, because epoll's own time-out
counts whole milliseconds.

Owns when things happen; `connections` owns what happens to a connection. Must not know what the server is.
"""

from __future__ import annotations

import _socket
import select
import socket
from itertools import islice, repeat
from time import monotonic_ns
from typing import TYPE_CHECKING

import trio

from loadsim.driver.connections import Connections
from loadsim.driver.schedule import NEVER
from loadsim.fates import Outcome
from loadsim.kernel.sockdiag import family_of
from loadsim.kernel.timing import Timer
from loadsim.record.records import ATTEMPT, COUNTERS
from loadsim.scenario.specs import source_address
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from loadsim.driver.connections import Opened
    from loadsim.driver.schedule import Schedule
    from loadsim.record.journal import Journal
    from loadsim.scenario.specs import LoadSpec

#: An arrival of an open loop that could not be started within this time is booked as not started: a saturated
#: generator says so and ends on time, instead of turning it into a closed loop.
LATE_NS = 1_000_000_000

#: Attempts started, and events handled, before the other has its turn: 64 take 2 to 4 ms, which bounds the lag that the
#: engine adds when replies come in a burst.
_BATCH = 64
#: How long the engine may go on, or wait by itself, before trio looks at the control channel.
_YIELD_NS = 5_000_000
_NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: choose the port in connect(), where a port may serve several peers
_COUNTED = COUNTERS["attempt"]


class Engine:
    """One driver's load: `run` it once, then `reset` it; `close` it, or use it as a context manager."""

    def __init__(self, spec: LoadSpec, journal: Journal, demand: Schedule, *, max_in_flight: int) -> None:
        self._spec = spec
        self._journal = journal
        self._demand = demand
        self._max_in_flight = max_in_flight
        self._family = family_of(spec.address)
        places = range(spec.first_source, spec.first_source + spec.sources)
        self._sources = {index: (source_address(index), 0) for index in places}
        self._binds = len(places) > 1 or spec.first_source > 0
        self._epoll = select.epoll()
        self._connections = Connections(spec, journal, demand, self._epoll)
        self._late_ns = LATE_NS if spec.stages else NEVER  # clients of a closed loop are never late
        self._begun = 0  # attempts taken from the demand: the next one's number and source follow from it
        self._frozen = False
        self._timer = Timer()
        self._armed = NEVER  # what the timer is set to
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)  # edge: re-arming it replaces reading it

    async def run(self) -> None:
        """Return when all attempts have ended, or after `freeze`; what is still open then stays open.

        Trio has its turn every few milliseconds, then for as long as nothing happens. In between the engine waits in
        its own epoll: an open loop of 2,000 attempts a second, with two waits each, takes 0.5 of a core that way, and
        0.63 where every wait is trio's (Linux 6.18, a virtual machine).
        """
        now = yielded = monotonic_ns()
        while not self._frozen:
            wake = min(self._demand.next_due(), self._connections.next_check())
            if wake > now:
                if self._demand.exhausted and not self._connections:
                    break
                self._arm(wake)
            if now - yielded > _YIELD_NS:
                self._publish()
                if wake > now:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                else:
                    await trio.lowlevel.checkpoint()
                now = yielded = monotonic_ns()
            self._turn(_YIELD_NS / NANOSECONDS if wake > now else 0)
            now = monotonic_ns()
        self._connections.book_pending()
        self._publish()

    def stop(self) -> None:
        """Start nothing more; what is in flight finishes."""
        self._demand.stop()
        self._arm(0)

    def freeze(self) -> None:
        """Book everything in flight as unfinished, now; the sockets stay open."""
        self._frozen = True
        self.stop()

    def release(self, share: float) -> int:
        """Have so large a share of the clients that are in leave now, evenly over all; return how many left."""
        left = self._connections.release(share)
        self._arm(0)  # nobody may be left to wait for
        return left

    def reset(self) -> int:
        """Close what is still open by RST and return the number; FIN would turn phantoms into queued connections."""
        return self._connections.reset()

    def close(self) -> None:
        """Reset what is open and give the engine's own descriptors back."""
        self.reset()
        self._timer.close()
        self._epoll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self, patience_s: float) -> None:
        """Wait for something to happen, at most so long, and do what can be done then."""
        events = self._epoll.poll(patience_s, _BATCH)
        if events and self._connections.handle(events):
            self._armed = NEVER  # the timer has fired: what it called for is found by the clock
        now = monotonic_ns()
        if now >= self._connections.next_check():
            self._connections.expire(now)
        self._start_due(now)

    def _start_due(self, now: int) -> None:
        """Start what is due, at most a batch.

        The hot path, in passes over the batch: open, connect, close. Each pass repeats the same few system calls,
        which keeps the kernel's code and ours in the caches, and leaves a server on another core the time to accept a
        connection before it is reset: 37 us of CPU per connect-and-close against 54 one after the other, and against
        45 of an epoll client in C (Linux 6.18). Hence also the local names: after each system call the interpreter
        starts with cold caches, and every attribute shows.
        """
        room = self._max_in_flight - len(self._connections)
        due = self._demand.take_due(now, min(room, _BATCH) if room > 0 else _BATCH)
        if not due:
            return
        slots, index = self._journal.take_many(len(due)), self._begun
        self._begun += len(due)
        too_late = now - self._late_ns if room > 0 else NEVER
        if not self._binds and due[0] >= too_late:
            self._connections.connect(self._open(due, slots, index))
        else:
            self._connections.connect(self._open_singly(due, slots, index, too_late))

    def _open(self, due: list[int], slots: list[int], index: int) -> Iterable[Opened]:
        """Open a socket for each due attempt; book those that get none."""
        numbers = range(self._number(index), self._number(index + len(due)), self._spec.processes)
        new_socket, family, sockets = _socket.socket, self._family, []
        try:
            for _ in due:
                sockets.append(new_socket(family, _NONBLOCKING, 0))  # noqa: PERF401  # those before a failure count
        except OSError as error:
            for number, intended, at in islice(zip(numbers, due, slots, strict=True), len(sockets), None):
                self._book((number, intended, 0, at), Outcome.LOCAL, error)
        return zip(numbers, due, repeat(0), slots, sockets, strict=False)

    def _open_singly(self, due: list[int], slots: list[int], index: int, too_late: int) -> list[Opened]:
        """Do the same where sources take turns, or where some are not started: those due before `too_late`."""
        opened: list[Opened] = []
        for place, (intended, at) in enumerate(zip(due, slots, strict=True), index):
            number, source = self._number(place), self._spec.first_source + place % len(self._sources)
            if intended < too_late:
                self._book((number, intended, source, at), Outcome.NOT_STARTED)
                continue
            try:
                sock = _socket.socket(self._family, _NONBLOCKING, 0)
                if self._binds:
                    self._bind(sock, source)
            except OSError as error:
                self._book((number, intended, source, at), Outcome.LOCAL, error)
            else:
                opened.append((number, intended, source, at, sock))
        return opened

    def _number(self, index: int) -> int:
        return self._spec.share + 1 + index * self._spec.processes

    def _bind(self, sock: _socket.socket, source: int) -> None:
        """Bind a new socket to its source address; its port is chosen by connect(). Closes it where that fails."""
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(self._sources[source])
        except OSError:
            sock.close()
            raise

    def _book(self, which: tuple[int, int, int, int], outcome: Outcome, error: OSError | None = None) -> None:
        """Record an attempt (its number, intended start, source and slot) that never left the generator."""
        number, intended, source, at = which
        now, errno = monotonic_ns(), 0 if error is None else error.errno or 0
        if at >= 0:
            values = (number, intended, 0, 0, 0, now, source, 0, errno, outcome, 0, 0)
            ATTEMPT.struct.pack_into(self._journal.buffer, at, *values)
        self._connections.tally[outcome] += 1
        self._demand.give_back(now, pause=True)

    def _arm(self, wake: int) -> None:
        """Set the timer to a moment; one that is over fires at once, NEVER does not."""
        if wake == self._armed:
            return
        self._armed = wake
        if wake == NEVER:
            self._timer.clear()
        else:
            self._timer.set_at(max(wake, 1))

    def _publish(self) -> None:
        """Bring the journal's header up to date, for the live view."""
        tally = self._connections.tally
        ended = sum(tally)
        ok = tally[Outcome.OK] + tally[Outcome.CONNECTED]
        local, not_started = tally[Outcome.LOCAL], tally[Outcome.NOT_STARTED]
        values = {
            "started": self._begun - local - not_started,
            "connected": self._connections.connected,
            "ended": ended,
            "ok": ok,
            "failed": ended - ok - local - not_started,
            "local": local,
            "not_started": not_started,
            "in_flight": len(self._connections),
            "lag_max_ns": self._connections.lag_max,
        }
        for name in _COUNTED:
            self._journal.counters[self._journal.index[name]] = values[name]
