"""When Linux sends a SYN again that nobody answered: times that are the kernel's, not the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The first time-out (RFC 6298), in seconds; it doubles once the linear ones are used up.
_FIRST_S = 1.0
LINEAR = "net.ipv4.tcp_syn_linear_timeouts"
RETRIES = "net.ipv4.tcp_syn_retries"


def retransmit_times(sysctls: Mapping[str, str]) -> list[float]:
    """Return after how many seconds each further SYN leaves: about 1, 2, 3, 4, 5, 7, 11 ... since Linux 6.5.

    Before 6.5 there are no linear time-outs and no such sysctl: 1, 3, 7, 15 ... Measured on Linux 6.18 the late ones
    come up to 3 % later.
    """
    linear, retries = int(sysctls.get(LINEAR) or 0), int(sysctls.get(RETRIES) or 6)
    times, now, timeout = [], 0.0, _FIRST_S
    for sent in range(linear + retries):
        now += timeout
        times.append(now)
        if sent >= linear:
            timeout *= 2
    return times
