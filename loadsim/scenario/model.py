"""The typed scenario: every table and key, its default, its range, and contradictions between tables."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
)
from pydantic_core import PydanticCustomError

from loadsim.exchange import Exchange
from loadsim.metrics import LIVE
from loadsim.scenario.client import Client
from loadsim.scenario.fields import Contradiction, Duration, PositiveDuration, Table, Timeout, flattened, key
from loadsim.scenario.server import Server
from loadsim.scenario.specs import CANARY_SOURCE, source_address
from loadsim.scenario.thresholds import Threshold, ThresholdError, parse

if TYPE_CHECKING:
    from collections.abc import Iterator


#: The settings that a step can change.
CHANGES = ("nofile", "backlog", "release")
_MOST_STEPS = 100


class Step(Table):
    """One change during the run: a time, and exactly one setting."""

    at: Duration = key(..., description="Time of the step, counted from the start of the load.")
    nofile: int | None = key(None, ge=1, le=2**30, description="New RLIMIT_NOFILE of the server process.")
    backlog: int | None = key(
        None, ge=0, le=2**31 - 1, description="New backlog: the server calls listen() again. Simulated server only."
    )
    release: float | None = key(
        None, gt=0, le=1, description="Fraction of the connected clients, above 0 and up to 1, that close at this time."
    )

    @property
    def change(self) -> tuple[str, float]:
        """The name of the setting that changes, and its new value."""
        return next((name, value) for name in CHANGES if (value := getattr(self, name)) is not None)

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield a step that changes nothing, or two things at once."""
        named = [name for name in CHANGES if given.get(name) is not None]
        if len(named) != 1:
            says = (
                f"a step changes exactly one of {', '.join(CHANGES)}; to change two, write two steps with the same at"
            )
            yield Contradiction(tuple(named[1:2]), says)


class Timeline(Table):
    """`[timeline]`: changes during the run."""

    steps: tuple[Step, ...] = key(
        (),
        strict=False,
        max_length=_MOST_STEPS,
        description='Steps in any order, such as [{at = "2s", nofile = 1024}].',
    )

    @property
    def ordered(self) -> list[Step]:
        """The steps in order of time."""
        return sorted(self.steps, key=lambda step: step.at)

    @property
    def last_s(self) -> float:
        """Seconds to the last step; 0 without steps."""
        return max((step.at for step in self.steps), default=0.0)

    def of(self, change: str) -> list[float]:
        """Return the values of one setting in the order of the steps."""
        return [value for step in self.ordered for name, value in (step.change,) if name == change]


class Canary(Table):
    """`[canary]`: an independent client that checks periodically whether the server answers."""

    every: PositiveDuration = key(
        "250ms", description="Interval at which the canary connects, makes one request and leaves."
    )
    timeout: Timeout = key(
        "1s", description="Time after which the canary gives up connecting, and again waiting for the reply."
    )
    held: int = key(
        0,
        ge=0,
        le=100,
        description="Number of connections that are opened at the start, kept open, and queried at the same interval. "
        'Not possible with exchange = "hello".',
    )
    linger: Duration = key(
        "3s", description="Time for which the canary continues after the last client and the last step."
    )
    patience: Duration = key(
        "0s",
        description="Further time for which the canary waits if it got no answer during linger. After the first answer "
        "it lingers once more.",
    )


_MOST_THRESHOLDS = 100
_LONGEST_SYSCTL = 200  # characters of its name, and of its value


def _identifier(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) is None:
        says = "a name has 1 to 64 letters, digits, dots, hyphens and underscores: it becomes part of a folder name"
        raise PydanticCustomError("name", "{says}", {"says": says})
    return value


def _loopback(value: str) -> str:
    try:
        if ipaddress.ip_address(value).is_loopback:
            return value
    except ValueError:
        pass
    says = 'the simulated server listens on loopback only: "127.0.0.1", or "::1"'
    raise PydanticCustomError("address", "{says}", {"says": says})


def _sysctl_name(value: str) -> str:
    if len(value) > _LONGEST_SYSCTL or re.fullmatch(r"net(\.[\w-]+){2,}", value, re.ASCII) is None:
        says = "only sysctls of a network namespace can be set, by their full names, such as net.core.somaxconn"
        raise PydanticCustomError("sysctl", "{says}", {"says": says})
    return value


