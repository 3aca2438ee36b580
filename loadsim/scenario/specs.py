"""What the simulated server and each driver are told: the scenario, reduced to what they need, as plain values.

Frozen dataclasses of the standard library that travel as JSON: the processes under measurement import neither
pydantic nor numpy, whose threads would share the fd table under test. `ServerSettings` and `ClientSettings` are views
of the tables [server] and [client], which declare each setting with its unit, bounds, default and meaning. They name
the settings that cross, and `tables.carried` fills them: a dataclass that is generated from the tables would hide its
fields from mypy and from a reader. A test holds names and types against the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from loadsim.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Something that travels to a child process in the order "prepare"."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec of which these values, read from JSON, are the fields."""
        return cls(**{**values, "exchange": Exchange(values["exchange"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Spec):
    """The settings of [server] that the simulated server needs; times in seconds."""

    backlog: int
    nofile: int | None
    leak: float
    leak_of: str
    extra_fds: int
    close_after_s: float | None
    accept_delay_s: float
    pause_s: float
    pause_every_s: float
    on_emfile: str
    emfile_delay_s: float
    idle_threads: int
    prewarm_fds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec(ServerSettings):
    """The simulated server."""

    address: str
    port: int  # 0: any free one
    exchange: Exchange
    expect: str  # of exchange raw: what it answers; "": something
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
class ClientSettings(Spec):
    """The settings of [client] that a driver needs as they are; times in seconds."""

    arrivals: str
    attempts: int | None
    hold_s: float
    exchange: Exchange
    path: str
    send: str | None
    expect: str
    request: str
    close: str
    connect_timeout_s: float
    reply_timeout_s: float
    processes: int
    sources: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec(ClientSettings):
    """One driver's share of the load. Times in seconds, rates in attempts per second."""

    share: int  # 0 .. processes - 1
    address: str
    port: int
    stages: list[list[float]]  # open loop: [for_s, rate_from, rate_to] of the whole load; empty: closed loop
    clients: int  # closed loop: of this driver; 0: open loop
    duration_s: float
    max_in_flight: int  # of this driver
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
