"""One process on a terminal: summary or rows, problems, remedies, and the commands that show the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.inspect.diagnosis import (
    PLAIN,
    Suspect,
    by_hand,
    closing,
    growth,
    is_left_behind,
    lessons,
    remedies,
    suspects,
)
from loadsim.inspect.groups import Group, groups_of, name_of, queue_of
from loadsim.inspect.model import CLOSED, HANDSHAKE, IN_QUEUE, LISTENING, NO_SOCKET, QUEUED, REMOTE, SYN_SENT
from loadsim.render.drawing import (
    ALARM,
    BAD,
    GOOD,
    NAME,
    QUIET,
    STRONG,
    WARN,
    Line,
    Terminal,
    both_ends,
    gauge,
    line,
    paint,
    paragraph,
)
from loadsim.render.text import cell_len, clip, flow, left, right, wrap
from loadsim.units import format_bytes, format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadsim.inspect.groups import Choice
    from loadsim.inspect.model import OtherEnd, Row, Snapshot
    from loadsim.kernel.processes import Holder
    from loadsim.render.drawing import Terminal


_GAP = 2
#: The least width of a row's text, however narrow the terminal is.
_LEAST = 20
#: At most this many holders are named; the rest are counted.
_MOST_HOLDERS = 3
_STYLES = {LISTENING: STRONG, "CONNECTED": GOOD, "CLOSE-WAIT": BAD, QUEUED: WARN, SYN_SENT: WARN, "PHANTOM": BAD}
_WHERE = {
    IN_QUEUE: "in the accept queue: not yet accepted",
    HANDSHAKE: "no socket at the other end yet: its handshake is unfinished",
    CLOSED: "closed by the peer",
    REMOTE: "another machine",
}
_IDLE_S = 60


class Columns:
    """The widths of the columns before the text, the same for all rows."""

    def __init__(self, rows: Iterable[Row], terminal: Terminal, ports: set[int]) -> None:
        """Measure the rows; `ports` are the ports on which the process accepts."""
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
    """Return the table of rows with its header."""
    head = line((columns.start("fd", "inode") + "what it is", QUIET))
    return [head, *(one for row in rows for one in row_of(row, columns))]


def row_of(row: Row, columns: Columns) -> list[Line]:
    """Return the lines of one row: its text, wrapped, and below it the details in a quiet style."""
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
    """Return a row in words with its other end, but without its role."""
    if row.role == LISTENING:
        return f"{_listens_at(row)}   {queue_of(row)}"
    if not row.role:
        return _file(row)
    if row.kind == "TCP" and row.remote:
        cut = row.role == SYN_SENT
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
    """Return the details of a row: other holders, queues, times, the effect of close()."""
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
        "FIN not yet read (Recv-Q)" if ends else "",
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
    *first, last = [*shown, f"{more} more"] if more else shown
    return f"{', '.join(first)} and {last}" if first else last


def named(holders: Sequence[Holder]) -> str:
    """Return holders in words: "nc[4711] fd 3, bash[4712] fd 250 and 3 more"."""
    shown = ", ".join(f"{one.name}[{one.pid}] fd {one.fd}" for one in holders[:_MOST_HOLDERS])
    more = len(holders) - _MOST_HOLDERS
    return f"{shown} and {format_count(more)} more" if more > 0 else shown


def other_end(end: OtherEnd | None) -> str:
    """Return the other end in words."""
    if end is None:
        return "no other end"
    if end.where == NO_SOCKET:
        return "no socket at the other end"
    if end.where in _WHERE:
        return _WHERE[end.where]
    if end.holders:
        return f"{named(end.holders)}, inode {end.inode}"
    return f"inode {end.inode}, holder not found"


def short(address: str) -> str:
    """Return an address without the host if that is loopback: ":9999"."""
    host, _, port = address.rpartition(":")
    return f":{port}" if host.startswith("127.") or host == "[::1]" else address


#: Fewer descriptors than this are shown one by one.
FEW = 40
_COUNT = 9
_CHANGE = 8
_MOST_WAITING = 20
_LABEL = 7


def render(
    now: Snapshot,
    before: Snapshot | None,
    terminal: Terminal,
    *,
    choice: Choice,
    all_rows: bool = False,
    port: int | None = None,
) -> str:
    """Return the text of a snapshot.

    Rows are listed if they are few, filtered, or for `all_rows`; otherwise a summary is shown.
    """
    groups = groups_of(now, before)
    found = suspects(now, groups)
    pace = growth(before, now)
    listed = all_rows or choice.chooses or now.open_fds < FEW
    summary = before is not None or not listed
    lines = _head(now, terminal, hard=not summary)
    if summary:
        lines += [*_gauge(now, terminal), line(), *(_groups(groups, before, now, terminal) if groups else [])]
    if listed:
        rows, waiting, knocking = (choice.of(some) for some in (now.rows, now.waiting, now.knocking))
        columns = Columns([*rows, *waiting, *knocking], terminal, now.ports)
        lines += [line(), *rows_of(rows, columns), *_without_fd(now.process.name, waiting, knocking, columns)]
    lines += _suspects(found, terminal)
    for label, text in remedies(now, pace, found):
        lines += paragraph(text, terminal, mark=label.ljust(_LABEL), mark_style=STRONG)
    if pace is not None and (left_s := pace.left_s(now.free_fds)) is not None and not now.full:
        lines += paragraph(f"about {format_duration(left_s)} to the limit, at {pace.per_s:+.1f}/s", terminal)
    lines += _lessons(now, terminal, port)
    return paint(lines, terminal)


def _head(now: Snapshot, terminal: Terminal, *, hard: bool) -> list[Line]:
    process = now.process
    command = " ".join(process.argv) or process.unit
    name = terminal.printable(f"{process.name}[{process.pid}]")
    unit = f"{process.unit}, " if process.unit else ""
    limit = f"{format_count(now.open_fds)} of {format_count(now.soft)} fds"
    limit += f", hard limit {format_count(now.hard)}" if hard else ""
    full = ("  FULL", ALARM) if now.full else ("", "")
    room = terminal.edge - cell_len(name) - cell_len(limit + full[0]) - 4
    text = terminal.printable(f"{unit}up {format_duration(process.up_s)}   {command}")
    about = "  " + clip(text, room) if room > 0 else ""
    return both_ends(line((name, STRONG), (about, QUIET)), line(limit, full), terminal)


def _gauge(now: Snapshot, terminal: Terminal) -> list[Line]:
    share = now.open_fds / now.soft if now.soft else 1.0
    numbers = f"  {min(share, 9.99):.0%} of soft {format_count(now.soft)}, hard {format_count(now.hard)}"
    drawn = gauge(min(share, 1.0), max(terminal.edge - 7 - len(numbers), 10), terminal.glyphs)
    return [line("  fds  ", (drawn, BAD if now.full else NAME), numbers)]


def _groups(groups: Sequence[Group], before: Snapshot | None, now: Snapshot, terminal: Terminal) -> list[Line]:
    room = terminal.edge - _COUNT - _CHANGE - 10
    span = f"in {now.at_s - before.at_s:.0f} s" if before is not None else ""
    lines = [line((f"  {left('held by', room - 2)}{right('fds', _COUNT)}{right(span, _CHANGE)}", QUIET))]
    for group in groups:
        style = BAD if is_left_behind(group) else ""
        mark = (
            (("  ◀ leak" if terminal.unicode else "  < leak"), ALARM) if style and (group.change or 0) > 0 else ("", "")
        )
        head, more = _fitted(group, room - 4, terminal)
        change = "" if group.change is None else f"{group.change:+,}" if group.change else "±0"
        numbers = right(format_count(group.fds), _COUNT) + right(terminal.printable(change), _CHANGE)
        lines.append(line("  ", (left(head, room - 2), style), numbers, mark))
        lines += [line("      ", (text, style)) for text in more]
    return lines


def _fitted(group: Group, room: int, terminal: Terminal) -> tuple[str, list[str]]:
    """Return a group's name, with its detail beside it if that fits, else on separate lines."""
    name, detail = (terminal.printable(text) for text in (name_of(group), group.detail))
    both = f"{name}  {detail}" if detail else name
    if cell_len(both) <= room:
        return both, []
    return terminal.clip(name, room), wrap(detail, room - 4) if detail else []


