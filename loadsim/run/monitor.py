"""The numbers of a run that is going on: counters from the journals' headers, and the newest sample.

For the live view and for `abort`; what a report shows is computed from the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadsim.report.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.record.journal import Journal
    from loadsim.record.sampler import Latest


_NOT_SEEN = -1


class Sampled(Protocol):
    """Somebody who takes samples."""

    @property
    def latest(self) -> Latest:
        """The newest one."""


class Monitor:
    """Reads the counters of a run; owns nothing."""

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
        self._most_fds = _NOT_SEEN
        self._most_queued = _NOT_SEEN
        self._first_overflows: int | None = None

    def attempts(self, name: str) -> int:
        """Return a counter of the drivers, added up."""
        return sum(journal.read(name) for journal in self._attempts)

    def accepts(self, name: str) -> int:
        """Return a counter of the server."""
        return self._accepts.read(name)

    def answered(self) -> int:
        """Return how many canaries had a good answer."""
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
        """Return this moment, `elapsed_s` after the first intended start; the rate is that since the last call."""
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
        """Return what is known so far under the names of `metrics.LIVE`; what cannot be seen is absent."""
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
            **{name: most for name, most in seen.items() if most > _NOT_SEEN},
        }


def _read(value: int) -> int | None:
    return None if value < 0 else value
