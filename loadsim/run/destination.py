"""May the load go there? Loopback always; elsewhere only where the command line says so, in its own words.

No file can say it: whoever runs somebody else's scenario sends nothing to anybody by that alone.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from loadsim.errors import ScenarioError

if TYPE_CHECKING:
    from loadsim.scenario.model import Scenario


def permit(scenario: Scenario, *, remote: bool, public: bool) -> None:
    """Raise ScenarioError where the clients would leave this host (`remote`), or its networks (`public`), unasked."""
    address = ipaddress.ip_address(scenario.destination)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return
    if not remote:
        raise ScenarioError(
            f"server.address is {scenario.server.address}, which is not on loopback: add --allow-remote if that server "
            "is yours to load; nothing was started"
        )
    if address.is_global and not public:
        raise ScenarioError(
            f"{address} is an address of the public internet: add --yes-public if you may load it, and whoever runs "
            "the network in between knows; nothing was started"
        )
