"""The loop of the simulated server: one epoll descriptor in one trio task, and what to do when accept() fails.

Decides when accept() is called: its delays, its pauses, the policies of `policy`. `intake` takes connections,
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

#: Accepts, or failures in a spin, before open connections are looked at again.
_BATCH: Final = 128
#: Operations after which trio's other tasks (the control channel) get their turn.
_TURN: Final = 512
_EVENTS: Final = 512
#: When nothing happens, trio's other tasks get their turn after this time (a signal does not wake epoll up).
_PATIENCE_S: Final = 0.1
_NEVER: Final = math.inf


class Acceptor:
    """Has connections accepted and served, in one task, until it is cancelled.

    Opens a timer, and the reserved descriptor that the policy `shed` needs: create it before the limit is low. The
    loop waits in its own epoll: waiting in trio's doubles the CPU time of a connection that comes alone. So `neighbour`
    is the descriptor that trio's other tasks wait for; when it is readable they get their turn at once.
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
        self._intake = taker
        self._connections = connections
        self._emfile_delay_ns = nanoseconds(settings.emfile_delay_s)
        self._accept_delay_ns = nanoseconds(settings.accept_delay_s)
        self._pause_ns = nanoseconds(settings.pause_s)
        self._pause_every_ns = nanoseconds(settings.pause_every_s)
        self._books = log
        self._epoll = epoll
        self._decide = POLICIES[settings.on_emfile]
        self._batch = 1 if self._accept_delay_ns else _BATCH
        self._pause_at: float = _NEVER
        self._resume_at: float = 0  # the listener is left alone until then
        self._listening = True  # epoll reports the listener
        self._full_at: int | None = None  # open descriptors when `until_close` began to wait
        self._in_a_row = 0  # failures since accept() last succeeded
        #: The policy was to die, and accept() found no descriptor.
        self.dead = False
        self._reserve = _open_reserve() if settings.on_emfile == "shed" else -1
        self._timer = Timer()
        self._armed: float = _NEVER  # what the timer is set to
        self._neighbour = neighbour
        for fd in (self._timer.fd, taker.fd, neighbour):
            epoll.register(fd, select.EPOLLIN)

    async def run(self, start_ns: int) -> None:
        """Serve until cancelled; returns only when the policy is to die."""
        self._set_pause(start_ns)
        done = 0
        while not self.dead:
            now = monotonic_ns()
            if now >= self._pause_at:
                self._arm(now + self._pause_ns)
                await trio.lowlevel.wait_readable(self._timer.fd)  # not epoll: nothing is accepted, nobody is served
                self._set_pause(start_ns)
                continue
            self._come_due(now)
            events = self._epoll.poll(_PATIENCE_S, _EVENTS)
            done = done + self._handle(events) if events else _TURN
            if done >= _TURN:
                done = 0
                await trio.lowlevel.checkpoint()

    def listen(self, backlog: int) -> None:
        """Set another backlog, while it serves."""
        self._intake.listen(backlog)

    def drain(self) -> int:
        """Give everything back, take what is left in the queue, and return how many these were.

        For after the run was judged: what was accepted before keeps its books as they are.
        """
        self._connections.give_back()
        drained, error = 0, 0
        while not error:
            calls, error = self._intake.take(_BATCH, self._take_late, AcceptFlag.AFTER_END)
            drained += calls - 1 if error else calls
        return drained

    def close(self) -> None:
        """Close the listener and everything that was accepted."""
        self._connections.give_back()
        self._intake.close()
        self._timer.close()
        if self._reserve >= 0:
            os.close(self._reserve)

    # waiting

    def _set_pause(self, start_ns: int) -> None:
        if self._pause_ns:
            every = self._pause_every_ns
            self._pause_at = next_pause(now_ns=monotonic_ns(), start_ns=start_ns, every_ns=every)

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
        """Do what is due by now, and have the timer tell epoll when the next thing is."""
        next_close = self._connections.next_close_ns
        if next_close <= now:
            self._connections.close_due(now)
            next_close = self._connections.next_close_ns
        if not self._listening and (self._resume_at <= now or self._freed()):
            self._full_at = None
            self._listening = True
            self._epoll.modify(self._intake.fd, select.EPOLLIN)
        self._arm(min(self._pause_at, next_close, _NEVER if self._listening else self._resume_at))

    def _freed(self) -> bool:
        """Whether `until_close` has seen a descriptor closed."""
        return self._full_at is not None and self._books.open_fds < self._full_at

    def _leave_alone(self, until: float) -> None:
        self._resume_at = until
        self._listening = False
        self._epoll.modify(self._intake.fd, 0)

    # accepting

    def _handle(self, events: list[tuple[int, int]]) -> int:
        """Serve what epoll reported, then accept; return about how many operations that were, or `_TURN`."""
        acceptable = False
        for fd, _ in events:
            if fd == self._intake.fd:
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
        """Accept while there is something to accept; return about how many operations that were."""
        calls, error = self._intake.take(self._batch, self._connections.admit)
        if calls > 1 or not error:
            self._in_a_row = 0
        if error in NO_DESCRIPTOR:
            return calls + self._fail(error)
        if self._accept_delay_ns and not error:
            self._leave_alone(monotonic_ns() + self._accept_delay_ns)
        return calls  # EAGAIN, or an error of one connection (accept(2), "Error handling"): epoll tells of the next

    # running out of descriptors

    def _fail(self, number: int) -> int:
        """Deal with an accept() that found no descriptor; return how many more calls that took."""
        now = monotonic_ns()
        idle = not self._intake.queue_length()
        self._books.fail(number, Where.ACCEPT, idle=idle, first=now, last=now)
        if idle:  # EMFILE comes before EAGAIN: nobody waits, and epoll will tell when somebody does
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
            self._full_at = self._books.open_fds
            self._leave_alone(_NEVER)
        else:
            self._leave_alone(decision.until_ns)
        return 1

    def _spin(self) -> int:
        """Call accept() again and again, only counting; open connections get their turn after each batch."""
        if self._accept_delay_ns:
            self._leave_alone(monotonic_ns() + self._accept_delay_ns)
            return 1
        accept, failed, first, taken = self._intake.accept, 0, monotonic_ns(), None
        while failed < _BATCH and taken is None:
            try:
                taken = accept()
            except OSError:
                failed += 1
        if failed:
            last = monotonic_ns()
            self._books.fail(errno.EMFILE, Where.ACCEPT, idle=False, first=first, last=last, count=failed)
        if taken is not None:  # somebody raised the limit
            self._intake.take(1, self._connections.admit, taken=taken)
        return failed + 1

    def _shed(self) -> int:
        """Turn away everybody who waits, with the reserved descriptor given up meanwhile (libuv, Twisted)."""
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
            self._books.open_fds -= 1
        calls, _ = self._intake.take(_BATCH, self._turn_away, AcceptFlag.SHED)
        try:
            self._reserve = _open_reserve()
            self._books.open_fds += 1
        except OSError:
            pass  # the limit is below it by now; the next time is the next chance
        if calls == 1:  # not even the reserved one was enough: all that is left is to wait
            self._leave_alone(monotonic_ns() + self._emfile_delay_ns)
        return calls

    def _turn_away(self, sock: RawSocket, at: int, *_: int) -> None:
        self._books.shed()
        self._books.close(at, monotonic_ns())
        sock.close()

    def _take_late(self, sock: RawSocket, at: int, *_: int) -> None:
        self._books.close_uncounted(at, monotonic_ns())
        sock.close()


def _open_reserve() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
