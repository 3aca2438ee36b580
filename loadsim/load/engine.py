"""The epoll engine: one trio task starts, watches and ends all connections of a driver.

An epoll descriptor is itself pollable, so one task can own thousands of sockets: it waits for its own epoll with
`trio.lowlevel.wait_readable`, and a task per connection, which costs four times as much (134 us against 33 us per
connect-and-close, Linux 6.18), is not needed. A timerfd in the same epoll paces arrivals and time-outs, because
epoll's own time-out is in whole milliseconds.

Owns every socket of its attempts from connect() to close(). Must not know what the server is, nor read a scenario.
"""

from __future__ import annotations

import _socket
import errno
import select
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from loadsim.exchange import Exchange, Reply, judge, request
from loadsim.kernel.timerfd import Timer
from loadsim.load.attempt import Attempt, Stage
from loadsim.load.demand import NEVER
from loadsim.record.events import ATTEMPT, CLIENT_ERRNO, COUNTERS, AttemptFlag, Outcome
from loadsim.scenario.spec import source_address
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from loadsim.load.demand import Demand
    from loadsim.record.journal import Journal
    from loadsim.scenario.spec import LoadSpec

#: An arrival that could not be started within this time is booked as not started: a saturated generator says so and
#: ends on time, instead of turning the open loop into a closed one.
LATE_NS = 1_000_000_000
#: Attempts started, or expired, between two looks at the sockets.
BATCH = 128
#: Time between two looks of trio at the control channel while there is always something to do.
YIELD_NS = 5_000_000

_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT = 1, 2, 8
_CONNECTED_STATES = frozenset({_ESTABLISHED, _CLOSE_WAIT})
_STATE_AND_TOTAL_RETRANS = struct.Struct("=B99xI")  # the first 104 bytes of struct tcp_info
_LINGER_RESET = struct.pack("=ii", 1, 0)
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; without it a bound source has 15,000 ports instead of 67,000
_NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_RECEIVE_BYTES = 4096
_MAX_EVENTS = 512

_clock = time.monotonic_ns
_pack_into = ATTEMPT.struct.pack_into


