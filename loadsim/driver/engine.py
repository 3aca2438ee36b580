"""The epoll engine: one trio task starts, polls and ends all connections of a driver.

An epoll descriptor is itself pollable, so one task can own thousands of sockets. It waits for its own epoll with
`trio.lowlevel.wait_readable`. A task per connection costs four times as much (134 us against 33 us of CPU per
connect-and-close, Linux 6.18). A timerfd in the same epoll paces arrivals and time-outs, because epoll's own time-out
has a resolution of a millisecond.

Owns the order and the times of events; `connections` owns the connections. Must not know the kind of the server.
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

#: An arrival of an open loop that cannot start within this time is recorded as not started: a saturated generator
#: reports that and ends on time, instead of turning the open loop into a closed one.
LATE_NS = 1_000_000_000

#: The most attempts that start, and events that are handled, before the other kind of work. 64 take 2 to 4 ms, which
#: bounds the lag that the engine adds during a burst of replies.
_BATCH = 64
#: The longest time that the engine runs, or waits in its own epoll, before trio polls the control channel.
_YIELD_NS = 5_000_000
_NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: connect() chooses the port, and may share one between peers
_COUNTED = COUNTERS["attempt"]


class Engine:
    """One driver's load: `run` it once, then `reset` it; `close` it, or use it as a context manager."""

    def __init__(self, spec: LoadSpec, journal: Journal, schedule: Schedule, *, max_in_flight: int) -> None:
        self._spec = spec
        self._journal = journal
        self._schedule = schedule
        self._max_in_flight = max_in_flight
        self._family = family_of(spec.address)
        indices = range(spec.first_source, spec.first_source + spec.sources)
        self._sources = {index: (source_address(index), 0) for index in indices}
        self._binds = len(indices) > 1 or spec.first_source > 0
        self._epoll = select.epoll()
        self._connections = Connections(spec, journal, schedule, self._epoll)
        self._late_ns = LATE_NS if spec.stages else NEVER  # clients of a closed loop are never late
        self._begun = 0  # attempts taken from the schedule; it determines the next number and source
        self._frozen = False
        self._timer = Timer()
        self._armed = NEVER  # the time to which the timer is set
        self._epoll.register(
            self._timer.fd, select.EPOLLIN | select.EPOLLET
        )  # edge-triggered: re-arming it replaces reading it

    async def run(self) -> None:
        """Return when all attempts have ended, or after `freeze`, which leaves sockets open.

        Every few milliseconds, trio runs until the next event. Between these turns the engine waits in its own epoll:
        an open loop of 2,000 attempts per second, with two waits each, takes 0.5 of a core, and 0.63 if trio does every
        wait (Linux 6.18, a virtual machine).
        """
        now = yielded = monotonic_ns()
        while not self._frozen:
            wake = min(self._schedule.next_due(), self._connections.next_check())
            if wake > now:
                if self._schedule.exhausted and not self._connections:
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
        """Start no further attempts; the attempts in flight finish."""
        self._schedule.stop()
        self._arm(0)

    def freeze(self) -> None:
        """Record everything in flight as unfinished now; the sockets stay open."""
        self._frozen = True
        self.stop()

    def release(self, share: float) -> int:
        """End this fraction of the open connections now; return their number."""
        left = self._connections.release(share)
        self._arm(0)  # the last attempt may have ended
        return left

    def reset(self) -> int:
        """Close open connections by RST and return their number; FIN would turn phantoms into queued connections."""
        return self._connections.reset()

    def close(self) -> None:
        """Reset open connections and close the engine's own descriptors."""
        self.reset()
        self._timer.close()
        self._epoll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self, patience_s: float) -> None:
        """Wait at most `patience_s` for events, and handle them, expired attempts and due attempts."""
        events = self._epoll.poll(patience_s, _BATCH)
        if events and self._connections.handle(events):
            self._armed = NEVER  # the timer has fired; the clock shows for which reason
        now = monotonic_ns()
        if now >= self._connections.next_check():
            self._connections.expire(now)
        self._start_due(now)

    def _start_due(self, now: int) -> None:
        """Start at most a batch of due attempts.

        This is the hot path, in passes over the batch: open, connect, close. Each pass repeats the same few system
        calls, which keeps the code of the kernel and of loadsim in the caches, and gives a server on another core the
        time to accept a connection before its reset: 37 us of CPU per connect-and-close, against 54 one by one and 45
        for an epoll client in C (Linux 6.18). The local names have the same reason: after each system call the
        interpreter starts with cold caches, and every attribute access is measurable.
        """
        free = self._max_in_flight - len(self._connections)
        due = self._schedule.take_due(now, min(free, _BATCH) if free > 0 else _BATCH)
        if not due:
            return
        slots, index = self._journal.take_many(len(due)), self._begun
        self._begun += len(due)
        too_late = now - self._late_ns if free > 0 else NEVER
        if not self._binds and due[0] >= too_late:
            self._connections.connect(self._open(due, slots, index))
        else:
            self._connections.connect(self._open_singly(due, slots, index, too_late))

    def _open(self, due: list[int], slots: list[int], index: int) -> Iterable[Opened]:
        """Open a socket for each due attempt; record the attempts that get none."""
        numbers = range(self._number(index), self._number(index + len(due)), self._spec.processes)
        new_socket, family, sockets = _socket.socket, self._family, []
        try:
            for _ in due:
                sockets.append(new_socket(family, _NONBLOCKING, 0))  # noqa: PERF401  # sockets before a failure are used
        except OSError as error:
            for number, intended, at in islice(zip(numbers, due, slots, strict=True), len(sockets), None):
                self._book((number, intended, 0, at), Outcome.LOCAL, error)
        return zip(numbers, due, repeat(0), slots, sockets, strict=False)

    def _open_singly(self, due: list[int], slots: list[int], index: int, too_late: int) -> list[Opened]:
        """Do the same with several sources, or if attempts before `too_late` are not started."""
        opened: list[Opened] = []
        for position, (intended, at) in enumerate(zip(due, slots, strict=True), index):
            number, source = self._number(position), self._spec.first_source + position % len(self._sources)
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
        """Bind a new socket to its source address; connect() chooses its port. Closes it on failure."""
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
        self._schedule.give_back(now, pause=True)

    def _arm(self, wake: int) -> None:
        """Set the timer; a past time fires at once, NEVER does not fire."""
        if wake == self._armed:
            return
        self._armed = wake
        if wake == NEVER:
            self._timer.clear()
        else:
            self._timer.set_at(max(wake, 1))

    def _publish(self) -> None:
        """Update the counters in the journal's header, for the live view."""
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
