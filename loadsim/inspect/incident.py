"""A scenario from what a live process shows: the incident on a laptop, time compressed. Pure.

Two looks give the growth and, with the connections that came in between them, the share of those that stay.
A process that has come to rest at its limit grows no more: then the age of what it left open tells how fast it did.
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

#: What the run aims at: descriptors run out after this long, with no more than this many clients a second.
_AIM_S = 4.0
_MOST_RATE = 1000.0
_MOST_S = 20.0
_LEAST_ROOM = 32
_MOST_NOFILE = 4096
_QUIET_RATE = 10.0  # where nobody came while it was watched
_NOT_A_NAME = re.compile(r"[^a-z0-9]+")
#: Of the kernel, as they are in force; the private namespace of a run has no others.
SYSCTLS = (
    "net.core.somaxconn",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What was seen, and what the scenario makes of it."""

    growth_per_s: float  # descriptors that stay, per second; 0: none
    growth_from: str  # how that is known
    arrivals_per_s: float
    arrivals_from: str
    leak: float  # share of the connections that leave a descriptor behind
    leak_of: str  # "connection" | "extra"
    hold_s: float  # how long a client stays, by Little's law
    backlog: int
    nofile: int
    speed: float  # how many times faster than the process

    @property
    def rate(self) -> float:
        """The rate of the scenario, clients per second."""
        return self.arrivals_per_s * self.speed


def incident(looks: Sequence[Snapshot], baseline: int) -> Incident:
    """Return the incident between the first and last look; `baseline` are the simulated server's own descriptors."""
    before, now = looks[0], looks[-1]
    groups = groups_of(now, before)
    span_s = max(now.at_s - before.at_s, 1e-9)
    leaking = [one for one in groups if (one.change or 0) > 0 and one.kind != "listening"]
    growth_per_s = sum(one.change or 0 for one in leaking) / span_s
    growth_from = f"in {format_duration(span_s)}"
    if growth_per_s == 0 and (left := [one for one in groups if one.state == "CLOSE_WAIT" and one.fds > 1]):
        leaking = left
        growth_per_s = sum(_past_growth(one) for one in left)
        growth_from = "from the age of what it left open: it grows no more"
    seen = _arrivals(looks) / span_s
    arrivals = max(seen, growth_per_s) or _QUIET_RATE
    at_door = sum(one.fds for one in leaking if one.where.startswith("on "))
    established = sum(one.fds for one in groups if one.state == "ESTABLISHED" and one.where.startswith("on "))
    growing = any(one.state == "ESTABLISHED" and one.where.startswith("on ") for one in leaking)
    leak = min(growth_per_s / arrivals, 1.0)
    nofile, speed = _scaled(now, leak * arrivals, arrivals, baseline)
    return Incident(
        growth_per_s=growth_per_s,
        growth_from=growth_from,
        arrivals_per_s=arrivals,
        arrivals_from=_arrivals_from(seen, growth_per_s, alone=_is_alone(now)),
        leak=round(leak, 4),
        leak_of="connection" if at_door * 2 >= sum(one.fds for one in leaking) else "extra",
        hold_s=0.0 if growing else established / arrivals / speed * min(nofile / now.soft, 1.0),
        backlog=_backlog(now),
        nofile=nofile,
        speed=speed,
    )


def _past_growth(group: Group) -> float:
    """Return how fast connections were left open, from the idle times of the first and the last."""
    span_s = (group.oldest_idle_s or 0.0) - (group.newest_idle_s or 0.0)
    return (group.fds - 1) / span_s if span_s > 0 else float(group.fds)


def _is_alone(now: Snapshot) -> bool:
    """Return whether all connections that its namespace lets in are its own."""
    return now.other_listeners == 0


def _arrivals(looks: Sequence[Snapshot]) -> int:
    """Return the connections that came in: exact where nobody else listens, else those that a look found."""
    before, now = looks[0], looks[-1]
    if _is_alone(now) and now.passive_opens is not None and before.passive_opens is not None:
        return max(now.passive_opens - before.passive_opens, 0)
    seen = [{row.inode for row in one.rows if row.kind == "TCP" and row.local_port in now.ports} for one in looks]
    return len(set[int | None]().union(*seen) - seen[0])


def _arrivals_from(seen: float, growth_per_s: float, *, alone: bool) -> str:
    if seen <= 0:
        return "as fast as it grew: nobody got in meanwhile" if growth_per_s else "assumed: nobody came meanwhile"
    if growth_per_s > seen:
        return "as fast as it grows: more than came in"
    return "all that came in (PassiveOpens)" if alone else "at least: those that looks at it found"


def _backlog(now: Snapshot) -> int:
    known = [row.send_q for row in now.rows if row.role == LISTENING and row.kind == "TCP" and row.send_q is not None]
    return max(known, default=128)


