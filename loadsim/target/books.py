"""What the simulated server writes down: a record per accept, failures by the 10 ms, and running counters.

Everything goes through mapped memory: no system call and no descriptor. Must not know sockets or policies.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, Literal, Self

from loadsim.record.events import ACCEPT, FAILURE, AcceptFlag, FailureFlag, Where

if TYPE_CHECKING:
    from loadsim.record.journal import Journal

#: Failures of one kind within this time share a record.
FAILURE_SPAN_NS: Final = 10_000_000
#: The errnos that mean "no descriptor is free": this process's limit, the machine's.
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})

_U64 = struct.Struct("=Q")
_CLOSED_AT = ACCEPT.offset_of("closed")
_PAYLOAD_AT = ACCEPT.offset_of("payload")
_FLAGS_AT = ACCEPT.offset_of("flags")
_LAST_AND_COUNT = struct.Struct("=QQ")
_LAST_AT = FAILURE.offset_of("last")
_COUNT_AT = FAILURE.offset_of("count")


class Books:
    """Both journals of one server, and how many descriptors it has open.

    An accept is known by the byte offset of its record, -1 when the journal was full: it is then only counted.
    """

    def __init__(self, accepts: Journal, failures: Journal, *, open_fds: int = 0) -> None:
        self.accepts = accepts
        self.open_fds = open_fds
        self._failures = failures
        self._current: dict[tuple[int, Where, bool], _Span] = {}
        self._accepted = accepts.index["accepted"]
        self._closed = accepts.index["closed"]
        self._leaked = accepts.index["leaked"]

    def admit(self, *, leaked: bool) -> None:
        """Count an accepted connection, and a leaked descriptor where it was chosen never to be closed."""
        counters = self.accepts.counters
        counters[self._accepted] += 1
        if leaked:
            counters[self._leaked] += 1

    def leak_extras(self, count: int) -> None:
        """Count descriptors besides connections that were chosen never to be closed."""
        self.accepts.counters[self._leaked] += count

    def fail_handler(self, at: int) -> None:
        """Note that this connection's handler ran out of descriptors."""
        self._flag(at, AcceptFlag.FAILED)

    def payload(self, at: int, number: int) -> None:
        """Note the attempt number that this connection's client sent."""
        if at >= 0:
            _U64.pack_into(self.accepts.buffer, at + _PAYLOAD_AT, number)

    def close(self, at: int, now: int) -> None:
        """Note that this connection is about to be closed."""
        self.open_fds -= 1
        self.accepts.counters[self._closed] += 1
        self._stamp_closed(at, now)

    def turn_away(self, at: int, now: int, why: Literal["shed", "after_end"]) -> None:
        """Note that this connection is closed unserved: shed, or left over when the run ended."""
        self.accepts.count(why)
        if why == "shed":
            self.accepts.count("accepted")
            self.close(at, now)
            return
        self.open_fds -= 1
        self._stamp_closed(at, now)

    def fail(self, number: int, where: Where, *, idle: bool, first: int, last: int, count: int = 1) -> None:
        """Count failures with this errno between two times, in the current record of their kind or a new one."""
        self._count(number, where, idle=idle, count=count)
        kind = (number, where, idle)
        span = self._current.get(kind)
        if span is not None and last - span.first < FAILURE_SPAN_NS:
            span.count += count
            if span.at >= 0:
                _LAST_AND_COUNT.pack_into(self._failures.buffer, span.at + _LAST_AT, last, span.count)
            return
        flags = FailureFlag.IDLE if idle else 0
        at = self._failures.append(first, last, count, self.open_fds, number, where, flags)
        self._current[kind] = _Span(at, first, count)

    def totals(self) -> dict[str, int]:
        """Return the counters by name."""
        return {name: self.accepts.read(name) for name in self.accepts.index}

    def shut(self) -> None:
        """Unmap both journals."""
        self.accepts.close()
        self._failures.close()

    def _count(self, number: int, where: Where, *, idle: bool, count: int) -> None:
        if number not in NO_DESCRIPTOR:
            return
        if idle:
            self.accepts.count("emfile_idle", count)
        else:
            self.accepts.count("emfile_accept" if where is Where.ACCEPT else "emfile_handler", count)

    def _stamp_closed(self, at: int, now: int) -> None:
        if at >= 0:
            _U64.pack_into(self.accepts.buffer, at + _CLOSED_AT, now)

    def _flag(self, at: int, flag: AcceptFlag) -> None:
        if at >= 0:
            self.accepts.buffer[at + _FLAGS_AT] |= flag

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()


class _Span:
    """The failure record that is being added to."""

    __slots__ = ("at", "count", "first")

    def __init__(self, at: int, first: int, count: int) -> None:
        self.at = at
        self.first = first
        self.count = count


assert _COUNT_AT == _LAST_AT + 8, "last and count are written together"  # noqa: S101 - holds by the layout, at import
