"""The types of a diagnosis (a run, a rule, a finding), and helpers for sentences."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.record.recording import column
from loadsim.units import NANOSECONDS, backlog_for, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.summary import Compared
    from loadsim.fates import Fate, Outcome

#: The signals that end servers, by number on Linux (x86-64 and arm64 alike).
_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL"} | {
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    24: "SIGXCPU",
    31: "SIGSYS",
}
#: A sentence lists up to this many changes of the backlog; more are only counted.
_CHANGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run, ready to be diagnosed."""

    data: Dataset
    numbers: dict[str, float]  # metrics by name, times in seconds
    prediction: list[Compared]

    def number(self, metric: str) -> int:
        """Return a count; 0 if it was not measured."""
        return int(self.numbers.get(metric, 0))

    def fates(self, *fates: Fate) -> int:
        """Return how many attempts have one of these fates."""
        return sum(self.number(f"fate.{fate.name.lower()}") for fate in fates)

    def outcomes(self, *outcomes: Outcome) -> int:
        """Return how many attempts have one of these outcomes."""
        return sum(self.number(f"outcome.{outcome.name.lower()}") for outcome in outcomes)

    def time(self, metric: str) -> str:
        """Return a time as text; "an unknown time" if it was not measured."""
        return format_duration(self.numbers[metric]) if metric in self.numbers else "an unknown time"

    @property
    def backlog(self) -> str:
        """The accept queue in words: "backlog 128 holds 129", with the time of each change."""
        capacity, clock = self.data.capacity, self.data.clock
        if capacity is None:
            return "its backlog"
        first, *later = (
            f"backlog {format_count(backlog_for(holds))} holds {format_count(holds)}" for holds in capacity.holds
        )
        if len(later) > _CHANGES:
            return f"{first}, and changes {format_count(len(later))} times"
        since = (format_duration(clock.at(moment)) for moment in capacity.since[1:].tolist())
        return ", ".join([first, *(f"after {moment} {words}" for moment, words in zip(since, later, strict=True))])

    @property
    def arrivals_s(self) -> float:
        """Seconds from the start of the load to the last attempt; 0 without attempts."""
        started = column(self.data.recording.attempts, "started")
        return max(int(started.max(initial=0)) - self.data.clock.start, 0) / NANOSECONDS

    @property
    def starved(self) -> bool:
        """Whether accept() lacked a descriptor: faults at the queue are then a consequence."""
        return self.number("emfile.accept") > 0 or self._stood_at_limit

    @property
    def exhausted(self) -> bool:
        """Whether the server ran out of descriptors, in accept() or elsewhere."""
        return self.number("emfile.count") > 0 or self._stood_at_limit

    @property
    def exhausted_after(self) -> str:
        """The time when the server was first seen to be out of descriptors, as text."""
        return self.time("fds.limit_at" if self._stood_at_limit else "emfile.first_at")

    @property
    def _stood_at_limit(self) -> bool:
        """Whether the server had as many descriptors as its limit, if its EMFILE failures cannot be observed."""
        return not self.data.recording.facts.server.emfile_seen and "fds.limit_at" in self.numbers


@dataclass(frozen=True, slots=True)
class Found:
    """The texts of a finding that depend on the run."""

    title: str  # one sentence
    evidence: str  # sentences with numbers
    remedy: str | None = None  # None if there is nothing to do
    headline: str | None = None  # opens the result if this finding comes first; None: the title does


def percent(share: float) -> str:
    """Return a share as text, with one decimal below 1 %."""
    return f"{share * 100:.{0 if share >= 0.01 else 1}f} %"


def sentences(*parts: str) -> str:
    """Join the sentences that are not empty."""
    return " ".join(part for part in parts if part)


def sentence(notice: str) -> str:
    """Return a notice of the run with exactly one full stop at its end."""
    return notice.rstrip(".") + "."


def were(count: int) -> str:
    """Return "was" or "were", to follow `some`."""
    return "was" if count == 1 else "were"


def ending(status: int) -> str:
    """Return how a process ended: "exit status 1", "killed by SIGKILL (signal 9)"."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {_SIGNALS.get(-status, 'a signal')} (signal {-status})"


class Kind(enum.IntEnum):
    """The kind of a finding; a result shows the kinds in this order."""

    DOUBT = 0  # a reason not to trust the run: it is inconclusive
    FAULT = 1  # a fault of the server or its settings
    INFORMATION = 2  # worth knowing, but not a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A function that detects a finding in a run, and the rank of this finding.

    Rules are tried in the order of their ranks. A rule is skipped if an earlier one found something of a kind in
    `unless`.
    """

    kind: Kind
    order: int  # within the kind; causes come before their consequences
    find: Callable[[Case], Found | None]
    unless: frozenset[Kind] = frozenset()

    @property
    def rank(self) -> tuple[Kind, int]:
        """The sort key of its finding in a result."""
        return self.kind, self.order


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The parts of a finding that are the same in every run.

    If the rank of a finding depends on the run, it has several rules: a leak that used up the limit opens the result, a
    leak below the limit does not. At most one of the rules applies to a run.
    """

    id: str  # stable: it is part of the public interface
    rules: tuple[Rule, ...]
    means: str
    look_at: str
    do: str
