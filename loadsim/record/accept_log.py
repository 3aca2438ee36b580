"""The journals of a server: one record per accept, failures aggregated over 10 ms, and running counters.

Writes go through mapped memory, without a system call or a descriptor. Must not know sockets or policies. The hot loop
of `simulated.accepting` packs the accept records itself.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, Self

from loadsim.record.records import ACCEPT, FAILURE, AcceptFlag, FailureFlag, Where

if TYPE_CHECKING:
    from loadsim.record.journal import Journal

#: Failures of one kind that begin within this time share a record.
FAILURE_SPAN_NS: Final = 10_000_000
#: The errnos of a process and of a machine without a free descriptor.
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
_stamp = struct.Struct("=Q").pack_into
_CLOSED_AT = ACCEPT.offset_of("closed")
_PAYLOAD_AT = ACCEPT.offset_of("payload")
_FLAGS_AT = ACCEPT.offset_of("flags")
_LAST_AT = FAILURE.offset_of("last")
_COUNT_AT = FAILURE.offset_of("count")


class AcceptLog:
    """Both journals of one server, and the number of its open descriptors.

    The byte offset of its record identifies an accept; -1 if the journal was full and the accept is only counted.
    """

    def __init__(self, accepts: Journal, failures: Journal) -> None:
        self.accepts = accepts
        self.open_fds = 0
        self.buffer = accepts.buffer
        self.counters = accepts.counters
        self.capacity = accepts.capacity
        #: Indices into `counters`.
        self.accepted = accepts.index["accepted"]
        self._closed = accepts.index["closed"]
        self._failures = failures
        self._current: dict[tuple[int, Where, bool], _Span] = {}

    def close(self, at: int, now: int) -> None:
        """Record that this connection is about to be closed."""
        self.open_fds -= 1
        self.counters[self._closed] += 1
        if at >= 0:
            _stamp(self.buffer, at + _CLOSED_AT, now)

    def close_uncounted(self, at: int, now: int) -> None:
        """Record that a connection that was accepted after the run was judged is about to be closed."""
        self.close(at, now)
        self.counters[self._closed] -= 1
        self.counters[self.accepted] -= 1
        self.accepts.count("after_end")

    def leak(self, descriptors: int = 1) -> None:
        """Count descriptors that the server will never close."""
        self.accepts.count("leaked", descriptors)

    def shed(self) -> None:
        """Count a connection that is closed unserved."""
        self.accepts.count("shed")

    def payload(self, at: int, number: int) -> None:
        """Record the attempt number that this connection's client sent."""
        if at >= 0:
            _stamp(self.buffer, at + _PAYLOAD_AT, number)

    def fail_handler(self, at: int, number: int, now: int) -> None:
        """Count a request that found no free descriptor, and mark its connection."""
        self.fail(number, Where.HANDLER, idle=False, first=now, last=now)
        if at >= 0:
            self.buffer[at + _FLAGS_AT] |= AcceptFlag.FAILED

    def fail(self, number: int, where: Where, *, idle: bool, first: int, last: int, count: int = 1) -> None:
        """Count failures with this errno between two times, in the current record of this kind or in a new one."""
        span = self._current.get((number, where, idle))
        if span is not None and first - span.first < FAILURE_SPAN_NS:
            span.count += count
            if span.at >= 0:
                _stamp(self._failures.buffer, span.at + _LAST_AT, last)
                _stamp(self._failures.buffer, span.at + _COUNT_AT, span.count)
        else:
            flags = FailureFlag.IDLE if idle else 0
            at = self._failures.append(first, last, count, self.open_fds, number, where, flags)
            self._current[number, where, idle] = _Span(at, first, count)
        if number in NO_DESCRIPTOR:  # last, because a reader of the counter expects the records to exist
            self.accepts.count(_counter(where, idle=idle), count)

    def totals(self) -> dict[str, int]:
        """Return the counters by name."""
        return {name: self.accepts.read(name) for name in self.accepts.index}

    def unmap(self) -> None:
        """Unmap both journals; their files stay."""
        self.accepts.close()
        self._failures.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unmap()


class _Span:
    """The failure record that the next failures of its kind are added to."""

    __slots__ = ("at", "count", "first")

    def __init__(self, at: int, first: int, count: int) -> None:
        self.at = at
        self.first = first
        self.count = count


def _counter(where: Where, *, idle: bool) -> str:
    if idle:
        return "emfile_idle"
    return "emfile_accept" if where is Where.ACCEPT else "emfile_handler"
