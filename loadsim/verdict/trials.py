"""The trials of a verdict, each a scenario that exhausts the descriptors of a command.

In every trial clients fill the descriptor table, the server stays at its limit for ten seconds, and then descriptors
are freed and a canary waits for the first answer. Owns the order and the times of these steps; `observe` and `classify`
evaluate the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from loadsim.errors import ScenarioError
from loadsim.scenario.model import Scenario

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

BEFORE = "enough descriptors"
AT_START, LOWERED, HANDLER = "limit at start", "lowered live", "leak in handler"
#: How long a server is kept at its limit. Retries that start at one a second and multiply look harmless for two.
EXHAUSTED_S = 10.0
#: How long the server has to recover, and how long clients stay after a limit was raised again.
WATCHED_S = 8.0
#: A server that has not recovered by then gets this many times that time in addition.
_PATIENCE = 3
#: Clients: three per descriptor; for high limits, one per descriptor and enough more to fill the accept queue.
_PER_DESCRIPTOR, _AT_LEAST, _ENOUGH_MORE = 3, 200, 5000
#: Their rate: at least this many a second, and all of them within this many seconds.
_RATE, _WITHIN_S = 400.0, 5.0
#: Seconds until the effects of a full table show.
_SETTLED_S = 1.5
#: The limit before it is lowered, and after it is raised again: at least this, and enough for all clients.
_ROOMY = 4096
#: Descriptors of the server and of each driver beside the connections of clients, with a reserve.
_BESIDE = 128
#: How long a server that listens may take for its first answer.
_FIRST_ANSWER_S = 10
#: Connections that are opened before the limit is reached, and send requests all the time.
_HELD = 3
#: Requests a second to a handler that leaks.
_REQUESTS = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The protocol of the command: what a client sends, and how an answer begins."""

    exchange: str = "http"
    path: str = "/"
    send: str | None = None  # of exchange "raw"
    expect: str | None = None
    leak_path: str | None = None  # a path with a handler that opens a descriptor

    @property
    def request(self) -> str:
        """The request in words, for messages."""
        return {"http": f"GET {self.path}", "echo": "the echo request"}.get(self.exchange, "the text of --send")

    @property
    def settings(self) -> dict[str, Any]:
        """The protocol as keys of `[client]`."""
        values = {"exchange": self.exchange, "path": self.path, "send": self.send, "expect": self.expect}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One way to exhaust the descriptors, as a scenario."""

    name: str
    scenario: Scenario
    exhausted_s: float = 0.0  # how long it keeps the command at its limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """A command, and the settings of its trials."""

    command: Sequence[str]
    probe: Probe
    nofile: int
    hard: int = 2**30  # the hard limit of this host, for the server and for its clients
    workers: int = 1  # processes that accept; each has its own descriptors
    port: int = 0  # 0: any free port, which replaces {port}
    start_timeout_s: float = 10.0
    exhausted_s: float = EXHAUSTED_S
    watched_s: float = WATCHED_S

    def trials(self, names: Collection[str] = ()) -> list[Trial]:
        """Return the trials of these names, or all.

        The third trial exists only with a `leak_path`. Raises ScenarioError where the command or the probe is invalid,
        or where the hard limit leaves no limit from which `nofile` could be lowered.
        """
        if self.roomy < self.nofile + _BESIDE and (not names or LOWERED in names):
            raise ScenarioError(
                f"--nofile {self.nofile} is too close to the hard limit of {self.hard}: use at most "
                f"{max(self.hard - _BESIDE, 8)}, raise the hard limit (ulimit -Hn), or run only --trial start"
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
        """How many clients connect in a trial."""
        for_each = min(_PER_DESCRIPTOR * self.nofile, self.nofile + _ENOUGH_MORE)
        return max(for_each * self.workers, _AT_LEAST)

    @property
    def rate(self) -> float:
        """How many of them connect per second."""
        return max(_RATE, self.clients / _WITHIN_S)

    @property
    def roomy(self) -> int:
        """A limit that all clients fit under, as far as this host permits."""
        return min(max(_ROOMY, self.clients + _BESIDE), self.hard)

    @property
    def full_s(self) -> float:
        """When all clients have connected and the effects of a full table show."""
        return self.clients / self.rate + _SETTLED_S

    def before(self) -> Trial:
        """Return one request with enough descriptors: it shows that the command starts and answers this protocol."""
        client = {**self.probe.settings, "rate": "10/s", "attempts": 1, "reply_timeout": _s(_FIRST_ANSWER_S)}
        return Trial(name=BEFORE, scenario=self._scenario("enough-descriptors", self.roomy, client))

    def at_start(self) -> Scenario:
        """Return a trial in which idle clients fill a small table, and then all leave."""
        relief = self.full_s + self.exhausted_s
        steps = [{"at": _s(relief), "release": 1.0}]
        return self._scenario("limit-at-start", self.nofile, self._idle(relief + 60), steps)

    def lowered(self) -> Scenario:
        """Return a trial in which the limit is lowered below the number of open descriptors, and raised again.

        Idle clients stay for a while after it is raised: that shows whether a higher limit helps. Then they leave.
        """
        relief = self.full_s + self.exhausted_s
        leave = relief + self.watched_s
        lowered, raised = {"at": _s(self.full_s), "nofile": self.nofile}, {"at": _s(relief), "nofile": self.roomy}
        steps = [lowered, raised, {"at": _s(leave), "release": 1.0}]
        return self._scenario("lowered-live", self.roomy, self._idle(leave + 60), steps)

    def leaking(self) -> Scenario:
        """Return a trial in which requests go to a handler that leaks, until the limit is raised."""
        relief = _SETTLED_S + self.nofile / _REQUESTS + self.exhausted_s
        client = {
            **self.probe.settings,
            "rate": f"{_REQUESTS:g}/s",
            "duration": _s(relief),
            "path": self.probe.leak_path,
            "reply_timeout": "2s",
        }
        return self._scenario("leak-in-handler", self.nofile, client, [{"at": _s(relief), "nofile": self.roomy}])

    def _idle(self, hold_s: float) -> dict[str, Any]:
        """Return clients that connect and send nothing: each one keeps a descriptor of the server."""
        waiting = {"request": "none", "hold": _s(hold_s), "connect_timeout": "60s"}
        processes = -(-self.clients // max(self.hard - _BESIDE, 1))
        each = {"rate": f"{self.rate:g}/s", "attempts": self.clients, "processes": processes}
        return {**self.probe.settings, **each, **waiting}

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
