"""The open connections of a driver: their stages, their requests, and their ends.

Owns every socket from connect() to close(), and the record of its attempt. Must not know the schedule, nor trio.

Ordinary connections are handled in batches, the hot path: `connect`, `handle` and `_close` are loops over local names.
All others (a slow connect, a reply in pieces, any failure) go through an `Attempt` and `_end`.
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

#: An attempt before connect(): number, intended start, index of its source, offset of its record, socket.
Opened = tuple[int, int, int, int, "_socket.socket"]
#: An attempt that ends as planned: socket, offset of its record, time of its reply, source, port.
_Done = tuple["_socket.socket", int, int, int, int]

#: The most connections of one stage that expire before other work is done: thousands may expire at once.
_BATCH = 64
_RECEIVE_BYTES = 4096
#: Exchanges in which all clients usually get the same reply.
_ALIKE = frozenset({Exchange.HTTP, Exchange.RAW})
_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT = 1, 2, 8  # tcpi_state
_CONNECTED = frozenset({_ESTABLISHED, _CLOSE_WAIT})  # a server on another core may have closed already
_NO_ERROR_YET = frozenset(
    {0, errno.EINPROGRESS, errno.EAGAIN}
)  # of connect(), and of send() before connect() is complete
_STATE_AND_TOTAL_RETRANS = struct.Struct("=B99xI")  # the first 104 bytes of struct tcp_info
_LINGER_RESET = struct.pack("=ii", 1, 0)  # close() sends RST
# Plain integers, because an enum as argument costs 0.1 us more.
_SOCKET, _LINGER = int(socket.SOL_SOCKET), int(socket.SO_LINGER)
_READABLE, _WRITABLE = int(select.EPOLLIN), int(select.EPOLLOUT)


class Connections:
    """The connections of one driver. `tally` counts ended attempts by outcome, `connected` counts connections."""

    def __init__(self, spec: LoadSpec, journal: Journal, schedule: Schedule, epoll: select.epoll) -> None:
        self._exchange = spec.exchange
        self._peer = (spec.address, spec.port)
        self._buffer = journal.buffer
        self._schedule = schedule
        self._epoll = epoll
        self._resets = spec.close == "rst"
        self._holds = spec.hold_s > 0
        self._expects_reply = spec.exchange is not Exchange.NONE and spec.request == "whole"
        self._expect = spec.expect
        self._request = _usual_request(spec)
        self._as_planned = Outcome.OK if self._expects_reply else Outcome.CONNECTED
        self._usual_reply = HELLO if spec.exchange is Exchange.HELLO and not self._holds else None
        self._connecting = Phase(_ns(spec.connect_timeout_s))
        self._replying = Phase(_ns(spec.reply_timeout_s))
        self._holding = Phase(_ns(spec.hold_s))
        self._first_wait = self._replying if self._expects_reply else self._holding  # after connect()
        self._stages = (self._connecting, self._replying, self._holding)
        self.connected = 0
        self.lag_max = 0  # the largest delay of a start behind its intended one, in ns
        self.tally = [0] * len(Outcome)

    def __len__(self) -> int:
        return len(self._connecting.attempts) + len(self._replying.attempts) + len(self._holding.attempts)

    def __iter__(self) -> Iterator[Attempt]:
        for phase in self._stages:
            yield from phase.attempts.values()

    def next_check(self) -> int:
        """Return when `expire` may next find an expired attempt, NEVER if no attempt waits."""
        return min(self._connecting.check_at, self._replying.check_at, self._holding.check_at)

    def connect(self, opened: Iterable[Opened]) -> None:
        """Connect a batch and send its requests; attempts with nothing to wait for end here.

        On loopback the handshake ends inside connect(), so `t1` right after it is the time of the connection to within
        a few microseconds. The first send(), which may be empty, shows whether it did: EAGAIN means not yet. TCP_INFO
        would say the same, but costs one more system call for clients with a request. The record is written right
        after that; a driver that is killed earlier leaves none.
        """
        pack_into, buffer, clock, peer = ATTEMPT.struct.pack_into, self._buffer, monotonic_ns, self._peer
        exchange, usual, waits = self._exchange, self._request, self._expects_reply or self._holds
        lag_max = self.lag_max
        begun: list[Attempt] = []
        done: list[_Done] = []
        for number, intended, source, at, sock in opened:
            started = clock()
            error = sock.connect_ex(peer)
            now = connected = clock()
            try:
                sock.send(request(exchange, number) if usual is None else usual)
            except OSError as failure:
                connected = 0
                if error in _NO_ERROR_YET:  # otherwise send() only reports EPIPE
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
        """Move a connected batch to its first stage; an attempt that epoll refuses ends."""
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
        """Handle a batch of epoll events; return the descriptors that are not connections."""
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
        """End the expired attempts, at most a batch of each stage."""
        for attempt in self._connecting.leave_expired(now, _BATCH):
            self._give_up_connecting(attempt)
        for attempt in self._replying.leave_expired(now, _BATCH):
            self._end(attempt, Outcome.REPLY_TIMEOUT)
        for attempt in self._holding.leave_expired(now, _BATCH):
            self._end(attempt, self._as_planned)

    def book_pending(self) -> None:
        """Record every open attempt as pending, with the kernel's state of connects in progress."""
        for attempt in self._connecting.attempts.values():
            state, attempt.syn_retransmits = _tcp_info(attempt.sock)
            if state in _CONNECTED:
                self._note_connected(attempt)
        for attempt in self:
            attempt.flags |= AttemptFlag.PENDING
            attempt.write(self._buffer)

    def release(self, share: float) -> int:
        """End this fraction of the open connections early, evenly from the oldest to the newest; return their number.

        Held connections end as planned; connections that still wait for a connect or a reply end unfinished.
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
            phase.recheck()
        return len(chosen)

    def reset(self) -> int:
        """Close everything by RST without changing the records; return the number of connections."""
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
        self._schedule.give_back(*times)

    def _begin_slowly(self, attempt: Attempt, error: int) -> None:
        """Wait for a connect() in progress, or end the attempt of a failed one."""
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
        """Send the request of a client that connected late, and move it to its first stage."""
        data = request(self._exchange, attempt.number) if self._request is None else self._request
        fd = attempt.sock.fileno()
        try:
            if data:
                attempt.sock.send(data)
            self._epoll.modify(fd, _READABLE)
        except OSError as error:
            self._fail(attempt, error.errno or 0)
        else:
            self._first_wait.enter(fd, attempt)

    def _handle_rare(self, fd: int) -> bool:
        """Handle the event of a descriptor that does not wait for a reply; return False if it is not a connection."""
        if (attempt := self._connecting.attempts.pop(fd, None)) is not None:
            self._finish_connecting(attempt)
        elif (attempt := self._holding.attempts.get(fd)) is not None:
            self._read_held(fd, attempt)
        else:
            return False
        return True

    def _finish_connecting(self, attempt: Attempt) -> None:
        """Read the result of a slow connect()."""
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
        """End an attempt after its connect time-out, unless it has just connected."""
        state, attempt.syn_retransmits = _tcp_info(attempt.sock)
        if state == _SYN_SENT:
            self._end(attempt, Outcome.CONNECT_TIMEOUT)
        else:
            self._finish_connecting(attempt)

    def _read_reply(self, fd: int, attempt: Attempt, received: bytes, now: int) -> None:
        """Handle an unusual reply: in pieces, before a hold, of new content, or an end of stream instead."""
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
        """Notice that the server has ended a held connection."""
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
        """End an attempt after the errno of one of its socket calls."""
        meaning = CLIENT_ERRNO.get(error)
        outcome = Outcome.LOCAL if meaning is None else meaning.outcome
        if attempt.connected and outcome is Outcome.CONNECT_TIMEOUT:
            outcome = Outcome.REPLY_TIMEOUT
        if outcome is Outcome.LOCAL and not attempt.connected:
            attempt.write_never_started(self._buffer)
        attempt.errno = error
        self._end(attempt, outcome, gone=True)

    def _end(self, attempt: Attempt, outcome: Outcome, *, gone: bool = False) -> None:
        """Close the socket as the scenario wants and complete the record; `gone`: the connection no longer exists."""
        if self._resets and attempt.connected and not gone:
            attempt.sock.setsockopt(_SOCKET, _LINGER, _LINGER_RESET)
            attempt.flags |= AttemptFlag.RESET_BY_CLIENT
        now = monotonic_ns()
        attempt.write(self._buffer, ended=now, outcome=outcome)
        attempt.sock.close()
        self.tally[outcome] += 1
        self._schedule.give_back(now, pause=outcome is Outcome.LOCAL or outcome is Outcome.REFUSED)


def _usual_request(spec: LoadSpec) -> bytes | None:
    """Return the request of every client, None if each sends its own number; half of a number is zeros."""
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
