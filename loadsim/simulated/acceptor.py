"""The loop of the simulated server: one epoll descriptor in one trio task, and its reaction to a failing accept().

Decides when accept() is called: delays, pauses, and the policies of `policy`. `accepting` accepts connections,
`connections` serves them. Must not know the control channel, nor print.
"""

from __future__ import annotations

import errno
import math
import os
import select
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import trio

from loadsim.kernel.timing import Timer
from loadsim.record.accept_log import NO_DESCRIPTOR
from loadsim.record.records import AcceptFlag, Where
from loadsim.simulated.policy import POLICIES, Action, Decision, Exhausted, next_pause
from loadsim.units import nanoseconds

if TYPE_CHECKING:
    from loadsim.record.accept_log import AcceptLog
    from loadsim.scenario.specs import ServerSettings
    from loadsim.simulated.accepting import ConnectionTaker, RawSocket
    from loadsim.simulated.connections import Connections

#: The most accepts, or failures in a spin, before open connections are served again.
_BATCH: Final = 128
#: The number of operations after which trio's other tasks (the control channel) run.
_TURN: Final = 512
_EVENTS: Final = 512
#: Without events, trio's other tasks run after this time (a signal does not wake epoll).
_PATIENCE_S: Final = 0.1
_NEVER: Final = math.inf


