"""The open connections of a driver: what each waits for, what it says, and how it ends.

Owns every socket from connect() to close(), and its attempt's record. Must not know what is due when, nor trio.

What is ordinary comes in batches and is the hot path: `connect`, `handle` and `_close` are loops over local names.
What is not (a connect that takes its time, a reply in pieces, any failure) goes through an `Attempt` and `_end`.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from time import monotonic_ns
from typing import TYPE_CHECKING

from loadsim.driver.attempt import TAIL, TAIL_AT, Attempt, Phase
from loadsim.exchange import HELLO, Exchange, Reply, judge, partial, request
from loadsim.fates import Outcome
from loadsim.record.records import ATTEMPT, CLIENT_ERRNO, AttemptFlag
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterable, Iterator

    from loadsim.driver.schedule import Schedule
    from loadsim.record.journal import Journal
    from loadsim.scenario.specs import LoadSpec

#: An attempt about to connect: number, intended start, index of its source, place of its record, socket.
Opened = tuple[int, int, int, int, "_socket.socket"]
#: An attempt that ends as planned: socket, place of its record, time of its reply, source, port.
_Done = tuple["_socket.socket", int, int, int, int]

#: Connections of one stage that are given up before anything else is done: thousands may reach their time-out at once.
_BATCH = 64
_RECEIVE_BYTES = 4096
#: Exchanges in which what one client hears is what the next one will hear, as a rule.
_ALIKE = frozenset({Exchange.HTTP, Exchange.RAW})
_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT = 1, 2, 8  # tcpi_state
_CONNECTED = frozenset({_ESTABLISHED, _CLOSE_WAIT})  # a server on another core may already have closed
_NO_ERROR_YET = frozenset({0, errno.EINPROGRESS, errno.EAGAIN})  # of connect(), and of send() before it has ended
_STATE_AND_TOTAL_RETRANS = struct.Struct("=B99xI")  # the first 104 bytes of struct tcp_info
_LINGER_RESET = struct.pack("=ii", 1, 0)  # close() sends RST
# Plain ints: an enum as argument costs 0.1 us more.
_SOCKET, _LINGER = int(socket.SOL_SOCKET), int(socket.SO_LINGER)
_READABLE, _WRITABLE = int(select.EPOLLIN), int(select.EPOLLOUT)


class Connections:
    """The connections of one driver. `tally` counts what has ended, by outcome; `connected` what has connected."""

    def __init__(self, spec: LoadSpec, journal: Journal, demand: Schedule, epoll: select.epoll) -> None:
        self._exchange = spec.exchange
        self._peer = (spec.address, spec.port)
        self._buffer = journal.buffer
        self._demand = demand
        self._epoll = epoll
        self._resets = spec.close == "rst"
        self._holds = spec.hold_s > 0
        self._expects_reply = spec.exchange is not Exchange.NONE and spec.request == "whole"
        self._expect = spec.expect
        self._says = _usual_request(spec)
        self._as_planned = Outcome.OK if self._expects_reply else Outcome.CONNECTED
        self._usual_reply = HELLO if spec.exchange is Exchange.HELLO and not self._holds else None
        self._connecting = Phase(_ns(spec.connect_timeout_s))
        self._replying = Phase(_ns(spec.reply_timeout_s))
        self._holding = Phase(_ns(spec.hold_s))
        self._first_wait = self._replying if self._expects_reply else self._holding  # once connected
        self._stages = (self._connecting, self._replying, self._holding)
        self.connected = 0
        self.lag_max = 0  # ns, of a start behind its intended one
        self.tally = [0] * len(Outcome)

    def __len__(self) -> int:
        return len(self._connecting.attempts) + len(self._replying.attempts) + len(self._holding.attempts)

    def __iter__(self) -> Iterator[Attempt]:
        for phase in self._stages:
            yield from phase.attempts.values()

    def next_check(self) -> int:
        """Return when `expire` may next find something, NEVER while nothing waits."""
        return min(self._connecting.check_at, self._replying.check_at, self._holding.check_at)

    def connect(self, opened: Iterable[Opened]) -> None:
        """Connect a batch, and let each say what it has to say; those with nothing to wait for end with it.

        On loopback the handshake ends inside connect(), so `t1` right after it is the time of the connection to a few
        microseconds. Whether it did is told by the first send(), be it of nothing: EAGAIN means not yet. It is what
        TCP_INFO would say, in one system call less for those that speak. A record is written as soon as that is
        known: what is killed before has none.
        """
        pack_into, buffer, clock, peer = ATTEMPT.struct.pack_into, self._buffer, monotonic_ns, self._peer
        exchange, says, waits = self._exchange, self._says, self._expects_reply or self._holds
        lag_max = self.lag_max
        begun: list[Attempt] = []
        done: list[_Done] = []
        for number, intended, source, at, sock in opened:
            started = clock()
            error = sock.connect_ex(peer)
            now = connected = clock()
            try:
                sock.send(request(exchange, number) if says is None else says)
            except OSError as failure:
                connected = 0
                if error in _NO_ERROR_YET:  # else send() only says EPIPE
                    error = failure.errno or 0
            port = sock.getsockname()[1]
            if at >= 0:
                pack_into(buffer, at, number, intended, started, connected, 0, 0, source, port, 0, 0, 0, 0)
            if started - intended > lag_max:  # noqa: PLR1730  # max() is a call
                lag_max = started - intended
            if not connected:
                self._begin_slowly(Attempt(sock, number, at, source, port, 0, now), error)
            elif waits:
                begun.append(Attempt(sock, number, at, source, port, now, now))
            else:
                done.append((sock, at, 0, source, port))
        self.lag_max = lag_max
        self.connected += len(begun) + len(done)
        if begun:
            self._await(begun)
        if done:
            self._close(done)

    def _await(self, begun: list[Attempt]) -> None:
        """Let a batch that has connected wait for what comes next; where epoll has no room for one, it ends."""
        register, waiting = self._epoll.register, self._first_wait.attempts
        for attempt in begun:
            fd = attempt.sock.fileno()
            try:
                register(fd, _READABLE)
            except OSError as failure:
                self._fail(attempt, failure.errno or 0)
            else:
                waiting[fd] = attempt
        if waiting:
            self._first_wait.expect()

    def handle(self, events: list[tuple[int, int]]) -> list[int]:
        """React to what epoll says of a batch of descriptors; return those that are no connections."""
        replying, clock = self._replying.attempts, monotonic_ns
        done: list[_Done] = []
        others = []
        for fd, _ in events:
            attempt = replying.get(fd)
            if attempt is None:
                if not self._handle_rare(fd):
                    others.append(fd)
                continue
            try:
                received = attempt.sock.recv(_RECEIVE_BYTES)
            except OSError as error:
                self._fail_reading(fd, attempt, error)
                continue
            now = clock()
            if received == self._usual_reply and not (attempt.received or attempt.flags):
                del replying[fd]
                done.append((attempt.sock, attempt.at, now, attempt.source, attempt.port))
            else:
                self._read_reply(fd, attempt, received, now)
        if done:
            self._close(done)
        return others

    def expire(self, now: int) -> None:
        """End what has waited long enough, at most a batch of each kind."""
        for attempt in self._connecting.leave_expired(now, _BATCH):
            self._give_up_connecting(attempt)
        for attempt in self._replying.leave_expired(now, _BATCH):
            self._end(attempt, Outcome.REPLY_TIMEOUT)
        for attempt in self._holding.leave_expired(now, _BATCH):
            self._end(attempt, self._as_planned)

    def book_pending(self) -> None:
        """Record everything that is still open as such, with what the kernel knows of connects under way."""
        for attempt in self._connecting.attempts.values():
            state, attempt.syn_retransmits = _tcp_info(attempt.sock)
            if state in _CONNECTED:
                self._note_connected(attempt)
        for attempt in self:
            attempt.flags |= AttemptFlag.PENDING
            attempt.write(self._buffer)

    def release(self, share: float) -> int:
        """Let a share of the open connections leave before their time, evenly from the oldest to the newest.

        Those that are held end as planned, only sooner; those that still wait for something end unfinished.
        """
        chosen = [
            (phase, fd, attempt)
            for phase in self._stages
            for number, (fd, attempt) in enumerate(phase.attempts.items(), 1)
            if int(number * share) > int((number - 1) * share)
        ]
        for phase, fd, attempt in chosen:
            del phase.attempts[fd]
            attempt.flags |= AttemptFlag.RELEASED
            self._end(attempt, self._as_planned if phase is self._holding else Outcome.UNFINISHED)
        for phase in self._stages:
            phase.look_again()
        return len(chosen)

    def reset(self) -> int:
        """Close everything by RST, without a word in the records; return how many there were."""
        attempts = list(self)
        for attempt in attempts:
            attempt.sock.setsockopt(_SOCKET, _LINGER, _LINGER_RESET)
            attempt.sock.close()
        for phase in self._stages:
            phase.attempts.clear()
        return len(attempts)

    def _close(self, done: list[_Done]) -> None:
        """Close a batch of connections that end as planned, and complete their records."""
        pack_into, buffer, clock, resets = TAIL.pack_into, self._buffer, monotonic_ns, self._resets
        outcome, flags = int(self._as_planned), int(AttemptFlag.RESET_BY_CLIENT) if resets else 0
        times = []
        for sock, at, replied, source, port in done:
            if resets:
                sock.setsockopt(_SOCKET, _LINGER, _LINGER_RESET)
            ended = clock()
            if at >= 0:
                pack_into(buffer, at + TAIL_AT, replied, ended, source, port, 0, outcome, 0, flags)
            sock.close()
            times.append(ended)
        self.tally[outcome] += len(done)
        self._demand.give_back(*times)

    def _begin_slowly(self, attempt: Attempt, error: int) -> None:
        """Wait for a connect that has not ended inside the call, or end one that has failed there."""
        state, _ = _tcp_info(attempt.sock)
        if state == _SYN_SENT or state in _CONNECTED:
            fd = attempt.sock.fileno()
            try:
                self._epoll.register(fd, _WRITABLE)
            except OSError as failure:
                self._fail(attempt, failure.errno or 0)
            else:
                self._connecting.enter(fd, attempt)
            return
        if error in _NO_ERROR_YET:
            error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._fail(attempt, error)

    def _proceed(self, attempt: Attempt) -> None:
        """Say what a client says that connected late, and wait for what it waits for."""
        said = request(self._exchange, attempt.number) if self._says is None else self._says
        fd = attempt.sock.fileno()
        try:
            if said:
                attempt.sock.send(said)
            self._epoll.modify(fd, _READABLE)
        except OSError as error:
            self._fail(attempt, error.errno or 0)
        else:
            self._first_wait.enter(fd, attempt)

    def _handle_rare(self, fd: int) -> bool:
        """React to a descriptor that does not wait for a reply; False if it is no connection."""
        if (attempt := self._connecting.attempts.pop(fd, None)) is not None:
            self._finish_connecting(attempt)
        elif (attempt := self._holding.attempts.get(fd)) is not None:
            self._read_held(fd, attempt)
        else:
            return False
        return True

    def _finish_connecting(self, attempt: Attempt) -> None:
        """Read how a connect that took its time has ended."""
        _, attempt.syn_retransmits = _tcp_info(attempt.sock)
        error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(attempt, error)
            return
        self._note_connected(attempt)
        if self._expects_reply or self._holds:
            attempt.write(self._buffer)
            self._proceed(attempt)
        else:
            self._end(attempt, Outcome.CONNECTED)

    def _note_connected(self, attempt: Attempt) -> None:
        self.connected += 1
        attempt.connected = attempt.since = monotonic_ns()
        attempt.flags |= AttemptFlag.WOKEN
        attempt.write_connected(self._buffer)

    def _give_up_connecting(self, attempt: Attempt) -> None:
        """End an attempt that has waited too long, unless its connect ended this very moment."""
        state, attempt.syn_retransmits = _tcp_info(attempt.sock)
        if state == _SYN_SENT:
            self._end(attempt, Outcome.CONNECT_TIMEOUT)
        else:
            self._finish_connecting(attempt)

    def _read_reply(self, fd: int, attempt: Attempt, received: bytes, now: int) -> None:
        """Take a reply that is not the usual one: in pieces, to be held after, unheard of, or the end instead."""
        if not received:
            del self._replying.attempts[fd]
            self._end(attempt, Outcome.EOF)
            return
        attempt.replied = attempt.replied or now
        attempt.received += received
        reply = judge(self._exchange, attempt.received, attempt.number, self._expect)
        if reply is Reply.INCOMPLETE:
            return
        del self._replying.attempts[fd]
        if reply is Reply.ERROR:
            self._end(attempt, Outcome.ERROR)
        elif self._holds:
            attempt.write(self._buffer)
            attempt.since = now
            self._holding.enter(fd, attempt)
        else:
            if self._exchange in _ALIKE:
                self._usual_reply = attempt.received
            self._end(attempt, Outcome.OK)

    def _fail_reading(self, fd: int, attempt: Attempt, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            del self._replying.attempts[fd]
            self._fail(attempt, error.errno or 0)

    def _read_held(self, fd: int, attempt: Attempt) -> None:
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
        del self._holding.attempts[fd]
        attempt.flags |= AttemptFlag.CUT
        self._end(attempt, self._as_planned, gone=gone)

    def _fail(self, attempt: Attempt, error: int) -> None:
        """End an attempt by the errno of one of its socket calls."""
        meaning = CLIENT_ERRNO.get(error)
        outcome = Outcome.LOCAL if meaning is None else meaning.outcome
        if attempt.connected and outcome is Outcome.CONNECT_TIMEOUT:
            outcome = Outcome.REPLY_TIMEOUT
        if outcome is Outcome.LOCAL and not attempt.connected:
            attempt.write_never_started(self._buffer)
        attempt.errno = error
        self._end(attempt, outcome, gone=True)

    def _end(self, attempt: Attempt, outcome: Outcome, *, gone: bool = False) -> None:
        """Close the socket as the client closes, and complete the record; `gone`: close() has nothing left to say."""
        if self._resets and attempt.connected and not gone:
            attempt.sock.setsockopt(_SOCKET, _LINGER, _LINGER_RESET)
            attempt.flags |= AttemptFlag.RESET_BY_CLIENT
        now = monotonic_ns()
        attempt.write(self._buffer, ended=now, outcome=outcome)
        attempt.sock.close()
        self.tally[outcome] += 1
        self._demand.give_back(now, pause=outcome is Outcome.LOCAL or outcome is Outcome.REFUSED)


def _usual_request(spec: LoadSpec) -> bytes | None:
    """Return what every client says, None where each says its own number; half of one are zeros."""
    if spec.exchange is Exchange.ECHO and spec.request == "whole":
        return None
    return partial(request(spec.exchange, 0, spec.path, send=spec.send or ""), spec.request)


def _tcp_info(sock: _socket.socket) -> tuple[int, int]:
    """Return the state of a socket and its SYN retransmits so far, at most 255."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE_AND_TOTAL_RETRANS.size)
    state, retransmits = _STATE_AND_TOTAL_RETRANS.unpack(info)
    return state, min(retransmits, 255)


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
