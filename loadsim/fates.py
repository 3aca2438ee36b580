"""The two results of an attempt: its fate at the server, and the outcome that its client sees.

Each member of the two enums is one row: its code in records, and its properties in texts, tables, charts and metrics.
Its public name is the member name in lower case: "not_started" in `summary.json`, `fate.not_started` among the metrics.
This module imports only the standard library, since the server and the drivers import it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from collections.abc import Mapping


class Better(enum.StrEnum):
    """The better direction of a number; NEITHER if it depends on the question."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


class Tone(enum.StrEnum):
    """How good or bad a fate is for its client, and which side caused it. It sets the colour in tables and charts."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    PHANTOM = "phantom"  # bad, and invisible to the server
    GENERATOR = "generator"  # a loss of the load generator
    UNKNOWN = "unknown"


class Pattern(enum.StrEnum):
    """The pattern over the colour: it distinguishes fates of the same colour."""

    PLAIN = "plain"
    RISING = "rising"
    FALLING = "falling"
    LINES = "lines"
    DOTS = "dots"


@dataclass(frozen=True, slots=True, kw_only=True)
class FateRow:
    """Everything about a fate besides its code."""

    better: Better
    tone: Tone
    pattern: Pattern
    means: str  # completes "where an attempt ended at the server:"
    words: str  # the same in at most 29 characters, for tables
    look_at: str  # "" if there is nothing to look at
    do: str  # "" if there is nothing to do


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """Everything about an outcome besides its code."""

    better: Better
    means: str  # completes "what the client of an attempt saw:"
    words: str  # the same for tables; {connect} and {reply} become " in 2 s", the time-outs of the scenario, or ""
    look_at: str
    do: str


_SEE_LIMITED = "The errno in the finding generator-limited."
_RAISE_LIMIT = "This is a limit of the load generator, not a fault of the server: raise it."
_RAISE_IN_FLIGHT = "Raise client.max_in_flight. If loadsim started these attempts later, it would hide the delay."
_LISTENING = "`ss -ltn`: does a socket listen on that port?"
_START = "Start the server. See the finding target-ended."


class Fate(enum.IntEnum):
    """Where an attempt ended at the server; every attempt has exactly one, decided by `analysis.ledger`."""

    row: FateRow

    def __new__(cls, code: int, row: FateRow | None = None) -> Self:
        """Return the member with this code; its row becomes an attribute.

        Every member has a row. The default is for type checkers: Fate(code) finds a member and does not call this.
        """
        member = int.__new__(cls, code)
        member._value_ = code
        member.row = cast("FateRow", row)
        return member

    ACCEPTED = (
        0,
        FateRow(
            better=Better.HIGHER,
            tone=Tone.GOOD,
            pattern=Pattern.PLAIN,
            means="the server's accept() returned it, perhaps after its client had left (see the outcome)",
            words="accept() returned it",
            look_at="The outcome: it shows whether the client was still there.",
            do="",
        ),
    )
    SHED = (
        1,
        FateRow(
            better=Better.LOWER,
            tone=Tone.WARN,
            pattern=Pattern.PLAIN,
            means="the server accepted it and closed it at once, unserved (the reserved-descriptor trick)",
            words="accepted, closed at once",
            look_at="",
            do="See the finding shed-clients.",
        ),
    )
    QUEUED = (
        2,
        FateRow(
            better=Better.LOWER,
            tone=Tone.WARN,
            pattern=Pattern.RISING,
            means="it was complete and still in the accept queue when the run ended",
            words="still in the accept queue",
            look_at="`ss -tn` at the server: ESTABLISHED (or CLOSE-WAIT) without a process, inode 0.",
            do="Such a client believes that it is connected. See the findings false-connect and slow-accept.",
        ),
    )
    ORPHANED = (
        3,
        FateRow(
            better=Better.LOWER,
            tone=Tone.BAD,
            pattern=Pattern.FALLING,
            means="it was in the accept queue when the listener died",
            words="queued when the listener died",
            look_at="",
            do="See the finding target-ended.",
        ),
    )
    PHANTOM = (
        4,
        FateRow(
            better=Better.LOWER,
            tone=Tone.PHANTOM,
            pattern=Pattern.DOTS,
            means="its client was connected, but it never entered the accept queue of the server",
            words="no socket at the server",
            look_at="`ss -tan` at the server: no socket for it, or one in SYN-RECV.",
            do="See the finding phantom-connections.",
        ),
    )
    ABORTED = (
        5,
        FateRow(
            better=Better.LOWER,
            tone=Tone.BAD,
            pattern=Pattern.RISING,
            means="the kernel reset it at a full queue (net.ipv4.tcp_abort_on_overflow)",
            words="reset at the full queue",
            look_at="",
            do="See the finding queue-abort.",
        ),
    )
    # 6 is reserved: it was a fate of older versions that cannot occur here (the SYN-ACK never reached the client).
    DROPPED = (
        7,
        FateRow(
            better=Better.LOWER,
            tone=Tone.BAD,
            pattern=Pattern.FALLING,
            means="none of its SYNs led to a connection, and none was refused",
            words="its SYNs went unanswered",
            look_at="`ss -tan state syn-sent` at the client.",
            do="See the finding queue-overflow.",
        ),
    )
    REFUSED = (
        8,
        FateRow(
            better=Better.LOWER,
            tone=Tone.BAD,
            pattern=Pattern.LINES,
            means="its SYN was answered with a RST because no socket listened",
            words="no socket listened",
            look_at=_LISTENING,
            do=_START,
        ),
    )
    LOCAL = (
        9,
        FateRow(
            better=Better.LOWER,
            tone=Tone.GENERATOR,
            pattern=Pattern.PLAIN,
            means="a limit of the load generator stopped it before it left; it does not count against the server",
            words="never left the generator",
            look_at=_SEE_LIMITED,
            do=_RAISE_LIMIT,
        ),
    )
    NOT_STARTED = (
        10,
        FateRow(
            better=Better.LOWER,
            tone=Tone.GENERATOR,
            pattern=Pattern.PLAIN,
            means="it was planned, but client.max_in_flight or the end of the run prevented its start",
            words="planned, not started",
            look_at="",
            do=_RAISE_IN_FLIGHT,
        ),
    )
    UNKNOWN = (
        11,
        FateRow(
            better=Better.LOWER,
            tone=Tone.UNKNOWN,
            pattern=Pattern.PLAIN,
            means="no other fate is proved",
            words="no proof of any fate",
            look_at="",
            do="It occurs if records of the server are missing, as after a killed run, or if the server writes none. "
            "See the finding fates-unknown.",
        ),
    )

    @property
    def id(self) -> str:
        """Its public name."""
        return self.name.lower()


class Outcome(enum.IntEnum):
    """The result of an attempt for its client; every attempt has exactly one."""

    row: OutcomeRow

    def __new__(cls, code: int, row: OutcomeRow | None = None) -> Self:
        """Return the member with this code; its row becomes an attribute.

        Every member has a row. The default is for type checkers: Outcome(code) finds a member and does not call this.
        """
        member = int.__new__(cls, code)
        member._value_ = code
        member.row = cast("OutcomeRow", row)
        return member

    OK = (
        1,
        OutcomeRow(
            better=Better.HIGHER,
            means="the exchange completed",
            words="ok",
            look_at="reply.* has the response times.",
            do="",
        ),
    )
    CONNECTED = (
        2,
        OutcomeRow(
            better=Better.NEITHER,
            means="it connected and closed as planned, without an exchange, which proves nothing about service",
            words="connected, as planned",
            look_at="The fate: it may never have been accepted.",
            do="Use another client.exchange to test the service.",
        ),
    )
    ERROR = (
        3,
        OutcomeRow(
            better=Better.LOWER,
            means="a reply that reports an error (an HTTP status of 400 or more)",
            words="a reply with an error",
            look_at="The server's log.",
            do="See the finding emfile-handler.",
        ),
    )
    EOF = (
        4,
        OutcomeRow(
            better=Better.LOWER,
            means="the server ended the stream before the reply",
            words="end of stream, no reply",
            look_at="",
            do="The server closed without a reply: see the findings shed-clients and emfile-handler.",
        ),
    )
    RESET = (
        5,
        OutcomeRow(
            better=Better.LOWER,
            means="a RST before the reply",
            words="connection reset, no reply",
            look_at="",
            do="The server or its kernel ended the connection: see shed-clients, queue-abort and target-ended.",
        ),
    )
    REFUSED = (
        6,
        OutcomeRow(
            better=Better.LOWER,
            means="ECONNREFUSED",
            words="connection refused",
            look_at=_LISTENING,
            do=_START,
        ),
    )
    CONNECT_TIMEOUT = (
        7,
        OutcomeRow(
            better=Better.LOWER,
            means="it gave up connecting",
            words="no answer to connect{connect}",
            look_at="The fate, mostly `dropped`.",
            do="See the finding queue-overflow.",
        ),
    )
    REPLY_TIMEOUT = (
        8,
        OutcomeRow(
            better=Better.LOWER,
            means="it connected, and no reply came in time",
            words='"connected", then no reply{reply}',
            look_at="The fate: the server never accepted a `queued` client, has no socket for a `phantom`, and replied "
            "slowly or late to an `accepted` one.",
            do="",
        ),
    )
    LOCAL = (
        9,
        OutcomeRow(
            better=Better.LOWER,
            means="a limit of the load generator",
            words="a limit of the generator",
            look_at=_SEE_LIMITED,
            do=_RAISE_LIMIT,
        ),
    )
    NOT_STARTED = (
        10,
        OutcomeRow(
            better=Better.LOWER,
            means="nothing: the attempt did not start",
            words="did not start",
            look_at="",
            do=_RAISE_IN_FLIGHT,
        ),
    )
    UNFINISHED = (
        0,  # in a record that was started and never completed
        OutcomeRow(
            better=Better.LOWER,
            means="no end, since it was still in progress when the run ended",
            words="no answer before the end",
            look_at="Whether the run was interrupted.",
            do="A longer client.reply_timeout does not help.",
        ),
    )

    @property
    def id(self) -> str:
        """Its public name."""
        return self.name.lower()


#: By public name, in the order of tables.
FATES: Mapping[str, Fate] = MappingProxyType({fate.id: fate for fate in Fate})
OUTCOMES: Mapping[str, Outcome] = MappingProxyType({outcome.id: outcome for outcome in Outcome})
