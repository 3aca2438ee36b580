"""Makes a scenario from a live process: its incident, reproduced on a laptop in compressed time. Pure.

Two snapshots give the growth and, with the connections accepted between them, the fraction that leaks.
A process at its limit no longer grows; then the ages of its leaked connections give the earlier growth.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.groups import groups_of
from loadsim.inspect.model import LISTENING
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.inspect.groups import Group
    from loadsim.inspect.model import Snapshot

#: The scenario aims to run out of descriptors after this time, with at most this many clients per second.
_AIM_S = 4.0
_MOST_RATE = 1000.0
_MOST_S = 20.0
_LEAST_CLIENT_FDS = 32
_MOST_NOFILE = 4096
_QUIET_RATE = 10.0  # clients/s, if none arrived between the snapshots
_NOT_A_NAME = re.compile(r"[^a-z0-9]+")
#: The sysctls that the scenario copies from the host.
SYSCTLS = (
    "net.core.somaxconn",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What the snapshots show, and the scenario's numbers derived from it."""

    growth_per_s: float  # descriptors leaked per second
    growth_from: str  # its source, in words
    arrivals_per_s: float
    arrivals_from: str
    leak: float  # fraction of the connections that leak a descriptor
    leak_of: str  # "connection" | "extra"
    hold_s: float  # how long a client stays connected, by Little's law
    backlog: int
    nofile: int
    speed: float  # time compression: the scenario runs this many times as fast as the process

    @property
    def rate(self) -> float:
        """The rate of the scenario in clients per second."""
        return self.arrivals_per_s * self.speed


def incident(snapshots: Sequence[Snapshot], baseline: int) -> Incident:
    """Return the incident between the first and last snapshot.

    `baseline` is the number of descriptors that the simulated server itself needs.
    """
    before, now = snapshots[0], snapshots[-1]
    groups = groups_of(now, before)
    span_s = max(now.at_s - before.at_s, 1e-9)
    leaking = [one for one in groups if (one.change or 0) > 0 and one.kind != "listening"]
    growth_per_s = sum(one.change or 0 for one in leaking) / span_s
    growth_from = f"measured over {format_duration(span_s)}"
    if growth_per_s == 0 and (left := [one for one in groups if one.state == "CLOSE_WAIT" and one.fds > 1]):
        leaking = left
        growth_per_s = sum(_past_growth(one) for one in left)
        growth_from = "from the ages of its leaked connections (it no longer grows)"
    seen_per_s = _arrivals(snapshots) / span_s
    arrivals_per_s = max(seen_per_s, growth_per_s) or _QUIET_RATE
    leaked_by_clients = sum(one.fds for one in leaking if one.where.startswith("on "))
    established = sum(one.fds for one in groups if one.state == "ESTABLISHED" and one.where.startswith("on "))
    growing = any(one.state == "ESTABLISHED" and one.where.startswith("on ") for one in leaking)
    leak = min(growth_per_s / arrivals_per_s, 1.0)
    nofile, speed = _scaled(now, leak * arrivals_per_s, arrivals_per_s, baseline)
    return Incident(
        growth_per_s=growth_per_s,
        growth_from=growth_from,
        arrivals_per_s=arrivals_per_s,
        arrivals_from=_arrivals_from(seen_per_s, growth_per_s, exact=_is_only_listener(now)),
        leak=round(leak, 4),
        leak_of="connection" if leaked_by_clients * 2 >= sum(one.fds for one in leaking) else "extra",
        hold_s=0.0 if growing else established / arrivals_per_s / speed * min(nofile / now.soft, 1.0),
        backlog=_backlog(now),
        nofile=nofile,
        speed=speed,
    )


def _past_growth(group: Group) -> float:
    """Return the rate at which these connections leaked, from their longest and shortest idle times."""
    span_s = (group.oldest_idle_s or 0.0) - (group.newest_idle_s or 0.0)
    return (group.fds - 1) / span_s if span_s > 0 else float(group.fds)


def _is_only_listener(now: Snapshot) -> bool:
    # then the namespace's PassiveOpens counts only its connections
    return now.other_listeners == 0


def _arrivals(snapshots: Sequence[Snapshot]) -> int:
    """Return the connections opened meanwhile: all if it is the only listener, else those in any snapshot."""
    before, now = snapshots[0], snapshots[-1]
    if _is_only_listener(now) and now.passive_opens is not None and before.passive_opens is not None:
        return max(now.passive_opens - before.passive_opens, 0)
    seen = [{row.inode for row in one.rows if row.kind == "TCP" and row.local_port in now.ports} for one in snapshots]
    return len(set[int | None]().union(*seen) - seen[0])


def _arrivals_from(seen_per_s: float, growth_per_s: float, *, exact: bool) -> str:
    if seen_per_s <= 0:
        return "its growth, as no client was accepted meanwhile" if growth_per_s else "a guess, as no client arrived"
    if growth_per_s > seen_per_s:
        return "its growth, which exceeds the connections seen"
    return "all connections (PassiveOpens)" if exact else "a lower bound: connections found in the snapshots"


