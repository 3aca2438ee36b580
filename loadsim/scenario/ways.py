"""The ways in which a command is run out of descriptors for a verdict, each as a scenario.

In every one clients come, the table is full, ten seconds pass, then there is room again and somebody watches. Owns the
order and the times of that; what is made of it is `analysis.verdict`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from loadsim.errors import ScenarioError
from loadsim.scenario.model import Scenario

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

AT_START, LOWERED, HANDLER = "limit at start", "lowered live", "leak in handler"
#: How long a server is kept at its limit: one that retries once a second, ever more often, looks harmless for two.
EXHAUSTED_S = 10.0
#: How long one watches for it to come back, and that the clients stay after a limit was put back.
WATCHED_S = 8.0
#: Clients that come, and how fast: three times as many as there are descriptors, within half a second or so.
_PER_DESCRIPTOR, _AT_LEAST, _RATE = 3, 200, 400.0
#: Seconds until the table is full and its effects show.
_SETTLED_S = 1.5
#: What a limit is before it is lowered, and after it was put back, where this host permits so much.
ROOMY = 4096
#: Connections that are in before, and are asked on.
_HELD = 3
#: Requests a second to a handler that may leak.
_REQUESTS = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How one talks to the command: what a client says, and what is an answer."""

    exchange: str = "http"
    path: str = "/"
    send: str | None = None  # of exchange "raw"
    expect: str | None = None
    leak_path: str | None = None  # a path whose handler opens something


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way, and the scenario that goes it."""

    name: str
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A command, and what is to be done to it."""

    command: Sequence[str]
    probe: Probe
    nofile: int
    roomy: int = ROOMY  # a limit that is no limit
    port: int = 0  # 0: any free one, which stands for {port}
    exhausted_s: float = EXHAUSTED_S
    watched_s: float = WATCHED_S

    def ways(self, names: Collection[str] = ()) -> list[Way]:
        """Return the ways to run it out of descriptors, those of these names where there are any.

        The third one needs a path whose handler opens something. Raises ScenarioError where the command or the probe
        make no sense.
        """
        known = {AT_START: self.at_start, LOWERED: self.lowered}
        if self.probe.leak_path:
            known[HANDLER] = self.leaking
        try:
            return [Way(name=name, scenario=make()) for name, make in known.items() if not names or name in names]
        except ValidationError as error:
            raise ScenarioError("; ".join(line["msg"] for line in error.errors(include_url=False))) from error

    @property
    def clients(self) -> int:
        """How many clients come."""
        return max(_PER_DESCRIPTOR * self.nofile, _AT_LEAST)

    @property
    def full_s(self) -> float:
        """When all clients have come, and what follows from that shows."""
        return self.clients / _RATE + _SETTLED_S

    def at_start(self) -> Scenario:
        """Return idle clients that fill a small table, and then all leave."""
        relief = self.full_s + self.exhausted_s
        steps = [{"at": _s(relief), "release": 1.0}]
        return self._scenario("limit-at-start", self.nofile, self._idle(relief + 60), steps)

    def lowered(self) -> Scenario:
        """Return idle clients that are in when the limit falls below what is open; when it is put back they stay."""
        relief = self.full_s + self.exhausted_s
        steps = [{"at": _s(self.full_s), "nofile": self.nofile}, {"at": _s(relief), "nofile": self.roomy}]
        return self._scenario("lowered-live", self.roomy, self._idle(relief + self.watched_s), steps)

    def leaking(self) -> Scenario:
        """Return requests to a handler that opens something, until the table is full or time is over."""
        relief = _SETTLED_S + self.nofile / _REQUESTS + self.exhausted_s
        client = {
            **self._talk(),
            "rate": f"{_REQUESTS:g}/s",
            "duration": _s(relief),
            "path": self.probe.leak_path,
            "reply_timeout": "2s",
        }
        return self._scenario("leak-in-handler", self.nofile, client, [{"at": _s(relief), "nofile": self.roomy}])

    def _idle(self, hold_s: float) -> dict[str, Any]:
        """Return clients that connect and say nothing: who is let in takes a descriptor, and keeps it."""
        waiting = {"request": "none", "hold": _s(hold_s), "connect_timeout": "60s"}
        return {**self._talk(), "rate": f"{_RATE:g}/s", "attempts": self.clients, **waiting}

    def _talk(self) -> dict[str, Any]:
        probe = self.probe
        said = {"exchange": probe.exchange, "path": probe.path, "send": probe.send, "expect": probe.expect}
        return {name: value for name, value in said.items() if value is not None}

    def _scenario(self, name: str, nofile: int, client: dict[str, Any], steps: list[dict[str, Any]]) -> Scenario:
        return Scenario.model_validate({
            "schema": 1,
            "name": f"verdict-{name}",
            "server": {"command": list(self.command), "nofile": nofile},
            "client": client,
            "network": {"port": self.port},
            "timeline": {"steps": steps},
            "canary": {"every": "100ms", "timeout": "1s", "held": _HELD, "linger": _s(self.watched_s)},
        })  # fmt: skip


def _s(seconds: float) -> str:
    return f"{seconds:g}s"
