"""Warnings before a run: settings that this host cannot provide, each with a remedy; a table of rules."""

from __future__ import annotations

import difflib
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.scenario.budget import DRIVER_FDS, DRIVER_RATE
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsim.scenario.budget import Budget

SOMAXCONN = "net.core.somaxconn"
PORT_RANGE = "net.ipv4.ip_local_port_range"
#: Writable sysctls of a network namespace that influence how connections are made (Linux 6.18).
_OF_A_NAMESPACE = (
    SOMAXCONN,
    PORT_RANGE,
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)
_OF_THE_HOST = ("net.ipv4.tcp_mem", "net.ipv4.tcp_max_orphans")
_LONG_S = 600.0
_MUCH_SPACE = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWarning:
    """A setting that will not take effect as written, or has a surprising effect: a sentence and the remedy."""

    sentence: str
    remedy: str


def warnings(budget: Budget) -> list[PlanWarning]:
    """Return all warnings, the most serious first."""
    return [found for rule in _RULES if (found := rule(budget)) is not None]


def _nofile_above_hard_limit(budget: Budget) -> PlanWarning | None:
    server, hard = budget.scenario.server, budget.host.nofile_hard
    knob, asked = max((("nofile", server.nofile or 0), ("prewarm_fds", server.prewarm_fds)), key=lambda each: each[1])
    if asked <= hard:
        return None
    return PlanWarning(
        sentence=f"server.{knob} = {format_count(asked)} is above the hard limit of {format_count(hard)} open files",
        remedy=f"lower server.{knob}, or raise the hard limit (ulimit -Hn, LimitNOFILE=) to {format_count(asked)}",
    )


def _no_descriptors_for_clients(budget: Budget) -> PlanWarning | None:
    limit = budget.server_fds.available
    if limit > budget.baseline or not budget.scenario.server.is_simulated:
        return None
    return PlanWarning(
        sentence=f"the server itself needs about {budget.baseline} descriptors, so with a limit of {limit} it cannot "
        "accept any client",
        remedy=f"set server.nofile above {budget.baseline}, unless this is intended",
    )


def _somaxconn_below_backlog(budget: Budget) -> PlanWarning | None:
    backlog, somaxconn = budget.scenario.server.backlog, budget.host.somaxconn
    if backlog <= somaxconn:
        return None
    return PlanWarning(
        sentence=f"the kernel reduces the backlog of {backlog} to {SOMAXCONN} = {somaxconn} without an error",
        remedy=f'set "{SOMAXCONN}" = {backlog} in [sysctl], or server.backlog to {somaxconn}',
    )


def _driver_clamped(budget: Budget) -> PlanWarning | None:
    needed, available = budget.driver_fds.needed, budget.driver_fds.available
    if needed is None or budget.driver_fds.is_met:
        return None
    processes = math.ceil(budget.in_flight / max(1, available - DRIVER_FDS))
    return PlanWarning(
        sentence=f"each driver may need {format_count(needed)} descriptors, and its hard limit is "
        f"{format_count(available)}: it will start no more clients than that allows",
        remedy=f"set client.processes to {processes}, raise the hard limit (ulimit -Hn), or lower the load",
    )


