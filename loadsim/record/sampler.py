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
    from loadsim.kernel.fdtable import Kinds
    from loadsim.kernel.limits import Limits
    from loadsim.kernel.sockdiag import ListenerState
    from loadsim.record.journal import Journal

#: Samples a second. A queue can fill and empty between two of them: its exact peak comes from the journals.
RATE_HZ = 100
#: Every n-th sample also reads the namespace's counters and the kinds of descriptors.
FULL_EVERY = 10
#: Kinds are read only while the table is this small: each descriptor costs 4.3 us (Linux 6.18).
KINDS_UP_TO = 1_000
#: And so rarely that they take at most this share of the time: to walk past 20,000 sockets in TIME_WAIT takes 2-5 ms.
KINDS_SHARE = 0.01

#: Without a sample for longer than this, somebody has stopped us, or the host had no time for us.
GAP_S = 1.0

_NOT_READ = -1
#: The fields of a sample that are counters of the namespace, in the order of the record.
_COUNTERS = (
    "listen_overflows",
    "listen_drops",
    "cookies",
    "request_drops",
    "embryonic_resets",
    "syn_retransmits",
)
_COUNTED = attrgetter(*_COUNTERS)


class Read(Protocol):
    """What is read of a process, or of several as if they were one; see `kernel.procfs.Process`."""

    def open_fds(self) -> int:
        """Return how many descriptors are open."""

    def limits(self) -> Limits:
        """Return RLIMIT_NOFILE."""

    def cpu_ns(self) -> int:
        """Return the CPU time used so far."""

    def rss(self) -> int:
        """Return the resident memory in bytes."""

    def fd_size(self) -> int:
        """Return the slots of the fd table."""


class Classified(Protocol):
    """Its descriptors by kind; see `kernel.fdtable.FdTable`."""

    def kinds(self) -> Kinds:
        """Count them by kind."""

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
        self._kinds_due = 0  # when the kinds may be read again
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
        """Take one sample now, with counters and kinds if `full`; False when the target is gone."""
        begun = time.monotonic_ns()
        try:
            quick = self._quick()
            slow = self._slow(quick[0]) if full else (_NOT_READ,) * 10
        except ProcessGoneError:
            return False
        except OSError as error:  # a want of ours is no end of the run
            self._refused[error.errno or 0] = self._refused.get(error.errno or 0, 0) + 1
            return True
        if self._last_ns:
            self._gap_ns = max(self._gap_ns, begun - self._last_ns)
        self._last_ns = begun
        self._journal.append(begun, *quick, *slow, time.monotonic_ns() - begun)
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
            return (_NOT_READ, _NOT_READ, *queue, _NOT_READ, _NOT_READ)
        return (process.open_fds(), process.limits().soft, *queue, process.cpu_ns(), process.rss())

    def _slow(self, open_fds: int) -> tuple[int, ...]:
        counters, process = self._sources.counters, self._sources.process
        counted = (_NOT_READ,) * len(_COUNTERS) if counters is None else _COUNTED(counters.read())
        return (*counted, _NOT_READ if process is None else process.fd_size(), *self._kinds(open_fds))

    def _kinds(self, open_fds: int) -> tuple[int, int, int]:
        begun = time.monotonic_ns()
        table = self._sources.table
        if table is None or open_fds > KINDS_UP_TO or begun < self._kinds_due:
            return (_NOT_READ,) * 3
        kinds = table.kinds()
        ended = time.monotonic_ns()
        self._kinds_due = ended + round((ended - begun) / KINDS_SHARE)
        return kinds.established, kinds.close_wait, kinds.other
