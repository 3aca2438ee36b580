"""What a rule gets and returns, what a finding is, and how sentences write numbers."""

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


#: Changes of the backlog that a sentence lists one by one.
_CHANGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run, ready to be diagnosed."""

    data: Dataset
    numbers: dict[str, float]  # metrics by name, times in seconds
    prediction: list[Compared]

    def number(self, metric: str) -> int:
        """Return a count; 0 where there is none."""
        return int(self.numbers.get(metric, 0))

    def fates(self, *fates: Fate) -> int:
        """Return how many attempts have one of these fates."""
        return sum(self.number(f"fate.{fate.name.lower()}") for fate in fates)

    def outcomes(self, *outcomes: Outcome) -> int:
        """Return how many attempts have one of these outcomes."""
        return sum(self.number(f"outcome.{outcome.name.lower()}") for outcome in outcomes)

    def time(self, metric: str) -> str:
        """Return a time for people; "an unknown time" where it was not measured."""
        return format_duration(self.numbers[metric]) if metric in self.numbers else "an unknown time"

    @property
    def backlog(self) -> str:
        """The accept queue in words: "backlog 128 holds 129", with the moments at which that changed."""
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
        """How long clients arrived, in seconds; 0 without any."""
        started = column(self.data.recording.attempts, "started")
        return max(int(started.max(initial=0)) - self.data.clock.start, 0) / NANOSECONDS

    @property
    def starved(self) -> bool:
        """Whether accept() lacked a descriptor: what went wrong at the queue then follows from that."""
        return self.number("emfile.accept") > 0 or self._stood_at_limit

    @property
    def exhausted(self) -> bool:
        """Whether the server ran out of descriptors, wherever it wanted one."""
        return self.number("emfile.count") > 0 or self._stood_at_limit

    @property
    def exhausted_after(self) -> str:
        """When that was first seen, in words."""
        return self.time("fds.limit_at" if self._stood_at_limit else "emfile.first_at")

    @property
    def _stood_at_limit(self) -> bool:
        """Whether it had all descriptors that it may have, where nobody could see what failed because of that."""
        return not self.data.recording.facts.server.emfile_seen and "fds.limit_at" in self.numbers


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found: the texts that depend on the run."""

    title: str  # one sentence
    evidence: str  # sentences with numbers
    remedy: str | None = None  # None where there is nothing to do
    headline: str | None = None  # opens the result if this finding is the first; None: the title does


def sentences(*parts: str) -> str:
    """Return the sentences that are not empty, in one line."""
    return " ".join(part for part in parts if part)


def sentence(notice: str) -> str:
    """Return a notice of the run with the full stop that another sentence can follow."""
    return notice.rstrip(".") + "."


def were(count: int) -> str:
    """Return the verb that follows `some`."""
    return "was" if count == 1 else "were"


def ending(status: int) -> str:
    """Return how a process ended: "exit status 1", "killed by SIGKILL (signal 9)"."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {_SIGNALS.get(-status, 'a signal')} (signal {-status})"


class Kind(enum.IntEnum):
    """What a finding says about the run; a result shows the kinds in this order."""

    DOUBT = 0  # a reason not to trust the run: it is inconclusive
    FAULT = 1  # a fault of the server or its settings
    INFORMATION = 2  # worth knowing, and not a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A function that looks for a finding in a run, and the rank of its finding.

    Rules are tried in the order of their ranks. A rule is skipped if a finding of a kind in `unless` was found before.
    """

    kind: Kind
    order: int  # within the kind; causes come before their consequences
    find: Callable[[Case], Found | None]
    unless: frozenset[Kind] = frozenset()

    @property
    def rank(self) -> tuple[Kind, int]:
        """The place of its finding in a result."""
        return self.kind, self.order


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One finding: everything about it that is the same in every run.

    It has several rules where the rank depends on the run: a leak that used up the limit opens the result, a leak
    below the limit does not. At most one of them applies to a run.
    """

    id: str  # stable: people and scripts use it
    rules: tuple[Rule, ...]
    means: str
    look_at: str
    do: str
