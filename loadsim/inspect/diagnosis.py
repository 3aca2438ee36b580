"""Problems with a process's descriptors, their remedies, and the effect of closing a descriptor. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.model import BOUND, CONNECTED, LISTENING, PHANTOM, QUEUED, SYN_SENT
from loadsim.units import format_bytes, format_count, format_duration, queue_capacity, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.inspect.groups import Group
    from loadsim.inspect.model import Row, Snapshot


#: From this share of the limit on, free descriptors are scarce.
TIGHT = 0.8
_FEW = 3  # up to this many connections in CLOSE_WAIT may just be about to be closed
_LARGE = 100_000_000  # bytes in deleted files that are worth a report
_LEAST_LIMIT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One problem."""

    sentence: str
    leaks: bool = False  # unneeded descriptors stay open


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The change of the number of open descriptors between two snapshots."""

    per_s: float

    def left_s(self, free_fds: int) -> float | None:
        """Return the seconds until the free descriptors are used up; None without growth."""
        return free_fds / self.per_s if self.per_s > 0 else None


def growth(before: Snapshot | None, now: Snapshot) -> Growth | None:
    """Return the growth between two snapshots; None if only one was taken."""
    if before is None or now.at_s <= before.at_s:
        return None
    return Growth(per_s=(now.open_fds - before.open_fds) / (now.at_s - before.at_s))


def suspects(now: Snapshot, groups: Sequence[Group]) -> list[Suspect]:
    """Return the problems, worst first."""
    leaks = list(_left_behind(now, groups))
    crowded = [] if leaks else _nearly_full(now, groups)
    return [*_beyond(now), *leaks, *crowded, *_growing(groups), *_not_accepted(now), *_deleted(now, groups)]


def _beyond(now: Snapshot) -> Iterator[Suspect]:
    if now.beyond:
        yield Suspect(
            sentence=f"{some(now.beyond, 'descriptor')} with a number at or above the limit, {format_count(now.soft)}: "
            "opened before the limit was lowered, or inherited. They stay open; only new descriptors fail."
        )


def is_left_behind(group: Group) -> bool:
    """Return whether the peers of these connections closed them some time ago."""
    return group.kind == "TCP" and group.state == "CLOSE_WAIT" and (group.fds > _FEW or (group.change or 0) > 0)


def _left_behind(now: Snapshot, groups: Sequence[Group]) -> Iterator[Suspect]:
    for group in groups:
        if is_left_behind(group):
            idle = group.oldest_idle_s
            since = f"; the oldest has been idle for {format_duration(idle)}" if idle is not None and idle >= 1 else ""
            yield Suspect(
                sentence=f"{some(group.fds, 'connection')} {group.where} were closed by the peer but not by "
                f"{now.process.name}{since}. {_advice(group)}",
                leaks=True,
            )


def _is_tight(now: Snapshot) -> bool:
    return now.soft - now.free_fds >= TIGHT * now.soft


def _nearly_full(now: Snapshot, groups: Sequence[Group]) -> Iterator[Suspect]:
    if _is_tight(now) and groups:
        most = max(groups, key=lambda one: one.fds)
        what = " ".join(_words(most))
        yield Suspect(
            sentence=f"The limit is nearly used up ({format_count(now.free_fds)} left), mostly by {what}: "
            f"{format_count(most.fds)}. Nothing shows a leak; use --watch to see whether the number grows."
        )


def _words(group: Group) -> list[str]:
    return [part for part in (group.kind, group.state, group.where) if part]


def _advice(group: Group) -> str:
    if group.where.startswith("on "):
        return 'Fix the code that serves them: it must close a connection when recv() returns b"".'
    return "Fix the code that uses them: it must close each connection, or return it to the pool, after errors too."


def _growing(groups: Sequence[Group]) -> Iterator[Suspect]:
    for group in groups:
        if (group.change or 0) > 0 and not is_left_behind(group) and group.kind != "listening":
            what = " ".join(_words(group))
            yield Suspect(
                sentence=f"{what}: {format_count(group.fds)} descriptors, {group.change} more than in the snapshot "
                "before. If this continues, it is a leak; --watch shows each new descriptor."
            )


def _not_accepted(now: Snapshot) -> Iterator[Suspect]:
    for row in now.rows:
        if row.role == LISTENING and row.recv_q:
            at = f":{row.local_port}" if row.local_port else row.local
            clients = f"{some(row.recv_q, 'client')} in the accept queue of {at}: connected, but without a descriptor"
            why = ", because the limit is reached" if now.full else " until accept() is called"
            more = f" The queue is full ({row.recv_q} of {row.capacity}): new clients are dropped." if row.full else ""
            yield Suspect(sentence=f"{clients}{why}.{more}")
    unanswered = sum(row.role == SYN_SENT for row in now.knocking)
    if unanswered:
        get = "gets no answer: its SYNs are" if unanswered == 1 else "get no answer: their SYNs are"
        yield Suspect(sentence=f"{some(unanswered, 'local client')} {get} dropped.")
    phantoms = sum(row.role == PHANTOM for row in now.knocking)
    if phantoms:
        believe, their = ("believes it is", "its") if phantoms == 1 else ("believe they are", "their")
        yield Suspect(
            sentence=f"{some(phantoms, 'local client')} {believe} connected, but the server has no socket: "
            f"{their} last ACK was dropped because the queue was full."
        )


def _deleted(now: Snapshot, groups: Sequence[Group]) -> Iterator[Suspect]:
    held = sum(row.held_bytes for row in now.rows)
    if held >= _LARGE:
        number = sum(group.fds for group in groups if group.state == "deleted")
        closed = "is" if number == 1 else "are"
        yield Suspect(
            sentence=f"{format_bytes(held)} of disk space are in use until {some(number, 'deleted file')} {closed} "
            "closed."
        )


def remedies(now: Snapshot, pace: Growth | None, found: Sequence[Suspect]) -> list[tuple[str, str]]:
    """Return ("NOW", text), ("LATER", text), ("NOT", text); empty without a leak and far from the limit."""
    if not _is_tight(now) and not any(one.leaks for one in found):
        return []
    asked = more_than(now.soft)
    hard = max(now.hard, asked)
    buys = pace.left_s(asked - now.soft + now.free_fds) if pace is not None else None
    notes = [f"about {format_duration(buys)} at {pace.per_s:.1f}/s"] if pace is not None and buys is not None else []
    notes += ["buys time, does not fix the leak"] if any(one.leaks for one in found) else []
    note = f" ({', '.join(notes)})" if notes else ""
    now_text = f"sudo prlimit --pid {now.process.pid} --nofile={asked}:{hard}{note}"
    return [("NOW", now_text), ("LATER", _later(now, asked)), *_not(now)]


def more_than(limit: int) -> int:
    """Return the limit to ask for next: eight times as much, a power of two."""
    return 1 << (max(limit * 8, _LEAST_LIMIT) - 1).bit_length()


def _later(now: Snapshot, asked: int) -> str:
    unit = now.process.unit
    if unit.endswith(".service"):
        return f"systemctl edit {unit} -> [Service] LimitNOFILE={asked} (ulimit in a shell does not reach a service)"
    return f"ulimit -n {asked} where it is started, LimitNOFILE={asked} in its unit, or docker --ulimit nofile={asked}"


def _not(now: Snapshot) -> Iterator[tuple[str, str]]:
    host = now.host
    parts = []
    if host.file_nr is not None and host.file_max:
        share = host.file_nr / host.file_max
        if share < TIGHT:
            parts.append(f"the machine's limit (fs.file-nr {format_count(host.file_nr)}, {share:.1%} of fs.file-max)")
    if host.inotify is not None and host.inotify_max and host.inotify < TIGHT * host.inotify_max:
        parts.append(f"inotify ({host.inotify} of {host.inotify_max} instances)")
    if parts:
        yield ("NOT", " nor ".join(parts))


#: Role -> effect of the last close(). Every other role only frees the descriptor.
_DOES = {
    "CLOSE-WAIT": "frees the descriptor: the peer has already closed",
    SYN_SENT: "aborts the connect()",
    "SYN-RECV": "aborts the handshake",
}
_ENDS = "ends the connection"
#: Effects too obvious to print beside every row.
PLAIN = {_ENDS, *_DOES.values()}


def closing(row: Row) -> str:
    """Return what closing a row would do; "" if it has no visible effect, or no descriptor."""
    holders = len(row.others) + len(row.fds) - 1
    if holders > 0 and row.role:
        return f"ends nothing yet: {some(holders, 'more holder')} found"
    if row.role == LISTENING:
        return _closing_listener(row)
    if row.role == CONNECTED and row.fds:
        unread = f", by RST: {format_bytes(row.recv_q)} unread" if row.kind == "TCP" and row.recv_q else ""
        return f"{_ENDS}{unread}"
    if row.role == BOUND and row.local_port:
        return f"frees port {row.local_port}"
    return f"frees {format_bytes(row.held_bytes)}" if row.held_bytes else _DOES.get(row.role, "")


def _closing_listener(row: Row) -> str:
    waiting = row.queued or row.recv_q or 0
    resets = f" and resets {waiting} queued clients" if waiting > 1 else " and resets 1 queued client"
    if row.kind != "TCP":
        return "stops listening: no client can connect any more" + (resets if waiting else "")
    if row.rivals:
        frees = f"leaves port {row.local_port} to {some(row.rivals, 'other listener')}"
    else:
        frees = f"frees port {row.local_port}"
    return frees + (resets if waiting else "")


_LEAST, _MOST = 2, 5
#: True of every process, for snapshots that show nothing else.
_ALWAYS = (
    "Each open file, pipe or socket gets the lowest free number; the limit applies to the numbers.",
    "An inode is one open socket or file; it can have several numbers, in several processes.",
)


def lessons(now: Snapshot) -> list[str]:
    """Return two to five sentences about what is on the screen."""
    taught = [
        *_left_lessons(now),
        *_listener_lessons(now),
        *_phantom_lessons(now),
        *_pair_lessons(now),
        *_waiting_lessons(now),
        *_queue_lessons(now),
        *_closing_lessons(now),
        *_outgoing_lessons(now),
        *_sharing_lessons(now),
    ]
    return [*taught, *_ALWAYS][: max(min(len(taught), _MOST), _LEAST)]


def _listeners(now: Snapshot) -> list[Row]:
    return [row for row in now.rows if row.role == LISTENING and row.kind == "TCP"]


def _accepted(now: Snapshot) -> list[Row]:
    ports = {row.local_port for row in _listeners(now)}
    return [row for row in now.rows if row.remote and row.local_port in ports]


def _listener_lessons(now: Snapshot) -> Iterator[str]:
    listeners, accepted = _listeners(now), _accepted(now)
    if listeners and accepted:
        one = f"fd {accepted[0].fds[0]} is an accepted connection"
        also = f"{one}." if len(accepted) == 1 else f"{one}, one of {format_count(len(accepted))}."
        yield f"fd {listeners[0].fds[0]} listens and never carries data; {also}"
    elif listeners:
        yield f"fd {listeners[0].fds[0]} listens and stays: each accept() returns a new fd with a new inode."


def _pair_lessons(now: Snapshot) -> Iterator[str]:
    for row in now.rows:
        if row.role == CONNECTED and row.kind == "TCP" and row.other is not None and row.other.inode:
            yield f"One connection, two sockets: inode {row.inode} here, {row.other.inode} at the other end."
            return


def _waiting_lessons(now: Snapshot) -> Iterator[str]:
    queued = sum(row.role == QUEUED for row in now.waiting)
    if queued:
        yield (
            f"{some(queued, 'client')} in the accept queue: ESTABLISHED before accept(), with inode 0, "
            "because no descriptor refers to them yet."
        )


def _phantom_lessons(now: Snapshot) -> Iterator[str]:
    if any(row.role == PHANTOM for row in now.knocking):
        yield "PHANTOM: a full queue dropped the client's last ACK, so only the client has a socket."


def _queue_lessons(now: Snapshot) -> Iterator[str]:
    for row in _listeners(now):
        if row.send_q is not None and row.recv_q:
            again = " (clients resend their SYNs)" if any(one.role == SYN_SENT for one in now.knocking) else ""
            drops = f" It has dropped {some(row.drops, 'packet')} so far{again}." if row.drops else ""
            holds = format_count(queue_capacity(row.send_q))
            yield f"The accept queue of listen(fd, {row.send_q}) holds {holds} (backlog + 1).{drops}"
            return


def _left_lessons(now: Snapshot) -> Iterator[str]:
    left = [row for row in now.rows if row.state == "CLOSE_WAIT"]
    if left:
        yield f"CLOSE_WAIT: the peer has closed; fd {left[0].fds[0]} stays open until this process closes it."


def _closing_lessons(now: Snapshot) -> Iterator[str]:
    accepted = _accepted(now)
    for row in _listeners(now):
        stays = f"; fd {accepted[0].fds[0]} stays open" if accepted else ""
        ends = f"close({accepted[0].fds[0]}) {closing(accepted[0]) or 'frees it'}. " if accepted else ""
        yield f"{ends}close({row.fds[0]}) {closing(row)}{stays}."
        return


def _outgoing_lessons(now: Snapshot) -> Iterator[str]:
    ports = now.ports
    for row in now.rows:
        if row.kind == "TCP" and row.remote and row.local_port not in ports:
            yield f"fd {row.fds[0]} is an outgoing connection: the kernel chose its local port, {row.local_port}."
            return


def _sharing_lessons(now: Snapshot) -> Iterator[str]:
    for row in now.rows:
        if row.role and (len(row.fds) > 1 or row.others):
            holders = len(row.fds) + len(row.others)
            yield f"Inode {row.inode} has {holders} holders (dup or fork): only the last close() ends it."
            return


def by_hand(now: Snapshot, port: int | None) -> list[str]:
    """Return the shell commands that show the same."""
    pid = now.process.pid
    enter = f"{now.enter} " if now.enter else ""
    listeners = _listeners(now)
    ports = {row.local_port for row in now.rows if row.kind == "TCP"}
    if port is None and len(listeners) == len(ports) == 1:
        port = listeners[0].local_port
    if port is not None:
        ends = f"'sport = :{port} or dport = :{port}'"
        return [f"ls -l /proc/{pid}/fd", f"{enter}ss -tanpe {ends}", f"{enter}lsof -nPi :{port}"]
    return [f"ls -l /proc/{pid}/fd", f"{enter}ss -tanpe | grep 'pid={pid},'", f"lsof -nPp {pid}"]