def _sysctl_value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError(
            "sysctl", "{says}", {"says": 'a sysctl is a whole number or text, such as 4096 or "1024 65535"'}
        )
    text = " ".join(str(value).split())
    if not text or not text.isprintable() or len(text) > _LONGEST_SYSCTL:
        raise PydanticCustomError(
            "sysctl", "{says}", {"says": "a sysctl needs a printable value of 1 to 200 characters"}
        )
    return text


def _threshold(value: object) -> Threshold:
    if isinstance(value, Threshold):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("wrong_type", "{says}", {"says": 'a threshold is text, such as "emfile.count > 0"'})
    try:
        return parse(value)
    except ThresholdError as error:
        hint = {"hint": f'"{error.hint}"'} if error.hint else {}
        raise PydanticCustomError("threshold", "{says}", {"says": str(error), **hint}) from None


class Network(Table):
    """`[network]`: the namespace of the run, and the address of the server."""

    namespace: Literal["private", "host"] = key(
        "private",
        description="Network namespace of the run: private, or that of the host. For a command or a running server the "
        "default is host.",
    )
    address: Annotated[str, AfterValidator(_loopback)] = key(
        "127.0.0.1", description="Loopback address on which the server listens."
    )
    port: int = key(0, ge=0, le=65_535, description="Port on which the server listens; 0 chooses a free one.")


ThresholdText = Annotated[
    Threshold,
    PlainValidator(_threshold, json_schema_input_type=str),
    PlainSerializer(lambda threshold: threshold.text, return_type=str),
]


