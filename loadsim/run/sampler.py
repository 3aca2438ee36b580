"""Samples of what the kernel reports about the target, and the live numbers of a run in progress."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import trio

from loadsim.kernel.procfs import ProcessGoneError
from loadsim.render.progress import Progress
from loadsim.units import NANOSECONDS, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.record.journal import Journal
    from loadsim.targets import Sources


#: Samples per second. A queue can fill and empty between two of them; its exact peak comes from the journals.
RATE_HZ = 100
#: Every n-th sample also reads the namespace's counters and the size of the fd table.
FULL_EVERY = 10
#: After a longer time without a sample, loadsim was stopped or the host gave it no CPU.
GAP_S = 1.0

_NOT_READ = -1
#: The fields of a sample that are counters of the namespace, in the order of the record.
_COUNTERS = ("listen_overflows", "listen_drops", "cookies")
_COUNTED = attrgetter(*_COUNTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest readings, for the live view; -1: not read yet."""

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
        self._last_ns = 0  # when the last sample was taken; 0: none yet
        self._gap_ns = 0  # the longest time between two samples
        self._refused: dict[int, int] = {}  # errno -> samples that failed with it
        self.latest = Latest()

    @property
    def notices(self) -> list[str]:
        """Sentences about missing samples, for the reader of the result."""
        missed = "peaks of descriptors and of the queue may have been missed"
        sentences = [
            f"{some(count, 'sample')} could not be taken ({os.strerror(number)}): {missed}; raise its limit"
            for number, count in self._refused.items()
        ]
        gap_s = self._gap_ns / NANOSECONDS
        if gap_s > GAP_S:
            sentences.append(
                f"no sample was taken for {gap_s:.1f} s, because loadsim did not run: {missed}; do not stop it "
                "(SIGSTOP, a suspended host)"
            )
        return sentences

    async def run(self) -> None:
        """Take samples at RATE_HZ until stopped or cancelled, or until the target has ended."""
        due = trio.current_time()
        while not self._stopped and self.take(full=self._taken % FULL_EVERY == 0):
            due = max(due + 1 / RATE_HZ, trio.current_time())
            await trio.sleep_until(due)

    def stop(self) -> None:
        """Take the last full sample: the state in which the fates are judged."""
        self._stopped = True
        self.take(full=True)

    def take(self, *, full: bool) -> bool:
        """Take one sample now, with counters and fd size if `full`; return False if the target has ended."""
        begun = time.monotonic_ns()
        try:
            quick = self._quick()
            slow = self._slow() if full else (_NOT_READ,) * (len(_COUNTERS) + 1)
        except ProcessGoneError:
            return False
        except OSError as error:  # a missing resource of loadsim must not end the run
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


class Sampled(Protocol):
    """The part of a Sampler that the Monitor reads."""

    @property
    def latest(self) -> Latest:
        """The newest readings."""


class Monitor:
    """Reads the counters of a run in progress; owns nothing."""

    def __init__(
        self,
        *,
        attempts: Sequence[Journal],
        accepts: Journal,
        canary: Journal | None = None,
        sampler: Sampled,
        shared: bool,
        emfile_seen: bool = True,
    ) -> None:
        self._attempts = attempts
        self._accepts = accepts
        self._canary = canary
        self._sampler = sampler
        self._shared = shared
        self._emfile_seen = emfile_seen
        self._last = (0.0, 0)  # time and attempts of the last `progress`
        self._most_fds = _NOT_READ
        self._most_queued = _NOT_READ
        self._first_overflows: int | None = None

    def attempts(self, name: str) -> int:
        """Return the sum of a counter over all drivers."""
        return sum(journal.read(name) for journal in self._attempts)

    def accepts(self, name: str) -> int:
        """Return a counter of the server."""
        return self._accepts.read(name)

    def answered(self) -> int:
        """Return the number of canaries that got a good answer."""
        return self._canary.read("ok") if self._canary else 0

    def overflows(self) -> int:
        """Return the listen-queue overflows since the first call."""
        now = self._sampler.latest.listen_overflows
        if now < 0:
            return 0
        if self._first_overflows is None:
            self._first_overflows = now
        return now - self._first_overflows

    def progress(self, elapsed_s: float) -> Progress:
        """Return the state at `elapsed_s` after the first intended start; the rate is that since the last call."""
        latest, started = self._sampler.latest, self.attempts("started")
        (before_s, before), self._last = self._last, (elapsed_s, started)
        return Progress(
            elapsed_s=elapsed_s,
            started=started,
            rate=(started - before) / max(elapsed_s - before_s, 1e-3),
            in_flight=self.attempts("in_flight"),
            ok=self.attempts("ok"),
            failed=self.attempts("failed"),
            accepted=self.accepts("accepted"),
            open_fds=_read(latest.open_fds),
            fd_limit=_read(latest.fd_limit),
            queue=_read(latest.queue),
            queue_capacity=_read(latest.queue_capacity),
            emfile=self.accepts("emfile_accept") + self.accepts("emfile_handler"),
            overflows=self.overflows(),
            lost_by_generator=self.attempts("local") + self.attempts("not_started"),
            shared=self._shared,
        )

    def metrics(self) -> dict[str, float]:
        """Return the metrics of `metrics.LIVE` so far; those that are not visible are absent."""
        latest = self._sampler.latest
        self._most_fds = max(self._most_fds, latest.open_fds)
        self._most_queued = max(self._most_queued, latest.queue)
        accept, handler = self.accepts("emfile_accept"), self.accepts("emfile_handler")
        seen = {"fds.max": self._most_fds, "queue.max": self._most_queued}
        emfile = {"emfile.accept": accept, "emfile.count": accept + handler, "emfile.handler": handler}
        return {
            **(emfile if self._emfile_seen else {}),
            "attempts.count": self.attempts("started"),
            "fate.local": self.attempts("local"),
            "fate.not_started": self.attempts("not_started"),
            "generator.local_failures": self.attempts("local"),
            "listen.overflows": self.overflows(),
            "outcome.ok": self.attempts("ok"),
            **{name: most for name, most in seen.items() if most > _NOT_READ},
        }


def _read(value: int) -> int | None:
    return None if value < 0 else value
