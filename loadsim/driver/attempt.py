"""One connection of a client while it lives, and the stages in which it waits.

Owns how an attempt's record is filled in, piece by piece. Must not touch a clock; sockets are only carried.
"""

from __future__ import annotations

import struct
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from loadsim.driver.schedule import NEVER
from loadsim.record.records import ATTEMPT

if TYPE_CHECKING:
    import _socket
    import mmap

_fields = [name for name, _ in ATTEMPT.fields]
#: What is known of a record when its attempt ends: replied, ended, source, port, errno, outcome, syn_retransmits,
#: flags. What comes before is written when it starts.
TAIL = struct.Struct("=" + "".join(code for _, code in ATTEMPT.fields[_fields.index("replied") :]))
TAIL_AT = ATTEMPT.offset_of("replied")
_STARTED_AT, _CONNECTED_AT = ATTEMPT.offset_of("started"), ATTEMPT.offset_of("connected")
_TIME = struct.Struct("=Q")


class Attempt:
    """An attempt whose socket is open. `at` is its record's place in the journal, -1 where that had no space left.

    Fields as in `record.events.ATTEMPT`. What an ordinary attempt does not need until its end are class attributes:
    making the object is part of the hot loop, and each attribute costs.
    """

    replied = 0
    errno = 0
    syn_retransmits = 0
    flags = 0
    received = b""

    def __init__(  # noqa: PLR0917  # keyword arguments cost 0.3 us, and this is the hot loop
        self, sock: _socket.socket, number: int, at: int, source: int, port: int, connected: int, since: int
    ) -> None:
        self.sock = sock
        self.number = number
        self.at = at
        self.source = source
        self.port = port
        self.connected = connected
        self.since = since  # when it began to wait in its stage

    def write(self, buffer: mmap.mmap, *, ended: int = 0, outcome: int = 0) -> None:
        """Write what may have changed since the start: as it stands, or as it ended."""
        if self.at >= 0:
            values = (self.source, self.port, self.errno, outcome, self.syn_retransmits, self.flags)
            TAIL.pack_into(buffer, self.at + TAIL_AT, self.replied, ended, *values)

    def write_connected(self, buffer: mmap.mmap) -> None:
        """Write when it connected, where that was not known at its start."""
        if self.at >= 0:
            _TIME.pack_into(buffer, self.at + _CONNECTED_AT, self.connected)

    def write_never_started(self, buffer: mmap.mmap) -> None:
        """Take back the time of the start: connect() failed before anything was sent."""
        if self.at >= 0:
            _TIME.pack_into(buffer, self.at + _STARTED_AT, 0)


class Phase:
    """The attempts that wait for the same thing, by descriptor, each for the same time: so the oldest ends first.

    Looking at the oldest is what costs (a dict skips its deleted entries), and nearly every attempt leaves long before
    its time is over; so that happens at `check_at` only, which is never later than the first deadline.
    """

    __slots__ = ("attempts", "check_at", "patience_ns")

    def __init__(self, patience_ns: int) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.check_at = NEVER
        self.patience_ns = patience_ns

    def enter(self, fd: int, attempt: Attempt) -> None:
        """Let an attempt wait; its `since` is never earlier than that of the last one."""
        self.attempts[fd] = attempt
        self.expect()

    def expect(self) -> None:
        """Take note that there are attempts; for callers that let a batch of them wait without `enter`."""
        if self.check_at == NEVER:
            self.check_at = next(iter(self.attempts.values())).since + self.patience_ns

    def look_again(self) -> None:
        """Take note that attempts were taken away."""
        self.check_at = NEVER
        if self.attempts:
            self.expect()

    def leave_expired(self, now: int, most: int) -> list[Attempt]:
        """Remove and return the attempts whose time is over, oldest first, at most so many."""
        if now < self.check_at:
            return []
        over = now - self.patience_ns
        expired = list(takewhile(lambda entry: entry[1].since <= over, islice(self.attempts.items(), most)))
        for fd, _ in expired:
            del self.attempts[fd]
        oldest = next(iter(self.attempts.values()), None)
        self.check_at = NEVER if oldest is None else oldest.since + self.patience_ns
        return [attempt for _, attempt in expired]
