"""[client]: who connects, how often, and what each connection says and how long it stays."""

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
#: Exchanges in which the client says something.
_WITH_REQUEST = (Exchange.ECHO, Exchange.HTTP, Exchange.RAW)
_MOST_SAID = 4000  # characters of a request and of an expected answer: they have to fit into one packet of loopback
_PORTIONS = {"half": "half of its request", "none": "nothing"}


def _path(value: str) -> str:
    if re.fullmatch(r"/[!-~]{0,2000}", value) is None:
        says = 'a path begins with "/" and has neither spaces nor letters beyond ASCII: write those as %20 and the like'
        raise PydanticCustomError("path", "{says}", {"says": says})
    return value


class Stage(Table):
    """One stage of an open loop: how long, and its rate."""

    for_: PositiveDuration = Field(alias="for", description="How long.")
    rate: Annotated[Ramp, ramp(at_most=MAX_RATE)] = Field(description='"50/s", or evenly from "50/s..500/s".')


def _choice(exchanges: tuple[Exchange, ...]) -> str:
    *others, last = (f'"{exchange}"' for exchange in exchanges)
    return f"{', '.join(others)} or {last}"


def _not_empty(stages: tuple[Stage, ...] | None) -> tuple[Stage, ...] | None:
    if stages is not None and not 1 <= len(stages) <= 1000:
        says = 'stages are 1 to 1,000 tables, such as {for = "5s", rate = "50/s"}'
        raise PydanticCustomError("out_of_range", "{says}", {"says": says})
    return stages


