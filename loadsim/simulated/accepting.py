"""Accepts connections, each with its record: the hot path of the simulated server.

Owns the listener and the only loop around accept(). Must not decide when to accept, nor how a connection is served.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from loadsim.record.journal import HEADER_BYTES
from loadsim.record.records import ACCEPT, AcceptFlag

if TYPE_CHECKING:
    from loadsim.record.accept_log import AcceptLog
    from loadsim.simulated.policy import Leak

#: The C type under `socket.socket`; its calls cost half as much.
RawSocket = socket.SocketType
#: The result of accept(): a descriptor and the peer's address.
Taken = tuple[int, tuple[str, int]]
#: A function that takes over a connection. Its arguments: socket, offset of its record (-1: none), flags, and whether
#: bytes or an end of stream have already arrived.
TakeOver = Callable[[RawSocket, int, int, int], None]

_STREAM: Final = int(socket.SOCK_STREAM)  # the enums of the socket module are slow to pass
_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_INFO: Final = int(socket.TCP_INFO)
_LEAKED: Final = int(AcceptFlag.LEAKED)
_ESTABLISHED: Final = 1
_RECORD_BYTES: Final = ACCEPT.size
_ADDRESSES_KEPT: Final = 65_536

# struct tcp_info (linux/tcp.h): tcpi_state, tcpi_last_data_sent, tcpi_total_retrans, tcpi_bytes_received (Linux 4.1)
_INFO = struct.Struct("=B43xI52xI24xQ")
_INFO_BYTES: Final = _INFO.size
# of a listener: tcpi_unacked is the length of its accept queue, tcpi_sacked the effective backlog
_LISTENER_INFO = struct.Struct("=24xII")
_pack = ACCEPT.struct.pack_into
_unpack = _INFO.unpack


class ConnectionTaker:
    """The accept queue of one listener, and the records of its accepted connections."""

    def __init__(self, listener: RawSocket, log: AcceptLog, leak: Leak | None) -> None:
        #: accept() itself, non-blocking: the C method, without a Python socket around the descriptor.
        self.accept: Callable[[], Taken] = listener._accept  # type: ignore[attr-defined] # noqa: SLF001 - see above
        self.fd = listener.fileno()
        self._listener = listener
        self._family = listener.family
        self._log = log
        self._leak = leak
        self._leakable = 0  # connections that the leak chose from: all except shed ones
        self._peers: dict[str, bytes] = {}

    def take(self, most: int, take_over: TakeOver, flags: int = 0, taken: Taken | None = None) -> tuple[int, int]:
        """Accept up to `most` connections, beginning with `taken`, until accept() fails.

        Returns the number of calls, and the errno of the last one or 0. The loop body is not split into functions,
        because their calls would add half of Python's share of the cost. The TCP_INFO call precedes any send(), so
        tcpi_last_data_sent is the age of the socket.
        """
        accept, family, peers, log = self.accept, self._family, self._peers, self._log
        buffer, counters, capacity, accepted = log.buffer, log.counters, log.capacity, log.accepted
        leak = None if flags else self._leak
        for calls in range(1, most + 1):
            try:
                fd, address = taken or accept()
            except OSError as error:
                return calls, error.errno or 0
            now = monotonic_ns()
            taken = None
            sock = RawSocket(family, _STREAM, 0, fd)
            state, age, retransmits, received = _unpack(sock.getsockopt(_TCP, _TCP_INFO, _INFO_BYTES))
            if leak is not None:
                self._leakable += 1
                flags = _LEAKED if leak.takes(self._leakable) else 0
            log.open_fds = open_fds = log.open_fds + 1
            slot = counters[0]
            at = HEADER_BYTES + slot * _RECORD_BYTES
            if slot < capacity:
                peer = peers.get(address[0]) or self._peer(address[0])
                again = retransmits if retransmits < 256 else 255  # min() would cost as much as the record
                _pack(buffer, at, now, 0, 0, fd, open_fds, age, peer, address[1], state, again, flags)
                counters[0] = slot + 1
            else:
                at = log.accepts.take()
            counters[accepted] += 1
            take_over(sock, at, flags, received or state != _ESTABLISHED)
        return most, 0

    def queue_length(self) -> int:
        """Return the number of connections in the accept queue."""
        return self._state()[0]

    def backlog(self) -> int:
        """Return the backlog in force."""
        return self._state()[1]

    def listen(self, backlog: int) -> None:
        """Change the backlog; connections in the queue stay, also beyond the new capacity."""
        self._listener.listen(backlog)

    def close(self) -> None:
        """Close the listener."""
        self._listener.close()

    def _state(self) -> tuple[int, int]:
        info = self._listener.getsockopt(_TCP, _TCP_INFO, _LISTENER_INFO.size)
        length, backlog = _LISTENER_INFO.unpack(info)
        return length, backlog

    def _peer(self, host: str) -> bytes:
        """Return an address in the form of a record: IPv6, or IPv4 in the first 4 bytes."""
        if len(self._peers) >= _ADDRESSES_KEPT:
            self._peers.clear()
        plain = host.removeprefix("::ffff:").split("%")[0]
        family = socket.AF_INET if "." in plain else socket.AF_INET6
        return self._peers.setdefault(host, socket.inet_pton(family, plain).ljust(16, b"\0"))
