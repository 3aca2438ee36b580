"""May the load go there, and so much of it? Loopback always; elsewhere only as the command line says, in its own words.

No file can say it: whoever runs somebody else's scenario sends nothing to anybody by that alone.
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

#: What another host may be sent with no more than --allow-remote.
_MOST_RATE: Final = 1000.0
_LONGEST_S: Final = 60.0


def permit(scenario: Scenario, options: Options) -> None:
    """Raise ScenarioError where clients would leave this host, or its networks, or be too many for that, unasked."""
    address = ipaddress.ip_address(scenario.destination)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return
    if not options.allow_remote:
        raise ScenarioError(
            f"server.address is {scenario.server.address}, which is not on loopback: add --allow-remote if that server "
            "is yours to load; nothing was started"
        )
    if address.is_global and not options.yes_public:
        raise ScenarioError(
            f"{address} is an address of the public internet: add --yes-public if you may load it, and whoever runs "
            "the network in between knows; nothing was started"
        )
    if not options.allow_heavy and (much := _too_much(scenario)):
        raise ScenarioError(
            f"{much} for a server on another host: {format_count(_MOST_RATE)} clients a second for "
            f"{format_duration(_LONGEST_S)} are sent there without a further word. Lower that, or add --allow-heavy if "
            "it and the network in between can take it; nothing was started"
        )


def _too_much(scenario: Scenario) -> str:
    """Return what of a load is more than a stranger's server should get by mistake; "" where nothing is."""
    client = scenario.client
    rate = max((max(start, end) for _, start, end in client.schedule()), default=0.0)
    if client.clients is not None:  # each comes again when it has been served, as fast as that may be
        rate = client.clients / client.hold if client.hold else math.inf
    if rate > _MOST_RATE:
        fast = (
            "as many clients a second as it serves are" if math.isinf(rate) else f"{format_count(rate)} clients/s are"
        )
        return f"{fast} a lot"
    return f"{format_duration(client.load_s)} of load are long" if client.load_s > _LONGEST_S else ""
