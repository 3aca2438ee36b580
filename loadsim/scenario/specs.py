"""The specs of child processes: the settings of a scenario that each one needs, as plain values.

Specs are frozen dataclasses of the standard library that travel as JSON. The measured processes import neither pydantic
nor numpy, because a thread of numpy would share the fd table under test. `ServerSettings` and `ClientSettings` name the
settings of the tables [server] and [client] that travel; `fields.carried` fills them. They are written out because a
generated dataclass would hide its fields from mypy and from readers. A test holds names and types against the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from loadsim.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Values that travel to a child process in the message "prepare"."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec with these field values, read from JSON."""
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
    expect: str  # the answer of exchange raw; "": any
    seed: int
    accepts_path: str
    accepts_capacity: int
    failures_path: str
    failures_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSpec:
    """The records of a server that writes none itself, because it is not ours: loadsim observes it."""

    accepts_path: str
    failures_path: str
    failures_capacity: int
    sockets_path: str
    sockets_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSpec(ObservedSpec):
    """A running server."""

    pid: int | None  # one of its processes; None: unknown
    address: str | None  # None: the address on which the process listens
    port: int  # 0: the port on which the process listens
    on_ipv4_loopback: bool  # the clients need several source addresses, 127.0.x.y


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec(ObservedSpec):
    """A command as the server; its starter reads this."""

    command: list[str]  # "{port}" stands for the port
    address: str
    port: int  # 0: any free one
    nofile: int | None  # RLIMIT_NOFILE, soft and hard; None: as inherited
    nofile_later: int  # the highest limit of the timeline, used as hard limit; 0: none
    start_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(Spec):
    """The settings of [client] that a driver needs unchanged; times in seconds."""

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


#: The canary connects from 127.0.1.1, the held connections from 127.0.1.2, and no other client does.
CANARY_SOURCE, HELD_SOURCE = 254, 255


def source_address(index: int) -> str:
    """Return the source address with this index: 127.0.0.1, 127.0.0.2, ... skipping .0 and .255."""
    third, fourth = divmod(index, 254)
    return f"127.0.{third}.{fourth + 1}"
