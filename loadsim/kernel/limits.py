"""RLIMIT_NOFILE, sysctls and the host itself, as plain values.

Owns their names and their parsing. Knows neither scenarios nor the purpose of a limit. Imports only the standard
library, because the drivers use it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYSCTL_ROOT = Path("/proc/sys")

#: The sysctls of a network namespace that affect TCP connections. A new namespace starts from the kernel's defaults for
#: all of them, not from the host's values (Linux 6.18); each can be written inside.
NAMESPACE_SYSCTLS = (
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
)
#: The port range of a private namespace: only the load generator uses it, so it does not copy the host's.
WIDE_PORT_RANGE = {"net.ipv4.ip_local_port_range": "1024 65535"}
#: Sysctls of the host, recorded only.
HOST_SYSCTLS = (
    "fs.file-max",
    "fs.nr_open",
    "net.core.netdev_max_backlog",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """RLIMIT_NOFILE of one process: one more than the highest descriptor number that it may use."""

    soft: int
    hard: int  # only CAP_SYS_RESOURCE can raise it


def own_nofile() -> Limits:
    """Return RLIMIT_NOFILE of this process."""
    return Limits(*resource.getrlimit(resource.RLIMIT_NOFILE))


def set_own_nofile(limits: Limits) -> None:
    """Set RLIMIT_NOFILE of this process; raises ValueError or PermissionError if the hard limit would rise."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.soft, limits.hard))


def set_nofile(pid: int, soft: int) -> Limits:
    """Set the soft RLIMIT_NOFILE of a live process, and raise the hard one if necessary; return the result.

    If the hard limit may not be raised (a program may have lowered its own), the soft limit is set to it.
    Raises ProcessLookupError if the process has ended, PermissionError if its limits may not be changed.
    """
    before = Limits(*resource.prlimit(pid, resource.RLIMIT_NOFILE))
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, max(soft, before.hard)))
    except PermissionError:
        if soft <= before.hard:
            raise
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (before.hard, before.hard))
    return Limits(*resource.prlimit(pid, resource.RLIMIT_NOFILE))


def raise_own_nofile() -> Limits:
    """Raise the soft RLIMIT_NOFILE of this process to its hard limit and return the result."""
    hard = own_nofile().hard
    with contextlib.suppress(ValueError, PermissionError):  # a sandbox may refuse it
        set_own_nofile(Limits(soft=hard, hard=hard))
    return own_nofile()


def read_sysctl(name: str) -> str | None:
    """Return the value of a sysctl by its full name, with its numbers separated by one space.

    A name with "net." refers to the caller's network namespace. None if this kernel lacks the sysctl or does not show
    it.
    """
    try:
        return normal(sysctl_path(name).read_text())
    except OSError:
        return None


def sysctl_path(name: str) -> Path:
    """Return the file of a sysctl: "net.core.somaxconn" is /proc/sys/net/core/somaxconn."""
    return _SYSCTL_ROOT.joinpath(*name.split("."))


def normal(value: str) -> str:
    """Return a sysctl's value with its numbers separated by one space, for comparison."""
    return " ".join(value.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """The limits of this host that a plan must respect."""

    nofile_soft: int
    nofile_hard: int
    somaxconn: int
    port_low: int
    port_high: int  # inclusive
    syn_retries: int
    syn_linear_timeouts: int  # 0 on kernels before 6.5, which do not have it
    syncookies: int
    cpus: int  # on which this process may run

    @classmethod
    def collect(cls, in_force: Mapping[str, str] | None = None) -> Self:
        """Return this host's limits; sysctls in `in_force` replace the namespace's values."""
        nofile = own_nofile()
        low, high = _numbers("net.ipv4.ip_local_port_range", in_force, "32768 60999")
        return cls(
            nofile_soft=nofile.soft,
            nofile_hard=nofile.hard,
            somaxconn=_number("net.core.somaxconn", in_force, "4096"),
            port_low=low,
            port_high=high,
            syn_retries=_number("net.ipv4.tcp_syn_retries", in_force, "6"),
            syn_linear_timeouts=_number("net.ipv4.tcp_syn_linear_timeouts", in_force, "0"),
            syncookies=_number("net.ipv4.tcp_syncookies", in_force, "1"),
            cpus=len(os.sched_getaffinity(0)),
        )


def _numbers(name: str, in_force: Mapping[str, str] | None, default: str) -> list[int]:
    """Return the numbers of a sysctl, or of the kernel's default if it cannot be read."""
    value = (in_force or {}).get(name) or read_sysctl(name) or default
    return [int(number) for number in value.split()]


def _number(name: str, in_force: Mapping[str, str] | None, default: str) -> int:
    return _numbers(name, in_force, default)[0]


def host_facts() -> dict[str, Any]:
    """Return facts about the machine for a result, as JSON values in bytes, seconds and counts."""
    nofile = own_nofile()
    names = sorted(NAMESPACE_SYSCTLS + HOST_SYSCTLS)
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu_model": _first_of("/proc/cpuinfo", ("model name", "Processor", "cpu model")) or "unknown",
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_average": list(os.getloadavg()),
        "nofile_soft": nofile.soft,
        "nofile_hard": nofile.hard,
        "sysctls": {name: value for name in names if (value := read_sysctl(name)) is not None},
    }


def _first_of(path: str, keys: tuple[str, ...]) -> str | None:
    """Return the value of the first "key : value" line with one of these keys."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return None
