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

BEFORE = "with room"
AT_START, LOWERED, HANDLER = "limit at start", "lowered live", "leak in handler"
#: How long a server is kept at its limit: one that retries once a second, ever more often, looks harmless for two.
EXHAUSTED_S = 10.0
#: How long one watches for it to come back, and that the clients stay after a limit was put back.
WATCHED_S = 8.0
#: Where it has not come back by then, one goes on for so many times as long before it is called gone for good.
_PATIENCE = 3
#: Clients that come: three times as many as there are descriptors; where these are many, enough to fill its queue, too.
_PER_DESCRIPTOR, _AT_LEAST, _ENOUGH_MORE = 3, 200, 5000
#: How fast they come: so many a second, or all of them within some seconds.
_RATE, _WITHIN_S = 400.0, 5.0
#: Seconds until the table is full and its effects show.
_SETTLED_S = 1.5
#: What a limit is before it is lowered, and after it was put back: at least this, and room for all clients.
_ROOMY = 4096
#: What the server and each driver have open beside the clients' connections, with some to spare.
_BESIDE = 128
#: How long a server that has come up may take for its first answer.
_FIRST_ANSWER_S = 10
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

    @property
    def asks(self) -> str:
        """What a client says, in words."""
        return {"http": f"GET {self.path}", "echo": "an echo"}.get(self.exchange, "what --send says")

    @property
    def talk(self) -> dict[str, Any]:
        """It as keys of `[client]`."""
        said = {"exchange": self.exchange, "path": self.path, "send": self.send, "expect": self.expect}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One way, and the scenario that goes it."""

    name: str
    scenario: Scenario
    exhausted_s: float = 0.0  # how long it keeps the command at its limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """A command, and what is to be done to it."""

    command: Sequence[str]
    probe: Probe
    nofile: int
    hard: int = 2**30  # the limit of this host, for the server and for its clients
    workers: int = 1  # processes that accept: each has descriptors of its own
    port: int = 0  # 0: any free one, which stands for {port}
    start_timeout_s: float = 10.0
    exhausted_s: float = EXHAUSTED_S
    watched_s: float = WATCHED_S

    def trials(self, names: Collection[str] = ()) -> list[Trial]:
        """Return the ways to run it out of descriptors, those of these names where there are any.

        The third one needs a path whose handler opens something. Raises ScenarioError where the command or the probe
        make no sense, or where there is no limit from which it could be lowered.
        """
        if self.roomy < self.nofile + _BESIDE and (not names or LOWERED in names):
            raise ScenarioError(
                f"--nofile {self.nofile} leaves no room above it: the hard limit is {self.hard}. Ask for at most "
                f"{max(self.hard - _BESIDE, 8)}, raise the hard limit (ulimit -Hn), or make only --trial start"
            )
        known = {AT_START: self.at_start, LOWERED: self.lowered}
        if self.probe.leak_path:
            known[HANDLER] = self.leaking
        try:
            return [
                Trial(name=name, scenario=make(), exhausted_s=self.exhausted_s)
                for name, make in known.items()
                if not names or name in names
            ]
        except ValidationError as error:
            raise ScenarioError("; ".join(line["msg"] for line in error.errors(include_url=False))) from error

    @property
    def clients(self) -> int:
        """How many clients come."""
        for_each = min(_PER_DESCRIPTOR * self.nofile, self.nofile + _ENOUGH_MORE)
        return max(for_each * self.workers, _AT_LEAST)

    @property
    def rate(self) -> float:
        """How many of them come in a second."""
        return max(_RATE, self.clients / _WITHIN_S)

    @property
    def roomy(self) -> int:
        """Return a limit that is no limit, as far as this host permits."""
        return min(max(_ROOMY, self.clients + _BESIDE), self.hard)

    @property
    def full_s(self) -> float:
        """When all clients have come, and what follows from that shows."""
        return self.clients / self.rate + _SETTLED_S

    def before(self) -> Trial:
        """Return one client that asks once while there is room: it has to come up, and to be talked to like this."""
        client = {**self.probe.talk, "rate": "10/s", "attempts": 1, "reply_timeout": _s(_FIRST_ANSWER_S)}
        return Trial(name=BEFORE, scenario=self._scenario("with-room", self.roomy, client))

    def at_start(self) -> Scenario:
        """Return idle clients that fill a small table, and then all leave."""
        relief = self.full_s + self.exhausted_s
        steps = [{"at": _s(relief), "release": 1.0}]
        return self._scenario("limit-at-start", self.nofile, self._idle(relief + 60), steps)

    def lowered(self) -> Scenario:
        """Return idle clients that are in when the limit falls below what is open.

        When it is put back they stay for a while: does that help? Then they leave.
        """
        relief = self.full_s + self.exhausted_s
        leave = relief + self.watched_s
        lowered, raised = {"at": _s(self.full_s), "nofile": self.nofile}, {"at": _s(relief), "nofile": self.roomy}
        steps = [lowered, raised, {"at": _s(leave), "release": 1.0}]
        return self._scenario("lowered-live", self.roomy, self._idle(leave + 60), steps)

    def leaking(self) -> Scenario:
        """Return requests to a handler that opens something, until the table is full or time is over."""
        relief = _SETTLED_S + self.nofile / _REQUESTS + self.exhausted_s
        client = {
            **self.probe.talk,
            "rate": f"{_REQUESTS:g}/s",
            "duration": _s(relief),
            "path": self.probe.leak_path,
            "reply_timeout": "2s",
        }
        return self._scenario("leak-in-handler", self.nofile, client, [{"at": _s(relief), "nofile": self.roomy}])

    def _idle(self, hold_s: float) -> dict[str, Any]:
        """Return clients that connect and say nothing: who is let in takes a descriptor, and keeps it."""
        waiting = {"request": "none", "hold": _s(hold_s), "connect_timeout": "60s"}
        processes = -(-self.clients // max(self.hard - _BESIDE, 1))
        each = {"rate": f"{self.rate:g}/s", "attempts": self.clients, "processes": processes}
        return {**self.probe.talk, **each, **waiting}

    def _scenario(
        self, name: str, nofile: int, client: dict[str, Any], steps: Sequence[dict[str, Any]] = ()
    ) -> Scenario:
        watched = {
            "timeline": {"steps": list(steps)},
            "canary": {
                "every": "100ms",
                "timeout": "1s",
                "held": _HELD,
                "linger": _s(self.watched_s),
                "patience": _s(_PATIENCE * self.watched_s),
            },
        }
        return Scenario.model_validate({
            "schema": 1,
            "name": f"verdict-{name}",
            "server": {
                "command": list(self.command),
                "nofile": nofile,
                "start_timeout": _s(self.start_timeout_s),
            },
            "client": client,
            "network": {"port": self.port},
            **(watched if steps else {}),
        })  # fmt: skip


def _s(seconds: float) -> str:
    return f"{seconds:g}s"
