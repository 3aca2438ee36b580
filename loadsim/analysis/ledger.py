"""The ledger: every attempt has one outcome and one fate, and the sums must balance.

The client records the outcome. The fate is decided here, from the join and from the kernel's tables at the judgement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.clock import Capacity
from loadsim.analysis.join import Join, fates, join, never_connected, queued_at_end
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import (
    Bools,
    Ints,
    came_after_the_end,
    column,
    has_flag,
    has_outcome,
    known,
    was_connected,
)
from loadsim.record.records import AcceptFlag
from loadsim.units import NANOSECONDS, format_count, some

if TYPE_CHECKING:
    from loadsim.record.recording import Recording

#: The fate of an attempt that was never connected, by its outcome. With any other outcome it got no answer.
_NEVER_CONNECTED = {
    Outcome.REFUSED: Fate.REFUSED,
    Outcome.LOCAL: Fate.LOCAL,
    Outcome.NOT_STARTED: Fate.NOT_STARTED,
}
#: The shape of the table: codes are its indices, and one code of a fate is reserved.
_FATES, _OUTCOMES = max(Fate) + 1, max(Outcome) + 1
#: The conductor notices the server's end later than its clients do.
_DEATH_SLACK_NS = NANOSECONDS // 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Every attempt accounted for."""

    join: Join
    fate: Ints  # of each attempt, a Fate
    table: Ints  # attempts by [fate, outcome]
    imbalance: list[str]  # sentences, one for each sum that does not balance

    def fates(self) -> dict[str, int]:
        """Return the attempts of each fate, in the order of the table, zeros too."""
        return {fate.id: int(self.table[fate].sum()) for fate in Fate}

    def outcomes(self) -> dict[str, int]:
        """Return the attempts of each outcome, zeros too."""
        return {outcome.id: int(self.table[:, outcome].sum()) for outcome in Outcome}

    def cells(self) -> dict[str, dict[str, int]]:
        """Return the attempts by fate and outcome; only cells that are not 0."""
        return {
            fate.id: {outcome.id: int(self.table[fate, outcome]) for outcome in Outcome if self.table[fate, outcome]}
            for fate in Fate
            if self.table[fate].any()
        }

    def having(self, *fates: Fate) -> Bools:
        """Return which attempts have one of these fates."""
        return np.isin(self.fate, fates)


def settle(recording: Recording) -> Ledger:
    """Return the ledger of a recording."""
    joined = join(recording)
    fate = _fates(recording, joined)
    outcome = column(recording.attempts, "outcome")
    cells = np.bincount(fate * _OUTCOMES + outcome, minlength=_FATES * _OUTCOMES)
    return Ledger(
        join=joined,
        fate=fate,
        table=cells.reshape(_FATES, _OUTCOMES),
        imbalance=_imbalance(recording, joined),
    )


def _fates(recording: Recording, joined: Join) -> Ints:
    attempts = recording.attempts
    connected = was_connected(attempts)
    fate = np.where(connected, Fate.PHANTOM, Fate.DROPPED).astype(np.int64)
    for outcome, its_fate in _NEVER_CONNECTED.items():
        fate[~connected & has_outcome(attempts, outcome)] = its_fate
    never_began = (column(attempts, "started") == 0) & has_outcome(attempts, Outcome.UNFINISHED)
    fate[never_began] = Fate.NOT_STARTED
    if not recording.facts.server.is_simulated:
        return np.where(connected, fates(recording), never_connected(recording, fate))
    _judge_unaccepted(recording, fate, connected & (joined.accept_of < 0))
    _judge_accepted(recording, fate, joined)
    return fate


def _judge_accepted(recording: Recording, fate: Ints, joined: Join) -> None:
    """Set the fate of every attempt that the server's accept() returned, during the run or after it."""
    accepts = recording.accepts
    by_record = np.full(len(accepts), Fate.ACCEPTED, dtype=np.int64)
    by_record[has_flag(accepts, AcceptFlag.SHED)] = Fate.SHED
    by_record[has_flag(accepts, AcceptFlag.AFTER_END)] = Fate.QUEUED
    by_record[came_after_the_end(recording)] = Fate.PHANTOM
    ours = joined.attempt_of >= 0
    fate[joined.attempt_of[ours]] = by_record[ours]


