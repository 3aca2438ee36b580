"""The layouts of all records, and the codes in them.

The only definition: writers pack with `Layout.struct`, readers derive their numpy dtype from `Layout.fields`. Times are
CLOCK_MONOTONIC nanoseconds of one host; 0 means "did not happen". Imports the standard library and `fates` only.
"""

from __future__ import annotations

import enum
import errno
import struct
from dataclasses import dataclass, field

from loadsim.fates import Outcome


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of record: its name and its fields as (name, struct format), padded to `size` bytes."""

    name: str
    fields: tuple[tuple[str, str], ...]
    size: int
    struct: struct.Struct = field(init=False)

    def __post_init__(self) -> None:
        packed = struct.Struct("=" + "".join(code for _, code in self.fields))
        if packed.size > self.size:
            raise ValueError(f"{self.name}: fields take {packed.size} bytes of {self.size}")
        object.__setattr__(self, "struct", packed)

    def offset_of(self, name: str) -> int:
        """Return the byte at which a field starts, for writing it in place later."""
        before = 0
        for field_name, code in self.fields:
            if field_name == name:
                return before
            before += struct.calcsize("=" + code)
        raise KeyError(name)


#: One connection as its client saw it: written at the start (outcome UNFINISHED), completed in place.
ATTEMPT = Layout(
    "attempt",
    (
        ("number", "Q"),  # 1, 2, 3 ... over all drivers; 0 = unused slot
        ("intended", "Q"),  # when the schedule starts it (closed loop: when its client became free)
        ("started", "Q"),  # t0, right before connect(); 0 = it never left the generator
        ("connected", "Q"),  # t1, right after connect() returned (flag WOKEN: when epoll reported it); 0 = never
        ("replied", "Q"),  # when the first byte of the reply was read; 0 = never
        ("ended", "Q"),  # right before its socket was closed; 0 = unfinished
        ("source", "H"),  # index of the source address
        ("port", "H"),  # local port; 0 = none was assigned
        ("errno", "H"),  # of the failure that ended it; 0 = none
        ("outcome", "B"),  # Outcome
        ("syn_retransmits", "B"),  # the client's tcpi_total_retrans when it connected or gave up
        ("flags", "B"),  # AttemptFlag
    ),
    64,
)

#: One connection as the simulated server saw it: written after accept, completed in place.
ACCEPT = Layout(
    "accept",
    (
        ("accepted", "Q"),  # right after accept() returned; 0 = unused slot
        ("closed", "Q"),  # right before the server closed it; 0 = never: a leaked descriptor
        ("payload", "Q"),  # exchange echo: the attempt number that the client sent; 0 = none arrived
        ("fd", "I"),  # the descriptor it got
        ("open_fds", "I"),  # open descriptors of the server after it
        ("age_ms", "I"),  # tcpi_last_data_sent right after accept: age of the server's socket, milliseconds, +-4
        ("peer", "16s"),  # the client's address: IPv6, or IPv4 in the first 4 bytes
        ("port", "H"),  # the client's port
        ("state", "B"),  # tcpi_state right after accept: 1 ESTABLISHED, 7 CLOSE (reset), 8 CLOSE_WAIT
        ("synack_retransmits", "B"),  # the server's tcpi_total_retrans
        ("flags", "B"),  # AcceptFlag
    ),
    64,
)

#: Failures of the server, aggregated over at most 10 ms.
FAILURE = Layout(
    "failure",
    (
        ("first", "Q"),  # time of the first one; 0 = unused slot
        ("last", "Q"),
        ("count", "Q"),
        ("open_fds", "I"),
        ("errno", "H"),
        ("where", "B"),  # Where
        ("flags", "B"),  # FailureFlag
    ),
    40,
)

#: The kernel's numbers for the target at one moment; -1 = not read in this sample. Counters start with the namespace
#: or the process; take differences.
SAMPLE = Layout(
    "sample",
    (
        ("time", "Q"),
        ("open_fds", "q"),
        ("fd_limit", "q"),  # soft RLIMIT_NOFILE
        ("queue", "q"),  # accept queue length, connections
        ("queue_capacity", "q"),  # the most connections that the accept queue holds
        ("drops", "q"),  # the listener's own sk_drops
        ("cpu_ns", "q"),  # CPU time of the target
        ("rss", "q"),  # bytes
        ("run_wait_ns", "q"),  # time that the target was ready to run and waited for a CPU
        # from here on at 10 Hz
        ("listen_overflows", "q"),
        ("listen_drops", "q"),
        ("cookies", "q"),  # TCPReqQFullDoCookies
        ("fd_size", "q"),  # FDSize of /proc/PID/status
    ),
    104,
)

#: The TCP table is read at most this many times a second.
TABLE_HZ = 50

#: One connection of a server without records, as the kernel's TCP table showed it: when a process first owned it, and
#: every connection in the snapshot of the fates.
SOCKET = Layout(
    "socket",
    (
        ("time", "Q"),  # when the table was read; 0 = unused slot
        ("inode", "Q"),  # of the socket; 0: no process owns it, it waits for accept() or is closed
        ("client", "16s"),  # the client's address: IPv6, or IPv4 in the first 4 bytes
        ("port", "H"),  # the client's port
        ("state", "B"),  # net/tcp_states.h
        ("flags", "B"),  # SocketFlag
    ),
    40,
)

LAYOUTS = {layout.name: layout for layout in (ATTEMPT, ACCEPT, FAILURE, SAMPLE, SOCKET)}


class AttemptFlag(enum.IntFlag):
    """Flags of an attempt."""

    CUT = 1  # end of stream or reset during hold, after the reply
    WOKEN = 2  # `connected` is when epoll woke up, which is late by the loop's batch
    RESET_BY_CLIENT = 4  # its socket was closed by RST at `ended`
    PENDING = 8  # its socket was still open when the run was judged
    RELEASED = 16  # a step of the timeline ended it before its time


class AcceptFlag(enum.IntFlag):
    """Flags of an accepted connection."""

    AFTER_END = 1  # taken from the queue after the run was judged: its fate is `queued`
    SHED = 2  # closed at once, unserved
    LEAKED = 4  # the server never closes it
    FAILED = 8  # its handler ran out of descriptors


class SocketFlag(enum.IntFlag):
    """Flags of a socket in the TCP table."""

    AT_CLIENT = 1  # the client's end; otherwise the server's
    AT_END = 2  # seen when the run was judged
    WAITED = 4  # it waited for accept(), last in the sample at `time`; the next record has ENTERED
    ENTERED = 8  # `time` is when the connection of the record before entered the accept queue, by its age: +-4 ms
    TRACED = 16  # both times are the kernel's own, and the first one is when accept() returned it


class Where(enum.IntEnum):
    """The call in which a server failed."""

    ACCEPT = 0
    HANDLER = 1


class FailureFlag(enum.IntFlag):
    """Flags of a failure."""

    IDLE = 1  # the accept queue was empty: EMFILE comes before EAGAIN


@dataclass(frozen=True, slots=True)
class ErrnoMeaning:
    """The meaning of an errno of the client's socket calls: the outcome, and the remedy."""

    outcome: Outcome
    remedy: str


