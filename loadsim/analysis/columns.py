"""Columns of records as plain arrays, and what a single record says by itself."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from loadsim.fates import Outcome
from loadsim.record.events import AcceptFlag, FailureFlag, Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.record.arrays import Recording, Records

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MS = NANOSECONDS // 1000
#: How far off the age of a socket is, at HZ=250 and with the step of the clock it is read from.
AGE_ERROR_NS = 8 * _MS
#: The first SYN time-out is 1 s (RFC 6298), less the two ticks by which the kernel may round it (HZ=100 at the worst).
#: After a challenge ACK the SYN is sent again after 2 ticks (TCP_TIMEOUT_MIN), and no SYN was lost.
_SYN_TIMEOUT_NS = 980 * _MS
#: Outcomes that a client only sees once the kernel has told it "connected".
_AFTER_CONNECT = (
    Outcome.OK,
    Outcome.CONNECTED,
    Outcome.ERROR,
    Outcome.EOF,
    Outcome.RESET,
    Outcome.REPLY_TIMEOUT,
)


def column(records: Records, name: str) -> Ints:
    """Return one field of all records, contiguous, as signed 64-bit integers that can be subtracted."""
    values: Ints = records[name].astype(np.int64)
    return values


def has_flag(records: Records, flag: int) -> Bools:
    """Return which records carry a flag."""
    flags: Bools = (records["flags"] & flag) != 0
    return flags


def has_outcome(attempts: Records, *outcomes: Outcome) -> Bools:
    """Return which attempts ended in one of these outcomes."""
    table = np.zeros(256, dtype=np.bool_)
    table[list(outcomes)] = True
    return table[column(attempts, "outcome")]


def was_connected(attempts: Records) -> Bools:
    """Return which attempts the client's kernel called connected, also where no time was stamped before a RST came."""
    seen = has_outcome(attempts, *_AFTER_CONNECT) & (column(attempts, "started") > 0)
    return seen | (column(attempts, "connected") > 0)


def lost_a_syn(attempts: Records) -> Bools:
    """Return which attempts waited for the kernel's SYN timer: a SYN of theirs, or the answer to it, was lost.

    The counter of retransmits is not enough. A SYN that meets an old connection of the same 4-tuple is answered by a
    challenge ACK and sent again within milliseconds.
    """
    started, connected = column(attempts, "started"), column(attempts, "connected")
    until = np.where(connected > 0, connected, column(attempts, "ended"))
    waited: Bools = (started > 0) & (until - started >= _SYN_TIMEOUT_NS)
    return waited & (column(attempts, "syn_retransmits") > 0)


def between(records: Records, earlier: str, later: str) -> Ints:
    """Return the nanoseconds between two moments of each record in which both happened; never negative.

    Columns first, then the choice: copying whole records of 64 bytes costs eight times as much.
    """
    begin, end = column(records, earlier), column(records, later)
    both = (begin > 0) & (end > 0)
    return (end[both] - begin[both]).clip(min=0)


def emfile_records(recording: Recording, *where: Where) -> Records:
    """Return the failures for want of a descriptor in these places, but for those that had no client to serve."""
    failures = recording.failures
    counts = (failures["errno"] == errno.EMFILE) & ~has_flag(failures, FailureFlag.IDLE)
    found: Records = failures[counts & np.isin(failures["where"], where)]
    return found


def came_after_the_end(recording: Recording) -> Bools:
    """Return which connections entered the accept queue only after the run had been judged.

    The queue is first in, first out: of those that were taken from it afterwards, the ones behind as many as the kernel
    had shown. A phantom that has closed sends its FIN again and again, and each can still complete the handshake; such
    a socket is younger than the judgement (its age is +-4 ms).
    """
    accepts, end = recording.accepts, recording.facts.end
    after_end = has_flag(accepts, AcceptFlag.AFTER_END)
    if end is None or end.queue is None:
        return np.zeros_like(after_end)
    made = column(accepts, "accepted") - column(accepts, "age_ms") * _MS
    late: Bools = after_end & (np.cumsum(after_end) > end.queue) & (made >= recording.facts.judged_ns - AGE_ERROR_NS)
    return late


def known(samples: Records, *names: str) -> tuple[Ints, ...]:
    """Return the times at which all of these readings were taken, and the readings."""
    read = np.ones(len(samples), dtype=np.bool_)
    for name in names:
        read &= samples[name] >= 0
    return tuple(column(samples[read], name) for name in ("time", *names))


def nearest_rank(ordered: Ints, share: float) -> int:
    """Return the smallest of the sorted values that at least this share of them does not exceed."""
    return int(ordered[max(int(np.ceil(share * len(ordered))) - 1, 0)])
