"""The open connections of a driver: what each waits for, what it says, and how it ends.

Owns every socket from the moment after connect() to close(), and the attempt's record. Must not know what starts
attempts, nor trio.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from time import monotonic_ns
from typing import TYPE_CHECKING

from loadsim.exchange import Exchange, Reply, judge, request
from loadsim.load.attempt import Attempt, Stage
from loadsim.record.events import CLIENT_ERRNO, AttemptFlag, Outcome
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterator

    from loadsim.load.demand import Demand
    from loadsim.record.journal import Journal
    from loadsim.scenario.spec import LoadSpec

#: States of struct tcp_info. A server on another core may have closed by the time that connect() returns.
ESTABLISHED, SYN_SENT, CLOSE_WAIT = 1, 2, 8
CONNECTED_STATES = frozenset({ESTABLISHED, CLOSE_WAIT})
#: SO_LINGER with which close() sends RST.
LINGER_RESET = struct.pack("=ii", 1, 0)

_STATE_AND_TOTAL_RETRANS = struct.Struct("=B99xI")  # the first 104 bytes of struct tcp_info
_RECEIVE_BYTES = 4096
#: Connections that are given up before epoll is asked again: thousands may reach their time-out at once.
_BATCH = 128


class Connections:
    """The connections of one driver. `tally` counts what has ended, by outcome; `connected` what has connected."""

    def __init__(self, spec: LoadSpec, journal: Journal, demand: Demand, epoll: select.epoll) -> None:
        self._exchange = spec.exchange
        self._buffer = journal.buffer
        self._demand = demand
        self._epoll = epoll
        self._resets = spec.close == "rst"
        self._holds = spec.hold_s > 0
        self._expects_reply = spec.exchange is not Exchange.NONE
        self._as_planned = Outcome.OK if self._expects_reply else Outcome.CONNECTED
        self._connecting = Stage(_ns(spec.connect_timeout_s))
        self._replying = Stage(_ns(spec.reply_timeout_s))
        self._holding = Stage(_ns(spec.hold_s))
        self._stages = (self._connecting, self._replying, self._holding)
        self.connected = 0
        self.tally = [0] * len(Outcome)

    def __len__(self) -> int:
        return len(self._connecting.attempts) + len(self._replying.attempts) + len(self._holding.attempts)

    def __iter__(self) -> Iterator[Attempt]:
        for stage in self._stages:
            yield from stage.attempts.values()

    def next_check(self) -> int:
        """Return when `expire` may next find something, NEVER while nothing waits."""
        return min(stage.check_at for stage in self._stages)

    def begin(self, attempt: Attempt, *, error: int, state: int, now: int) -> None:
        """Take over a new attempt; `error` is what connect() returned, `state` what TCP_INFO said right after it."""
        if state in CONNECTED_STATES:
            attempt.connected = now
            self._proceed(attempt, self._epoll.register)
        elif state == SYN_SENT:
            attempt.write(self._buffer)
            self._epoll.register(attempt.fd, select.EPOLLOUT)
            self._connecting.enter(attempt, now)
        else:
            if error in (0, errno.EINPROGRESS):
                error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._fail(attempt, error)

    def handle(self, fd: int) -> bool:
        """React to what epoll says of a descriptor; False if that is no connection."""
        if (attempt := self._replying.attempts.get(fd)) is not None:
            self._read_reply(attempt)
        elif (attempt := self._connecting.attempts.get(fd)) is not None:
            self._finish_connecting(attempt)
        elif (attempt := self._holding.attempts.get(fd)) is not None:
            self._read_held(attempt)
        else:
            return False
        return True

    def expire(self, now: int) -> bool:
        """End what has waited long enough, at most a batch of each kind; False if there was none."""
        if now < self.next_check():
            return False
        silent = self._connecting.leave_expired(now, _BATCH)
        for attempt in silent:
            self._give_up_connecting(attempt)
        unanswered = self._replying.leave_expired(now, _BATCH)
        for attempt in unanswered:
            self._end(attempt, Outcome.REPLY_TIMEOUT)
        held = self._holding.leave_expired(now, _BATCH)
        for attempt in held:
            self._end(attempt, self._as_planned)
        return bool(silent or unanswered or held)

    def book_pending(self) -> None:
        """Record everything that is still open as such, with what the kernel knows of connects under way."""
        for attempt in self._connecting.attempts.values():
            state, attempt.syn_retransmits = _tcp_info(attempt.sock)
            if state in CONNECTED_STATES:
                attempt.connected = monotonic_ns()
                attempt.flags |= AttemptFlag.WOKEN
                self.connected += 1
        for attempt in self:
            attempt.flags |= AttemptFlag.PENDING
            attempt.write(self._buffer)

    def reset(self) -> int:
        """Close everything by RST, without a word in the records; return how many there were."""
        attempts = list(self)
        for attempt in attempts:
            attempt.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            attempt.sock.close()
        for stage in self._stages:
            stage.attempts.clear()
        return len(attempts)

    def _proceed(self, attempt: Attempt, watch: Callable[[int, int], None]) -> None:
        """Say what a connected client says, and wait for what it waits for; `watch` tells epoll."""
        self.connected += 1
        if not (self._expects_reply or self._holds):
            self._end(attempt, Outcome.CONNECTED)
            return
        said = request(self._exchange, attempt.number)
        try:
            if said:
                attempt.sock.send(said)
        except OSError as error:
            self._fail(attempt, error.errno or 0)
            return
        attempt.write(self._buffer)
        watch(attempt.fd, select.EPOLLIN)
        (self._replying if self._expects_reply else self._holding).enter(attempt, attempt.connected)

    def _finish_connecting(self, attempt: Attempt) -> None:
        """Read how a connect that took its time has ended."""
        del self._connecting.attempts[attempt.fd]
        _, attempt.syn_retransmits = _tcp_info(attempt.sock)
        error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(attempt, error)
            return
        attempt.connected = monotonic_ns()
        attempt.flags |= AttemptFlag.WOKEN
        self._proceed(attempt, self._epoll.modify)

    def _give_up_connecting(self, attempt: Attempt) -> None:
        """End an attempt that has waited too long, unless it became connected this very moment."""
        state, attempt.syn_retransmits = _tcp_info(attempt.sock)
        if state == SYN_SENT:
            self._end(attempt, Outcome.CONNECT_TIMEOUT)
        else:
            self._connecting.attempts[attempt.fd] = attempt
            self._finish_connecting(attempt)

    def _read_reply(self, attempt: Attempt) -> None:
        try:
            more = attempt.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            del self._replying.attempts[attempt.fd]
            self._fail(attempt, error.errno or 0)
            return
        now = monotonic_ns()
        if not more:
            del self._replying.attempts[attempt.fd]
            self._end(attempt, Outcome.EOF)
            return
        attempt.replied = attempt.replied or now
        attempt.received += more
        reply = judge(self._exchange, attempt.received, attempt.number)
        if reply is not Reply.INCOMPLETE:
            del self._replying.attempts[attempt.fd]
            self._replied(attempt, reply, now)

    def _replied(self, attempt: Attempt, reply: Reply, now: int) -> None:
        if reply is Reply.ERROR:
            self._end(attempt, Outcome.ERROR)
        elif self._holds:
            attempt.write(self._buffer)
            self._holding.enter(attempt, now)
        else:
            self._end(attempt, Outcome.OK)

    def _read_held(self, attempt: Attempt) -> None:
        """Notice that the server has ended a connection which its client would have kept."""
        gone = False
        try:
            if attempt.sock.recv(_RECEIVE_BYTES):
                return
        except BlockingIOError:
            return
        except OSError as error:
            attempt.errno = error.errno or 0
            gone = True
        del self._holding.attempts[attempt.fd]
        attempt.flags |= AttemptFlag.CUT
        self._end(attempt, self._as_planned, gone=gone)

    def _fail(self, attempt: Attempt, error: int) -> None:
        """End an attempt by the errno of one of its socket calls."""
        meaning = CLIENT_ERRNO.get(error)
        outcome = Outcome.LOCAL if meaning is None else meaning.outcome
        if attempt.connected and outcome is Outcome.CONNECT_TIMEOUT:
            outcome = Outcome.REPLY_TIMEOUT
        if outcome is Outcome.LOCAL and not attempt.connected:
            attempt.started = 0
        attempt.errno = error
        self._end(attempt, outcome, gone=True)

    def _end(self, attempt: Attempt, outcome: Outcome, *, gone: bool = False) -> None:
        """Close the socket as the client closes, and complete the record; `gone`: close() has nothing left to say."""
        if self._resets and attempt.connected and not gone:
            attempt.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            attempt.flags |= AttemptFlag.RESET_BY_CLIENT
        attempt.outcome = outcome
        attempt.ended = now = monotonic_ns()
        attempt.write(self._buffer)
        attempt.sock.close()
        self.tally[outcome] += 1
        self._demand.give_back(now, pause=outcome is Outcome.LOCAL or outcome is Outcome.REFUSED)


def _tcp_info(sock: _socket.socket) -> tuple[int, int]:
    """Return the state of a socket and its SYN retransmits so far, at most 255."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE_AND_TOTAL_RETRANS.size)
    state, retransmits = _STATE_AND_TOTAL_RETRANS.unpack(info)
    return state, min(retransmits, 255)


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
