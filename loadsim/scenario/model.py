"""The typed scenario: every table and key, its default, its range, and what contradicts what."""

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


#: What a step may change, each with what it is called.
CHANGES = ("nofile", "backlog", "release")
_MOST_STEPS = 100


class Step(Table):
    """One change: when, and exactly one of what."""

    at: Duration = key(..., description="When, from the start of the load.")
    nofile: int | None = key(None, ge=1, le=2**30, description="RLIMIT_NOFILE of the live server from then on.")
    backlog: int | None = key(
        None, ge=0, le=2**31 - 1, description="listen() again with this backlog; the simulated server alone can."
    )
    release: float | None = key(None, gt=0, le=1, description="So large a share of the clients that are in leaves.")

    @property
    def change(self) -> tuple[str, float]:
        """What changes, and to what."""
        return next((name, value) for name in CHANGES if (value := getattr(self, name)) is not None)

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield a step that changes nothing, or two things at once."""
        named = [name for name in CHANGES if given.get(name) is not None]
        if len(named) != 1:
            says = f"a step changes exactly one of {', '.join(CHANGES)}; write two steps with the same at for two"
            yield Contradiction(tuple(named[1:2]), says)


class Timeline(Table):
    """`[timeline]`: what changes during the run."""

    steps: tuple[Step, ...] = key(
        (), strict=False, max_length=_MOST_STEPS, description='Such as [{at = "2s", nofile = 1024}].'
    )

    @property
    def ordered(self) -> list[Step]:
        """The steps in the order in which they are made."""
        return sorted(self.steps, key=lambda step: step.at)

    @property
    def last_s(self) -> float:
        """When the last step is made; 0 where there is none."""
        return max((step.at for step in self.steps), default=0.0)

    def of(self, change: str) -> list[float]:
        """Return what one setting is changed to, step by step."""
        return [value for step in self.ordered for name, value in (step.change,) if name == change]


class Canary(Table):
    """`[canary]`: an independent client that asks again and again whether the server is up."""

    every: PositiveDuration = key("250ms", description="How often it connects, exchanges one request and leaves.")
    timeout: Timeout = key("1s", description="Its patience, for the connection and again for the reply.")
    held: int = key(
        0,
        ge=0,
        le=100,
        description="Connections that it opens at the start, keeps, and asks on as often; not under hello.",
    )
    linger: Duration = key("3s", description="It goes on for so long after the last client and the last step.")
    patience: Duration = key(
        "0s", description="Where nobody answered it in that time: how long it waits for that, to linger as long again."
    )


_MOST_THRESHOLDS = 100
_LONGEST_SYSCTL = 200  # characters of its name, and of its value


def _identifier(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) is None:
        says = "a name has 1 to 64 letters, digits, dots, hyphens and underscores: result folders are called after it"
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
        says = "only sysctls of a network namespace can be set, with their full names, such as net.core.somaxconn"
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
    """`[network]`: where it happens."""

    namespace: Literal["private", "host"] = key("private", description="A network namespace of its own, or the host's.")
    address: Annotated[str, AfterValidator(_loopback)] = key("127.0.0.1", description="Where the server listens.")
    port: int = key(0, ge=0, le=65_535, description="0: any free one.")


ThresholdText = Annotated[
    Threshold,
    PlainValidator(_threshold, json_schema_input_type=str),
    PlainSerializer(lambda threshold: threshold.text, return_type=str),
]


class Thresholds(Table):
    """`[thresholds]`: what must be true at the end, and what ends a run early."""

    expect: tuple[ThresholdText, ...] = key(
        (), strict=False, max_length=_MOST_THRESHOLDS, description="All must be true at the end."
    )
    abort: tuple[ThresholdText, ...] = key(
        (), strict=False, max_length=_MOST_THRESHOLDS, description="The first that is true ends the run."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what could only be known when there is nothing left to end."""
        for one in self.abort:
            if one.metric not in LIVE:
                says = f"{one.metric} is not known while a run goes on; abort can name {', '.join(sorted(LIVE))}"
                yield Contradiction(("abort",), says)


Sysctls = Annotated[
    dict[
        Annotated[str, AfterValidator(_sysctl_name)],
        Annotated[str, PlainValidator(_sysctl_value, json_schema_input_type=int | str)],
    ],
    BeforeValidator(lambda given: flattened(given) if isinstance(given, Mapping) else given),
]


