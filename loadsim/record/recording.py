"""One run as numpy structured arrays: reading them, checking that their values are possible, and their columns."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from loadsim.errors import RecordingError
from loadsim.fates import Outcome
from loadsim.record.folder import DAMAGE, opened
from loadsim.record.journal import HEADER_BYTES
from loadsim.record.records import SOCKET, AcceptFlag, FailureFlag, Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loadsim.record.facts import Facts
    from loadsim.record.journal import Journal
    from loadsim.record.records import Layout

#: A one-dimensional structured array with one element per record; field names as in `records`.
Records = np.ndarray[tuple[int], np.dtype[np.void]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
#: The most bytes of records that are read from one file: 16 million attempts.
LARGEST_RECORDS = 1 << 30
_MS = NANOSECONDS // 1000
#: The error of a socket's age: HZ=250, plus the step of the clock that it is read from.
AGE_ERROR_NS = 8 * _MS
#: The first SYN time-out is 1 s (RFC 6298), less the two ticks by which the kernel may round it (at worst HZ=100).
#: After a challenge ACK the SYN is sent again within 2 ticks (TCP_TIMEOUT_MIN), although no SYN was lost.
_SYN_TIMEOUT_NS = 980 * _MS
#: Outcomes that are possible only after connect() succeeded.
_AFTER_CONNECT = (
    Outcome.OK,
    Outcome.CONNECTED,
    Outcome.ERROR,
    Outcome.EOF,
    Outcome.RESET,
    Outcome.REPLY_TIMEOUT,
)
#: The most bytes of a numpy header that are read; that of the largest layout has 2,000.
_LARGEST_HEADER = 10_000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_NUMPY_CODE = {"B": "u1", "H": "<u2", "I": "<u4", "Q": "<u8", "q": "<i8", "16s": ("<u4", (4,))}
#: A load lasts at most a day and a connection is held for at most a day. Preparations take seconds.
_LONGEST_NS = 3 * 86_400 * 10**9
_EARLIEST_NS = 86_400 * 10**9
#: An upper bound for every count: connections, failures, descriptors, bytes, nanoseconds.
_MOST = 1 << 56
_MOMENTS = {
    "attempts": ("intended", "started", "connected", "replied", "ended"),
    "canary": ("intended", "started", "connected", "replied", "ended"),
    "held": ("intended", "started", "connected", "replied", "ended"),
    "accepts": ("accepted", "closed"),
    "failures": ("first", "last"),
    "samples": ("time",),
    "sockets": ("time",),
}
#: The largest value of each code.
_CODES = {
    "attempts": ("outcome", max(Outcome)),
    "canary": ("outcome", max(Outcome)),
    "held": ("outcome", max(Outcome)),
    "failures": ("where", max(Where)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One run as it was recorded: the narrow waist between running and analysis."""

    attempts: Records
    accepts: Records
    failures: Records
    samples: Records
    canary: Records  # attempts of the canary
    held: Records  # requests on held connections, as attempts; `connected` is when their connection was made
    facts: Facts
    sockets: Records = field(default_factory=lambda: empty(SOCKET))


def dtype_of(layout: Layout) -> np.dtype[np.void]:
    """Return the numpy dtype of a layout, with its names, offsets and size."""
    names = [name for name, _ in layout.fields]
    spec: Any = {
        "names": names,
        "formats": [_NUMPY_CODE[code] for _, code in layout.fields],
        "offsets": [layout.offset_of(name) for name in names],
        "itemsize": layout.size,
    }
    return cast("np.dtype[np.void]", np.dtype(spec))


def empty(layout: Layout, length: int = 0) -> Records:
    """Return zeroed records of a layout."""
    return np.zeros(length, dtype=dtype_of(layout))


def records_of(journal: Journal) -> Records:
    """Return a copy of the used slots of a journal, in order."""
    dtype = dtype_of(journal.layout)
    view = np.frombuffer(journal.buffer, dtype=dtype, count=journal.used, offset=HEADER_BYTES)
    return cast("Records", view[view[journal.layout.fields[0][0]] != 0].copy())


def read_array(path: Path, dtype: np.dtype[np.void]) -> Records:
    """Return the records of a .npy file; raises RecordingError if its header and its contents disagree.

    The header is checked against the file size before memory is allocated.
    """
    try:
        with opened(path) as file:
            version = np.lib.format.read_magic(file)
            shape, _, found = _HEADERS[version](file, max_header_size=_LARGEST_HEADER)
            if found != dtype or len(shape) != 1:
                raise RecordingError(f"{path}: has records of another layout; another version of loadsim wrote it")
            left = os.fstat(file.fileno()).st_size - file.tell()
            if shape[0] < 0 or shape[0] * dtype.itemsize != left:
                raise RecordingError(
                    f"{path}: is damaged (its header announces {shape[0]:,} records, and {left:,} bytes follow)"
                )
            raise_if_too_large(path, left)
            return cast("Records", np.fromfile(file, dtype=dtype, count=shape[0]))
    except (OSError, SyntaxError, TokenError, *DAMAGE) as error:  # numpy reads old headers with tokenize
        raise RecordingError(f"{path}: is damaged ({error})") from error


def raise_if_too_large(path: Path, size: int) -> None:
    """Raise RecordingError if there are more than LARGEST_RECORDS bytes of records."""
    if size > LARGEST_RECORDS:
        raise RecordingError(f"{path}: holds {size:,} bytes of records; at most {LARGEST_RECORDS:,} can be read")