class Thresholds(Table):
    """`[thresholds]`: expectations at the end of a run, and conditions that end it early."""

    expect: tuple[ThresholdText, ...] = key(
        (),
        strict=False,
        max_length=_MOST_THRESHOLDS,
        description='Expectations at the end of the run, such as "accept.p99 < 50ms". If one is not met, the run fails '
        "with exit status 99.",
    )
    abort: tuple[ThresholdText, ...] = key(
        (),
        strict=False,
        max_length=_MOST_THRESHOLDS,
        description='Conditions that end the run at once, such as "generator.local_failures > 0". Exit status 99.',
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield abort conditions on metrics that are known only after the run."""
        for one in self.abort:
            if one.metric not in LIVE:
                says = f"{one.metric} is not known during a run; abort can use {', '.join(sorted(LIVE))}"
                yield Contradiction(("abort",), says)


#: Sysctls that the plan computes with -> how many numbers they hold.
_NUMERIC_SYSCTLS = {
    "net.core.somaxconn": 1,
    "net.ipv4.ip_local_port_range": 2,
    "net.ipv4.tcp_syn_linear_timeouts": 1,
    "net.ipv4.tcp_syn_retries": 1,
    "net.ipv4.tcp_syncookies": 1,
}


def _wrong_sysctls(sysctls: Mapping[str, str]) -> Iterator[Contradiction]:
    """Yield the sysctls that the plan could not compute with; the kernel would refuse most of them, too."""
    for name, count in _NUMERIC_SYSCTLS.items():
        numbers = sysctls.get(name, "0 " * count).split()
        if len(numbers) != count or not all(number.isascii() and number.isdigit() for number in numbers):
            says = 'two port numbers, such as "1024 65535"' if count == 2 else "a number of 0 or more"
            yield Contradiction(("sysctl", name), f"{name} is {says}, found {sysctls[name]}")
        elif int(numbers[0]) > int(numbers[-1]):
            yield Contradiction(("sysctl", name), f"the first port of {name} is above the last one: {sysctls[name]}")


Sysctls = Annotated[
    dict[
        Annotated[str, AfterValidator(_sysctl_name)],
        Annotated[str, PlainValidator(_sysctl_value, json_schema_input_type=int | str)],
    ],
    BeforeValidator(lambda given: flattened(given) if isinstance(given, Mapping) else given),
]


class Scenario(Table):
    """A resolved scenario: parents merged, overrides applied, defaults filled in."""

    schema_version: Literal[1] = key(1, alias="schema", description="Version of the scenario format.")
    name: Annotated[str, AfterValidator(_identifier)] = key(
        "unnamed",
        description="Name of the scenario and of its result folders. By default the name of the file.",
    )
    description: str = key("", max_length=2000, description="One sentence that lists and reports show.")
    seed: int = key(
        1, ge=0, le=2**63 - 1, description="Seed of everything random: the same seed gives the same arrivals and leaks."
    )
    server: Server = key({}, description="The server under test: simulated, a command, or already running.")
    client: Client = key({}, description="The load: how clients arrive, and the behaviour of each connection.")
    sysctl: Sysctls = key({}, description="Sysctls of the private network namespace, by their full names.")
    network: Network = key({}, description="The network namespace of the run, and the address of the server.")
    timeline: Timeline = key({}, description="Changes during the run.")
    canary: Canary | None = key(
        None, description="An independent client that checks periodically whether the server answers; absent: none."
    )
    thresholds: Thresholds = key({}, description="Expectations on metrics.")

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys with the default namespace: "host" unless the server is the simulated one."""
        server, network = given.get("server"), given.get("network", {})
        kinds = ("command", "pid", "address")
        is_another = isinstance(server, Mapping) and any(server.get(kind) is not None for kind in kinds)
        if not (is_another and isinstance(network, Mapping)):
            return given
        return {**given, "network": {"namespace": "host", **network}}

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield settings of two tables that exclude each other."""
        command = self.server.command
        if command and self.network.port == 0 and not any("{port}" in part for part in command):
            says = (
                "the port of this command is unknown: write {port} in its place, or set network.port (verdict: --port)"
            )
            yield Contradiction(("server", "command"), says)
        if not self.server.is_simulated and self.timeline.of("backlog"):
            says = "only the simulated server can change its backlog: remove that step"
            yield Contradiction(("timeline", "steps"), says, (("server", "command"),))
        if self.server.is_running:
            yield from self._running_contradictions()
        if self.client.sources > 1 and not self.destination.startswith("127."):
            says = "several source addresses (127.0.x.y) need a server on 127.0.0.0/8"
            yield Contradiction(("client", "sources"), says, (("network", "address"), ("server", "address")))
        yield from _wrong_sysctls(self.sysctl)
        if self.sysctl and self.network.namespace == "host":
            says = 'sysctls are set only in a private namespace: remove [sysctl], or set namespace = "private"'
            yield Contradiction(("network", "namespace"), says, (("sysctl",),))
        if self.canary is not None:
            yield from self._canary_contradictions(self.canary)

    @property
    def destination(self) -> str:
        """The address that clients connect to, as far as the scenario knows it."""
        return self.server.endpoint.host if self.server.endpoint else self.network.address

    def _running_contradictions(self) -> Iterator[Contradiction]:
        """Yield settings that would change or move a running server."""
        if self.timeline.of("nofile"):
            says = "the limits of a running server are read, never set: remove that step"
            yield Contradiction(("timeline", "steps"), says, (("server", "pid"), ("server", "address")))
        if self.network.namespace == "private":
            says = 'a running server cannot move to another namespace: set namespace = "host"'
            yield Contradiction(("network", "namespace"), says)
        for name in ("port", "address"):
            if getattr(self.network, name) != Network.model_fields[name].default:
                says = f"a running server already has its {name}: remove {name}; server.address names it if needed"
                yield Contradiction(("network", name), says)

    def _canary_contradictions(self, canary: Canary) -> Iterator[Contradiction]:
        if self.client.sources > CANARY_SOURCE:
            says = f"the canary uses {source_address(CANARY_SOURCE)}: at most {CANARY_SOURCE} sources are possible"
            yield Contradiction(("client", "sources"), says, (("canary",),))
        if ipaddress.ip_address(self.destination).is_loopback and not self.destination.startswith("127."):
            says = "the canary has its own source address (127.0.1.1): it needs a server on 127.0.0.0/8"
            yield Contradiction(("network", "address"), says, (("canary",), ("server", "address")))
        if self.client.exchange is Exchange.NONE:
            says = 'a canary needs an answer: set exchange = "hello", "echo", "http" or "raw", or remove [canary]'
            yield Contradiction(("client", "exchange"), says, (("canary",),))
        if not canary.held:
            return
        if self.client.exchange is Exchange.HELLO:
            says = 'hello answers only once per connection: held connections need exchange = "echo", "http" or "raw"'
            yield Contradiction(("canary", "held"), says, (("client", "exchange"),))
        if self.server.close_after is not None and self.server.is_simulated:
            says = 'the server would close the held connections: set close_after = "client"'
            yield Contradiction(("canary", "held"), says, (("server", "close_after"),))

    def settings(self) -> dict[str, Any]:
        """Return nested tables of plain values by their TOML names: seconds, rates per second, None for absent.

        A ramp is [from, to], a threshold is its text.
        """
        return self.model_dump(mode="json", by_alias=True)
