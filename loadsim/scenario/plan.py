"""Scenario and host limits in, plan out: the needs of a run, its prediction, and the spec of each child process.

Pure arithmetic: the host is a value (`Host`) that a reader of the kernel fills in. A need that the host cannot meet
is a warning with its remedy here, and a recorded clamp later; nothing is changed silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadsim.scenario.budget import BASELINE_FDS, Budget, Host, Need
from loadsim.scenario.fields import carried
from loadsim.scenario.model import Canary
from loadsim.scenario.predict import MOST_WALKED, Prediction
from loadsim.scenario.specs import (
    CANARY_SOURCE,
    HELD_SOURCE,
    ClientSettings,
    CommandSpec,
    LoadSpec,
    RunningSpec,
    ServerSettings,
    ServerSpec,
)
from loadsim.scenario.warnings import PlanWarning, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadsim.scenario.model import Scenario

__all__ = ["BASELINE_FDS", "Host", "Need", "Plan", "PlanWarning", "Prediction", "make_plan", "make_plans", "part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The needs of a run, its prediction, and the specs of its child processes."""

    scenario: Scenario
    host: Host
    expected_attempts: int | None  # None: a closed loop without a number of attempts
    attempts: int  # at most
    expected_is_mean: bool  # Poisson arrivals over a time: the number is about right
    processes: int  # server, drivers and canary, beside the conductor
    server_fds: Need  # of the server, against its RLIMIT_NOFILE
    driver_fds: Need  # of each driver, against the hard limit
    ports: Need  # of all source addresses
    queue_capacity: int  # connections that the accept queue holds; an upper bound for a command
    expected_s: float  # from the first attempt to the end of the last; `length_s` if it is not predicted
    length_s: float  # the same, at most
    reserved_bytes: int  # of records
    prediction: Prediction
    warnings: list[PlanWarning]
    attempts_capacity: int  # records, per driver
    accepts_capacity: int
    failures_capacity: int
    sockets_capacity: int
    canaries_capacity: int  # of the canary, and of each held connection

    def command_spec(self, *, accepts_path: str, failures_path: str, sockets_path: str) -> CommandSpec:
        """Return the spec of the scenario's command, and of the records that observe it."""
        server, network = self.scenario.server, self.scenario.network
        return CommandSpec(
            command=list(server.command or ()),
            address=network.address,
            port=network.port,
            nofile=server.nofile,
            nofile_later=int(max(self.scenario.timeline.of("nofile"), default=0)),
            start_timeout_s=server.start_timeout,
            accepts_path=accepts_path,
            failures_path=failures_path,
            failures_capacity=self.failures_capacity,
            sockets_path=sockets_path,
            sockets_capacity=self.sockets_capacity,
        )

    def running_spec(self, *, accepts_path: str, failures_path: str, sockets_path: str) -> RunningSpec:
        """Return the spec of the running server, and of the records that observe it."""
        scenario, where = self.scenario, self.scenario.server.endpoint
        return RunningSpec(
            pid=scenario.server.pid,
            address=where.host if where else None,
            port=where.port if where else 0,
            on_ipv4_loopback=scenario.client.sources > 1 or scenario.canary is not None,
            accepts_path=accepts_path,
            failures_path=failures_path,
            failures_capacity=self.failures_capacity,
            sockets_path=sockets_path,
            sockets_capacity=self.sockets_capacity,
        )

    def server_spec(self, *, accepts_path: str, failures_path: str, port: int | None = None) -> ServerSpec:
        """Return the spec of the simulated server; `port` overrides the port of the scenario."""
        scenario, network = self.scenario, self.scenario.network
        return ServerSpec(
            **carried(scenario.server, ServerSettings),
            address=network.address,
            port=network.port if port is None else port,
            exchange=scenario.client.exchange,
            expect=scenario.client.expect,
            seed=scenario.seed,
            accepts_path=accepts_path,
            accepts_capacity=self.accepts_capacity,
            failures_path=failures_path,
            failures_capacity=self.failures_capacity,
        )

    def load_spec(self, share: int, *, port: int, attempts_path: str, address: str | None = None) -> LoadSpec:
        """Return the spec of the driver with this share (0 .. processes - 1); `port` is the port of the server."""
        client = self.scenario.client
        return LoadSpec(
            **carried(client, ClientSettings),
            share=share,
            address=address or self.scenario.destination,
            port=port,
            stages=client.schedule(),
            clients=part(client.clients or 0, share, client.processes),
            duration_s=client.load_s,
            max_in_flight=part(min(client.max_in_flight, self.attempts), share, client.processes),
            first_source=0,
            seed=self.scenario.seed,
            attempts_path=attempts_path,
            attempts_capacity=self.attempts_capacity,
        )

    def canary_spec(self, *, port: int, path: str, held: int = 0, address: str | None = None) -> LoadSpec:
        """Return the spec of the canary, or with `held` of the process that queries this number of held connections."""
        canary = self.scenario.canary or Canary()
        server, rate = address or self.scenario.destination, 1 / canary.every
        own: dict[str, Any] = {
            "arrivals": "constant",
            "attempts": None,
            "hold_s": 0.0,
            "request": "whole",
            "close": "fin",
            "connect_timeout_s": canary.timeout,
            "reply_timeout_s": canary.timeout,
            "processes": 1,
            "sources": 1,
        }
        return LoadSpec(
            **carried(self.scenario.client, ClientSettings) | own,
            share=0,
            address=server,
            port=port,
            stages=[[self.length_s + 60, rate, rate]],
            clients=held,
            duration_s=self.length_s + 60,
            max_in_flight=self.canaries_capacity,
            first_source=_own_source(server, HELD_SOURCE if held else CANARY_SOURCE),
            seed=self.scenario.seed,
            attempts_path=path,
            attempts_capacity=self.canaries_capacity * max(held, 1),
        )