def _scaled(now: Snapshot, stays_per_s: float, arrivals: float, baseline: int) -> tuple[int, float]:
    """Return the limit and the speed with which descriptors run out after a few seconds, at a rate one can drive."""
    ports = now.ports
    served = sum(len(row.fds) for row in now.rows if row.kind == "TCP" and row.local_port in ports)
    room = max(now.soft - (now.open_fds - served), _LEAST_ROOM)  # what its clients have to share
    nofile = min(room + baseline, _MOST_NOFILE)
    if stays_per_s <= 0:
        return nofile, max(min(_AIM_S / 3, _MOST_RATE / arrivals), 1.0)
    most = _MOST_RATE / arrivals
    speed = max(min((nofile - baseline) / stays_per_s / _AIM_S, most), min(1.0, most))
    nofile = min(nofile, baseline + max(int(stays_per_s * speed * _MOST_S), _LEAST_ROOM))
    return nofile, speed


def to_toml(found: Incident, now: Snapshot, sysctls: Mapping[str, str], baseline: int) -> str:
    """Return the scenario file, with a comment for each number that says where it comes from."""
    name = _NOT_A_NAME.sub("-", now.process.name.lower()).strip("-") or "process"
    stays = found.leak * found.rate
    empty_s = (found.nofile - baseline) / stays if stays else None
    duration_s = 3.0 if empty_s is None else min(max(empty_s * 1.5 + 0.5, 2.0), _MOST_S * 1.6)
    lines = [
        *_heading(found, now, empty_s),
        "",
        "schema = 1",
        f"name = {json.dumps(f'incident-{name}')}",
        f"description = {json.dumps(f'What {ascii(now.process.name)[1:-1]} showed when it was looked at.')}",
        "",
        "[server]",
        _setting(f"backlog = {found.backlog}", "in force at its listener: min(listen(), somaxconn)"),
        _setting(f"nofile = {found.nofile}", _of_limit(found, now)),
        _setting(f"leak = {found.leak}", f"{found.growth_per_s:.3g} descriptors/s stay, {found.growth_from}"),
        *([f'leak_of = "{found.leak_of}"', "extra_fds = 1"] if found.leak_of == "extra" and found.leak else []),
        'close_after = "client"',
        _setting('on_emfile = "sleep"', "a guess: it cannot be seen from outside"),
        "",
        "[client]",
        _setting(f'rate = "{found.rate:.4g}/s"', f"{found.arrivals_per_s:.3g}/s: {found.arrivals_from}"),
        f'duration = "{duration_s:.3g}s"',
        _setting(f'hold = "{found.hold_s * 1000:.0f}ms"', "its connections / their rate, as much faster"),
        'exchange = "hello"',
        "",
        *_sysctl_lines(sysctls),
        "[thresholds]",
        'expect = ["emfile.count > 0"]' if found.leak else 'expect = ["emfile.count == 0"]',
    ]
    return "\n".join(lines) + "\n"


def _setting(text: str, why: str) -> str:
    return f"{text:<24}# {why}"


def _heading(found: Incident, now: Snapshot, empty_s: float | None) -> list[str]:
    process = now.process
    unit = f" of {ascii(process.unit)[1:-1]}" if process.unit else ""
    lines = [
        f"# Saved from {ascii(process.name)[1:-1]}[{process.pid}]{unit}, up {format_duration(process.up_s)}:",
        f"# {now.open_fds} of {now.soft} descriptors (hard {now.hard}).",
        "# Its descriptors then:",
        *(f"#   {line}" for line in _held_lines(groups_of(now, None))),
        f"# Time runs {found.speed:.3g} times as fast here.",
    ]
    if empty_s is not None:
        lines.append(f"# From an empty server the limit is reached after about {empty_s:.3g} s (loadsim check tells).")
        if now.room:
            left_s = now.room / found.growth_per_s
            lines.append(f"# The process itself had {now.room} left: about {format_duration(left_s)} at its pace.")
    else:
        lines.append("# Nothing grew while it was looked at: save again with a longer --over, or while it does.")
    return lines


def _held_lines(groups: Sequence[Group]) -> list[str]:
    return [
        f"{one.fds:>7}  " + ascii(" ".join(part for part in (one.kind, one.state, one.where, one.detail) if part))[1:-1]
        for one in groups
    ]


def _of_limit(found: Incident, now: Snapshot) -> str:
    if found.nofile == now.soft:
        return "its soft limit"
    return f"its soft limit is {now.soft}: what its clients share of it, as far as a short run can use it up"


def _sysctl_lines(sysctls: Mapping[str, str]) -> list[str]:
    if not sysctls:
        return []
    values = [f'"{name}" = {value if value.isdecimal() else json.dumps(value)}' for name, value in sysctls.items()]
    return [_setting("[sysctl]", "as in force on its host"), *values, ""]
