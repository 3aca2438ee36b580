"""The TCP counters of a network namespace, from /proc/PID/net/netstat.

Owns their kernel names (net/ipv4/proc.c) and one open file. The counters are since the namespace began and count
packets, not connections: take differences. Must not know what they mean for a run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from loadsim.kernel.procfs import ProcessGoneError

_MOST_BYTES = 32_768  # 4.1 KB on Linux 6.18
_GROUP = b"TcpExt:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The counters that tell of a full listen queue; 0 where a kernel does not have one."""

    listen_overflows: int  # ListenOverflows: SYNs and final ACKs that met a full accept queue
    listen_drops: int  # ListenDrops: the same, and what was dropped for other reasons
    cookies: int  # TCPReqQFullDoCookies: SYNs answered by a cookie, because the SYN queue was full


#: Field of Counters -> the kernel's name.
KERNEL_NAMES = {
    "listen_overflows": b"ListenOverflows",
    "listen_drops": b"ListenDrops",
    "cookies": b"TCPReqQFullDoCookies",
}


class TcpCounters:
    """The counters of the namespace in which a process is; close it, or use it as a context manager."""

    def __init__(self, pid: int) -> None:
        """Open the file, which then outlives the process; raises ProcessGoneError where it has ended already."""
        try:
            self._fd = os.open(f"/proc/{pid}/net/netstat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {pid} is gone") from error

    def read(self) -> Counters:
        """Return the counters now; 50 us (Linux 6.18)."""
        return parse_netstat(os.pread(self._fd, _MOST_BYTES, 0))

    def close(self) -> None:
        """Give the descriptor back; harmless the second time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_netstat(text: bytes) -> Counters:
    """Return the counters from the two TcpExt lines of /proc/net/netstat, the names and the numbers."""
    lines = (line.split() for line in text.splitlines() if line.startswith(_GROUP))
    numbers = dict(zip(next(lines), next(lines), strict=True))
    return Counters(**{field: int(numbers.get(name, 0)) for field, name in KERNEL_NAMES.items()})


def passive_opens(pid: int) -> int | None:
    """Return the connections that the namespace of a process has let in since it began; None where nobody says."""
    try:
        text = Path(f"/proc/{pid}/net/snmp").read_bytes()
    except OSError:
        return None
    names, numbers = (line.split() for line in text.splitlines() if line.startswith(b"Tcp:"))
    return int(dict(zip(names, numbers, strict=True))[b"PassiveOpens"])