class Client(Table):
    """`[client]`: who connects, how often, and what each connection does."""

    exclusive = (
        ("rate", "clients", "an open loop has a rate, a closed loop has clients"),
        ("rate", "stages", "stages carry their own rates"),
        ("stages", "clients", "an open loop has stages, a closed loop has clients"),
        ("duration", "attempts", "the load ends after a time or after a number of attempts"),
        ("stages", "duration", "the stages say how long"),
        ("stages", "attempts", "the stages say how many"),
    )

    rate: Rate | None = key(None, description="Open loop: clients arrive at this rate, whatever the server does.")
    stages: Annotated[tuple[Stage, ...] | None, AfterValidator(_not_empty)] = key(
        None, strict=False, description="Open loop with a rate that changes."
    )
    clients: int | None = key(
        None, ge=1, le=MAX_CONNECTIONS, description="Closed loop: each starts again when its last connection ended."
    )
    arrivals: Literal["constant", "poisson"] = key("constant", description="How an open loop spaces its arrivals.")
    max_in_flight: int = key(
        _MAX_IN_FLIGHT,
        ge=1,
        le=MAX_CONNECTIONS,
        description="A stop, not a throttle: beyond it an arrival is not started.",
    )
    duration: PositiveDuration | None = key(None, description="How long clients arrive; 3s where nothing says so.")
    attempts: int | None = key(None, ge=1, le=MAX_ATTEMPTS, description="Instead of duration: stop after so many.")
    hold: Duration = key("0s", description="Keep each connection this long.")
    exchange: Exchange = key(Exchange.HELLO, strict=False, description="What a connection says.")
    path: Annotated[str, AfterValidator(_path)] = key("/", description="What an HTTP request asks for.")
    send: str | None = key(
        None,
        min_length=1,
        max_length=_MOST_SAID,
        description='What a client of exchange raw says, such as "PING\\r\\n".',
    )
    expect: str = key(
        "", max_length=_MOST_SAID, description='How its answer begins, such as "+PONG"; "": any byte is an answer.'
    )
    request: Literal["whole", "half", "none"] = key(
        "whole", description="How much of its request a client sends; after less than all it only holds its connection."
    )
    close: Literal["fin", "rst"] = key("fin", description="How a client closes.")
    connect_timeout: Timeout = key("2s", description="Give up connecting after this.")
    reply_timeout: Timeout = key("2s", description="Give up waiting for the reply after this.")
    processes: int = key(1, ge=1, le=64, description="How many driver processes share the load.")
    sources: int = key(1, ge=1, le=65_000, description="How many 127.0.x.y source addresses.")

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys with the length of a load that says nothing about it, and room for all clients."""
        says_length = any(given.get(key) is not None for key in ("duration", "attempts", "stages"))
        completed = dict(given) if says_length else {**given, "duration": "3s"}
        clients = given.get("clients")
        if isinstance(clients, int) and _MAX_IN_FLIGHT < clients <= MAX_CONNECTIONS:
            completed.setdefault("max_in_flight", clients)
        return completed

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield keys that exclude each other, or the lack of all that say how clients arrive."""
        yield from super().clashes(given)
        if all(given.get(key) is None for key in ("rate", "stages", "clients")):
            yield Contradiction(
                (), 'nothing says how clients arrive: choose rate = "200/s" (open loop) or clients = 100 (closed loop)'
            )

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what no load could do."""
        yield from self._raw_contradictions()
        yield from self._request_contradictions()
        if self.clients is not None:
            yield from self._closed_loop_contradictions(self.clients)
        elif (planned := self.planned()) > MAX_ATTEMPTS:
            at = "stages" if self.stages else "duration"
            says = f"this plans {planned:,} attempts, {MAX_ATTEMPTS:,} are possible: lower the rate or the time"
            yield Contradiction((at,), says, (("rate",),))
        elif planned == 0:
            yield Contradiction(("stages",), "this plans no attempt at all: raise a rate or a time")

    def _raw_contradictions(self) -> Iterator[Contradiction]:
        is_raw = self.exchange is Exchange.RAW
        if is_raw and self.send is None:
            says = r'exchange = "raw" says nothing by itself: add what a client says, such as send = "PING\r\n"'
            yield Contradiction(("exchange",), says)
        for name in () if is_raw else ("send", "expect"):
            if getattr(self, name):
                says = f'{name} belongs to exchange = "raw", and "{self.exchange}" has its own words: take {name} away'
                yield Contradiction((name,), says, (("exchange",),))

    def _request_contradictions(self) -> Iterator[Contradiction]:
        if self.asks:
            return
        if self.exchange not in _WITH_REQUEST:
            says = f'exchange = "{self.exchange}" has no request to send less of: choose {_choice(_WITH_REQUEST)}'
            yield Contradiction(("request",), f'{says}, or request = "whole"', (("exchange",),))
        if self.hold == 0:
            says = f"a client that sends {_PORTIONS[self.request]} only holds its connection: set hold to how long"
            yield Contradiction(("request",), says, (("hold",),))

    def _closed_loop_contradictions(self, clients: int) -> Iterator[Contradiction]:
        if self.arrivals == "poisson":
            yield Contradiction(
                ("arrivals",), "a closed loop has no arrivals: take arrivals away, or clients", (("clients",),)
            )
        if self.processes > clients:
            says = (
                f"{clients} clients cannot be shared by {self.processes} processes: lower processes, or raise clients"
            )
            yield Contradiction(("processes",), says, (("clients",),))
        if self.max_in_flight < clients:
            yield Contradiction(
                ("max_in_flight",),
                f"{clients} clients may be in flight at once: take max_in_flight away, or raise it",
                (("clients",),),
            )

    @property
    def asks(self) -> bool:
        """Whether a client sends all that it has to say; one that does not is never served."""
        return self.request == "whole"

    @property
    def expects_reply(self) -> bool:
        """Whether a client waits for an answer before it holds its connection, or leaves."""
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
        """How long new attempts start; a closed loop that counts attempts has only the longest time there is."""
        if self.stages is not None:
            return sum(stage.for_ for stage in self.stages)
        if self.duration is not None:
            return self.duration
        return self.attempts / self.rate if self.attempts is not None and self.rate is not None else DAY_S

    def planned(self) -> int:
        """Return how many attempts an open loop plans: exact, but for Poisson arrivals over a time their mean."""
        return expected_count(self.schedule(), attempts=self.attempts, duration_s=self.load_s)
