"""sock_diag without a library: a listener's accept queue and the TCP table, in any network namespace."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import struct
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from loadsim import units
from loadsim.kernel import libc
from loadsim.kernel.procfs import ProcessGoneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    Sockets = np.ndarray[tuple[int], np.dtype[np.void]]


#: net/tcp_states.h: number -> the kernel's name.
TCP_STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
}
_STATE_NUMBERS = {name: number for number, name in TCP_STATES.items()}
FAMILIES = (socket.AF_INET, socket.AF_INET6)
LISTEN = _STATE_NUMBERS["LISTEN"]

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_DONE_BYTES = 20
INET_DIAG_INFO, INET_DIAG_SKMEMINFO = 2, 7
_INFO = 1 << (INET_DIAG_INFO - 1)
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, an IPv4 address in an IPv6 socket
LAST_SENT_AT = 44  # in struct tcp_info: milliseconds
_MILLISECONDS = struct.Struct("=I")
_ALL_STATES = 0xFFFFFFFF
_MEMORY = 1 << (INET_DIAG_SKMEMINFO - 1)  # its extension bit in a request

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_LENGTH_AND_TYPE = struct.Struct("=IH")
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, extensions, padding, states
_ID = struct.Struct("=2s2s16s16sIII")  # inet_diag_sockid: ports, addresses, interface, cookie
_ANY_COOKIE = 0xFFFFFFFF
_NO_PORT = bytes(2)
_NO_ADDRESS = bytes(16)
_STATE_AT = 17  # in a reply
_LOCAL_PORT_AT = 20
_PORT = struct.Struct("!H")
_QUEUES_AT = 72  # in a reply: rqueue, wqueue, uid, inode
_QUEUES = struct.Struct("=IIII")
ATTRIBUTES_AT = 88
_ATTRIBUTE = struct.Struct("=HH")  # length, type
DROPS_AT = 8 * 4  # the ninth number in SKMEMINFO
_DROPS = struct.Struct("=I")
_ERRNO = struct.Struct("=i")
_BUFFER_BYTES = 65_536  # a batch of netlink messages has at most 32 KiB

#: One socket of a dump: the first 88 bytes of its message (nlmsghdr, inet_diag_msg).
_FIELDS = (
    ("family", "u1", 16),
    ("state", "u1", 17),
    ("retransmits", "u1", 19),
    ("local_port", ">u2", 20),
    ("remote_port", ">u2", 22),
    ("local", ("<u4", (4,)), 24),
    ("remote", ("<u4", (4,)), 40),
    ("rqueue", "<u4", 72),
    ("wqueue", "<u4", 76),
    ("uid", "<u4", 80),
    ("inode", "<u4", 84),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerState:
    """A listening socket at one moment."""

    queue: int  # connections in the accept queue
    backlog: int  # in force: min(the argument of listen(), somaxconn)
    drops: int  # sk_drops since it was created, in packets
    inode: int
    uid: int

    @property
    def queue_capacity(self) -> int:
        """How many connections its accept queue can hold."""
        return units.queue_capacity(self.backlog)


class SockDiag:
    """A sock_diag socket. It reads the network namespace in which it was created, wherever it is used.

    Several threads may use it: each request waits for the reply to the one before. Close it, or use it as a
    context manager.
    """

    def __init__(self, made_elsewhere: socket.socket | None = None) -> None:
        """Create the socket here, or take ownership of one created in another namespace."""
        self._socket = made_elsewhere or open_socket()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._lock = threading.Lock()
        self._answered = True

    def listener(self, address: str, port: int) -> ListenerState | None:
        """Return the listener for connections to this address and port; None if there is none.

        In a SO_REUSEPORT group it is the first one. A listener on the wildcard address is found too.
        """
        with self._lock:
            self._ask(_NLM_F_REQUEST, _lookup(address, port))
            size = self._socket.recv_into(self._buffer)
            self._answered = True
            return parse_listener(self._buffer, size)

    def listeners(self, port: int) -> list[ListenerState]:
        """Return all listeners on this port, on any address and in any SO_REUSEPORT group; 20 us a family."""
        with self._lock:
            data = b"".join(batch for family in FAMILIES for batch in self._walk(family, 1 << LISTEN, _MEMORY))
        found = []
        for start, end in messages(data):
            if _PORT.unpack_from(data, start + _LOCAL_PORT_AT)[0] == port:
                state = parse_listener(data[start:end], end - start)
                found += [state] if state else []
        return found

    def dump(
        self,
        *,
        port: int | None = None,
        states: Iterable[str] = TCP_STATES.values(),
        families: Iterable[int] = FAMILIES,
    ) -> Sockets:
        """Return the TCP sockets in these states with this port at either end (None: any), one element each.

        The kernel walks its complete table for each family; skipping a socket in TIME_WAIT costs it 0.3 us.

        Fields: family, state (see TCP_STATES), retransmits, local_port, remote_port, local and remote (four words in
        network order, IPv4 in the first), rqueue, wqueue, uid, inode (0: no descriptor refers to it).
        """
        bits = sum(1 << _STATE_NUMBERS[name] for name in states)
        with self._lock:
            batches = [batch for family in families for batch in self._walk(family, bits)]
        sockets = parse_sockets(batches)
        if port is None:
            return sockets
        return cast("Sockets", sockets[(sockets["local_port"] == port) | (sockets["remote_port"] == port)])

    def silent_ms(self, connection: np.void) -> int | None:
        """Return the milliseconds since a connection in a dump last sent data, +-4 ms.

        For a connection in the accept queue this is its age. An exact lookup, 6 us. None: it is closed.
        """
        family, port, peer = (int(connection[name]) for name in ("family", "local_port", "remote_port"))
        ends = (connection["local"].tobytes(), connection["remote"].tobytes(), 0, _ANY_COOKIE, _ANY_COOKIE)
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, _INFO, 0, _ALL_STATES)
        with self._lock:
            self._ask(_NLM_F_REQUEST, request + _ID.pack(port.to_bytes(2, "big"), peer.to_bytes(2, "big"), *ends))
            size = self._socket.recv_into(self._buffer)
            self._answered = True
            return parse_silence(self._buffer, size)

    def answers(self, request: bytes) -> list[bytes]:
        """Send a request for a table and return the batches of messages in the reply."""
        with self._lock:
            return list(self._batches(request))

    def _walk(self, family: int, states: int, extensions: int = 0) -> Iterator[bytes]:
        """Yield the batches of messages with the TCP table of one family."""
        return self._batches(inet_request(family, socket.IPPROTO_TCP, states=states, extensions=extensions))

    def _batches(self, request: bytes) -> Iterator[bytes]:
        self._ask(_NLM_F_REQUEST | _NLM_F_DUMP, request)
        batch = b""
        while not ends_dump(batch):
            batch = bytes(self._buffer[: self._socket.recv_into(self._buffer)])
            yield batch
        self._answered = True

    def _ask(self, flags: int, payload: bytes) -> None:
        if not self._answered:
            self._forget()
        self._answered = False
        header = _HEADER.pack(_HEADER.size + len(payload), _SOCK_DIAG_BY_FAMILY, flags, 0, 0)
        self._socket.send(header + payload)

    def _forget(self) -> None:
        """Discard the rest of a reply that Ctrl-C interrupted; the kernel has queued all of it."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Close the descriptor; harmless the second time."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def family_of(address: str) -> int:
    """Return the family of a numeric address, AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def inet_request(family: int, protocol: int, *, states: int, extensions: int = 0) -> bytes:
    """Return the request for the table of a protocol; `states` and `extensions` are bit masks."""
    return _REQUEST.pack(family, protocol, extensions, 0, states) + bytes(_ID.size)


def open_socket() -> socket.socket:
    """Open a sock_diag socket in the caller's network namespace."""
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    diag.connect((0, 0))
    return diag


