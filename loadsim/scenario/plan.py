"""Scenario and host limits in, budget out: processes, descriptors, ports, space, length, prediction and warnings.

Pure arithmetic: a host is a value (`Host`), filled in by whoever may ask the kernel. What cannot be had is a warning
with its remedy here, and an honest clamp later; nothing is changed silently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadsim.scenario.arrivals import upper_count
from loadsim.scenario.spec import LoadSpec, ServerSpec

if TYPE_CHECKING:
    from loadsim.scenario.model import Scenario

#: Descriptors of the simulated server before its first client: 0, 1, 2, the listener, trio's epoll, eventfd and
#: wake-up pair, its own epoll (measured on Linux 6.18, trio 0.35).
BASELINE_FDS = 8
#: A closed loop that counts no attempts cannot do more than this on one driver, so space is reserved for it.
MAX_DRIVER_RATE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the plan has to know of the host; the defaults are those of a plain Linux 6."""

    nofile_soft: int = 1024
    nofile_hard: int = 524_288
    somaxconn: int = 4096
    port_first: int = 32_768
    port_last: int = 60_999
    cpus: int = 2
    syn_retries: int = 6
    syn_linear_timeouts: int = 4
    syncookies: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What arithmetic says will happen; None or a missing fate: it cannot say."""

    emfile_at_s: float | None = None
    queue_full_at_s: float | None = None
    fates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run needs."""

    scenario: Scenario
    prediction: Prediction
    attempts_capacity: int  # per driver
    accepts_capacity: int
    failures_capacity: int

    def server_spec(self, *, accepts_path: str, failures_path: str, port: int | None = None) -> ServerSpec:
        """Return what the simulated server is told; `port` overrides the scenario's."""
        server, network = self.scenario.server, self.scenario.network
        return ServerSpec(
            address=network.address,
            port=network.port if port is None else port,
            backlog=server.backlog,
            nofile=server.nofile,
            leak=server.leak,
            leak_of=server.leak_of,
            extra_fds=server.extra_fds,
            close_after_s=server.close_after,
            accept_delay_s=server.accept_delay,
            pause_s=server.pause,
            pause_every_s=server.pause_every,
            on_emfile=server.on_emfile,
            emfile_delay_s=server.emfile_delay,
            idle_threads=server.idle_threads,
            prewarm_fds=server.prewarm_fds,
            exchange=self.scenario.client.exchange,
            seed=self.scenario.seed,
            accepts_path=accepts_path,
            accepts_capacity=self.accepts_capacity,
            failures_path=failures_path,
            failures_capacity=self.failures_capacity,
        )

    def load_spec(self, share: int, *, port: int, attempts_path: str, address: str | None = None) -> LoadSpec:
        """Return what the driver with this share (0 .. processes - 1) is told; `port` is the server's."""
        client = self.scenario.client
        return LoadSpec(
            share=share,
            processes=client.processes,
            address=address or self.scenario.network.address,
            port=port,
            stages=client.schedule(),
            arrivals=client.arrivals,
            clients=part(client.clients or 0, share, client.processes),
            attempts=client.attempts,
            duration_s=client.load_s,
            max_in_flight=part(max(client.max_in_flight, client.clients or 0), share, client.processes),
            hold_s=client.hold,
            exchange=client.exchange,
            close=client.close,
            connect_timeout_s=client.connect_timeout,
            reply_timeout_s=client.reply_timeout,
            sources=client.sources,
            seed=self.scenario.seed,
            attempts_path=attempts_path,
            attempts_capacity=self.attempts_capacity,
        )


def part(whole: int, share: int, processes: int) -> int:
    """Return how many of a whole a share gets: the parts add up, and differ by 1 at most."""
    return whole // processes + (share < whole % processes)


def make_plan(scenario: Scenario, host: Host) -> Plan:
    """Return what a run of the scenario needs on this host."""
    client = scenario.client
    upper = _upper_attempts(scenario)
    length_s = client.load_s + client.hold + client.connect_timeout + client.reply_timeout
    return Plan(
        scenario=scenario,
        prediction=Prediction(),
        attempts_capacity=math.ceil(upper / client.processes) + 1,
        accepts_capacity=upper + 1024,
        failures_capacity=math.ceil(300 * min(length_s + 10, 3600)),
    )


def _upper_attempts(scenario: Scenario) -> int:
    client = scenario.client
    if client.attempts is not None:
        return client.attempts
    if client.clients is None:
        return upper_count(client.schedule(), arrivals=client.arrivals, attempts=None, duration_s=client.load_s)
    return math.ceil(client.load_s * MAX_DRIVER_RATE) * client.processes