def raise_if_impossible(path: Path, recording: Recording) -> None:
    """Raise RecordingError, with the file in the folder `path`, if a record or a fact is impossible."""
    for name, says in _impossible(recording):
        raise RecordingError(f"{path / name}: is damaged ({says}); run it again")


def column(records: Records, name: str) -> Ints:
    """Return one field of all records as a contiguous array of signed integers, which can be subtracted."""
    values: Ints = records[name].astype(np.int64)
    return values


def has_flag(records: Records, flag: int) -> Bools:
    """Return which records have a flag set."""
    flags: Bools = (records["flags"] & flag) != 0
    return flags


def has_outcome(attempts: Records, *outcomes: Outcome) -> Bools:
    """Return which attempts ended in one of these outcomes."""
    table = np.zeros(256, dtype=np.bool_)
    table[list(outcomes)] = True
    return table[column(attempts, "outcome")]


def was_connected(attempts: Records) -> Bools:
    """Return which attempts connected, including those whose RST arrived before `connected` was stamped."""
    seen = has_outcome(attempts, *_AFTER_CONNECT) & (column(attempts, "started") > 0)
    return seen | (column(attempts, "connected") > 0)


def lost_a_syn(attempts: Records) -> Bools:
    """Return which attempts waited for the kernel's SYN timer because a SYN or its SYN-ACK was lost.

    The retransmit counter is not sufficient: a SYN that meets an old connection of the same 4-tuple is answered by a
    challenge ACK and is sent again within milliseconds.
    """
    started, connected = column(attempts, "started"), column(attempts, "connected")
    until = np.where(connected > 0, connected, column(attempts, "ended"))
    waited: Bools = (started > 0) & (until - started >= _SYN_TIMEOUT_NS)
    return waited & (column(attempts, "syn_retransmits") > 0)


def between(records: Records, earlier: str, later: str) -> Ints:
    """Return the nanoseconds between two moments, for the records in which both happened; never negative.

    It selects from columns: copying entire records of 64 bytes costs eight times as much.
    """
    begin, end = column(records, earlier), column(records, later)
    both = (begin > 0) & (end > 0)
    return (end[both] - begin[both]).clip(min=0)


def emfile_records(recording: Recording, *where: Where) -> Records:
    """Return the EMFILE failures in these places, without those that met an empty queue."""
    failures = recording.failures
    counts = (failures["errno"] == errno.EMFILE) & ~has_flag(failures, FailureFlag.IDLE)
    found: Records = failures[counts & np.isin(failures["where"], where)]
    return found


def came_after_the_end(recording: Recording) -> Bools:
    """Return which connections entered the accept queue after the snapshot of the fates.

    The queue is first in, first out, so they come after the connections that the snapshot counted. A closed phantom
    repeats its FIN, and each FIN can still complete the handshake; such a socket is younger than the snapshot (its age
    is +-4 ms).
    """
    accepts, end = recording.accepts, recording.facts.end
    after_end = has_flag(accepts, AcceptFlag.AFTER_END)
    if end is None or end.queue is None:
        return np.zeros_like(after_end)
    made = column(accepts, "accepted") - column(accepts, "age_ms") * _MS
    late: Bools = after_end & (np.cumsum(after_end) > end.queue) & (made >= recording.facts.judged_ns - AGE_ERROR_NS)
    return late


def known(samples: Records, *names: str) -> tuple[Ints, ...]:
    """Return the times of the samples that contain all of these readings, and the readings."""
    read = np.ones(len(samples), dtype=np.bool_)
    for name in names:
        read &= samples[name] >= 0
    return tuple(column(samples[read], name) for name in ("time", *names))


def nearest_rank(ordered: Ints, share: float) -> int:
    """Return the smallest of the sorted values that at least this share of the values does not exceed."""
    return int(ordered[max(int(np.ceil(share * len(ordered))) - 1, 0)])


def _impossible(recording: Recording) -> Iterator[tuple[str, str]]:
    facts, start = recording.facts, recording.facts.start_ns
    if not 0 <= start < _MOST << 5:
        yield "manifest.json", f"start_ns is {start}"
    first, last = max(start - _EARLIEST_NS, 1), start + _LONGEST_NS
    steps = [(f"steps.{index}.done_ns", step.done_ns) for index, step in enumerate(facts.steps)]
    noted = (("load_end_ns", facts.load_end_ns), ("judged_ns", facts.judged_ns), ("exited_ns", facts.server.exited_ns))
    for name, moment in (*noted, *steps):
        if moment and not first <= moment <= last:
            yield "manifest.json", f"{name} is days away from the start"
    for array, names in _MOMENTS.items():
        records = getattr(recording, array)
        for name in names:
            moments = records[name]
            if ((moments != 0) & ((moments < np.uint64(first)) | (moments > np.uint64(last)))).any():
                yield f"{array}.npy", f"{name} of a record is days away from the start"
    for array, (name, largest) in _CODES.items():
        if (getattr(recording, array)[name] > largest).any():
            yield f"{array}.npy", f"a record has an unknown {name}"
    if (recording.failures["count"] > _MOST).any() or any(
        (recording.samples[name] > _MOST).any() for name in recording.samples.dtype.names or () if name != "time"
    ):
        yield "samples.npy", "a number of a record is too large"
