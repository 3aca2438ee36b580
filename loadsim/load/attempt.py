"""One connection of a client while it lives, and the stages it waits in.

Owns how an attempt becomes its record. Must not touch a clock; sockets are only carried.
"""

from __future__ import annotations

import struct
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from loadsim.load.demand import NEVER
from loadsim.record.events import ATTEMPT, Outcome

if TYPE_CHECKING:
    import _socket
    import mmap

_pack_into = ATTEMPT.struct.pack_into
_fields = [name for name, _ in ATTEMPT.fields]
#: What is known of a record only at its end: ended, source, port, errno, outcome, syn_retransmits, flags.
TAIL = struct.Struct("=" + "".join(code for _, code in ATTEMPT.fields[_fields.index("ended") :]))
TAIL_AT = ATTEMPT.offset_of("ended")


class Attempt:
    """An attempt whose socket is open. Times as in `record.events.ATTEMPT`; `at` is its slot, -1: none."""

    __slots__ = (
        "at",
        "connected",
        "deadline",
        "ended",
        "errno",
        "fd",
        "flags",
        "intended",
        "number",
        "outcome",
        "port",
        "received",
        "replied",
        "sock",
        "source",
        "started",
        "syn_retransmits",
    )

    def __init__(self, sock: _socket.socket, number: int, intended: int, at: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.at = at
        self.number = number
        self.intended = intended
        self.started = self.connected = self.replied = self.ended = 0
        self.source = self.port = self.errno = self.syn_retransmits = self.flags = 0
        self.outcome = Outcome.UNFINISHED
        self.received = b""
        self.deadline = NEVER

    def write(self, buffer: mmap.mmap) -> None:
        """Write the record as it stands."""
        if self.at < 0:
            return
        _pack_into(
            buffer,
            self.at,
            self.number,
            self.intended,
            self.started,
            self.connected,
            self.replied,
            self.ended,
            self.source,
            self.port,
            self.errno,
            self.outcome,
            self.syn_retransmits,
            self.flags,
        )


class Stage:
    """The attempts that wait for the same thing, by descriptor, each for the same time: so the oldest ends first.

    Looking at the oldest is what costs (a dict skips its deleted entries), and nearly every attempt leaves long before
    its deadline; so that happens at `check_at` only, which is never later than the first deadline.
    """

    __slots__ = ("attempts", "check_at", "patience_ns")

    def __init__(self, patience_ns: int) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.check_at = NEVER
        self.patience_ns = patience_ns

    def enter(self, attempt: Attempt, now: int) -> None:
        """Let an attempt wait from now on; the caller hands in times that never decrease."""
        attempt.deadline = now + self.patience_ns
        self.attempts[attempt.fd] = attempt
        if self.check_at == NEVER:
            self.check_at = attempt.deadline

    def leave_expired(self, now: int, most: int) -> list[Attempt]:
        """Remove and return the attempts whose time is over, oldest first, at most so many."""
        if now < self.check_at:
            return []
        expired = list(takewhile(lambda attempt: attempt.deadline <= now, islice(self.attempts.values(), most)))
        for attempt in expired:
            del self.attempts[attempt.fd]
        oldest = next(iter(self.attempts.values()), None)
        self.check_at = NEVER if oldest is None else oldest.deadline
        return expired
