"""The limits of this host that a plan needs. Without trio and numpy, for `check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.kernel.limits import WIDE_PORT_RANGE, HostLimits
from loadsim.scenario.plan import Host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadsim.scenario.model import Scenario


def observe_host(scenario: Scenario, in_force: Mapping[str, str] | None = None) -> Host:
    """Return the limits of this host that a plan needs.

    `in_force` are the sysctls of the run's namespace; None predicts them, before that namespace exists.
    """
    if in_force is None:
        wide = WIDE_PORT_RANGE if scenario.network.namespace == "private" else {}
        in_force = {**wide, **scenario.sysctl}
    limits = HostLimits.gather(in_force)
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
