"""What a look at one process shows, as values: the rows, both ends of each connection, and the process itself.

Owns the words for roles and other ends; `inspect --json` prints these fields under these names. Pure.
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
    "queue",  # complete, but not yet accepted
    "handshake",  # the kernel has answered, and waits for the final ACK
    "closed",  # its process has closed it; the kernel still finishes
    "none",  # no socket at all: a phantom, or gone
    "unheld",  # a socket whose holder was not found
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
    """One open file of the process, with all its descriptors, or one connection that waits for a descriptor."""

    fds: tuple[int, ...]  # () for what the process has no descriptor for
    inode: int | None
    kind: str  # "file", "pipe", "terminal", "epoll" ...; of sockets the protocol: "TCP", "UDP", "unix", "NETLINK" ...
    role: str = ""  # of sockets
    state: str = ""  # of TCP sockets, as the kernel names it
    family: str = ""  # "IPv4" | "IPv6" | "dual-stack" | "IPv4 in IPv6"
    local: str = ""  # "127.0.0.1:9999", "[::1]:9999", the name of a unix socket
    remote: str = ""
    local_port: int = 0
    remote_port: int = 0
    recv_q: int | None = None  # bytes unread; of a listener: connections in the accept queue
    send_q: int | None = None  # bytes not yet acknowledged; of a listener: the backlog in force
    drops: int | None = None  # packets dropped by this socket since it was made
    retransmits: int = 0
    idle_s: float | None = None  # since data last went either way, or since it was connected
    path: str = ""  # of what is no socket: what /proc/PID/fd/N points to
    held_bytes: int = 0  # of a deleted file
    other: OtherEnd | None = None
    others: tuple[Holder, ...] = ()  # the same open file in other processes (holders found)
    queued: int = 0  # of a listener: connections that wait for it, the same as recv_q but for SO_REUSEPORT
    rivals: int = 0  # of a listener: others on its port

    @property
    def capacity(self) -> int | None:
        """What the accept queue of a listener holds; None of anything else, and where the backlog is unknown."""
        return queue_capacity(self.send_q) if self.role == LISTENING and self.send_q is not None else None

    @property
    def full(self) -> bool:
        """Whether it is a listener whose accept queue is full."""
        return self.capacity is not None and (self.recv_q or 0) >= self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the whole machine allows, to rule it out as the cause."""

    file_nr: int | None  # open files of the machine, and their limit: fs.file-nr
    file_max: int | None
    inotify: int | None  # instances found of this user; None where its processes cannot be read
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
    waiting: tuple[Row, ...]  # complete connections in its accept queues: no descriptor yet
    knocking: tuple[Row, ...]  # clients that try to get in, or believe that they are
    host: HostFacts
    passive_opens: int | None = None  # connections let in since its network namespace began, all listeners together
    other_listeners: int = 0  # TCP listeners of its network namespace that it does not have
    enter: str = ""  # the command that enters its network namespace; "" where it is ours
    missing: tuple[str, ...] = ()  # what could not be seen: sentences that end with the remedy

    @property
    def beyond(self) -> int:
        """Descriptors whose number is not below the limit: older than the limit, or inherited."""
        return sum(fd >= self.soft for row in self.rows for fd in row.fds)

    @property
    def room(self) -> int:
        """How many descriptors can still be opened: the limit is one on their numbers, not on their count."""
        return max(self.soft - (self.open_fds - self.beyond), 0)

    @property
    def full(self) -> bool:
        """Whether no further descriptor can be opened."""
        return self.room == 0

    @property
    def ports(self) -> set[int]:
        """The ports at which it takes connections: its listeners', and those that several of its connections share."""
        ours = [row.local_port for row in self.rows if row.kind == "TCP" and row.local_port]
        shared = {port for port, times in Counter(ours).items() if times > 1}
        return shared | {row.local_port for row in self.rows if row.role == LISTENING}
