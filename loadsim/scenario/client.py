"""[client]: the load, and the behaviour of each connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from loadsim.exchange import Exchange
from loadsim.scenario.arrivals import expected_count
from loadsim.scenario.fields import (
    DAY_S,
    MAX_RATE,
    Contradiction,
    Duration,
    PositiveDuration,
    Ramp,
    Rate,
    Table,
    Timeout,
    key,
    ramp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Space for the records of a whole load is reserved before it starts: 3.2 GB for this many.
MAX_ATTEMPTS = 50_000_000
MAX_CONNECTIONS = 1_000_000  # of one load, at once
_MAX_IN_FLIGHT = 20_000
#: Exchanges in which the client sends a request.
_WITH_REQUEST = (Exchange.ECHO, Exchange.HTTP, Exchange.RAW)
_LONGEST_TEXT = 4000  # characters of a request and of an expected answer: each must fit into one packet of loopback
_PORTIONS = {"half": "half of its request", "none": "nothing"}


def _path(value: str) -> str:
    if re.fullmatch(r"/[!-~]{0,2000}", value) is None:
        says = 'a path begins with "/" and is ASCII without spaces: write other characters as %20 and the like'
        raise PydanticCustomError("path", "{says}", {"says": says})
    return value


class Stage(Table):
    """One stage of an open loop: a duration and a rate."""

    for_: PositiveDuration = Field(alias="for", description='Duration of this stage, such as "5s".')
    rate: Annotated[Ramp, ramp(at_most=MAX_RATE)] = Field(
        description='Rate of arrivals: "50/s" is constant, "50/s..500/s" changes evenly from one to the other.'
    )


def _choice(exchanges: tuple[Exchange, ...]) -> str:
    *others, last = (f'"{exchange}"' for exchange in exchanges)
    return f"{', '.join(others)} or {last}"


def _not_empty(stages: tuple[Stage, ...] | None) -> tuple[Stage, ...] | None:
    if stages is not None and not 1 <= len(stages) <= 1000:
        says = 'stages are 1 to 1,000 tables, such as {for = "5s", rate = "50/s"}'
        raise PydanticCustomError("out_of_range", "{says}", {"says": says})
    return stages


class Client(Table):
    """`[client]`: the load, and the behaviour of each connection."""

    exclusive = (
        ("rate", "clients", "an open loop has a rate, a closed loop has clients"),
        ("rate", "stages", "stages carry their own rates"),
        ("stages", "clients", "an open loop has stages, a closed loop has clients"),
        ("duration", "attempts", "the load ends after a time or after a number of attempts"),
        ("stages", "duration", "the stages set the duration"),
        ("stages", "attempts", "the stages set the number of attempts"),
    )

    rate: Rate | None = key(
        None,
        description="Open loop: clients arrive at this constant rate, however slow the server is.",
    )
    stages: Annotated[tuple[Stage, ...] | None, AfterValidator(_not_empty)] = key(
        None,
        strict=False,
        description="Open loop with a changing rate: 1 to 1,000 stages, one after the other.",
    )
    clients: int | None = key(
        None,
        ge=1,
        le=MAX_CONNECTIONS,
        description="Closed loop: this number of clients; each connects again when its last connection has ended.",
    )
    arrivals: Literal["constant", "poisson"] = key(
        "constant", description="Spacing of the arrivals of an open loop: even (constant) or random (poisson)."
    )
    max_in_flight: int = key(
        _MAX_IN_FLIGHT,
        ge=1,
        le=MAX_CONNECTIONS,
        description="Most connections in flight at once. An arrival beyond it is counted as not_started. "
        "In a closed loop the default is at least the number of clients.",
    )
    duration: PositiveDuration | None = key(
        None, description="Time during which clients arrive; 3s if neither attempts nor stages are set."
    )
    attempts: int | None = key(
        None, ge=1, le=MAX_ATTEMPTS, description="Total number of attempts, instead of duration."
    )
    hold: Duration = key(
        "0s",
        description="Time for which a client keeps its connection after the reply, or after connecting without one.",
    )
    exchange: Exchange = key(
        Exchange.HELLO,
        strict=False,
        description="Protocol: none (connect only), hello (the server sends one byte after accept), echo (8 bytes are "
        "sent and returned), http (one GET request), or raw (send and expect).",
    )
    path: Annotated[str, AfterValidator(_path)] = key("/", description='Path of the request of exchange = "http".')
    send: str | None = key(
        None,
        min_length=1,
        max_length=_LONGEST_TEXT,
        description='The request of exchange = "raw", such as "PING\\r\\n". Required there, not allowed elsewhere.',
    )
    expect: str = key(
        "",
        max_length=_LONGEST_TEXT,
        description='Beginning of the answer of exchange = "raw", such as "+PONG"; with "" any byte is an answer.',
    )
    request: Literal["whole", "half", "none"] = key(
        "whole",
        description="Part of its request that a client sends. After half or none of it, the client only holds its "
        "connection for the time of hold.",
    )
    close: Literal["fin", "rst"] = key(
        "fin", description="How a client closes: with a FIN (close) or with a RST (SO_LINGER 0)."
    )
    connect_timeout: Timeout = key("2s", description="A client that is not connected after this time gives up.")
    reply_timeout: Timeout = key("2s", description="A connected client that has no reply after this time gives up.")
    processes: int = key(1, ge=1, le=64, description="Number of driver processes that share the load.")
    sources: int = key(
        1,
        ge=1,
        le=65_000,
        description="Number of source addresses (127.0.x.y) from which clients connect; each has its own ports.",
    )

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys with the default duration, and with max_in_flight large enough for all clients."""
        has_length = any(given.get(key) is not None for key in ("duration", "attempts", "stages"))
        completed = dict(given) if has_length else {**given, "duration": "3s"}
        clients = given.get("clients")
        if isinstance(clients, int) and _MAX_IN_FLIGHT < clients <= MAX_CONNECTIONS:
            completed.setdefault("max_in_flight", clients)
        return completed

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield keys that exclude each other, and the lack of a rate, stages and clients."""
        yield from super().clashes(given)
        if all(given.get(key) is None for key in ("rate", "stages", "clients")):
            yield Contradiction(
                (), 'no key sets how clients arrive: add rate = "200/s" (open loop) or clients = 100 (closed loop)'
            )

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield settings that no load can combine."""
        yield from self._raw_contradictions()
        yield from self._request_contradictions()
        if self.clients is not None:
            yield from self._closed_loop_contradictions(self.clients)
        elif (planned := self.planned()) > MAX_ATTEMPTS:
            at = "stages" if self.stages else "duration"
            says = f"this plans {planned:,} attempts, at most {MAX_ATTEMPTS:,} are possible: lower the rate or the time"
            yield Contradiction((at,), says, (("rate",),))
        elif planned == 0:
            yield Contradiction(("stages",), "this plans no attempt at all: raise a rate or a time")

    def _raw_contradictions(self) -> Iterator[Contradiction]:
        is_raw = self.exchange is Exchange.RAW
        if is_raw and self.send is None:
            says = r'exchange = "raw" has no request of its own: add one, such as send = "PING\r\n"'
            yield Contradiction(("exchange",), says)
        for name in () if is_raw else ("send", "expect"):
            if getattr(self, name):
                says = f'{name} belongs to exchange = "raw", and this is "{self.exchange}": remove {name}'
                yield Contradiction((name,), says, (("exchange",),))

    def _request_contradictions(self) -> Iterator[Contradiction]:
        if self.asks:
            return
        if self.exchange not in _WITH_REQUEST:
            says = f'exchange = "{self.exchange}" has no request to send in part: choose {_choice(_WITH_REQUEST)}'
            yield Contradiction(("request",), f'{says}, or request = "whole"', (("exchange",),))
        if self.hold == 0:
            says = (
                f"a client that sends {_PORTIONS[self.request]} only holds its connection: set hold to a time above 0s"
            )
            yield Contradiction(("request",), says, (("hold",),))

    def _closed_loop_contradictions(self, clients: int) -> Iterator[Contradiction]:
        if self.arrivals == "poisson":
            yield Contradiction(
                ("arrivals",), "a closed loop has no arrivals: remove arrivals, or clients", (("clients",),)
            )
        if self.processes > clients:
            says = (
                f"{clients} clients cannot be shared by {self.processes} processes: lower processes, or raise clients"
            )
            yield Contradiction(("processes",), says, (("clients",),))
        if self.max_in_flight < clients:
            yield Contradiction(
                ("max_in_flight",),
                f"{clients} clients may be in flight at once: remove max_in_flight, or raise it",
                (("clients",),),
            )

    @property
    def asks(self) -> bool:
        """Whether a client sends its whole request; otherwise it is never served."""
        return self.request == "whole"

    @property
    def expects_reply(self) -> bool:
        """Whether a client waits for a reply before it holds its connection or leaves."""
        return self.asks and self.exchange is not Exchange.NONE

    def schedule(self) -> list[list[float]]:
        """Return the stages of the open loop as [for_s, rate_from, rate_to]; empty in a closed loop."""
        if self.stages is not None:
            return [[stage.for_, stage.rate.start, stage.rate.end] for stage in self.stages]
        if self.rate is None:
            return []
        return [[self.load_s, self.rate, self.rate]]

    @property
    def load_s(self) -> float:
        """Seconds during which attempts start; a day for a closed loop with a number of attempts."""
        if self.stages is not None:
            return sum(stage.for_ for stage in self.stages)
        if self.duration is not None:
            return self.duration
        return self.attempts / self.rate if self.attempts is not None and self.rate is not None else DAY_S

    def planned(self) -> int:
        """Return the planned attempts of an open loop; for Poisson arrivals over a time it is the mean."""
        return expected_count(self.schedule(), attempts=self.attempts, duration_s=self.load_s)
