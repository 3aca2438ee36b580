"""What the kernel says about the target, sample by sample, until told to stop.

Owns the rhythm and the record; the readings themselves are `kernel`'s. Runs in the conductor, which stamps no
latency: a late sample carries its own time. Must not know what a reading means.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import trio

from loadsim.kernel.procfs import ProcessGoneError
from loadsim.units import NANOSECONDS, some

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsim.kernel.counters import TcpCounters
    from loadsim.kernel.limits import Limits
    from loadsim.kernel.sockdiag import ListenerState
    from loadsim.record.journal import Journal

#: Samples a second. A queue can fill and empty between two of them: its exact peak comes from the journals.
RATE_HZ = 100
#: Every n-th sample also reads the namespace's counters and the size of the fd table.
FULL_EVERY = 10

#: Without a sample for longer than this, somebody has stopped us, or the host had no time for us.
GAP_S = 1.0

_NOT_READ = -1
#: The fields of a sample that are counters of the namespace, in the order of the record.
_COUNTERS = ("listen_overflows", "listen_drops", "cookies")
_COUNTED = attrgetter(*_COUNTERS)


class Read(Protocol):
    """What is read of a process, or of several as if they were one; see `kernel.procfs.Process`."""

    def open_fds(self) -> int:
        """Return how many descriptors are open."""

    def limits(self) -> Limits:
        """Return RLIMIT_NOFILE."""

    def cpu_ns(self) -> int:
        """Return the CPU time used so far."""

    def run_wait_ns(self) -> int:
        """Return the time for which it was ready to run and waited for a CPU; -1 where that is not seen."""

    def rss(self) -> int:
        """Return the resident memory in bytes."""

    def fd_size(self) -> int:
        """Return the slots of the fd table."""


class Classified(Protocol):
    """Its descriptors by kind; see `kernel.fdtable.FdTable`."""

    def map(self) -> str:
        """Return one letter for each number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a sample is read from; the sampler owns none of it. None: that cannot be seen."""

    process: Read | None
    table: Classified | None
    listener: Callable[[], ListenerState | None]
    counters: TcpCounters | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest readings, for the live view; -1 = not read yet."""

    open_fds: int = _NOT_READ
    fd_limit: int = _NOT_READ
    queue: int = _NOT_READ
    queue_capacity: int = _NOT_READ
    listen_overflows: int = _NOT_READ


class Sampler:
    """Takes samples of one target into one journal."""

    def __init__(self, journal: Journal, sources: Sources) -> None:
        self._journal = journal
        self._sources = sources
        self._taken = 0
        self._overflows = _NOT_READ
        self._stopped = False
        self._last_ns = 0  # when the last sample was taken; 0: there is none yet
        self._gap_ns = 0  # the longest time without one
        self._refused: dict[int, int] = {}  # errno -> samples that were not taken for it
        self.latest = Latest()

    @property
    def notices(self) -> list[str]:
        """What a reader should know of samples that are not there: whole sentences."""
        missed = "peaks of descriptors and of the queue may have been missed"
        sentences = [
            f"{some(count, 'sample')} could not be taken ({os.strerror(number)}): {missed}; give loadsim more room"
            for number, count in self._refused.items()
        ]
        gap_s = self._gap_ns / NANOSECONDS
        if gap_s > GAP_S:
            stood = f"nothing was sampled for {gap_s:.1f} s, because loadsim itself stood still"
            sentences.append(f"{stood}: {missed}; let nothing stop it (SIGSTOP, a suspended host)")
        return sentences

    async def run(self) -> None:
        """Take samples at RATE_HZ until stopped, cancelled, or until the target is gone."""
        due = trio.current_time()
        while not self._stopped and self.take(full=self._taken % FULL_EVERY == 0):
            due = max(due + 1 / RATE_HZ, trio.current_time())
            await trio.sleep_until(due)

    def stop(self) -> None:
        """Take one last full sample: the state in which the fates are judged."""
        self._stopped = True
        self.take(full=True)

    def take(self, *, full: bool) -> bool:
        """Take one sample now, with counters and fd size if `full`; False when the target is gone."""
        begun = time.monotonic_ns()
        try:
            quick = self._quick()
            slow = self._slow() if full else (_NOT_READ,) * (len(_COUNTERS) + 1)
        except ProcessGoneError:
            return False
        except OSError as error:  # a want of ours is no end of the run
            self._refused[error.errno or 0] = self._refused.get(error.errno or 0, 0) + 1
            return True
        if self._last_ns:
            self._gap_ns = max(self._gap_ns, begun - self._last_ns)
        self._last_ns = begun
        self._journal.append(begun, *quick, *slow)
        self._taken += 1
        open_fds, fd_limit, queue, queue_capacity, *_ = quick
        self._overflows = slow[0] if full else self._overflows
        self.latest = Latest(
            open_fds=open_fds,
            fd_limit=fd_limit,
            queue=queue,
            queue_capacity=queue_capacity,
            listen_overflows=self._overflows,
        )
        return True

    def _quick(self) -> tuple[int, ...]:
        process = self._sources.process
        listener = self._sources.listener()
        queue = (listener.queue, listener.queue_capacity, listener.drops) if listener else (_NOT_READ,) * 3
        if process is None:
            return (_NOT_READ, _NOT_READ, *queue, _NOT_READ, _NOT_READ, _NOT_READ)
        return (
            process.open_fds(),
            process.limits().soft,
            *queue,
            process.cpu_ns(),
            process.rss(),
            process.run_wait_ns(),
        )

    def _slow(self) -> tuple[int, ...]:
        counters, process = self._sources.counters, self._sources.process
        counted = (_NOT_READ,) * len(_COUNTERS) if counters is None else _COUNTED(counters.read())
        return (*counted, _NOT_READ if process is None else process.fd_size())
