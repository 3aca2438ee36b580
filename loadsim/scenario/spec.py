"""What the simulated server and each driver are told: the scenario, reduced to what they need, as plain values.

Frozen dataclasses of the standard library that travel as JSON: the processes under measurement import neither
pydantic nor numpy, whose threads would share the fd table under test.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from loadsim.exchange import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Something that travels to a child process as one line of JSON."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the spec that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "exchange": Exchange(values["exchange"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec(Spec):
    """The simulated server. Times in seconds; `None` as said per field."""

    address: str
    port: int  # 0: any free one
    backlog: int
    nofile: int | None  # soft RLIMIT_NOFILE; None: as inherited
    leak: float
    leak_of: str  # "connection" | "extra"
    extra_fds: int
    close_after_s: float | None  # None: when the client closes
    accept_delay_s: float
    pause_s: float
    pause_every_s: float
    on_emfile: str  # sleep | backoff | spin | shed | until_close | exit
    emfile_delay_s: float
    idle_threads: int
    prewarm_fds: int
    exchange: Exchange
    expect: str = ""  # of exchange raw: what it answers; "": something
    seed: int
    accepts_path: str
    accepts_capacity: int
    failures_path: str
    failures_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSpec:
    """A server that writes no records and is told nothing: where what is seen of it is written down."""

    accepts_path: str
    failures_path: str
    failures_capacity: int
    sockets_path: str
    sockets_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSpec(WatchedSpec):
    """A server that runs already."""

    pid: int | None  # one of its processes; None: nobody says which
    address: str | None  # where it is reached; None: where the process listens
    port: int  # 0: the same
    on_ipv4_loopback: bool  # the clients need source addresses of their own, 127.0.x.y


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec(WatchedSpec):
    """A command as the server: this is for who starts it."""

    command: list[str]  # "{port}" stands for the port
    address: str
    port: int  # 0: any free one
    nofile: int | None  # RLIMIT_NOFILE, soft and hard; None: as inherited
    nofile_later: int  # the highest one that it gets while it runs: its hard limit then; 0: none
    start_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec(Spec):
    """One driver's share of the load. Times in seconds, rates in attempts per second."""

    share: int  # 0 .. processes - 1
    processes: int
    address: str
    port: int
    stages: list[list[float]]  # open loop: [for_s, rate_from, rate_to] of the whole load; empty: closed loop
    arrivals: str  # "constant" | "poisson"
    clients: int  # closed loop: of this driver; 0: open loop
    attempts: int | None  # of the whole load; None: until `duration_s` is over
    duration_s: float
    max_in_flight: int  # of this driver
    hold_s: float
    exchange: Exchange
    path: str = "/"  # of the HTTP request
    send: str = ""  # of exchange raw: what a client says,
    expect: str = ""  # and how an answer to it begins; "": any byte is one
    request: str = "whole"  # "whole" | "half" | "none": how much of it is sent; where not all, no reply is expected
    close: str  # "fin" | "rst"
    connect_timeout_s: float
    reply_timeout_s: float
    sources: int
    first_source: int  # index of the first source address
    seed: int
    attempts_path: str
    attempts_capacity: int


#: The canary comes from 127.0.1.1, the connections that it holds from 127.0.1.2: nobody else does.
CANARY_SOURCE, HELD_SOURCE = 254, 255


def source_address(index: int) -> str:
    """Return the source address with this index: 127.0.0.1, 127.0.0.2, ... skipping .0 and .255."""
    third, fourth = divmod(index, 254)
    return f"127.0.{third}.{fourth + 1}"
