"""Serving and closing accepted connections: the second half of the simulated server.

Owns every accepted socket and every extra descriptor until it closes them. Sockets stay in blocking mode, which saves
a system call each, and are only used with MSG_DONTWAIT. Must not know accept() and its policies.
"""

from __future__ import annotations

import math
import os
import select
import socket
from collections import deque
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from loadsim.exchange import Exchange, opening, request_end, request_number, response
from loadsim.record.records import AcceptFlag

if TYPE_CHECKING:
    from loadsim.record.accept_log import AcceptLog
    from loadsim.simulated.accepting import RawSocket, TakeOver
    from loadsim.simulated.policy import Leak

_LEAKED: Final = int(AcceptFlag.LEAKED)
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)
_RECEIVE_BYTES: Final = 65_536
_REPLIES_KEPT: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How connections are served: the exchange, the extra descriptors of a request, and the time of the close."""

    exchange: Exchange
    expected: str  # the reply of exchange raw; "": any
    close_after_ns: int | None  # None: when the client closes
    extra_fds: int
    extra_leak: Leak | None  # which requests never close their extra descriptors

    @property
    def talks_first(self) -> bool:
        """Whether a connection is served without a request."""
        return self.exchange in {Exchange.NONE, Exchange.HELLO}

    @property
    def keeps_serving(self) -> bool:
        """Whether a connection may carry more than one request."""
        return self.close_after_ns is None and not self.talks_first


class Connection:
    """One open connection. `at` is the offset of its record (see `AcceptLog`)."""

    __slots__ = ("at", "extras", "leaked", "polled", "received", "served", "sock")

    def __init__(self, sock: RawSocket, at: int, *, leaked: bool) -> None:
        self.sock = sock
        self.at = at
        self.leaked = leaked
        self.served = False
        self.polled = False
        self.received = b""
        self.extras: list[int] = []


class Connections:
    """All connections of the server; epoll polls the ones that may still send something."""

    def __init__(self, service: Service, log: AcceptLog, epoll: select.epoll) -> None:
        self._service = service
        self._exchange = service.exchange
        self._talks_first = service.talks_first
        self._keeps_serving = service.keeps_serving
        self._log = log
        self._epoll = epoll
        self._greeting = opening(service.exchange)
        self._replies = {b"": self._greeting}  # request -> reply: load generators repeat their requests
        self._brief = service.close_after_ns == 0 and not service.extra_fds  # closed or leaked right after the reply
        #: Takes over a connection that was just accepted.
        self.admit: TakeOver = self._greet if self._brief and self._talks_first else self._admit
        self._requests = 0  # requests that opened their extra descriptors
        self._polled: dict[int, Connection] = {}
        self._leaving: deque[tuple[int, Connection]] = deque()  # served connections, by closing time
        self._kept: list[RawSocket | int] = []  # leaked sockets and descriptors that are never read again

    def on_readable(self, fd: int) -> None:
        """Serve a connection that epoll reported; ignore one that was closed in the same batch."""
        connection = self._polled.get(fd)
        if connection is not None:
            self._handle(connection, _receive(connection.sock))

    @property
    def next_close_ns(self) -> float:
        """The time of the next `close_due`; infinity: none."""
        return self._leaving[0][0] if self._leaving else math.inf

    def close_due(self, now: int) -> None:
        """Close the connections that are due."""
        leaving = self._leaving
        while leaving and leaving[0][0] <= now:
            self._close(leaving.popleft()[1])

    def give_back(self) -> None:
        """Close every descriptor, leaked ones too, without changing records: the run was judged before."""
        for kept in self._kept:
            os.close(kept) if isinstance(kept, int) else kept.close()
        for connection in self._polled.values():
            connection.sock.close()
            for fd in connection.extras:
                os.close(fd)
        for held in (self._kept, self._polled, self._leaving):
            held.clear()

    # serving

    def _greet(self, sock: RawSocket, at: int, flags: int, _: int) -> None:
        """Send the greeting, then close or leak: the shortest life, without an object or an epoll entry."""
        if self._greeting:
            _send(sock, self._greeting)
        if flags & _LEAKED:
            self._log.leak()
            self._kept.append(sock)
        else:
            self._log.close(at, monotonic_ns())
            sock.close()

    def _admit(self, sock: RawSocket, at: int, flags: int, readable: int) -> None:
        """Serve a connection; if its request is already complete, as briefly as `_greet` does."""
        data = _receive(sock) if readable else None
        if self._brief and data and request_end(self._exchange, data) == len(data):
            _send(sock, self._reply(at, data))
            self._greet(sock, at, flags, 0)  # it has no greeting for this exchange
            return
        if flags & _LEAKED:
            self._log.leak()
        connection = Connection(sock, at, leaked=bool(flags & _LEAKED))
        if self._talks_first:
            self._answer(connection, b"")
        else:
            self._handle(connection, data)

    def _handle(self, connection: Connection, data: bytes | None) -> None:
        """Handle received data: b"" is an end of stream or a reset, None means no data yet."""
        if data == b"":
            self._end(connection)
            return
        if data and (self._keeps_serving or not connection.served):  # otherwise it is discarded
            received = connection.received + data
            while length := request_end(self._exchange, received):
                request, received = received[:length], received[length:]
                if not self._answer(connection, request):
                    return
            connection.received = received
        if not connection.polled:
            self._poll(connection)

    def _answer(self, connection: Connection, request: bytes) -> bool:
        """Answer one request; return False if the connection is finished and must not be read again."""
        failed = self._service.extra_fds > 0 and not self._open_extras(connection)
        first, connection.served = not connection.served, True
        if failed and self._exchange is not Exchange.HTTP:  # other protocols have no error reply
            self._end(connection)
            return False
        reply = self._compose(request, failed=True) if failed else self._reply(connection.at if first else -1, request)
        if reply and not _send(connection.sock, reply):
            self._end(connection)
            return False
        return self._after_answer(connection) if first else True

    def _reply(self, at: int, request: bytes) -> bytes:
        """Return the reply to a complete request; b"" without a request and a greeting."""
        if self._exchange is Exchange.ECHO:
            self._log.payload(at, request_number(request))
            return request
        reply = self._replies.get(request)
        if reply is None:
            reply = self._compose(request, failed=False)
            if len(self._replies) < _REPLIES_KEPT:
                self._replies[request] = reply
        return reply

    def _compose(self, request: bytes, *, failed: bool) -> bytes:
        close = not self._keeps_serving or wants_close(request)
        return response(self._exchange, request, close=close, failed=failed, expected=self._service.expected)

    def _after_answer(self, connection: Connection) -> bool:
        """Arrange the end of a connection after its first reply; return False if it is finished."""
        close_after = self._service.close_after_ns
        if connection.leaked and not self._keeps_serving:
            self._keep(connection)
            return False
        if close_after == 0:
            self._close(connection)
            return False
        if close_after is not None:
            self._leaving.append((monotonic_ns() + close_after, connection))
        if self._talks_first:
            self._poll(connection)
        return True

    # descriptors

    def _open_extras(self, connection: Connection) -> bool:
        """Open the extra descriptors of a request; return False, with none of them open, if one failed."""
        opened: list[int] = []
        try:
            for _ in range(self._service.extra_fds):
                opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                self._log.open_fds += 1
        except OSError as error:
            self._log.fail_handler(connection.at, error.errno or 0, monotonic_ns())
            self._close_extras(opened)
            return False
        self._requests += 1
        leak = self._service.extra_leak
        if leak is not None and leak.takes(self._requests):
            self._log.leak(len(opened))
            self._kept.extend(opened)
        else:
            connection.extras.extend(opened)
            if connection.leaked:
                self._log.leak(len(opened))
        return True

    def _close_extras(self, extras: list[int]) -> None:
        for fd in extras:
            os.close(fd)
        self._log.open_fds -= len(extras)

    def _poll(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError as error:  # no memory, or fs.epoll.max_user_watches: this client could never be read
            self._log.fail_handler(connection.at, error.errno or 0, monotonic_ns())
            self._end(connection)
            return
        connection.polled = True
        self._polled[fd] = connection

    def _end(self, connection: Connection) -> None:
        """Finish a connection: close it, or leak it."""
        if connection.leaked:
            self._keep(connection)
        else:
            self._close(connection)

    def _keep(self, connection: Connection) -> None:
        """Leak a connection: never close it, never read it again."""
        if connection.polled:
            fd = connection.sock.fileno()
            self._epoll.unregister(fd)
            del self._polled[fd]
        self._kept.append(connection.sock)
        self._kept.extend(connection.extras)

    def _close(self, connection: Connection) -> None:
        """Close a connection and its extra descriptors; a second call does nothing."""
        fd = connection.sock.fileno()
        if fd < 0:
            return
        if connection.polled:
            del self._polled[fd]
        self._close_extras(connection.extras)
        self._log.close(connection.at, monotonic_ns())
        connection.sock.close()


def wants_close(request: bytes) -> bool:
    """Return whether an HTTP request ends its connection: Connection: close, or HTTP/1.0 without keep-alive."""
    head = request.lower()
    if b"\r\nconnection:" not in head:
        return b" http/1.0\r\n" in head
    value = head.split(b"\r\nconnection:", 1)[1].split(b"\r\n", 1)[0]
    return b"close" in value


def _receive(sock: RawSocket) -> bytes | None:
    """Return received data, b"" at end of stream or reset, None if there is none.

    There is none if the epoll event was that of an earlier connection with the same descriptor.
    """
    try:
        return sock.recv(_RECEIVE_BYTES, _DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _send(sock: RawSocket, data: bytes) -> bool:
    """Send a reply of a few bytes; return False if the client has left, or if the socket buffer is full."""
    try:
        return sock.send(data, _DONTWAIT) == len(data)
    except OSError:
        return False
