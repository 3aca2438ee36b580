"""[server]: the server under test: the simulated server, a command, or a server that already runs."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, SerializerFunctionWrapHandler, WithJsonSchema, model_serializer
from pydantic_core import PydanticCustomError

from loadsim.scenario.fields import DURATION_PATTERN, Contradiction, Duration, PositiveDuration, Table, Timeout, key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CLOSE_AFTER = {"anyOf": [{"const": "client"}, {"type": "string", "pattern": DURATION_PATTERN}]}


def _close_after(value: object) -> object:
    return None if value == "client" else value


def _command(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if value is not None and not (value and value[0] and all("\0" not in part for part in value)):
        says = 'a command is its program and arguments, such as ["python3", "-m", "http.server", "{port}"]'
        raise PydanticCustomError("command", "{says}", {"says": says})
    return value


class Endpoint(NamedTuple):
    """Where a server listens: a numeric address and a port."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Endpoint:
        """Return the endpoint of "127.0.0.1:80" or "[::1]:80"; raises ValueError if the text is not one."""
        host, _, port = text.rpartition(":")
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        if (
            (address.version == 6) != host.startswith("[")
            or address.is_unspecified
            or address.is_multicast
            or "%" in host
        ):
            raise ValueError(f"a client cannot connect to {host}")
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
            raise ValueError(f"{port} is not a port")
        return cls(str(address), int(port))


def _address(value: str | None) -> str | None:
    try:
        if value is not None:
            Endpoint.of(value)
    except ValueError:
        says = 'write a numeric address and a port, such as "127.0.0.1:8080" or "[::1]:8080"'
        raise PydanticCustomError("address", "{says}", {"says": says}) from None
    return value


#: Keys of `[server]` for a command, and for a running server; all others belong to the simulated server.
_OF_A_COMMAND = ("command", "nofile", "start_timeout")
_OF_A_RUNNING_ONE = ("pid", "address")


class Server(Table):
    """`[server]`: the simulated server, or instead a command, or a server that already runs."""

    exclusive = (
        ("command", "pid", "a command is started, but a running server is not"),
        ("command", "address", "a command is started, but a running server is not"),
    )

    command: Annotated[tuple[str, ...] | None, AfterValidator(_command)] = key(
        None,
        strict=False,
        description="Program and arguments of a server that is started instead of the simulated one. {port} is "
        "replaced by its port.",
    )
    start_timeout: Timeout = key(
        "10s", description="Only with command: the run fails if the command does not listen after this time."
    )
    pid: int | None = key(
        None,
        ge=1,
        le=2**22,
        description="Process id of a running server. It is only observed: never limited, stopped or ended.",
    )
    address: Annotated[str | None, AfterValidator(_address)] = key(
        None, description='Address of a running server, such as "127.0.0.1:8080". The server is only observed.'
    )
    backlog: int = key(
        128,
        ge=0,
        le=2**31 - 1,
        description="Backlog that the simulated server passes to listen(2). The accept queue holds "
        "min(backlog, net.core.somaxconn) + 1 connections.",
    )
    nofile: int | None = key(
        None,
        ge=1,
        le=2**30,
        description="RLIMIT_NOFILE of the server process, in descriptors. Without it the server inherits a limit.",
    )
    leak: float = key(
        0.0, ge=0, le=1, description="Fraction of the accepted connections, from 0 to 1, that the server never closes."
    )
    leak_of: Literal["connection", "extra"] = key(
        "connection",
        description="What a leak keeps open: the connection, or the further descriptors of its request (extra_fds).",
    )
    extra_fds: int = key(
        0, ge=0, le=1000, description="Number of descriptors that each request opens beside its socket."
    )
    close_after: Annotated[Duration | None, BeforeValidator(_close_after), WithJsonSchema(_CLOSE_AFTER)] = key(
        "0s",
        description='Time from the reply until the server closes the connection; with "client" it closes when the '
        "client does.",
    )
    accept_delay: Duration = key("0s", description="Time that the server waits after each accept before the next one.")
    pause: Duration = key(
        "0s",
        description="Length of a pause in which the server does nothing, such as a garbage collection; 0s: no pauses.",
    )
    pause_every: PositiveDuration = key(
        "500ms", description="Time from the start of one pause to the start of the next."
    )
    on_emfile: Literal["sleep", "backoff", "spin", "shed", "until_close", "exit"] = key(
        "sleep",
        description='Reaction to "Too many open files" (EMFILE) in accept: sleep (for emfile_delay), backoff (double '
        "the delay each time, up to 1s), spin (retry at once), shed (accept with a reserved descriptor, close "
        "at once), until_close (wait until a connection closes), or exit.",
    )
    emfile_delay: PositiveDuration = key(
        "100ms", description="Delay after EMFILE with on_emfile = sleep; the first delay with backoff."
    )
    idle_threads: int = key(
        0, ge=0, le=64, description="Number of idle threads in the server. They share its fd table and slow its growth."
    )
    prewarm_fds: int = key(
        0,
        ge=0,
        le=2**20,
        description="Size to which the server grows its fd table before the load; 0 leaves it as it is.",
    )

    @property
    def is_running(self) -> bool:
        """Whether the server already runs; then it must not be changed."""
        return self.pid is not None or self.address is not None

    @property
    def is_simulated(self) -> bool:
        """Whether this is the simulated server."""
        return not self.command and not self.is_running

    @property
    def endpoint(self) -> Endpoint | None:
        """The address of a running server; None if the scenario does not name it."""
        return None if self.address is None else Endpoint.of(self.address)

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield keys that do not belong to this kind of server."""
        yield from super().clashes(given)
        kind = next((name for name in ("command", *_OF_A_RUNNING_ONE) if given.get(name) is not None), None)
        if kind is None:
            if "start_timeout" in given:
                yield Contradiction(("start_timeout",), "start_timeout belongs to a command: remove it, or set command")
            return
        ours, has = (_OF_A_COMMAND, "a command") if kind == "command" else (_OF_A_RUNNING_ONE, "a running server")
        for name in sorted(cls.model_fields.keys() & given.keys() - {*_OF_A_RUNNING_ONE, "command", *ours}):
            yield Contradiction((name,), _foreign(name, has), ((kind,),))

    @model_serializer(mode="wrap")
    def _only_its_own(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return only the settings that this kind of server has."""
        values: dict[str, Any] = handler(self)
        if self.is_simulated:
            others = {"start_timeout", "command", *_OF_A_RUNNING_ONE}
            return {name: value for name, value in values.items() if name not in others}
        kind = _OF_A_COMMAND if self.command else _OF_A_RUNNING_ONE
        return {name: value for name, value in values.items() if name in kind}

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield settings that contradict each other."""
        if self.pause >= self.pause_every:
            yield Contradiction(
                ("pause",), "the server would never accept: make pause shorter than pause_every", (("pause_every",),)
            )
        if self.leak > 0 and self.leak_of == "extra" and self.extra_fds == 0:
            yield Contradiction(
                ("leak_of",), 'nothing would leak: leak_of = "extra" needs extra_fds of at least 1', (("extra_fds",),)
            )


def _foreign(name: str, kind: str) -> str:
    """Return the error for a setting that this kind of server does not have."""
    if name == "nofile":
        return "the limits of a running server are read, never set: remove nofile, or start the server as a command"
    if name == "start_timeout":
        return "start_timeout belongs to a command, and a running server is not started: remove start_timeout"
    return f"{name} is a setting of the simulated server, not of {kind}: remove {name}"
