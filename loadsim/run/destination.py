"""Whether a load may go to its destination: to loopback always, elsewhere only with an option on the command line.

No scenario file can permit it: running a file from somebody else must not load a third party.
"""

from __future__ import annotations

import ipaddress
import math
from typing import TYPE_CHECKING, Final

from loadsim.errors import ScenarioError
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from loadsim.run.options import Options
    from loadsim.scenario.model import Scenario

#: The most that --allow-remote permits without --allow-heavy.
_MOST_RATE: Final = 1000.0
_LONGEST_S: Final = 60.0


def permit(scenario: Scenario, options: Options) -> None:
    """Raise ScenarioError for a destination or an amount of load that the command line does not permit."""
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
    """Return which limit a load exceeds, as a sentence; "" for none."""
    client = scenario.client
    rate = max((max(start, end) for _, start, end in client.schedule()), default=0.0)
    if client.clients is not None:  # a closed loop: each client starts again as soon as it was served
        rate = client.clients / client.hold if client.hold else math.inf
    if rate > _MOST_RATE:
        return (
            "a closed loop has no rate limit" if math.isinf(rate) else f"this load has {format_count(rate)} clients/s"
        )
    return f"this load lasts {format_duration(client.load_s)}" if client.load_s > _LONGEST_S else ""