class Engine:
    """All connections of one driver: `run` it once, then `reset` it; `close` it, or use it as a context manager."""

    def __init__(self, spec: LoadSpec, journal: Journal, demand: Demand, *, max_in_flight: int) -> None:
        self._spec = spec
        self._journal = journal
        self._buffer = journal.buffer
        self._demand = demand
        self._max_in_flight = max_in_flight
        self._peer = (spec.address, spec.port)
        self._sources = [(source_address(i), 0) for i in range(spec.sources)]
        family = socket.AF_INET6 if ":" in spec.address else socket.AF_INET
        self._new_socket = partial(_socket.socket, family, _NONBLOCKING, 0)
        self._resets = spec.close == "rst"
        self._expects_reply = spec.exchange is not Exchange.NONE
        self._holds = spec.hold_s > 0
        self._done_outcome = Outcome.OK if self._expects_reply else Outcome.CONNECTED
        self._connecting = Stage(_ns(spec.connect_timeout_s))
        self._replying = Stage(_ns(spec.reply_timeout_s))
        self._holding = Stage(_ns(spec.hold_s))
        self._begun = 0  # attempts taken from the demand: the next one's number and source follow from it
        self._connected = 0
        self._lag_max = 0
        self._tally = [0] * len(Outcome)
        self._frozen = False
        self._epoll = select.epoll()
        self._timer = Timer()
        self._armed = NEVER
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)  # edge: re-arming replaces reading

    # What the driver says.

    async def run(self) -> None:
        """Return when all attempts have ended, or after `freeze`; what is then still open stays open."""
        yielded = _clock()
        while not self._frozen:
            if self._turn():
                if _clock() - yielded > YIELD_NS:
                    self._publish()
                    await trio.lowlevel.checkpoint()
                    yielded = _clock()
                continue
            self._publish()
            if self._demand.exhausted and not self.in_flight:
                break
            self._arm()
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            yielded = _clock()
        self._book_pending()
        self._publish()

    def stop(self) -> None:
        """Start nothing more; those in flight finish."""
        self._demand.stop()
        self._wake()

    def freeze(self) -> None:
        """Book everything in flight as unfinished, now; the sockets stay open."""
        self._frozen = True
        self._wake()

    def reset(self) -> int:
        """Close what is still open by RST and return the number; a FIN would turn phantoms into queued connections."""
        attempts = list(self._in_flight())
        for attempt in attempts:
            attempt.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            attempt.sock.close()
        for stage in (self._connecting, self._replying, self._holding):
            stage.attempts.clear()
        return len(attempts)

    def close(self) -> None:
        """Reset what is open and give the engine's own descriptors back."""
        self.reset()
        self._timer.close()
        self._epoll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def in_flight(self) -> int:
        """Number of attempts whose socket is open."""
        return len(self._connecting.attempts) + len(self._replying.attempts) + len(self._holding.attempts)

    # One turn of the loop.

    def _turn(self) -> bool:
        """Do what can be done now; False when there was nothing."""
        worked = False
        for fd, _ in self._epoll.poll(0, _MAX_EVENTS):
            worked = self._handle(fd) or worked
        return self._expire(_clock()) or self._start_due() or worked

    def _handle(self, fd: int) -> bool:
        """React to what epoll says of a descriptor; False for the timer: what it calls for is found by the clock."""
        if (attempt := self._replying.attempts.get(fd)) is not None:
            self._read_reply(attempt)
        elif (attempt := self._connecting.attempts.get(fd)) is not None:
            self._finish_connecting(attempt)
        elif (attempt := self._holding.attempts.get(fd)) is not None:
            self._read_held(attempt)
        else:
            self._armed = NEVER
            return False
        return True

    def _expire(self, now: int) -> bool:
        """End what has waited long enough, at most a batch of each stage; False when there was none."""
        silent = self._connecting.leave_expired(now, BATCH)
        for attempt in silent:
            self._give_up_connecting(attempt)
        unanswered = self._replying.leave_expired(now, BATCH)
        for attempt in unanswered:
            self._end(attempt, Outcome.REPLY_TIMEOUT)
        held = self._holding.leave_expired(now, BATCH)
        for attempt in held:
            self._end(attempt, self._done_outcome)
        return bool(silent or unanswered or held)

    def _start_due(self) -> bool:
        """Start what is due, at most a batch; True when more may be due.

        The hot loop, and the reason why it is one long function: at 30,000 attempts a second every call and every
        attribute counts. An attempt that is done as soon as it is connected (exchange none, no hold) never becomes
        an object: on loopback the handshake ends inside connect(), as one byte of TCP_INFO tells, and its record is
        written once, before close().
        """
        _demand, take, _give_back = self._demand, self._demand.take, self._demand.give_back
        clock, _pack_into, _buffer = _clock, _pack_into, self._buffer
        open_socket, peer = self._open_socket, self._peer
        step, first = self._spec.processes, self._spec.share + 1
        now = clock()
        for _ in range(BATCH):
            intended = take(now)
            if intended < 0:
                return False
            index = self._begun
            self._begun += 1
            number = first + index * step
            source = index % len(self._sources)
            at = self._journal.take()
            if now - intended > LATE_NS or self.in_flight >= self._max_in_flight:
                now = self._book(number, intended, at, source, Outcome.NOT_STARTED)
                continue
            try:
                sock = open_socket(source)
            except OSError as error:
                now = self._book(number, intended, at, source, Outcome.LOCAL, error.errno or 0)
                continue
            started = clock()
            error_number = sock.connect_ex(peer)
            now = clock()
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) & 0xFF
            attempt = Attempt(sock, number, intended, at)
            attempt.started = started
            attempt.source = source
            attempt.port = sock.getsockname()[1]
            self._lag_max = max(self._lag_max, started - intended)
            self._begin(attempt, error_number, state, now)
        return True

    def _open_socket(self, source: int) -> _socket.socket:
        sock = self._new_socket()
        if len(self._sources) > 1:
            try:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind(self._sources[source])
            except OSError:
                sock.close()
                raise
        return sock

    # The life of an attempt.

    def _begin(self, attempt: Attempt, error: int, state: int, now: int) -> None:
        """Sort a new attempt by what connect() and TCP_INFO said."""
        if state in _CONNECTED_STATES:
            attempt.connected = now
            self._proceed(attempt, self._epoll.register)
        elif state == _SYN_SENT:
            attempt.write(self._buffer)
            self._epoll.register(attempt.fd, select.EPOLLOUT)
            self._connecting.enter(attempt, now)
        else:
            if error in (0, errno.EINPROGRESS):
                error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._fail(attempt, error)

    def _finish_connecting(self, attempt: Attempt) -> None:
        """Read how a connect that took its time has ended."""
        del self._connecting.attempts[attempt.fd]
        _, attempt.syn_retransmits = _tcp_info(attempt.sock)
        error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(attempt, error)
            return
        attempt.connected = _clock()
        attempt.flags |= AttemptFlag.WOKEN
        self._proceed(attempt, self._epoll.modify)

    def _give_up_connecting(self, attempt: Attempt) -> None:
        """End an attempt that has waited too long, unless it became connected this very moment."""
        state, attempt.syn_retransmits = _tcp_info(attempt.sock)
        if state in _CONNECTED_STATES:
            self._connecting.attempts[attempt.fd] = attempt
            self._finish_connecting(attempt)
        else:
            self._end(attempt, Outcome.CONNECT_TIMEOUT)

    def _proceed(self, attempt: Attempt, watch: Callable[[int, int], None]) -> None:
        """Say what a connected client says, and wait for what it waits for."""
        self._connected += 1
        if self._expects_reply:
            said = request(self._spec.exchange, attempt.number)
            try:
                if said:
                    attempt.sock.send(said)
            except OSError as error:
                self._fail(attempt, error.errno or 0)
                return
            watch(attempt.fd, select.EPOLLIN)
            attempt.write(self._buffer)
            self._replying.enter(attempt, attempt.connected)
        elif self._holds:
            watch(attempt.fd, select.EPOLLIN)
            attempt.write(self._buffer)
            self._holding.enter(attempt, attempt.connected)
        else:
            self._end(attempt, Outcome.CONNECTED)

    def _read_reply(self, attempt: Attempt) -> None:
        try:
            received = attempt.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            del self._replying.attempts[attempt.fd]
            self._fail(attempt, error.errno or 0)
            return
        now = _clock()
        if received and not attempt.replied:
            attempt.replied = now
        attempt.received += received
        reply = judge(self._spec.exchange, attempt.received, attempt.number)
        if received and reply is Reply.INCOMPLETE:
            return
        del self._replying.attempts[attempt.fd]
        if not received:
            self._end(attempt, Outcome.EOF)
        elif reply is Reply.ERROR:
            self._end(attempt, Outcome.ERROR)
        elif self._holds:
            attempt.write(self._buffer)
            self._holding.enter(attempt, now)
        else:
            self._end(attempt, Outcome.OK)

    def _read_held(self, attempt: Attempt) -> None:
        """Notice that the server has ended a connection which its client would have kept."""
        try:
            if attempt.sock.recv(_RECEIVE_BYTES):
                return
            gone = False
        except BlockingIOError:
            return
        except OSError as error:
            attempt.errno = error.errno or 0
            gone = True
        del self._holding.attempts[attempt.fd]
        attempt.flags |= AttemptFlag.CUT
        self._end(attempt, self._done_outcome, gone=gone)

    def _fail(self, attempt: Attempt, error: int) -> None:
        """End an attempt by the errno of one of its socket calls."""
        meaning = CLIENT_ERRNO.get(error)
        outcome = Outcome.LOCAL if meaning is None else meaning.outcome
        if attempt.connected:
            outcome = Outcome.REPLY_TIMEOUT if error == errno.ETIMEDOUT else outcome
        elif outcome is Outcome.LOCAL:
            attempt.started = 0
        attempt.errno = error
        self._end(attempt, outcome, gone=True)

    def _end(self, attempt: Attempt, outcome: Outcome, *, gone: bool = False) -> None:
        """Close the socket as the client closes, and complete the record; `gone`: close() has nothing left to say."""
        if self._resets and attempt.connected and not gone:
            attempt.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            attempt.flags |= AttemptFlag.RESET_BY_CLIENT
        attempt.outcome = outcome
        attempt.ended = _clock()
        attempt.write(self._buffer)
        attempt.sock.close()
        self._tally[outcome] += 1
        self._demand.give_back(attempt.ended, pause=outcome in (Outcome.LOCAL, Outcome.REFUSED))

    def _book(self, number: int, intended: int, at: int, source: int, outcome: Outcome, error: int = 0) -> int:
        """Record an attempt that never left the generator; return the time of it."""
        now = _clock()
        if at >= 0:
            _pack_into(self._buffer, at, number, intended, 0, 0, 0, now, source, 0, error, outcome, 0, 0)
        self._tally[outcome] += 1
        self._demand.give_back(now, pause=True)
        return now

    def _book_pending(self) -> None:
        for attempt in self._in_flight():
            attempt.flags |= AttemptFlag.PENDING
            attempt.write(self._buffer)

    def _in_flight(self) -> Iterator[Attempt]:
        for stage in (self._connecting, self._replying, self._holding):
            yield from stage.attempts.values()

    # The clock and the counters.

    def _arm(self) -> None:
        """Set the timer to the next moment at which something is due."""
        stages = (self._connecting, self._replying, self._holding)
        wake = min(self._demand.next_due(), *(stage.check_at for stage in stages))
        if wake == self._armed:
            return
        self._armed = wake
        if wake == NEVER:
            self._timer.clear()
        else:
            self._timer.set_at(wake)

    def _wake(self) -> None:
        """End the wait of `run`."""
        self._armed = 0
        self._timer.set_at(1)

    def _publish(self) -> None:
        """Bring the journal's header up to date, for the live view."""
        tally = self._tally
        ok = tally[Outcome.OK] + tally[Outcome.CONNECTED]
        local, not_started = tally[Outcome.LOCAL], tally[Outcome.NOT_STARTED]
        ended = sum(tally)
        values = {
            "started": self._begun - local - not_started,
            "connected": self._connected,
            "ended": ended,
            "ok": ok,
            "failed": ended - ok - local - not_started,
            "local": local,
            "not_started": not_started,
            "in_flight": self.in_flight,
            "lag_max_ns": self._lag_max,
        }
        for name in COUNTERS["attempt"]:
            self._journal.counters[self._journal.index[name]] = values[name]


def _tcp_info(sock: _socket.socket) -> tuple[int, int]:
    """Return the state of a socket and its SYN retransmits so far, at most 255."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE_AND_TOTAL_RETRANS.size)
    state, retransmits = _STATE_AND_TOTAL_RETRANS.unpack(info)
    return state, min(retransmits, 255)


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