def _judge_unaccepted(recording: Recording, fate: Ints, unaccepted: Bools) -> None:
    """Set the fate of the connected attempts that no accept() returned: phantoms, unless other evidence exists.

    If the server's records are incomplete (no space was left, or the run ended before the queue was drained), a queued
    connection cannot be distinguished from a phantom: `unknown`.
    """
    facts, attempts = recording.facts, recording.attempts
    aborts = facts.sysctls.get("net.ipv4.tcp_abort_on_overflow", "0") not in ("", "0")
    died = facts.server.exited_ns > 0
    if aborts:
        fate[unaccepted & has_outcome(attempts, Outcome.RESET)] = Fate.ABORTED
    if died:
        _orphan(recording, fate, unaccepted)
    if facts.lost_records.get("accepts") or (facts.end is None and not died):
        fate[unaccepted & (fate == Fate.PHANTOM)] = Fate.UNKNOWN


def _orphan(recording: Recording, fate: Ints, unaccepted: Bools) -> None:
    """Set the attempts that were in the queue when the listener died.

    These are the clients that its end reset, then the oldest others, up to the length of the queue.
    """
    attempts, died = recording.attempts, recording.facts.server.exited_ns
    ended, started = column(attempts, "ended"), column(attempts, "started")
    could = unaccepted & (started <= died)
    reset_by_it = could & has_outcome(attempts, Outcome.RESET) & (ended >= died - _DEATH_SLACK_NS)
    fate[reset_by_it] = Fate.ORPHANED
    others = np.flatnonzero(could & ~reset_by_it & (fate == Fate.PHANTOM))
    left = max(_queue_at_death(recording) - int(reset_by_it.sum()), 0)
    fate[others[np.argsort(started[others], kind="stable")][:left]] = Fate.ORPHANED


def _queue_at_death(recording: Recording) -> int:
    """Return how many connections were in the accept queue at most.

    Only a full queue makes phantoms. Without a drop every connected client had entered it, and its capacity is the
    limit. Otherwise it is the length in the last sample of the listener, up to 10 ms before its end; 0 = no sample.
    """
    samples = recording.samples
    capacity, overflows = Capacity.of(recording), known(samples, "listen_overflows")[1]
    if capacity is not None and len(overflows) and overflows[-1] == overflows[0]:
        return capacity.highest
    seen = (samples["queue"] >= 0) & (column(samples, "time") <= recording.facts.server.exited_ns)
    return int(samples["queue"][seen][-1]) if seen.any() else 0


def _imbalance(recording: Recording, joined: Join) -> list[str]:
    """Return a sentence for each sum that does not balance."""
    checks = (_unequal_queue(recording), _repeated_numbers(recording), _wrong_joins(joined), *_lost(recording))
    return [sentence for sentence in checks if sentence]


def _unequal_queue(recording: Recording) -> str:
    """Compare the queue that the kernel showed at the end with the connections that were then taken from it."""
    end, server = recording.facts.end, recording.facts.server
    if end is None or end.queue is None or server.exited_ns:
        return ""
    if not server.started:  # it went on meanwhile: two readings need not agree
        return ""
    if not server.is_simulated:
        return _unequal_table(queued_at_end(recording), end.queue)
    taken = int((has_flag(recording.accepts, AcceptFlag.AFTER_END) & ~came_after_the_end(recording)).sum())
    if taken == end.queue:
        return ""
    return (
        f"The kernel showed {format_count(end.queue)} connections in the accept queue when the run was judged, but "
        f"{format_count(taken)} were taken from it afterwards."
    )


def _unequal_table(waiting: int, queue: int) -> str:
    """Compare two readings of a server that was stopped: connections without an owner, and the queue."""
    if waiting <= queue:  # a repeated FIN may move a phantom into the queue between the two
        return ""
    return (
        f"The TCP table showed {some(waiting, 'complete connection')} that no process owns when the run was judged, "
        f"and the accept queue only {format_count(queue)}."
    )


def _repeated_numbers(recording: Recording) -> str:
    numbers = np.sort(column(recording.attempts, "number"))
    repeated = int((np.diff(numbers) == 0).sum())
    return f"{format_count(repeated)} attempts have a number that another attempt has, too." if repeated else ""


def _wrong_joins(joined: Join) -> str:
    if not joined.mismatched:
        return ""
    return (
        f"{format_count(joined.mismatched)} accepted connections name another attempt than the one that they were "
        "joined to by address, port and order."
    )


def _lost(recording: Recording) -> list[str]:
    """Return a sentence for each kind of record that found no space."""
    return [
        f"{format_count(lost)} {journal.removesuffix('s')} records found no space and were only counted: "
        "shorten the run, or lower its rate."
        for journal, lost in recording.facts.lost_records.items()
        if lost and journal in ("attempts", "accepts")
    ]
