"""The loop of the simulated server: one epoll descriptor in one trio task, accept until EAGAIN.

Owns the listener's side: when accept() is called, what it costs, what happens when it fails. `Connections` owns what
was accepted, `policy` decides. Must not know the control channel, nor print.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import struct
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import trio

from loadsim.kernel.timerfd import Timer
from loadsim.record.events import ACCEPT, AcceptFlag, Where
from loadsim.target.books import NO_DESCRIPTOR
from loadsim.target.policy import POLICIES, Action, Decision, Exhausted, Leak, next_pause

if TYPE_CHECKING:
    from loadsim.target.books import Books
    from loadsim.target.connections import Connections

RawSocket = socket.SocketType

#: Accepts, or failures in a spin, before open connections are looked at again.
_BATCH: Final = 128
#: Operations after which trio's other tasks (the control channel) get their turn.
_TURN: Final = 512
_EVENTS: Final = 512
_NEVER: Final = math.inf
_SHED: Final = int(AcceptFlag.SHED)
_LEAKED: Final = int(AcceptFlag.LEAKED)
_AFTER_END: Final = int(AcceptFlag.AFTER_END)
_ESTABLISHED: Final = 1

# struct tcp_info (linux/tcp.h): tcpi_state, tcpi_last_data_sent, tcpi_total_retrans, tcpi_bytes_received (Linux 4.1)
_INFO = struct.Struct("=B43xI52xI24xQ")
# of a listener: tcpi_unacked is the length of its accept queue, tcpi_sacked the effective backlog
_LISTENER_INFO = struct.Struct("=24xII")
_ADDRESSES_KEPT: Final = 65_536
_PACK: Final = ACCEPT.struct.pack_into


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the server accepts."""

    policy: str  # a key of POLICIES
    emfile_delay_ns: int
    accept_delay_ns: int
    pause_ns: int
    pause_every_ns: int
    leak: Leak | None  # which connections are never closed