class Scenario(Table):
    """A whole scenario, as resolved: parents merged, overrides applied, defaults filled in."""

    schema_version: Literal[1] = key(1, alias="schema", description="The version of this format.")
    name: Annotated[str, AfterValidator(_identifier)] = key(
        "unnamed", description="Result folders are called after it."
    )
    description: str = key("", max_length=2000, description="One sentence for lists and reports.")
    seed: int = key(1, ge=0, le=2**63 - 1, description="Of everything that is random.")
    server: Server = key({}, description="The simulated server.")
    client: Client = key({}, description="Who connects, how often, and what each connection does.")
    sysctl: Sysctls = key({}, description="Inside the private namespace, full names.")
    network: Network = key({}, description="Where it happens.")
    timeline: Timeline = key({}, description="What changes during the run.")
    canary: Canary | None = key(None, description="An independent client that asks whether the server is up.")
    thresholds: Thresholds = key({}, description="What must be true.")

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what was given; no server but the simulated one has a namespace of its own unless it is asked for."""
        server, network = given.get("server"), given.get("network", {})
        kinds = ("command", "pid", "address")
        is_another = isinstance(server, Mapping) and any(server.get(kind) is not None for kind in kinds)
        if not (is_another and isinstance(network, Mapping)):
            return given
        return {**given, "network": {"namespace": "host", **network}}

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what two tables cannot both have."""
        command = self.server.command
        if command and self.network.port == 0 and not any("{port}" in part for part in command):
            says = (
                "nothing says where this command listens: put {port} where its port goes, or set network.port "
                "(verdict: --port)"
            )
            yield Contradiction(("server", "command"), says)
        if not self.server.is_simulated and self.timeline.of("backlog"):
            says = "only the simulated server can be told another backlog: take that step away"
            yield Contradiction(("timeline", "steps"), says, (("server", "command"),))
        if self.server.is_running:
            yield from self._running_contradictions()
        if self.client.sources > 1 and not self.destination.startswith("127."):
            says = "several source addresses (127.0.x.y) need a server on 127.0.0.0/8"
            yield Contradiction(("client", "sources"), says, (("network", "address"), ("server", "address")))
        if self.sysctl and self.network.namespace == "host":
            says = 'sysctls are only set in a namespace of its own: take them away, or namespace = "host"'
            yield Contradiction(("network", "namespace"), says, (("sysctl",),))
        if self.canary is not None:
            yield from self._canary_contradictions(self.canary)

    @property
    def destination(self) -> str:
        """Where the clients go, as far as that is known beforehand."""
        return self.server.endpoint.host if self.server.endpoint else self.network.address

    def _running_contradictions(self) -> Iterator[Contradiction]:
        """Yield what would change a server that runs already, or says where it is."""
        if self.timeline.of("nofile"):
            says = "the limits of a running server are read, never set: take that step away"
            yield Contradiction(("timeline", "steps"), says, (("server", "pid"), ("server", "address")))
        if self.network.namespace == "private":
            says = 'a running server stays where it is: namespace = "host"'
            yield Contradiction(("network", "namespace"), says)
        for name in ("port", "address"):
            if getattr(self.network, name) != Network.model_fields[name].default:
                says = f"a running server listens where it does: take {name} away, and set server.address if need be"
                yield Contradiction(("network", name), says)

    def _canary_contradictions(self, canary: Canary) -> Iterator[Contradiction]:
        if self.client.sources > CANARY_SOURCE:
            says = (
                f"the canary comes from {source_address(CANARY_SOURCE)}: {CANARY_SOURCE} sources are possible with it"
            )
            yield Contradiction(("client", "sources"), says, (("canary",),))
        if ipaddress.ip_address(self.destination).is_loopback and not self.destination.startswith("127."):
            says = "the canary has a source address of its own (127.0.1.1): a server on 127.0.0.0/8 is needed"
            yield Contradiction(("network", "address"), says, (("canary",), ("server", "address")))
        if self.client.exchange is Exchange.NONE:
            says = 'a canary needs an answer: exchange = "hello", "echo", "http" or "raw", or no [canary]'
            yield Contradiction(("client", "exchange"), says, (("canary",),))
        if not canary.held:
            return
        if self.client.exchange is Exchange.HELLO:
            says = (
                'hello answers once: connections that are held and asked again need exchange = "echo", "http" or "raw"'
            )
            yield Contradiction(("canary", "held"), says, (("client", "exchange"),))
        if self.server.close_after is not None and self.server.is_simulated:
            says = 'the server closes what should be held: close_after = "client"'
            yield Contradiction(("canary", "held"), says, (("server", "close_after"),))

    def settings(self) -> dict[str, Any]:
        """Return nested tables of plain values under the TOML names: seconds, rates per second, None for absent.

        A ramp is [from, to], a threshold its text.
        """
        return self.model_dump(mode="json", by_alias=True)