def _own_source(server: str, index: int) -> int:
    """Return the index of a canary's own source address; 0, that of all clients, outside of 127.0.0.0/8."""
    return index if server.startswith("127.") else 0


def part(whole: int, share: int, processes: int) -> int:
    """Return the size of one share of a whole: the shares add up to the whole and differ by at most 1."""
    return whole // processes + (share < whole % processes)


def make_plans(scenarios: Sequence[Scenario], host_for: Callable[[Scenario], Host]) -> list[Plan]:
    """Return the plans of the cells of a sweep. With more cells, only smaller loads are predicted.

    The budget of time for the predictions of all cells is that of a single run.
    """
    most = MOST_WALKED // len(scenarios)
    return [make_plan(scenario, host_for(scenario), most_walked=most) for scenario in scenarios]


def make_plan(
    scenario: Scenario, host: Host, *, baseline_fds: int = BASELINE_FDS, most_walked: int = MOST_WALKED
) -> Plan:
    """Return the plan of a run on this host; `baseline_fds` are open in the server before its first client.

    A load of more than `most_walked` attempts has no prediction.
    """
    budget = Budget(scenario, host, baseline_fds, most_walked)
    client, prediction = scenario.client, budget.prediction
    canaries = 1 + (scenario.canary.held > 0) if scenario.canary else 0
    return Plan(
        scenario=scenario,
        host=host,
        expected_attempts=client.attempts or (None if client.clients else client.planned()),
        attempts=budget.attempts,
        expected_is_mean=client.arrivals == "poisson" and client.attempts is None,
        processes=1 + client.processes + canaries,
        server_fds=budget.server_fds,
        driver_fds=budget.driver_fds,
        ports=budget.ports,
        queue_capacity=budget.queue_capacity,
        expected_s=budget.expected_s,
        length_s=budget.length_s,
        reserved_bytes=budget.reserved_bytes,
        prediction=prediction,
        warnings=warnings(budget),
        attempts_capacity=budget.attempts_capacity,
        accepts_capacity=budget.accepts_capacity,
        failures_capacity=budget.failures_capacity,
        canaries_capacity=budget.canaries,
        sockets_capacity=budget.sockets_capacity,
    )