def _without_fd(name: str, waiting: Sequence[Row], knocking: Sequence[Row], columns: Columns) -> list[Line]:
    waiting = sorted(waiting, key=lambda row: -(row.idle_s or 0.0))
    knocking = sorted(knocking, key=lambda row: (row.role, -row.retransmits))
    titles = (
        (waiting, f"connected, in the accept queue: {name} has no fd for them"),
        (knocking, f"not connected: {name} has no socket for them"),
    )
    lines: list[Line] = []
    for rows, title in titles:
        if rows:
            lines += [line(), *paragraph(title, columns.terminal, margin="  ")]
            lines += [one for row in rows[:_MOST_WAITING] for one in row_of(row, columns)]
            if len(rows) > _MOST_WAITING:
                lines.append(line((f"  and {format_count(len(rows) - _MOST_WAITING)} more", QUIET)))
    return lines


def _suspects(found: Sequence[Suspect], terminal: Terminal) -> list[Line]:
    if not found:
        return []
    lines = [line(), line(("PROBLEMS", STRONG))]
    for number, one in enumerate(found, 1):
        style = ALARM if one.leaks else WARN
        lines += paragraph(one.sentence, terminal, mark=f"{number} ", mark_style=style)
    return lines


def _lessons(now: Snapshot, terminal: Terminal, port: int | None) -> list[Line]:
    lines = [line(), line(("READING IT", STRONG))]
    for text in lessons(now):
        lines += paragraph(text, terminal, margin="  ")
    if now.missing:
        lines += [line(), line(("NOT SEEN", WARN))]
        for text in now.missing:
            lines += paragraph(text, terminal, margin="  ")
    room = terminal.edge - 9
    commands = flow([part for command in by_hand(now, port) for part in wrap(command, room)], room)
    lines.append(line())
    return lines + [line(("by hand  " if i == 0 else " " * 9, GOOD), text) for i, text in enumerate(commands)]