def parse_listener(message: bytes | bytearray, size: int) -> ListenerState | None:
    """Return the listener in the reply to an exact lookup; None if there is none.

    Raises OSError for every other error in the reply.
    """
    kind = _LENGTH_AND_TYPE.unpack_from(message)[1]
    if kind == _NLMSG_ERROR:
        _raise_error(message, absent=errno.ENOENT)
    if kind != _SOCK_DIAG_BY_FAMILY or message[_STATE_AT] != LISTEN:
        return None
    queue, backlog, uid, inode = _QUEUES.unpack_from(message, _QUEUES_AT)
    return ListenerState(queue=queue, backlog=backlog, drops=_drops(message, size), uid=uid, inode=inode)


def parse_silence(message: bytes | bytearray, size: int) -> int | None:
    """Return the milliseconds since a socket last sent data, from the reply to an exact lookup; None without one."""
    if _LENGTH_AND_TYPE.unpack_from(message)[1] == _NLMSG_ERROR:
        _raise_error(message, absent=errno.ENOENT)
        return None
    found = (at for kind, at in attributes(message, ATTRIBUTES_AT, size) if kind == INET_DIAG_INFO)
    at = next(found, None)
    return None if at is None else int(_MILLISECONDS.unpack_from(message, at + LAST_SENT_AT)[0])


def _drops(message: bytes | bytearray, size: int) -> int:

    for kind, at in attributes(message, ATTRIBUTES_AT, size):
        if kind == INET_DIAG_SKMEMINFO:
            return int(_DROPS.unpack_from(message, at + DROPS_AT)[0])
    raise ValueError("the reply has no SKMEMINFO: this kernel is older than 4.7, or the reply was misread")


