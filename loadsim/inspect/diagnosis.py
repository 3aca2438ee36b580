"""What is wrong with a process's descriptors, what helps, and what closing one would do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.model import BOUND, CONNECTED, LISTENING, PHANTOM, QUEUED, SYN_SENT
from loadsim.units import format_bytes, format_count, format_duration, queue_capacity, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.inspect.groups import Group
    from loadsim.inspect.model import Row, Snapshot


#: From this share of the limit on, room is the question.
TIGHT = 0.8
_FEW = 3  # so many connections in CLOSE_WAIT can be on their way to be closed
_LARGE = 100_000_000  # bytes that a deleted file may hold unseen
_LEAST_LIMIT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One thing that is wrong."""

    sentence: str
    leaks: bool = False  # descriptors are held that nobody needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How the number of open descriptors changed between two looks."""

    per_s: float

    def left_s(self, room: int) -> float | None:
        """Return the seconds until so many more are open, None where they do not grow."""
        return room / self.per_s if self.per_s > 0 else None


def growth(before: Snapshot | None, now: Snapshot) -> Growth | None:
    """Return the growth between two looks, None where there was one alone."""
    if before is None or now.at_s <= before.at_s:
        return None
    return Growth(per_s=(now.open_fds - before.open_fds) / (now.at_s - before.at_s))


def suspects(now: Snapshot, groups: Sequence[Group]) -> list[Suspect]:
    """Return what is wrong, worst first; empty where nothing is."""
    leaks = list(_left_behind(now, groups))
    crowd = [] if leaks else _crowd(now, groups)
    return [*_limit(now), *leaks, *crowd, *_growing(groups), *_unseen(now), *_deleted(now, groups)]


def _limit(now: Snapshot) -> Iterator[Suspect]:
    if now.beyond:
        yield Suspect(
            sentence=f"{some(now.beyond, 'descriptor')} at or beyond number {format_count(now.soft)}, the limit: "
            "opened before it was lowered, or inherited. They stay; only new ones fail."
        )


def is_left_behind(group: Group) -> bool:
    """Return whether the other sides of these connections have left, and not just now."""
    return group.kind == "TCP" and group.state == "CLOSE_WAIT" and (group.fds > _FEW or (group.change or 0) > 0)


def _left_behind(now: Snapshot, groups: Sequence[Group]) -> Iterator[Suspect]:
    for group in groups:
        if is_left_behind(group):
            idle = group.oldest_idle_s
            since = f"; the oldest idle for {format_duration(idle)}" if idle is not None and idle >= 1 else ""
            yield Suspect(
                sentence=f"{some(group.fds, 'connection')} {group.where} were closed by the other side and never by "
                f"{now.process.name}{since}. {_advice(group)}",
                leaks=True,
            )


def _is_tight(now: Snapshot) -> bool:
    return now.soft - now.room >= TIGHT * now.soft


def _crowd(now: Snapshot, groups: Sequence[Group]) -> Iterator[Suspect]:
    if _is_tight(now) and groups:
        most = max(groups, key=lambda one: one.fds)
        what = " ".join(_words(most))
        yield Suspect(
            sentence=f"The limit is nearly used up ({format_count(now.room)} left), mostly by {what}: "
            f"{format_count(most.fds)}. Nothing shows that these are leaked; --watch tells whether they grow."
        )


def _words(group: Group) -> list[str]:
    return [part for part in (group.kind, group.state, group.where) if part]


def _advice(group: Group) -> str:
    if group.where.startswith("on "):
        return 'Look at the code that serves them: it must close when recv() returns b"".'
    return "Look at the code that talks to it: what takes a connection must give it back, also after an error."


def _growing(groups: Sequence[Group]) -> Iterator[Suspect]:
    for group in groups:
        if (group.change or 0) > 0 and not is_left_behind(group) and group.kind != "listening":
            what = " ".join(_words(group))
            yield Suspect(
                sentence=f"{what}: {format_count(group.fds)} descriptors, {group.change} more than a moment ago. "
                "A leak if that goes on; --watch shows each one as it comes."
            )


