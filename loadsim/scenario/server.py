"""[server]: what is under test, the simulated server, any command, or one that runs already."""

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
        says = 'a command is its program and each argument, such as ["python3", "-m", "http.server", "{port}"]'
        raise PydanticCustomError("command", "{says}", {"says": says})
    return value


class Endpoint(NamedTuple):
    """Where a server listens: a numeric address and a port."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Endpoint:
        """Return what "127.0.0.1:80" or "[::1]:80" means; raises ValueError where it means nothing."""
        host, _, port = text.rpartition(":")
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        if (
            (address.version == 6) != host.startswith("[")
            or address.is_unspecified
            or address.is_multicast
            or "%" in host
        ):
            raise ValueError(f"{host} is no address that a client can connect to")
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
            raise ValueError(f"{port} is no port")
        return cls(str(address), int(port))


def _address(value: str | None) -> str | None:
    try:
        if value is not None:
            Endpoint.of(value)
    except ValueError:
        says = 'a running server is at a numeric address and a port, such as "127.0.0.1:8080" or "[::1]:8080"'
        raise PydanticCustomError("address", "{says}", {"says": says}) from None
    return value


#: What `[server]` says of a command, and of a server that runs already; all else belongs to the simulated server.
_OF_A_COMMAND = ("command", "nofile", "start_timeout")
_OF_A_RUNNING_ONE = ("pid", "address")


class Server(Table):
    """`[server]`: the simulated server, or instead of it any command, or a server that runs already."""

    exclusive = (
        ("command", "pid", "a command is started, a running server is not"),
        ("command", "address", "a command is started, a running server is not"),
    )

    command: Annotated[tuple[str, ...] | None, AfterValidator(_command)] = key(
        None, strict=False, description="Any server instead of the simulated one; {port} stands for its port."
    )
    start_timeout: Timeout = key("10s", description="A command that does not listen after this is given up.")
    pid: int | None = key(
        None, ge=1, le=2**22, description="A server that runs already, by its process: never started, limited or ended."
    )
    address: Annotated[str | None, AfterValidator(_address)] = key(
        None, description='Where a running server is reached, such as "127.0.0.1:8080".'
    )
    backlog: int = key(128, ge=0, le=2**31 - 1, description="The argument of listen(2).")
    nofile: int | None = key(
        None, ge=1, le=2**30, description="RLIMIT_NOFILE of the server alone; absent: the one it inherits."
    )
    leak: float = key(0.0, ge=0, le=1, description="Share of accepted connections that are never closed.")
    leak_of: Literal["connection", "extra"] = key(
        "connection", description="What leaks: the connection, or what a request opens besides its socket."
    )
    extra_fds: int = key(0, ge=0, le=1000, description="How many further descriptors a request opens.")
    close_after: Annotated[Duration | None, BeforeValidator(_close_after), WithJsonSchema(_CLOSE_AFTER)] = key(
        "0s", description='Served this long, then closed; "client": when the client closes.'
    )
    accept_delay: Duration = key("0s", description="Every accept takes this long.")
    pause: Duration = key("0s", description="Nothing is accepted for this long ...")
    pause_every: PositiveDuration = key("500ms", description="... this often.")
    on_emfile: Literal["sleep", "backoff", "spin", "shed", "until_close", "exit"] = key(
        "sleep", description='What accept does on "Too many open files".'
    )
    emfile_delay: PositiveDuration = key("100ms", description="Of sleep; the first one of backoff.")
    idle_threads: int = key(0, ge=0, le=64, description="Threads that share the server's fd table.")
    prewarm_fds: int = key(0, ge=0, le=2**20, description="Grow the fd table to this before the load.")

    @property
    def is_running(self) -> bool:
        """Whether it runs already, so that nothing of it may be changed."""
        return self.pid is not None or self.address is not None

    @property
    def is_simulated(self) -> bool:
        """Whether it is loadsim's own server."""
        return not self.command and not self.is_running

    @property
    def endpoint(self) -> Endpoint | None:
        """Where a running server is reached, as far as somebody says so."""
        return None if self.address is None else Endpoint.of(self.address)

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield what does not belong to the kind of server that is asked for."""
        yield from super().clashes(given)
        kind = next((name for name in ("command", *_OF_A_RUNNING_ONE) if given.get(name) is not None), None)
        if kind is None:
            if "start_timeout" in given:
                yield Contradiction(("start_timeout",), "start_timeout is a command's: take it away, or set command")
            return
        ours, has = (_OF_A_COMMAND, "a command") if kind == "command" else (_OF_A_RUNNING_ONE, "a running server")
        for name in sorted(cls.model_fields.keys() & given.keys() - {*_OF_A_RUNNING_ONE, "command", *ours}):
            yield Contradiction((name,), _foreign(name, has), ((kind,),))

    @model_serializer(mode="wrap")
    def _what_applies(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the settings of the kind of server that this is, and no others."""
        values: dict[str, Any] = handler(self)
        if self.is_simulated:
            others = {"start_timeout", "command", *_OF_A_RUNNING_ONE}
            return {name: value for name, value in values.items() if name not in others}
        kind = _OF_A_COMMAND if self.command else _OF_A_RUNNING_ONE
        return {name: value for name, value in values.items() if name in kind}

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what this server could never do."""
        if self.pause >= self.pause_every:
            yield Contradiction(
                ("pause",), "the server would never accept: make pause shorter than pause_every", (("pause_every",),)
            )
        if self.leak > 0 and self.leak_of == "extra" and self.extra_fds == 0:
            yield Contradiction(
                ("leak_of",), 'nothing would leak: leak_of = "extra" needs extra_fds of at least 1', (("extra_fds",),)
            )


def _foreign(name: str, whose: str) -> str:
    """Return what to say of a setting that this kind of server does not have."""
    if name == "nofile":
        return "the limits of a running server are read, never set: take nofile away, or start it as a command"
    if name == "start_timeout":
        return "start_timeout is a command's, and a running server is not waited for: take start_timeout away"
    return f"{name} is a setting of the simulated server, and {whose} has its own: take {name} away"
