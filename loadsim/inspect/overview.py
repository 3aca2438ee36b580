"""All processes by their share of the limit, and every listener: `inspect` without a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim import units
from loadsim.inspect.join import Index, link_of
from loadsim.inspect.targets import Candidate, candidates
from loadsim.inspect.text import named
from loadsim.kernel.processes import Holder, search
from loadsim.kernel.sockdiag import SockDiag
from loadsim.kernel.sockets import read_table
from loadsim.render.drawing import ALARM, BAD, NAME, QUIET, STRONG, WARN, Line, Terminal, gauge, line, paint, paragraph
from loadsim.render.text import clip, left, right
from loadsim.units import format_count

if TYPE_CHECKING:
    from loadsim.inspect.targets import Candidate
    from loadsim.kernel.sockets import InetSocket


_NO_PID = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A TCP listener of this network namespace."""

    local: str
    port: int
    family: str
    queue: int
    backlog: int  # in force
    drops: int | None
    holders: tuple[Holder, ...]

    @property
    def queue_capacity(self) -> int:
        """How many connections its accept queue can hold."""
        return units.queue_capacity(self.backlog)

    @property
    def full(self) -> bool:
        """Whether its accept queue is full."""
        return self.queue >= self.queue_capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All processes and listeners of this host, as far as they can be read."""

    processes: list[Candidate]
    listeners: list[Listener]
    unreadable: int  # number of processes with unreadable descriptors


def take_overview() -> Overview:
    """Read all processes and listeners."""
    with SockDiag() as diag:
        found = Index(read_table(diag)).listeners()
    searched = search({link_of(one.inode) for one in found}, leave_out=_NO_PID)
    listeners = [_listener(one, tuple(searched.holders.get(link_of(one.inode), ()))) for one in found]
    return Overview(
        processes=candidates(),
        listeners=sorted(listeners, key=lambda one: (one.port, one.local)),
        unreadable=searched.unreadable,
    )


def _listener(one: InetSocket, holders: tuple[Holder, ...]) -> Listener:
    return Listener(
        local=one.local,
        port=one.local_port,
        family=one.family_name,
        queue=one.rqueue,
        backlog=one.wqueue or 0,
        drops=one.drops,
        holders=holders,
    )


_MOST_PROCESSES = 15
_MOST_LISTENERS = 30
_GAUGE = 10
_TIGHT = 0.8


def render(overview: Overview, terminal: Terminal) -> str:
    """Return both tables and the next command to type."""
    name = max(min(terminal.edge - 54, 40), 12)
    head = f"  {left('process', name)}{right('open', 9)}{right('limit', 10)}{right('hard', 10)}   share"
    lines = [line(("PROCESSES by share of their limit", STRONG)), line((head, QUIET))]
    lines += [_process(one, name, terminal) for one in overview.processes[:_MOST_PROCESSES]]
    if len(overview.processes) > _MOST_PROCESSES:
        lines.append(line((f"  and {format_count(len(overview.processes) - _MOST_PROCESSES)} more", QUIET)))
    lines += [line(), line(("LISTENERS", STRONG))]
    lines.append(
        line((f"  {left('address', 24)}{right('queue', 7)}{right('of', 8)}{right('drops', 9)}   holders", QUIET))
    )
    lines += [_listener_line(one, terminal) for one in overview.listeners[:_MOST_LISTENERS]]
    if not overview.listeners:
        lines.append(line("  none in this network namespace"))
    elif len(overview.listeners) > _MOST_LISTENERS:
        lines.append(line((f"  and {format_count(len(overview.listeners) - _MOST_LISTENERS)} more", QUIET)))
    if overview.unreadable:
        number = "1 process" if overview.unreadable == 1 else f"{format_count(overview.unreadable)} processes"
        text = f"{number} could not be read by this user: sudo loadsim inspect"
        lines += [line(), *paragraph(text, terminal, mark="! ", mark_style=WARN)]
    return paint(
        [*lines, line(), line(("next", NAME), "  loadsim inspect PID | NAME | :PORT  [--watch] [--fds]")], terminal
    )


def _process(one: Candidate, name: int, terminal: Terminal) -> Line:
    shown = clip(terminal.printable(f"{one.process.name}[{one.process.pid}]"), name)
    style = BAD if one.share >= _TIGHT else ""
    numbers = "".join(
        right(format_count(number), width)
        for number, width in ((one.open_fds, 9), (one.limits.soft, 10), (one.limits.hard, 10))
    )
    full = ("  FULL", ALARM) if one.share >= 1 else ("", "")
    return line(
        "  ",
        (left(shown, name), style),
        numbers,
        f"  {one.share:>5.1%} ",
        (gauge(min(one.share, 1.0), _GAUGE, terminal.glyphs), style),
        full,
    )


def _listener_line(one: Listener, terminal: Terminal) -> Line:
    both = " (IPv4, IPv6)" if one.family == "dual-stack" else ""
    host = "*" if one.local in {"0.0.0.0", "::"} else one.local  # noqa: S104  # written, not bound to
    address = left(clip(f"{f'[{host}]' if ':' in host else host}:{one.port}{both}", 24), 24)
    drops = "?" if one.drops is None else format_count(one.drops)
    numbers = f"{right(format_count(one.queue), 7)}{right(format_count(one.queue_capacity), 8)}{right(drops, 9)}"
    holders = terminal.printable(named(one.holders) if one.holders else "holder not found")
    full = ("  FULL", ALARM) if one.full else ""
    return line("  ", address, (numbers, BAD if one.full else ""), "   ", holders, full)