class Acceptor:
    """Accepts and serves connections in one task until it is cancelled.

    Opens a timer, and the reserved descriptor of the policy `shed`: create it before the limit is lowered. The loop
    waits in its own epoll, because a wait in trio's doubles the CPU time of a single connection. `neighbour` is
    therefore the descriptor that trio's other tasks wait for; when it is readable, they run at once.
    """

    def __init__(
        self,
        taker: ConnectionTaker,
        connections: Connections,
        settings: ServerSettings,
        *,
        log: AcceptLog,
        epoll: select.epoll,
        neighbour: int,
    ) -> None:
        self._taker = taker
        self._connections = connections
        self._emfile_delay_ns = nanoseconds(settings.emfile_delay_s)
        self._accept_delay_ns = nanoseconds(settings.accept_delay_s)
        self._pause_ns = nanoseconds(settings.pause_s)
        self._pause_every_ns = nanoseconds(settings.pause_every_s)
        self._log = log
        self._epoll = epoll
        self._decide = POLICIES[settings.on_emfile]
        self._batch = 1 if self._accept_delay_ns else _BATCH
        self._pause_at: float = _NEVER
        self._resume_at: float = 0  # the listener is not polled until then
        self._listening = True  # epoll reports the listener
        self._full_at: int | None = None  # open descriptors when `until_close` began to wait
        self._in_a_row = 0  # failures since accept() last succeeded
        #: The policy is `exit`, and accept() found no descriptor.
        self.dead = False
        self._reserve = _open_reserve() if settings.on_emfile == "shed" else -1
        self._timer = Timer()
        self._armed: float = _NEVER  # the time to which the timer is set
        self._neighbour = neighbour
        for fd in (self._timer.fd, taker.fd, neighbour):
            epoll.register(fd, select.EPOLLIN)

    async def run(self, start_ns: int) -> None:
        """Serve until cancelled; returns only if the policy `exit` ends the server."""
        self._set_pause(start_ns)
        done = 0
        while not self.dead:
            now = monotonic_ns()
            if now >= self._pause_at:
                self._arm(now + self._pause_ns)
                await trio.lowlevel.wait_readable(self._timer.fd)  # not epoll: no connection is accepted or served
                self._set_pause(start_ns)
                continue
            self._come_due(now)
            events = self._epoll.poll(_PATIENCE_S, _EVENTS)
            done = done + self._handle(events) if events else _TURN
            if done >= _TURN:
                done = 0
                await trio.lowlevel.checkpoint()

    def listen(self, backlog: int) -> None:
        """Change the backlog while it serves."""
        self._taker.listen(backlog)

    def drain(self) -> int:
        """Close everything, then accept the queued connections and return their number.

        Called after the run was judged: records of earlier connections do not change.
        """
        self._connections.give_back()
        drained, error = 0, 0
        while not error:
            calls, error = self._taker.take(_BATCH, self._take_late, AcceptFlag.AFTER_END)
            drained += calls - 1 if error else calls
        return drained

    def close(self) -> None:
        """Close the listener and every accepted connection."""
        self._connections.give_back()
        self._taker.close()
        self._timer.close()
        if self._reserve >= 0:
            os.close(self._reserve)

    # waiting

    def _set_pause(self, start_ns: int) -> None:
        if self._pause_ns:
            every = self._pause_every_ns
            self._pause_at = next_pause(now_ns=monotonic_ns(), start_ns=start_ns, every_ns=every)

    def _arm(self, due: float) -> None:
        """Set the timer, unless it is already set to that time."""
        if due == self._armed:
            return
        self._armed = due
        if due == _NEVER:
            self._timer.clear()
        else:
            self._timer.set_at(int(due))

    def _come_due(self, now: int) -> None:
        """Do everything that is due, and set the timer for the next time."""
        next_close = self._connections.next_close_ns
        if next_close <= now:
            self._connections.close_due(now)
            next_close = self._connections.next_close_ns
        if not self._listening and (self._resume_at <= now or self._freed()):
            self._full_at = None
            self._listening = True
            self._epoll.modify(self._taker.fd, select.EPOLLIN)
        self._arm(min(self._pause_at, next_close, _NEVER if self._listening else self._resume_at))

    def _freed(self) -> bool:
        """Whether `until_close` has seen a descriptor closed."""
        return self._full_at is not None and self._log.open_fds < self._full_at

    def _ignore_listener(self, until: float) -> None:
        self._resume_at = until
        self._listening = False
        self._epoll.modify(self._taker.fd, 0)

    # accepting

    def _handle(self, events: list[tuple[int, int]]) -> int:
        """Handle epoll events, then accept; return the approximate number of operations, or `_TURN`."""
        acceptable = False
        for fd, _ in events:
            if fd == self._taker.fd:
                acceptable = True
            elif fd == self._timer.fd:
                self._timer.drain()
                self._armed = _NEVER
            elif fd == self._neighbour:
                return _TURN
            else:
                self._connections.on_readable(fd)
        return len(events) + (self._accept_some() if acceptable else 0)

    def _accept_some(self) -> int:
        """Accept a batch of connections; return the approximate number of operations."""
        calls, error = self._taker.take(self._batch, self._connections.admit)
        if calls > 1 or not error:
            self._in_a_row = 0
        if error in NO_DESCRIPTOR:
            return calls + self._fail(error)
        if self._accept_delay_ns and not error:
            self._ignore_listener(monotonic_ns() + self._accept_delay_ns)
        return calls  # EAGAIN, or an error of one connection (accept(2), "Error handling"): epoll reports the next

    # running out of descriptors

    def _fail(self, number: int) -> int:
        """Handle an accept() that found no descriptor; return the number of further calls."""
        now = monotonic_ns()
        idle = not self._taker.queue_length()
        self._log.fail(number, Where.ACCEPT, idle=idle, first=now, last=now)
        if idle:  # EMFILE comes before EAGAIN: the queue is empty, and epoll will report the next client
            return 1
        self._in_a_row += 1
        delay = self._emfile_delay_ns
        return self._carry_out(self._decide(Exhausted(now_ns=now, delay_ns=delay, in_a_row=self._in_a_row)))

    def _carry_out(self, decision: Decision) -> int:
        if decision.action is Action.RETRY:
            return self._spin()
        if decision.action is Action.SHED:
            return self._shed()
        if decision.action is Action.EXIT:
            self.dead = True
        elif decision.until_ns is None:
            self._full_at = self._log.open_fds
            self._ignore_listener(_NEVER)
        else:
            self._ignore_listener(decision.until_ns)
        return 1

    def _spin(self) -> int:
        """Call accept() repeatedly and only count; open connections are served after each batch."""
        if self._accept_delay_ns:
            self._ignore_listener(monotonic_ns() + self._accept_delay_ns)
            return 1
        accept, failed, first, taken = self._taker.accept, 0, monotonic_ns(), None
        while failed < _BATCH and taken is None:
            try:
                taken = accept()
            except OSError:
                failed += 1
        if failed:
            last = monotonic_ns()
            self._log.fail(errno.EMFILE, Where.ACCEPT, idle=False, first=first, last=last, count=failed)
        if taken is not None:  # the limit was raised
            self._taker.take(1, self._connections.admit, taken=taken)
        return failed + 1

    def _shed(self) -> int:
        """Close the reserved descriptor, accept and close every waiting client, then reopen it (libuv, Twisted)."""
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
            self._log.open_fds -= 1
        calls, _ = self._taker.take(_BATCH, self._turn_away, AcceptFlag.SHED)
        try:
            self._reserve = _open_reserve()
            self._log.open_fds += 1
        except OSError:
            pass  # the limit was lowered below it; try again next time
        if calls == 1:  # even the reserved descriptor was not enough: wait
            self._ignore_listener(monotonic_ns() + self._emfile_delay_ns)
        return calls

    def _turn_away(self, sock: RawSocket, at: int, *_: int) -> None:
        self._log.shed()
        self._log.close(at, monotonic_ns())
        sock.close()

    def _take_late(self, sock: RawSocket, at: int, *_: int) -> None:
        self._log.close_uncounted(at, monotonic_ns())
        sock.close()


def _open_reserve() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