class Acceptor:
    """Accepts connections from one listener and hands them to `connections` until it is cancelled.

    Opens the reserved descriptor that the policy `shed` needs; owns the listener. Create it before the limit is low.
    """

    def __init__(
        self, listener: RawSocket, manner: Manner, *, books: Books, connections: Connections, epoll: select.epoll
    ) -> None:
        self._listener = listener
        self._fd = listener.fileno()
        self._family = listener.family
        self._accept = listener._accept  # type: ignore[attr-defined] # noqa: SLF001 - C: (fd, address), no Python socket
        self._manner = manner
        self._books = books
        self._connections = connections
        self._epoll = epoll
        self._decide = POLICIES[manner.policy]
        self._pause_at: float = _NEVER
        self._resume_at: float = 0  # the listener is left alone until then
        self._listening = True  # epoll reports the listener
        self._full_at: int | None = None  # open descriptors when `until_close` began to wait
        self._in_a_row = 0  # failures since accept() last succeeded
        self._admitted = 0  # connections that a leak may take: all but those turned away
        #: The policy was to die, and accept() found no descriptor.
        self.dead = False
        self._reserve = _open_reserve() if manner.policy == "shed" else -1
        self._peers: dict[str, bytes] = {}
        self._timer = Timer()
        self._armed: float = _NEVER  # what the timer is set to
        epoll.register(self._timer.fd, select.EPOLLIN)
        epoll.register(self._fd, select.EPOLLIN)

    async def run(self, start_ns: int) -> None:
        """Serve until cancelled; returns only when the policy is to die."""
        self._set_pause(start_ns)
        done = 0
        while not self.dead:
            now = monotonic_ns()
            if now >= self._pause_at:
                self._arm(now + self._manner.pause_ns)
                await trio.lowlevel.wait_readable(self._timer.fd)  # not epoll: nothing is accepted, nobody is served
                self._set_pause(start_ns)
                continue
            self._come_due(now)
            events = self._epoll.poll(0, _EVENTS)
            if not events:
                await self._wait_event()
                continue
            done += self._handle(events)
            if done >= _TURN:
                done = 0
                await trio.lowlevel.checkpoint()

    def drain(self) -> int:
        """Give everything back, take what is left in the queue, and return how many these were.

        For after the run was judged: what was accepted keeps its books as they are.
        """
        self._connections.give_back()
        drained = 0
        while (taken := self._take()) is not None:
            now = monotonic_ns()
            sock = RawSocket(self._family, socket.SOCK_STREAM, 0, taken[0])
            at, _ = self._record(sock, now, taken[1], _AFTER_END)
            self._books.turn_away(at, monotonic_ns(), "after_end")
            sock.close()
            drained += 1
        return drained

    def close(self) -> None:
        """Close the listener and everything that was accepted."""
        self._connections.give_back()
        self._listener.close()
        self._timer.close()
        if self._reserve >= 0:
            os.close(self._reserve)

    # waiting

    def _set_pause(self, start_ns: int) -> None:
        if self._manner.pause_ns:
            every = self._manner.pause_every_ns
            self._pause_at = next_pause(now_ns=monotonic_ns(), start_ns=start_ns, every_ns=every)

    async def _wait_event(self) -> None:
        """Wait for epoll, which also tells when the next thing comes due."""
        resume_at = _NEVER if self._listening else self._resume_at
        self._arm(min(self._pause_at, resume_at, self._connections.next_close_ns or _NEVER))
        await trio.lowlevel.wait_readable(self._epoll.fileno())

    def _arm(self, due: float) -> None:
        """Set the timer, if it is not set to that time already."""
        if due == self._armed:
            return
        self._armed = due
        if due == _NEVER:
            self._timer.clear()
        else:
            self._timer.set_at(int(due))

    def _come_due(self, now: int) -> None:
        """Close what was served long enough ago, and look at the listener again when its time has come."""
        next_close = self._connections.next_close_ns
        if next_close is not None and next_close <= now:
            self._connections.close_due(now)
        if self._listening:
            return
        freed = self._full_at is not None and self._books.open_fds < self._full_at
        if freed or self._resume_at <= now:
            self._full_at = None
            self._listening = True
            self._epoll.modify(self._fd, select.EPOLLIN)

    def _leave_alone(self, until: float) -> None:
        self._resume_at = until
        self._listening = False
        self._epoll.modify(self._fd, 0)

    # accepting

    def _handle(self, events: list[tuple[int, int]]) -> int:
        """Serve what epoll reported, then accept; return about how many operations that were."""
        acceptable = False
        for fd, _ in events:
            if fd == self._fd:
                acceptable = True
            elif fd == self._timer.fd:
                self._timer.drain()
                self._armed = _NEVER
            else:
                self._connections.on_readable(fd)
        return len(events) + (self._accept_some() if acceptable else 0)

    def _accept_some(self) -> int:
        """Accept until EAGAIN, a failure, or the end of the batch; return the number of calls: the hot loop."""
        accept, admit, delay = self._accept, self._admit, self._manner.accept_delay_ns
        for number in range(1, _BATCH + 1):
            try:
                fd, address = accept()
            except BlockingIOError:
                return number
            except OSError as error:
                return number + self._fail(error.errno or 0)
            now = monotonic_ns()
            admit(fd, address, now)
            if delay:
                self._leave_alone(now + delay)
                return number
        return _BATCH

    def _admit(self, fd: int, address: tuple[str, int], now: int) -> None:
        """Record an accepted connection and hand it over."""
        sock = RawSocket(self._family, socket.SOCK_STREAM, 0, fd)
        self._in_a_row = 0
        self._admitted += 1
        leak = self._manner.leak
        leaked = leak is not None and leak.takes(self._admitted)
        self._books.admit(leaked=leaked)
        at, readable = self._record(sock, now, address, _LEAKED if leaked else 0)
        self._connections.admit(sock, at, leaked=leaked, readable=readable)

    def _record(self, sock: RawSocket, now: int, address: tuple[str, int], flags: int) -> tuple[int, bool]:
        """Write an accept's record; return its offset, and whether bytes or an end of stream have arrived.

        The one TCP_INFO call comes before anything is sent: tcpi_last_data_sent is then the age of the socket.
        """
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        state, age, retransmits, received = _INFO.unpack(info)
        peer = self._peers.get(address[0]) or self._peer(address[0])
        books = self._books
        books.open_fds += 1
        at = books.accepts.take()
        if at >= 0:
            fd, port, again = sock.fileno(), address[1], min(retransmits, 255)
            _PACK(books.accepts.buffer, at, now, 0, 0, fd, books.open_fds, age, peer, port, state, again, flags)
        return at, received > 0 or state != _ESTABLISHED

    def _peer(self, host: str) -> bytes:
        """Return an address as it stands in a record: IPv6, or IPv4 in the first 4 bytes."""
        if len(self._peers) >= _ADDRESSES_KEPT:
            self._peers.clear()
        plain = host.removeprefix("::ffff:").split("%")[0]
        family = socket.AF_INET if "." in plain else socket.AF_INET6
        return self._peers.setdefault(host, socket.inet_pton(family, plain).ljust(16, b"\0"))

    # running out of descriptors

    def _fail(self, number: int) -> int:
        """Deal with an accept() that failed; return how many more calls that took."""
        if number not in NO_DESCRIPTOR:
            return 0  # an error of the one connection: accept(2), "Error handling"; epoll tells of the next
        now = monotonic_ns()
        idle = listener_state(self._listener)[0] == 0
        self._books.fail(number, Where.ACCEPT, idle=idle, first=now, last=now)
        if idle:  # EMFILE comes before EAGAIN: nobody waits, and epoll will tell when somebody does
            return 1
        self._in_a_row += 1
        delay = self._manner.emfile_delay_ns
        return self._carry_out(self._decide(Exhausted(now_ns=now, delay_ns=delay, in_a_row=self._in_a_row)))

    def _carry_out(self, decision: Decision) -> int:
        if decision.action is Action.RETRY:
            return self._spin()
        if decision.action is Action.SHED:
            return self._shed()
        if decision.action is Action.EXIT:
            self.dead = True
        elif decision.until_ns is None:
            self._full_at = self._books.open_fds
            self._leave_alone(_NEVER)
        else:
            self._leave_alone(decision.until_ns)
        return 1

    def _spin(self) -> int:
        """Call accept() again and again, counting; connections already open get their turn after each batch."""
        if self._manner.accept_delay_ns:
            self._leave_alone(monotonic_ns() + self._manner.accept_delay_ns)
            return 1
        accept, failed, first = self._accept, 0, monotonic_ns()
        try:
            while failed < _BATCH:
                try:
                    fd, address = accept()
                except BlockingIOError:
                    break
                except OSError:
                    failed += 1
                else:
                    self._admit(fd, address, monotonic_ns())
                    break
        finally:
            if failed:
                self._books.fail(errno.EMFILE, Where.ACCEPT, idle=False, first=first, last=monotonic_ns(), count=failed)
        return failed

    def _shed(self) -> int:
        """Turn away everybody who waits, with the reserved descriptor given up meanwhile (libuv, Twisted)."""
        self._give_up_reserve()
        turned_away = 0
        while turned_away < _BATCH and (taken := self._take()) is not None:
            now = monotonic_ns()
            sock = RawSocket(self._family, socket.SOCK_STREAM, 0, taken[0])
            at, _ = self._record(sock, now, taken[1], _SHED)
            self._books.turn_away(at, monotonic_ns(), "shed")
            sock.close()
            turned_away += 1
        self._take_back_reserve()
        if not turned_away:  # the limit is below the reserved descriptor: all that is left is to wait
            self._leave_alone(monotonic_ns() + self._manner.emfile_delay_ns)
        return turned_away

    def _take(self) -> tuple[int, tuple[str, int]] | None:
        """Accept one connection; None when nobody waits or no descriptor is free."""
        try:
            taken: tuple[int, tuple[str, int]] = self._accept()
        except OSError:
            return None
        return taken

    def _give_up_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
            self._books.open_fds -= 1

    def _take_back_reserve(self) -> None:
        try:
            self._reserve = _open_reserve()
        except OSError:
            return
        self._books.open_fds += 1


def listener_state(listener: RawSocket) -> tuple[int, int]:
    """Return a listener's accept queue length and its effective backlog; the queue holds one more than that."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LISTENER_INFO.size)
    length, backlog = _LISTENER_INFO.unpack(info)
    return length, backlog


def _open_reserve() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
