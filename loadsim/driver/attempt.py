"""One open connection of a client, and the stages in which it waits.

Owns how the record of an attempt is completed. Must not read a clock; it only carries sockets.
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
#: The fields that are written when an attempt ends: replied, ended, source, port, errno, outcome, syn_retransmits,
#: flags. The fields before them are written at its start.
TAIL = struct.Struct("=" + "".join(code for _, code in ATTEMPT.fields[_fields.index("replied") :]))
TAIL_AT = ATTEMPT.offset_of("replied")
_STARTED_AT, _CONNECTED_AT = ATTEMPT.offset_of("started"), ATTEMPT.offset_of("connected")
_TIME = struct.Struct("=Q")


class Attempt:
    """An attempt with an open socket. `at` is the offset of its record in the journal, -1 if no slot was free.

    Fields as in `record.records.ATTEMPT`. Fields that an ordinary attempt needs only at its end are class attributes,
    because the object is made in the hot loop and each attribute costs time.
    """

    replied = 0
    errno = 0
    syn_retransmits = 0
    flags = 0
    received = b""

    def __init__(  # noqa: PLR0917  # keyword arguments cost 0.3 us in the hot loop
        self, sock: _socket.socket, number: int, at: int, source: int, port: int, connected: int, since: int
    ) -> None:
        self.sock = sock
        self.number = number
        self.at = at
        self.source = source
        self.port = port
        self.connected = connected
        self.since = since  # when its stage began

    def write(self, buffer: mmap.mmap, *, ended: int = 0, outcome: int = 0) -> None:
        """Write the fields that change after the start; without `ended`, the attempt is still open."""
        if self.at >= 0:
            values = (self.source, self.port, self.errno, outcome, self.syn_retransmits, self.flags)
            TAIL.pack_into(buffer, self.at + TAIL_AT, self.replied, ended, *values)

    def write_connected(self, buffer: mmap.mmap) -> None:
        """Write the time of a connection that was not complete when connect() returned."""
        if self.at >= 0:
            _TIME.pack_into(buffer, self.at + _CONNECTED_AT, self.connected)

    def write_never_started(self, buffer: mmap.mmap) -> None:
        """Reset the start time to 0: connect() failed before it sent a packet."""
        if self.at >= 0:
            _TIME.pack_into(buffer, self.at + _STARTED_AT, 0)


class Phase:
    """The attempts in one stage, by descriptor. All have the same time-out, so the oldest one expires first.

    Finding the oldest is expensive (a dict skips its deleted entries), and nearly every attempt leaves long before its
    time-out. The check therefore waits until `check_at`, which is never later than the first deadline.
    """

    __slots__ = ("attempts", "check_at", "patience_ns")

    def __init__(self, patience_ns: int) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.check_at = NEVER
        self.patience_ns = patience_ns

    def enter(self, fd: int, attempt: Attempt) -> None:
        """Add an attempt; its `since` must not be earlier than that of the last one."""
        self.attempts[fd] = attempt
        self.expect()

    def expect(self) -> None:
        """Update `check_at` after attempts were added without `enter`."""
        if self.check_at == NEVER:
            self.check_at = next(iter(self.attempts.values())).since + self.patience_ns

    def recheck(self) -> None:
        """Update `check_at` after attempts were removed without `leave_expired`."""
        self.check_at = NEVER
        if self.attempts:
            self.expect()

    def leave_expired(self, now: int, most: int) -> list[Attempt]:
        """Remove and return at most `most` expired attempts, oldest first."""
        if now < self.check_at:
            return []
        over = now - self.patience_ns
        expired = list(takewhile(lambda entry: entry[1].since <= over, islice(self.attempts.items(), most)))
        for fd, _ in expired:
            del self.attempts[fd]
        oldest = next(iter(self.attempts.values()), None)
        self.check_at = NEVER if oldest is None else oldest.since + self.patience_ns
        return [attempt for _, attempt in expired]