def _backlog(now: Snapshot) -> int:
    known = [row.send_q for row in now.rows if row.role == LISTENING and row.kind == "TCP" and row.send_q is not None]
    return max(known, default=128)


def _scaled(now: Snapshot, leaks_per_s: float, arrivals_per_s: float, baseline: int) -> tuple[int, float]:
    """Return the limit and the time compression at which descriptors run out after a few seconds."""
    ports = now.ports
    served = sum(len(row.fds) for row in now.rows if row.kind == "TCP" and row.local_port in ports)
    client_fds = max(now.soft - (now.open_fds - served), _LEAST_CLIENT_FDS)
    nofile = min(client_fds + baseline, _MOST_NOFILE)
    most = _MOST_RATE / arrivals_per_s
    if leaks_per_s <= 0:
        return nofile, max(min(_AIM_S / 3, most), 1.0)
    speed = max(min((nofile - baseline) / leaks_per_s / _AIM_S, most), min(1.0, most))
    nofile = min(nofile, baseline + max(int(leaks_per_s * speed * _MOST_S), _LEAST_CLIENT_FDS))
    return nofile, speed


def to_toml(found: Incident, now: Snapshot, sysctls: Mapping[str, str], baseline: int) -> str:
    """Return the scenario file; a comment beside each number names its source."""
    name = _NOT_A_NAME.sub("-", now.process.name.lower()).strip("-") or "process"
    leaks_per_s = found.leak * found.rate
    empty_s = (found.nofile - baseline) / leaks_per_s if leaks_per_s else None
    duration_s = 3.0 if empty_s is None else min(max(empty_s * 1.5 + 0.5, 2.0), _MOST_S * 1.6)
    lines = [
        *_header(found, now, empty_s),
        "",
        "schema = 1",
        f"name = {json.dumps(f'incident-{name}')}",
        f"description = {json.dumps(f'Reproduces what loadsim inspect saw of {ascii(now.process.name)[1:-1]}.')}",
        "",
        "[server]",
        _setting(f"backlog = {found.backlog}", "in force at its listener: min(backlog of listen(), somaxconn)"),
        _setting(f"nofile = {found.nofile}", _limit_from(found, now)),
        _setting(f"leak = {found.leak}", f"{found.growth_per_s:.3g} descriptors/s leak, {found.growth_from}"),
        *([f'leak_of = "{found.leak_of}"', "extra_fds = 1"] if found.leak_of == "extra" and found.leak else []),
        'close_after = "client"',
        _setting('on_emfile = "sleep"', "a guess: not visible from outside"),
        "",
        "[client]",
        _setting(f'rate = "{found.rate:.4g}/s"', f"{found.arrivals_per_s:.3g}/s: {found.arrivals_from}"),
        f'duration = "{duration_s:.3g}s"',
        _setting(f'hold = "{found.hold_s * 1000:.0f}ms"', "its connections / their rate, in compressed time"),
        'exchange = "hello"',
        "",
        *_sysctl_lines(sysctls),
        "[thresholds]",
        'expect = ["emfile.count > 0"]' if found.leak else 'expect = ["emfile.count == 0"]',
    ]
    return "\n".join(lines) + "\n"


def _setting(text: str, why: str) -> str:
    return f"{text:<24}# {why}"


def _header(found: Incident, now: Snapshot, empty_s: float | None) -> list[str]:
    process = now.process
    unit = f" of {ascii(process.unit)[1:-1]}" if process.unit else ""
    lines = [
        f"# Saved from {ascii(process.name)[1:-1]}[{process.pid}]{unit}, up {format_duration(process.up_s)}:",
        f"# {now.open_fds} of {now.soft} descriptors (hard {now.hard}).",
        "# Its descriptors:",
        *(f"#   {line}" for line in _group_lines(groups_of(now, None))),
        f"# Time is compressed: the scenario runs {found.speed:.3g} times as fast.",
    ]
    if empty_s is not None:
        lines.append(f"# From an empty server the limit is reached after about {empty_s:.3g} s (see loadsim check).")
        if now.free_fds:
            left_s = now.free_fds / found.growth_per_s
            lines.append(f"# The process had {now.free_fds} left: about {format_duration(left_s)} at its growth.")
    else:
        lines.append("# Nothing grew between the snapshots: save again with a longer --over, or during growth.")
    return lines


def _group_lines(groups: Sequence[Group]) -> list[str]:
    return [
        f"{one.fds:>7}  " + ascii(" ".join(part for part in (one.kind, one.state, one.where, one.detail) if part))[1:-1]
        for one in groups
    ]


def _limit_from(found: Incident, now: Snapshot) -> str:
    if found.nofile == now.soft:
        return "its soft limit"
    return f"the part of its soft limit {now.soft} that clients can use up in a short run"


def _sysctl_lines(sysctls: Mapping[str, str]) -> list[str]:
    if not sysctls:
        return []
    values = [f'"{name}" = {value if value.isdecimal() else json.dumps(value)}' for name, value in sysctls.items()]
    return [_setting("[sysctl]", "as on its host"), *values, ""]