def _not_enough_ports(budget: Budget) -> PlanWarning | None:
    needed, available = budget.ports.needed, budget.ports.available
    if needed is None or budget.ports.is_met or _port_limited(budget) is not None:
        return None
    sources = math.ceil(needed / max(1, available // budget.scenario.client.sources))
    return PlanWarning(
        sentence=f"{format_count(needed)} local ports may be needed at once, {format_count(available)} are available",
        remedy=f"set client.sources to {sources}, or widen {PORT_RANGE}",
    )


def _port_limited(budget: Budget) -> PlanWarning | None:
    available, rate, sources = budget.ports.available, budget.peak_rate, budget.scenario.client.sources
    if budget.scenario.client.clients is not None or not budget.clients_close_first or rate <= available / 2:
        return None
    return PlanWarning(
        sentence="clients that close by FIN leave their ports in TIME_WAIT: above about "
        f"{format_count(available / 2)}/s (half of {format_count(available)} ports a second) the generator slows down "
        "without any failure",
        remedy=f'set client.close = "rst", client.sources to {math.ceil(2 * rate * sources / max(1, available))}, '
        f"or widen {PORT_RANGE}",
    )


def _drivers_too_slow(budget: Budget) -> PlanWarning | None:
    client = budget.scenario.client
    if client.clients is not None or budget.peak_rate <= DRIVER_RATE * client.processes:
        return None
    processes = math.ceil(budget.peak_rate / DRIVER_RATE)
    return PlanWarning(
        sentence=f"{format_count(budget.peak_rate)} attempts/s are more than {client.processes} "
        f"driver{'s' if client.processes > 1 else ''} can start: about {format_count(DRIVER_RATE)}/s each",
        remedy=f"set client.processes to {processes} on a machine with as many free CPUs, or lower the rate",
    )


def _in_flight_above_stop(budget: Budget) -> PlanWarning | None:
    client, expected = budget.scenario.client, budget.prediction
    if not any("max_in_flight" in sentence for sentence in expected.unpredicted):
        return None
    return PlanWarning(
        sentence=f"more than {format_count(client.max_in_flight)} clients would be in flight at once: further arrivals "
        "are not started",
        remedy="raise client.max_in_flight, or lower the rate, client.hold or the time-outs",
    )


def _more_processes_than_cpus(budget: Budget) -> PlanWarning | None:
    processes, cpus = 1 + budget.scenario.client.processes, budget.host.cpus
    if budget.scenario.client.processes == 1 or processes <= cpus:
        return None
    return PlanWarning(
        sentence=f"{processes} busy processes share {cpus} CPUs: latencies will include waiting for a CPU",
        remedy=f"set client.processes to {max(1, cpus - 1)}, or allow for that in the latencies",
    )


def _long(budget: Budget) -> PlanWarning | None:
    if budget.length_s <= _LONG_S:
        return None
    return PlanWarning(
        sentence=f"this may take {format_duration(budget.length_s)}",
        remedy="lower client.duration, client.attempts or the time-outs; Ctrl-C ends a run early and keeps its results",
    )


def _much_space(budget: Budget) -> PlanWarning | None:
    if budget.reserved_bytes <= _MUCH_SPACE:
        return None
    return PlanWarning(
        sentence=f"{budget.reserved_bytes / 1e9:.1f} GB are reserved for the records of up to "
        f"{format_count(budget.attempts)} attempts",
        remedy="set client.attempts, shorten client.duration, or choose an --out on a larger disk",
    )


def _sysctl_unknown(budget: Budget) -> PlanWarning | None:
    for name in budget.scenario.sysctl:
        if name in _OF_THE_HOST:
            return PlanWarning(
                sentence=f"{name} belongs to the whole host, not to a network namespace",
                remedy="remove it from [sysctl], and set it with sysctl -w on the host",
            )
        near = _nearest_sysctl(name)
        if name not in _OF_A_NAMESPACE and near:
            return PlanWarning(sentence=f"{name} is not a known sysctl", remedy=f"did you mean {near}?")
    return None


@functools.cache
def _nearest_sysctl(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name, _OF_A_NAMESPACE, n=1, cutoff=0.9)), None)


_RULES: tuple[Callable[[Budget], PlanWarning | None], ...] = (
    _nofile_above_hard_limit,
    _no_descriptors_for_clients,
    _sysctl_unknown,
    _somaxconn_below_backlog,
    _driver_clamped,
    _in_flight_above_stop,
    _not_enough_ports,
    _port_limited,
    _drivers_too_slow,
    _more_processes_than_cpus,
    _much_space,
    _long,
)
