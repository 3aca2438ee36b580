"""The values of a snapshot: its rows, both ends of each connection, and the process itself.

Owns the names of roles and other ends; `inspect --json` prints these fields under these names. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.units import queue_capacity

if TYPE_CHECKING:
    from loadsim.kernel.processes import Holder, Identity

LISTENING, CONNECTED, QUEUED, PHANTOM = "LISTENING", "CONNECTED", "QUEUED", "PHANTOM"
SYN_SENT, CLOSE_WAIT, BOUND, UNCONNECTED = "SYN-SENT", "CLOSE-WAIT", "BOUND", "UNCONNECTED"

#: TCP state -> role; every other state is its own role, written with hyphens.
ROLES = {"LISTEN": LISTENING, "ESTABLISHED": CONNECTED}

#: Where the other end of a connection is.
HELD, IN_QUEUE, HANDSHAKE, CLOSED, NO_SOCKET, UNHELD, REMOTE = (
    "held",  # holders are known
    "queue",  # connected, but not yet accepted
    "handshake",  # the kernel has answered the SYN and waits for the last ACK
    "closed",  # its process has closed it; the kernel finishes the connection
    "none",  # no socket: a phantom, or already closed
    "unheld",  # a socket, but its holder was not found
    "remote",  # another machine, or another network namespace
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherEnd:
    """The other end of a connection, or of a pair of unix sockets."""

    where: str  # "held" | "queue" | "handshake" | "closed" | "none" | "unheld" | "remote"
    inode: int | None = None
    state: str = ""  # its TCP state
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One open file of the process with all its descriptors, or one connection that has no descriptor yet."""

    fds: tuple[int, ...]  # () for a connection without a descriptor
    inode: int | None
    kind: str  # "file", "pipe", "terminal", "epoll" ...; for sockets the protocol: "TCP", "UDP", "unix", "NETLINK" ...
    role: str = ""  # sockets only
    state: str = ""  # TCP sockets only, as the kernel names it
    family: str = ""  # "IPv4" | "IPv6" | "dual-stack" | "IPv4 in IPv6"
    local: str = ""  # "127.0.0.1:9999", "[::1]:9999", the name of a unix socket
    remote: str = ""
    local_port: int = 0
    remote_port: int = 0
    recv_q: int | None = None  # unread bytes; for a listener: connections in the accept queue
    send_q: int | None = None  # unacknowledged bytes; for a listener: the backlog in force
    drops: int | None = None  # packets that this socket has dropped since it was created
    retransmits: int = 0
    idle_s: float | None = None  # since the last data in either direction, or since it was connected
    path: str = ""  # target of /proc/PID/fd/N, except for sockets
    held_bytes: int = 0  # disk space that a deleted file still uses
    other: OtherEnd | None = None
    others: tuple[Holder, ...] = ()  # the same open file in other processes, as far as found
    queued: int = 0  # listeners only: connections found in its queue; equals recv_q except with SO_REUSEPORT
    rivals: int = 0  # listeners only: other listeners on its port

    @property
    def capacity(self) -> int | None:
        """Queue capacity of a listener; None for any other row, and if the backlog is unknown."""
        return queue_capacity(self.send_q) if self.role == LISTENING and self.send_q is not None else None

    @property
    def full(self) -> bool:
        """Whether it is a listener with a full accept queue."""
        return self.capacity is not None and (self.recv_q or 0) >= self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Limits of the machine, to rule them out as the cause."""

    file_nr: int | None  # open files of the machine and their limit, from fs.file-nr
    file_max: int | None
    inotify: int | None  # instances of this user, as far as found; None if its processes cannot be read
    inotify_max: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One process at one moment."""

    process: Identity
    at_s: float  # time.monotonic()
    open_fds: int
    soft: int
    hard: int
    rows: tuple[Row, ...]
    waiting: tuple[Row, ...]  # connections in its accept queues, without a descriptor yet
    knocking: tuple[Row, ...]  # local clients for which it has no socket: unanswered SYNs, and phantoms
    host: HostFacts
    passive_opens: int | None = None  # PassiveOpens of its network namespace: connections to all listeners
    other_listeners: int = 0  # TCP listeners of other processes in its network namespace
    enter: str = ""  # the command that enters its network namespace; "" if it is ours
    missing: tuple[str, ...] = ()  # parts that could not be read: sentences that end with the remedy

    @property
    def beyond(self) -> int:
        """Descriptors with a number at or above the limit: older than the limit, or inherited."""
        return sum(fd >= self.soft for row in self.rows for fd in row.fds)

    @property
    def free_fds(self) -> int:
        """How many descriptors can still be opened; the limit applies to their numbers, not to their count."""
        return max(self.soft - (self.open_fds - self.beyond), 0)

    @property
    def full(self) -> bool:
        """Whether no further descriptor can be opened."""
        return self.free_fds == 0

    @property
    def ports(self) -> set[int]:
        """The ports on which it accepts: of its listeners, and local ports that several connections share."""
        ours = [row.local_port for row in self.rows if row.kind == "TCP" and row.local_port]
        shared = {port for port, times in Counter(ours).items() if times > 1}
        return shared | {row.local_port for row in self.rows if row.role == LISTENING}
