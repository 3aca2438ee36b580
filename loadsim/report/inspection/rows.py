"""Descriptors one by one: number, inode, what it is, who is at the other end, what closing it would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.inspect.closing import PLAIN, closing
from loadsim.inspect.groups import queue_of
from loadsim.inspect.model import CLOSED, HANDSHAKE, IN_QUEUE, LISTENING, NO_SOCKET, QUEUED, REMOTE, SYN_SENT
from loadsim.report.drawing import ALARM, BAD, GOOD, QUIET, STRONG, WARN, Line, line
from loadsim.report.text import left, right, wrap
from loadsim.units import format_bytes, format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadsim.inspect.model import OtherEnd, Row
    from loadsim.kernel.processes import Holder
    from loadsim.report.drawing import Terminal

_GAP = 2
#: Least columns that a row's text is given, however narrow the terminal is.
_LEAST = 20
#: Holders that are named; the rest is counted.
_MOST_HOLDERS = 3
_STYLES = {LISTENING: STRONG, "CONNECTED": GOOD, "CLOSE-WAIT": BAD, QUEUED: WARN, SYN_SENT: WARN, "PHANTOM": BAD}
_WHERE = {
    IN_QUEUE: "in the accept queue: not yet accepted",
    HANDSHAKE: "no socket at the other end yet: its handshake is unfinished",
    CLOSED: "closed by the other side",
    REMOTE: "another machine",
}
_IDLE_S = 60


class Columns:
    """How wide the columns before the text are, for all rows of one terminal."""

    def __init__(self, rows: Iterable[Row], terminal: Terminal, ports: set[int]) -> None:
        """Measure the rows; `ports` are those at which the process takes connections."""
        rows = list(rows)
        self.number = max((len(str(row.fds[0])) for row in rows if row.fds), default=1)
        self.number = max(self.number, 2) + 1
        self.inode = max((len(_inode(row)) for row in rows), default=1)
        self.role = max((len(row.role) for row in rows), default=0) + 1
        self.terminal = terminal
        self.ports = ports

    @property
    def indent(self) -> int:
        """The column at which the text of a row begins."""
        return self.number + 2 + max(self.inode, 5) + 2

    def start(self, number: str, inode: str) -> str:
        """Return the columns before the text."""
        return f"{right(number, self.number)}  {left(inode, max(self.inode, 5))}  "


def rows_of(rows: Iterable[Row], columns: Columns) -> list[Line]:
    """Return the table of rows with its heading."""
    head = line((columns.start("fd", "inode") + "what it is", QUIET))
    return [head, *(one for row in rows for one in row_of(row, columns))]


def row_of(row: Row, columns: Columns) -> list[Line]:
    """Return one row: a line, more where it is long, and quiet ones below it for what else there is to know."""
    terminal = columns.terminal
    start = columns.start(str(row.fds[0]) if row.fds else "-", _inode(row))
    indent = columns.indent + (columns.role if row.role else 0)
    what = terminal.printable(in_words(row, terminal, columns.ports))
    head, *more = wrap(what, max(terminal.edge - indent, _LEAST))
    full = ("  FULL", ALARM) if row.full else ("", "")
    role = (left(row.role, columns.role), _STYLES.get(row.role, "")) if row.role else ("", "")
    room = max(terminal.edge - indent, _LEAST)
    details = terminal.printable(terminal.glyphs.dot.join(_details(row)))
    if details and not more and len(head) + _GAP + len(details) <= room and not row.full:
        return [line(start, role, head, (" " * _GAP + details, QUIET))]
    return [
        line(start, role, head, full),
        *(line(" " * indent, text) for text in more),
        *(line(" " * indent, (text, QUIET)) for text in wrap(details, room) if text),
    ]


def _inode(row: Row) -> str:
    if not row.fds:
        return "0" if row.role == QUEUED else "-"
    return "" if row.inode is None else str(row.inode)


def in_words(row: Row, terminal: Terminal, ports: set[int]) -> str:
    """Return what a row is and who is at its other end, without its role."""
    if row.role == LISTENING:
        return f"{_listens_at(row)}   {queue_of(row)}"
    if not row.role:
        return _file(row)
    if row.kind == "TCP" and row.remote:
        cut = row.role == SYN_SENT and not row.fds
        arrow = ("──x" if cut else "<──>") if terminal.unicode else ("--x" if cut else "<-->")
        to = "" if row.local_port in ports or not row.fds else "to "
        return f"{to}{short(row.remote)} {arrow} {other_end(row.other)}"
    if row.kind == "unix":
        name = row.local or row.remote
        return f"unix {row.path}{' ' + name if name else ''}{_unix_end(row, terminal)}"
    return " ".join(part for part in (row.kind, row.local, row.remote and f"to {row.remote}") if part)


def _unix_end(row: Row, terminal: Terminal) -> str:
    if row.other is None:
        return ""
    return f" {'<──>' if terminal.unicode else '<-->'} {other_end(row.other)}"


def _listens_at(row: Row) -> str:
    if row.kind != "TCP":
        return f"unix {row.local or 'without a name'}"
    if row.family == "dual-stack":
        return f"*:{row.local_port} (IPv4 and IPv6)"
    return f"*:{row.local_port}" if row.local.startswith("0.0.0.0:") else row.local


def _file(row: Row) -> str:
    also = f" (also {_numbers(row.fds[1:])})" if len(row.fds) > 1 else ""
    link = row.path if row.path.startswith("/") else ""
    held = f", {format_bytes(row.held_bytes)} held" if row.held_bytes else ""
    return f"{row.kind} {link}{held}{also}".replace("  ", " ")


def _details(row: Row) -> list[str]:
    """Return what else there is to know, a phrase each."""
    holders = [f"also {_numbers(row.fds[1:])}" if row.role and len(row.fds) > 1 else ""]
    holders.append(f"also held by {named(row.others)}" if row.others else "")
    does = closing(row)
    closes = f"close({row.fds[0]}) {does}" if does and does not in PLAIN else ""
    return [one for one in (*holders, *_queues(row), *_times(row), closes) if one]


def _queues(row: Row) -> list[str]:
    if row.role == LISTENING:
        return [some(row.drops, "drop")] if row.drops else []
    if row.kind not in {"TCP", "UDP", "unix"}:
        return []
    unread = row.recv_q or 0
    ends = unread > 0 and row.state == "CLOSE_WAIT"  # the FIN counts one, until recv() has returned b""
    data = unread - ends
    return [
        f"{format_bytes(data)} unread (Recv-Q)" if data else "",
        "its end not yet read (Recv-Q)" if ends else "",
        f"{format_bytes(row.send_q)} not acknowledged (Send-Q)" if row.send_q and row.role != SYN_SENT else "",
    ]


def _times(row: Row) -> list[str]:
    found = []
    if row.role == SYN_SENT and row.retransmits:
        found.append(f"{some(row.retransmits, 'SYN')} sent again")
    if row.role == QUEUED and row.idle_s is not None:
        found.append(f"for {format_duration(row.idle_s)}")
    elif row.fds and row.idle_s is not None and row.idle_s >= _IDLE_S:
        found.append(f"idle for {format_duration(row.idle_s)}")
    return found


def _numbers(fds: Sequence[int]) -> str:
    shown = [f"fd {fd}" for fd in fds[:_MOST_HOLDERS]]
    more = len(fds) - len(shown)
    return " and ".join([", ".join(shown), f"{more} more"]) if more else " and ".join(shown)


def named(holders: Sequence[Holder]) -> str:
    """Return holders in words: "nc[4711] fd 3, bash[4712] fd 250 and 3 more"."""
    shown = ", ".join(f"{one.name}[{one.pid}] fd {one.fd}" for one in holders[:_MOST_HOLDERS])
    more = len(holders) - _MOST_HOLDERS
    return f"{shown} and {format_count(more)} more" if more > 0 else shown


def other_end(end: OtherEnd | None) -> str:
    """Return who is at the other end, in words."""
    if end is None:
        return "nobody"
    if end.where == NO_SOCKET:
        return "no socket at the other end"
    if end.where in _WHERE:
        return _WHERE[end.where]
    if end.holders:
        return f"{named(end.holders)}, inode {end.inode}"
    return f"inode {end.inode}, holder not found"


def short(address: str) -> str:
    """Return an address with loopback left out: ":9999"."""
    host, _, port = address.rpartition(":")
    return f":{port}" if host.startswith("127.") or host == "[::1]" else address