def ends_dump(batch: bytes) -> bool:
    """Return whether a batch is the last of a dump: an error, or one that ends with the message "done".

    Linux 6.18 sends "done" as its own batch; netlink also allows it behind the last sockets.
    """
    if not batch:
        return False
    last = _LENGTH_AND_TYPE.unpack_from(batch, len(batch) - _DONE_BYTES)
    return last == (_DONE_BYTES, _NLMSG_DONE) or _LENGTH_AND_TYPE.unpack_from(batch)[1] == _NLMSG_ERROR


def parse_sockets(batches: Iterable[bytes]) -> Sockets:
    """Return the sockets in the batches of a dump; see `SockDiag.dump`. Raises OSError for an error message."""
    import numpy as np  # noqa: PLC0415  # processes under measurement import this package without numpy's threads

    data = b"".join(batches)
    starts = [start for start, _ in messages(data)]
    names, formats, offsets = zip(*_FIELDS, strict=True)
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": ATTRIBUTES_AT})
    if not starts:
        return cast("Sockets", np.zeros(0, dtype))
    # Messages differ in length by their attributes; take the fixed part of each.
    rows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), ATTRIBUTES_AT)[starts]
    return cast("Sockets", rows.view(dtype)[:, 0])


def messages(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of each message about a socket; raises OSError for an error message."""
    at = 0
    while at < len(data):
        length, kind = _LENGTH_AND_TYPE.unpack_from(data, at)
        if kind == _NLMSG_ERROR:
            _raise_error(data[at:])
        if kind == _SOCK_DIAG_BY_FAMILY:
            yield at, at + length
        at += _aligned(length)


def attributes(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield type and value offset of each attribute between two offsets of a message."""
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind, at + _ATTRIBUTE.size
        at += max(_aligned(length), _ATTRIBUTE.size)


def _raise_error(message: bytes | bytearray, *, absent: int | None = None) -> None:
    """Raise the OSError of an error message, unless its errno is `absent`."""
    code = -_ERRNO.unpack_from(message, _HEADER.size)[0]
    if code not in (0, absent):
        raise OSError(code, f"sock_diag: {os.strerror(code)}")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


@functools.lru_cache(maxsize=16)
def _lookup(address: str, port: int) -> bytes:
    """Return the request for one listener, without its header."""
    packed = socket.inet_pton(family_of(address), address).ljust(16, b"\0")
    request = _REQUEST.pack(family_of(address), socket.IPPROTO_TCP, _MEMORY, 0, 1 << LISTEN)
    return request + _ID.pack(port.to_bytes(2, "big"), _NO_PORT, packed, _NO_ADDRESS, 0, _ANY_COOKIE, _ANY_COOKIE)


_DONE = b"d"


def namespace_of(pid: int | str, kind: str = "net") -> str:
    """Return the identity of a namespace of a process, such as "net:[4026531840]"; "" without permission."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except PermissionError:
        return ""
    except OSError as error:
        raise ProcessGoneError(f"process {pid} is gone") from error


def diag_of(pid: int) -> SockDiag:
    """Open a sock_diag socket in the network namespace of a process.

    Raises PermissionError if it is another one that we may not enter, and ProcessGoneError.
    """
    theirs = namespace_of(pid)
    if theirs in (namespace_of("self"), ""):
        return SockDiag()
    ours, childs = socket.socketpair()
    with ours, childs:
        child = _fork()
        if child == 0:  # pragma: no cover  # not traced behind a fork
            _open_inside(pid, childs)
        childs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(child, 0)
    if not fds:
        raise PermissionError(f"the network namespace of process {pid} may not be entered")
    return SockDiag(socket.socket(fileno=fds[0]))


def _fork() -> int:
    """Fork even with threads: the child takes no lock, and setns to a user namespace needs a single thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python >= 3.12 warns about locks of other threads
        return os.fork()


def _open_inside(pid: int, answer: socket.socket) -> None:  # pragma: no cover
    """Enter the namespace, open a socket there, send it, and exit without Python's cleanup."""
    try:
        folder = Path(f"/proc/{pid}/ns")
        net = os.open(folder / "net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.enter_namespace(net, libc.CLONE_NEWNET)
        except PermissionError:  # permitted inside the user namespace that owns it, if that is ours
            user = os.open(folder / "user", os.O_RDONLY | os.O_CLOEXEC)
            libc.enter_namespace(user, libc.CLONE_NEWUSER)
            libc.enter_namespace(net, libc.CLONE_NEWNET)
        diag = open_socket()
        socket.send_fds(answer, [_DONE], [diag.fileno()])
    finally:
        os._exit(0)
