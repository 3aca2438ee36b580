"""Every TCP, UDP and unix socket of a network namespace, without numpy, from sock_diag or from /proc/PID/net."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadsim.kernel.sockdiag import (
    ATTRIBUTES_AT,
    DROPS_AT,
    FAMILIES,
    INET_DIAG_INFO,
    INET_DIAG_SKMEMINFO,
    LAST_SENT_AT,
    LISTEN,
    MAPPED,
    TCP_STATES,
    attributes,
    inet_request,
    messages,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loadsim.kernel.sockdiag import SockDiag


_INET_DIAG_SKV6ONLY = 11
#: State bit of TCP sockets that are bound but neither listen nor connect (Linux >= 6.8; ignored before).
_BOUND_INACTIVE = 1 << 13
#: Left out: sockets in TIME_WAIT have no descriptor, and there may be 60,000 of them.
_TIME_WAIT = 1 << 6
_TCP_WANTED = (sum(1 << state for state in TCP_STATES) | _BOUND_INACTIVE) & ~_TIME_WAIT
_ALL_STATES = 0xFFFFFFFF
_FIXED_AT = (
    16  # after nlmsghdr: family, state, timer, retransmits, ends, interface, cookie, expires, queues, uid, inode
)
_FIXED = struct.Struct("=BBBB36sI8xIIIII")
_U32 = struct.Struct("=I")
_AGO = struct.Struct("=III")  # milliseconds since data was sent, an ACK was sent, data was received

_UNIX_REQUEST = struct.Struct("=BBHIIIII")  # family, protocol, padding, states, inode, fields to show, cookie
_UNIX_SHOW = 0x01 | 0x04 | 0x10  # name, peer, queues
_UNIX_FIXED = struct.Struct("=BBBxI")  # family, type, state, inode
_UNIX_ATTRIBUTES_AT = 32
_UNIX_NAME, _UNIX_PEER, _UNIX_QUEUES, _UNIX_SHUTDOWN = 0, 2, 4, 6
UNIX_TYPES = {1: "stream", 2: "datagram", 5: "seqpacket"}


class InetSocket(NamedTuple):
    """A TCP or UDP socket at one moment; the two sockets of a connection have mirrored `ends`."""

    protocol: str  # "TCP" | "UDP"
    family: int
    state: int  # see TCP_STATES; a UDP socket is 1 (connected) or 7
    retransmits: int
    ends: bytes  # ports and addresses in network order: 2, 2, 16, 16 bytes; IPv4 in the first four
    mapped: bool  # speaks IPv4 through an IPv6 socket
    rqueue: int
    wqueue: int | None  # None: a listener whose backlog is unknown (/proc/PID/net)
    uid: int
    inode: int  # 0: no descriptor refers to it
    attributes: bytes = b""

    @property
    def mirrored(self) -> bytes:
        """The `ends` of the other end."""
        ends = self.ends
        return ends[2:4] + ends[:2] + ends[20:36] + ends[4:20]

    @property
    def state_name(self) -> str:
        """The state as the kernel names it."""
        return TCP_STATES.get(self.state, "CLOSE")

    @property
    def local_port(self) -> int:
        """The port at this end."""
        return int.from_bytes(self.ends[:2], "big")

    @property
    def remote_port(self) -> int:
        """The port at the other end, 0 for none."""
        return int.from_bytes(self.ends[2:4], "big")

    @property
    def local(self) -> str:
        """The address at this end as text."""
        return self._address(self.ends[4:20])

    @property
    def remote(self) -> str:
        """The address at the other end as text; the wildcard if there is none."""
        return self._address(self.ends[20:36])

    @property
    def family_name(self) -> str:
        """The family in words: "IPv4", "IPv6", "dual-stack" (a listener for both) or "IPv4 in IPv6"."""
        if self.family == socket.AF_INET:
            return "IPv4"
        if self.mapped:
            return "IPv4 in IPv6"
        return "dual-stack" if self.v6only is False and self.ends[4:20] == bytes(16) else "IPv6"

    @property
    def v6only(self) -> bool | None:
        """Whether an IPv6 listener accepts only IPv6; None if that does not apply."""
        at = self._offset(_INET_DIAG_SKV6ONLY)
        return None if at is None else bool(self.attributes[at])

    @property
    def drops(self) -> int | None:
        """Packets that it has dropped since it was created; None if the kernel does not report them."""
        at = self._offset(INET_DIAG_SKMEMINFO)
        return None if at is None else int(_U32.unpack_from(self.attributes, at + DROPS_AT)[0])

    @property
    def idle_s(self) -> float | None:
        """Seconds since the last data in either direction, or since it was connected; None if not known.

        Before the handshake ends the kernel has no such time, and reports the time since the host started.
        """
        if self.state_name == "SYN_SENT":
            return None
        at = self._offset(INET_DIAG_INFO)
        if at is None:
            return None
        sent, _, received = _AGO.unpack_from(self.attributes, at + LAST_SENT_AT)
        return min(int(sent), int(received)) / 1000

    def _offset(self, wanted: int) -> int | None:
        """Return the offset of the value of an attribute; None if the kernel did not send it."""
        for kind, at in attributes(self.attributes, 0, len(self.attributes)):
            if kind == wanted:
                return at
        return None

    def _address(self, packed: bytes) -> str:
        if self.family == socket.AF_INET or self.mapped:
            return socket.inet_ntop(socket.AF_INET, packed[:4])
        return socket.inet_ntop(socket.AF_INET6, packed)


class UnixSocket(NamedTuple):
    """A unix socket at one moment."""

    kind: str  # "stream" | "datagram" | "seqpacket"
    state: int  # see TCP_STATES: 1 connected, 7 not, 10 listening
    inode: int
    peer_inode: int | None  # None: no peer; 0: a peer to which no descriptor refers
    name: str  # a path, "@..." for an abstract name, "" for none
    rqueue: int  # for a listener: connections in its accept queue
    wqueue: int  # for a listener: its backlog
    shutdown: int  # bits: 1 receives no more, 2 sends no more


class SocketTable(NamedTuple):
    """The sockets of one network namespace."""

    inet: list[InetSocket]
    unix: list[UnixSocket]
    missing: list[str]  # parts that could not be read, as sentences


def read_table(diag: SockDiag) -> SocketTable:
    """Return all sockets in the namespace of `diag` except those in TIME_WAIT; 3 us a socket."""
    missing: list[str] = []
    inet: list[InetSocket] = []
    for name, protocol, states in (("TCP", socket.IPPROTO_TCP, _TCP_WANTED), ("UDP", socket.IPPROTO_UDP, _ALL_STATES)):
        extensions = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_SKMEMINFO - 1)
        try:
            for family in FAMILIES:
                request = inet_request(family, protocol, states=states, extensions=extensions)
                inet += parse_inet(diag.answers(request), name)
        except OSError as error:
            missing.append(f"{name} sockets are missing: this kernel has no sock_diag for them ({error.strerror}).")
    try:
        request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _UNIX_SHOW, 0, 0)
        unix = list(parse_unix(diag.answers(request)))
    except OSError as error:
        unix = []
        missing.append(f"Names and peers of unix sockets are missing: no unix_diag ({error.strerror}).")
    return SocketTable(inet, unix, missing)


def parse_inet(batches: Iterable[bytes], protocol: str) -> Iterator[InetSocket]:
    """Yield the sockets in the batches of an inet_diag dump; raises OSError for an error message."""
    data = b"".join(batches)
    for start, end in messages(data):
        fixed = _FIXED.unpack_from(data, start + _FIXED_AT)
        family, state, _, retransmits, ends, _, _, rqueue, wqueue, uid, inode = fixed
        mapped = family == socket.AF_INET6 and MAPPED in (ends[4:16], ends[20:32])
        if mapped:
            ends = ends[:4] + ends[16:20] + bytes(12) + ends[32:36] + bytes(12)
        rest = data[start + ATTRIBUTES_AT : end]
        yield InetSocket(protocol, family, state, retransmits, ends, mapped, rqueue, wqueue, uid, inode, rest)


def parse_unix(batches: Iterable[bytes]) -> Iterator[UnixSocket]:
    """Yield the sockets in the batches of a unix_diag dump; raises OSError for an error message."""
    data = b"".join(batches)
    for start, end in messages(data):
        _, kind, state, inode = _UNIX_FIXED.unpack_from(data, start + _FIXED_AT)
        peer: int | None = None
        rqueue = wqueue = shutdown = 0
        name = ""
        for attribute, at in attributes(data, start + _UNIX_ATTRIBUTES_AT, end):
            if attribute == _UNIX_NAME:
                length = int.from_bytes(data[at - 4 : at - 2], "little") - 4
                name = unix_name(data[at : at + length])
            elif attribute == _UNIX_PEER:
                peer = _U32.unpack_from(data, at)[0]
            elif attribute == _UNIX_QUEUES:
                rqueue, wqueue = struct.unpack_from("=II", data, at)
            elif attribute == _UNIX_SHUTDOWN:
                shutdown = data[at]
        yield UnixSocket(UNIX_TYPES.get(kind, str(kind)), state, inode, peer, name, rqueue, wqueue, shutdown)


def unix_name(raw: bytes) -> str:
    """Return the name of a unix socket: a path, or "@..." for a name that begins with a zero byte."""
    abstract = raw.startswith(b"\0")
    shown = raw.replace(b"\0", b"@") if abstract else raw.rstrip(b"\0")
    return shown.decode(errors="backslashreplace")


_TIME_WAIT_HEX = 6
_UNIX_LISTENS = 0x10000  # __SO_ACCEPTCON
_UNIX_STATES = {1: 7, 3: 1}  # SS_UNCONNECTED, SS_CONNECTED -> their numbers in sock_diag
_FILES = (
    ("tcp", "TCP", socket.AF_INET),
    ("tcp6", "TCP", socket.AF_INET6),
    ("udp", "UDP", socket.AF_INET),
    ("udp6", "UDP", socket.AF_INET6),
)


def read_table_of(pid: int) -> SocketTable:
    """Return the sockets in the namespace of a process, from /proc/PID/net, except those in TIME_WAIT."""
    inet: list[InetSocket] = []
    unix: list[UnixSocket] = []
    folder = Path(f"/proc/{pid}/net")
    for name, protocol, family in _FILES:
        with suppress(OSError):
            inet += parse_inet_lines((folder / name).read_text(), protocol, family)
    with suppress(OSError):
        unix += parse_unix_lines((folder / "unix").read_text(errors="backslashreplace"))
    return SocketTable(inet, unix, [])


def parse_inet_lines(text: str, protocol: str, family: int) -> Iterator[InetSocket]:
    """Yield the sockets in /proc/net/tcp, tcp6, udp or udp6."""
    for line in text.splitlines()[1:]:
        _, local, remote, state, queues, _, retransmits, uid, _, inode, *_ = line.split()
        if int(state, 16) == _TIME_WAIT_HEX:
            continue
        (source, source_port), (sink, sink_port) = (_end(one) for one in (local, remote))
        mapped = family == socket.AF_INET6 and MAPPED in (source[:12], sink[:12])
        if mapped:
            source, sink = source[12:].ljust(16, b"\0"), sink[12:].ljust(16, b"\0")
        wqueue, rqueue = (int(one, 16) for one in queues.split(":"))
        yield InetSocket(
            protocol=protocol,
            family=family,
            state=int(state, 16),
            retransmits=int(retransmits, 16),
            ends=source_port + sink_port + source + sink,
            mapped=mapped,
            rqueue=rqueue,
            wqueue=wqueue if int(state, 16) != LISTEN else None,
            uid=int(uid),
            inode=int(inode),
        )


def _end(written: str) -> tuple[bytes, bytes]:
    """Return address (16 bytes) and port in network order; the kernel prints words in host order."""
    address, port = written.split(":")
    words = bytes.fromhex(address)
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return words.ljust(16, b"\0"), bytes.fromhex(port)


def parse_unix_lines(text: str) -> Iterator[UnixSocket]:
    """Yield the sockets in /proc/net/unix, which has no peers."""
    for line in text.splitlines()[1:]:
        _, _, _, flags, kind, state, inode, *name = line.split(maxsplit=7)
        listens = int(flags, 16) & _UNIX_LISTENS
        yield UnixSocket(
            kind=UNIX_TYPES.get(int(kind, 16), kind),
            state=10 if listens else _UNIX_STATES.get(int(state, 16), 7),
            inode=int(inode),
            peer_inode=None,
            name=name[0] if name else "",
            rqueue=0,
            wqueue=0,
            shutdown=0,
        )