#: errno of a client's socket(), bind(), connect() or recv() -> its meaning. Any other errno is `local`.
CLIENT_ERRNO = {
    errno.ECONNREFUSED: ErrnoMeaning(Outcome.REFUSED, "no server listens on this port: start it"),
    errno.ECONNRESET: ErrnoMeaning(Outcome.RESET, "the server closed by RST"),
    errno.EPIPE: ErrnoMeaning(Outcome.RESET, "the server closed before the request was sent"),
    errno.ETIMEDOUT: ErrnoMeaning(Outcome.CONNECT_TIMEOUT, "no answer to any SYN"),
    errno.EMFILE: ErrnoMeaning(Outcome.LOCAL, "the driver is out of descriptors: raise the hard limit (ulimit -Hn)"),
    errno.ENFILE: ErrnoMeaning(Outcome.LOCAL, "the machine is out of open files: raise fs.file-max"),
    errno.EADDRNOTAVAIL: ErrnoMeaning(
        Outcome.LOCAL, "no ephemeral port is left: add client.sources or widen net.ipv4.ip_local_port_range"
    ),
    errno.ENETUNREACH: ErrnoMeaning(
        Outcome.LOCAL, "no interface leads to the server: bring it up (for loopback: ip link set lo up)"
    ),
    errno.ENOBUFS: ErrnoMeaning(Outcome.LOCAL, "the kernel has no buffer space: lower the rate"),
    errno.ENOMEM: ErrnoMeaning(Outcome.LOCAL, "the kernel is out of socket memory: lower client.max_in_flight"),
}


#: The counters in a journal's header, by its kind: 64-bit, written in place, read by other processes meanwhile.
COUNTERS = {
    "attempt": ("started", "connected", "ended", "ok", "failed", "local", "not_started", "in_flight", "lag_max_ns"),
    "accept": ("accepted", "closed", "shed", "emfile_accept", "emfile_handler", "emfile_idle", "leaked", "after_end"),
    "failure": (),
    "sample": (),
    "socket": (),
}