def _unseen(now: Snapshot) -> Iterator[Suspect]:
    for row in now.rows:
        if row.role == LISTENING and row.recv_q:
            at = f":{row.local_port}" if row.local_port else row.local
            who = f"{some(row.recv_q, 'client')} in the accept queue of {at}: connected, and without a descriptor"
            why = ": at the limit none can be had" if now.full else " until accept() is called"
            more = f" The queue is full ({row.recv_q} of {row.capacity}): new ones are dropped." if row.full else ""
            yield Suspect(sentence=f"{who}{why}.{more}")
    knocking = sum(row.role == SYN_SENT for row in now.knocking)
    if knocking:
        yield Suspect(sentence=f"{some(knocking, 'client')} on this machine get no answer: their SYNs are dropped.")
    phantoms = sum(row.role == PHANTOM for row in now.knocking)
    if phantoms:
        yield Suspect(
            sentence=f"{some(phantoms, 'client')} on this machine believe to be connected, and there is no socket for "
            "them here: their last ACK was dropped at a full queue."
        )


def _deleted(now: Snapshot, groups: Sequence[Group]) -> Iterator[Suspect]:
    held = sum(row.held_bytes for row in now.rows)
    if held >= _LARGE:
        number = sum(group.fds for group in groups if group.state == "deleted")
        yield Suspect(
            sentence=f"{format_bytes(held)} of disk are held by {some(number, 'deleted file')}, until closed."
        )


def remedies(now: Snapshot, pace: Growth | None, found: Sequence[Suspect]) -> list[tuple[str, str]]:
    """Return what helps, as ("NOW", text), ("LATER", text), ("NOT", text); nothing while there is room."""
    if not _is_tight(now) and not any(one.leaks for one in found):
        return []
    asked = more_than(now.soft)
    hard = max(now.hard, asked)
    buys = pace.left_s(asked - now.soft + now.room) if pace is not None else None
    notes = [f"about {format_duration(buys)} at {pace.per_s:.1f}/s"] if pace is not None and buys is not None else []
    notes += ["buys time: the leak stays"] if any(one.leaks for one in found) else []
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
    return f"ulimit -n {asked} in what starts it, LimitNOFILE={asked} in its unit, or --ulimit nofile={asked} of docker"


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


#: Role -> what the last close() does; where nothing is said the descriptor is given back, and nobody notices.
_DOES = {
    "CLOSE-WAIT": "gives the descriptor back: the other side has left already",
    SYN_SENT: "gives up connecting",
    "SYN-RECV": "ends the handshake",
}
_ENDS = "ends the connection"
#: What goes without saying on each of many rows.
PLAIN = {_ENDS, *_DOES.values()}


def closing(row: Row) -> str:
    """Return what closing a row would do; "" where nobody else would notice, or nothing has it open."""
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
    resets = f" and resets the {waiting} that wait" if waiting > 1 else " and resets the one that waits"
    if row.kind != "TCP":
        return "ends the door: nobody can connect any more" + (resets if waiting else "")
    if row.rivals:
        frees = f"leaves port {row.local_port} to {some(row.rivals, 'other listener')}"
    else:
        frees = f"frees port {row.local_port}"
    return frees + (resets if waiting else "")


_LEAST, _MOST = 2, 5
#: True of every process, for those that show nothing else.
_ALWAYS = (
    "Each open file, pipe and socket is one number, the lowest that was free; the limit is on the numbers.",
    "An inode is one open socket or file, whatever numbers it has and in however many processes.",
)


def lessons(now: Snapshot) -> list[str]:
    """Return two to five sentences about what is on the screen."""
    taught = [
        *_left(now),
        *_doors(now),
        *_phantoms(now),
        *_pairs(now),
        *_waiting(now),
        *_queues(now),
        *_closing(now),
        *_callers(now),
        *_sharing(now),
    ]
    return [*taught, *_ALWAYS][: max(min(len(taught), _MOST), _LEAST)]


def _listeners(now: Snapshot) -> list[Row]:
    return [row for row in now.rows if row.role == LISTENING and row.kind == "TCP"]


