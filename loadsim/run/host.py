"""The limits of this host that a plan needs, and the loads that the command line permits.

Imports neither trio nor numpy, because `loadsim check` uses it.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadsim.errors import ScenarioError
from loadsim.kernel.limits import WIDE_PORT_RANGE, HostLimits
from loadsim.scenario.plan import Host
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadsim.scenario.model import Scenario

#: The limits of --allow-remote without --allow-heavy.
_MOST_RATE: Final = 1000.0
_LONGEST_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run that are not settings of its scenario."""

    out: Path
    argv: Sequence[str] = ()
    allow_degraded: bool = False
    allow_remote: bool = False  # the load may leave this host
    allow_public: bool = False  # the load may go to a public address
    allow_heavy: bool = False  # the load may exceed 1,000 clients/s or 60 s on another host
    folder: Path | None = None  # an existing result folder, for a run of a sweep; None: a new one


def observe_host(scenario: Scenario, in_force: Mapping[str, str] | None = None) -> Host:
    """Return the limits of this host that a plan needs.

    `in_force` are the sysctls of the run's namespace; None predicts them before that namespace exists.
    """
    if in_force is None:
        wide = WIDE_PORT_RANGE if scenario.network.namespace == "private" else {}
        in_force = {**wide, **scenario.sysctl}
    limits = HostLimits.collect(in_force)
    return Host(
        nofile_soft=limits.nofile_soft,
        nofile_hard=limits.nofile_hard,
        somaxconn=limits.somaxconn,
        port_first=limits.port_low,
        port_last=limits.port_high,
        cpus=limits.cpus,
        syn_retries=limits.syn_retries,
        syn_linear_timeouts=limits.syn_linear_timeouts,
        syncookies=limits.syncookies,
    )


def permit(scenario: Scenario, options: Options) -> None:
    """Raise ScenarioError if the command line does not permit the destination or the amount of load."""
    address = ipaddress.ip_address(scenario.destination)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return
    if not options.allow_remote:
        raise ScenarioError(
            f"{scenario.server.address} is not on loopback: add --allow-remote if you may load that server; "
            "nothing was started"
        )
    if address.is_global and not options.allow_public:
        raise ScenarioError(
            f"{address} is a public address: add --allow-public if you may load it and the operators of the network in "
            "between know; nothing was started"
        )
    if not options.allow_heavy and (much := _too_much(scenario)):
        raise ScenarioError(
            f"{much}. Loads on another host are limited to {format_count(_MOST_RATE)} clients/s for "
            f"{format_duration(_LONGEST_S)}: lower the load, or add --allow-heavy if the server and the network in "
            "between can take it; nothing was started"
        )


def _too_much(scenario: Scenario) -> str:
    """Return a clause about the limit that a load exceeds, "" for none."""
    client = scenario.client
    rate = max((max(start, end) for _, start, end in client.schedule()), default=0.0)
    if client.clients is not None:  # in a closed loop, each client starts again as soon as it was served
        rate = client.clients / client.hold if client.hold else math.inf
    if rate > _MOST_RATE:
        if math.isinf(rate):
            return "a closed loop has no rate limit"
        return f"this load has {format_count(rate)} clients/s"
    return f"this load lasts {format_duration(client.load_s)}" if client.load_s > _LONGEST_S else ""
