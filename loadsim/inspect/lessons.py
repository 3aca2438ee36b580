"""What a look at a process teaches, in two to five sentences, and how to see the same by hand. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.inspect.closing import closing
from loadsim.inspect.model import CONNECTED, LISTENING, PHANTOM, QUEUED, SYN_SENT
from loadsim.units import format_count, queue_capacity, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.inspect.model import Row, Snapshot

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