def _guests(now: Snapshot) -> list[Row]:
    ports = {row.local_port for row in _listeners(now)}
    return [row for row in now.rows if row.remote and row.local_port in ports]


def _doors(now: Snapshot) -> Iterator[str]:
    doors, guests = _listeners(now), _guests(now)
    if doors and guests:
        one = "is one guest" if len(guests) == 1 else "and the others are guests, one each"
        yield f"fd {doors[0].fds[0]} is the door, fd {guests[0].fds[0]} {one}. The door never carries data."
    elif doors:
        yield f"fd {doors[0].fds[0]} is the door: each accepted client gets a new fd and inode, and the door stays."


def _pairs(now: Snapshot) -> Iterator[str]:
    for row in now.rows:
        if row.role == CONNECTED and row.kind == "TCP" and row.other is not None and row.other.inode:
            yield f"One connection, two sockets: inode {row.inode} here, {row.other.inode} at the other end."
            return


def _waiting(now: Snapshot) -> Iterator[str]:
    queued = sum(row.role == QUEUED for row in now.waiting)
    if queued:
        yield (
            f"{some(queued, 'client')} in the accept queue: ESTABLISHED before accept(), with inode 0, "
            "since no file has them yet."
        )


def _phantoms(now: Snapshot) -> Iterator[str]:
    if any(row.role == PHANTOM for row in now.knocking):
        yield "PHANTOM: the client got its SYN-ACK, its last ACK met a full queue; only the client has a socket."


def _queues(now: Snapshot) -> Iterator[str]:
    for row in _listeners(now):
        if row.send_q is not None and row.recv_q:
            again = ", SYNs that their clients send again" if any(one.role == SYN_SENT for one in now.knocking) else ""
            drops = f" It has dropped {some(row.drops, 'packet')} so far{again}." if row.drops else ""
            yield f"listen(fd, {row.send_q}) holds {format_count(queue_capacity(row.send_q))} (backlog + 1).{drops}"
            return


def _left(now: Snapshot) -> Iterator[str]:
    left = [row for row in now.rows if row.state == "CLOSE_WAIT"]
    if left:
        yield f"CLOSE_WAIT: the other side has left; fd {left[0].fds[0]} stays until this process closes it."


def _closing(now: Snapshot) -> Iterator[str]:
    guests = _guests(now)
    for row in _listeners(now):
        lives = f"; fd {guests[0].fds[0]} lives on" if guests else ""
        ends = f"close({guests[0].fds[0]}) {closing(guests[0]) or 'gives it back'}. " if guests else ""
        yield f"{ends}close({row.fds[0]}) {closing(row)}{lives}."
        return


def _callers(now: Snapshot) -> Iterator[str]:
    ports = now.ports
    for row in now.rows:
        if row.kind == "TCP" and row.remote and row.local_port not in ports:
            yield f"fd {row.fds[0]} made the call: the kernel chose port {row.local_port} for it. It has no door."
            return


def _sharing(now: Snapshot) -> Iterator[str]:
    for row in now.rows:
        if row.role and (len(row.fds) > 1 or row.others):
            holders = len(row.fds) + len(row.others)
            yield f"Inode {row.inode} has {holders} holders (dup or fork): it ends when the last of them closes it."
            return


def by_hand(now: Snapshot, port: int | None) -> list[str]:
    """Return the commands that show the same."""
    pid = now.process.pid
    enter = f"{now.enter} " if now.enter else ""
    listeners = _listeners(now)
    ports = {row.local_port for row in now.rows if row.kind == "TCP"}
    if port is None and len(listeners) == len(ports) == 1:
        port = listeners[0].local_port
    if port is not None:
        ends = f"'sport = :{port} or dport = :{port}'"
        return [f"ls -l /proc/{pid}/fd", f"{enter}ss -tanpe {ends}", f"{enter}lsof -nPi :{port}"]
    return [f"ls -l /proc/{pid}/fd", f"{enter}ss -tanpe | grep pid={pid},", f"lsof -nPp {pid}"]
