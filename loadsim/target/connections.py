"""What an accepted connection is told, and when it is closed: the serving half of the simulated server.

Owns every accepted socket and every extra descriptor until it closes them. Sockets stay in blocking mode (that saves
a system call each) and are only ever used with MSG_DONTWAIT. Must not know accept() and its policies.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from loadsim.exchange import Exchange, opening, request_end, request_number, response
from loadsim.record.events import Where

if TYPE_CHECKING:
    from loadsim.target.books import Books
    from loadsim.target.policy import Leak

#: The C type under `socket.socket`, half a microsecond cheaper per connection.
RawSocket = socket.SocketType
_DONTWAIT: Final = socket.MSG_DONTWAIT
_RECEIVE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How connections are served: the exchange, what a request opens besides, and when the server closes."""

    exchange: Exchange
    close_after_ns: int | None  # None: when the client closes
    extra_fds: int
    extra_leak: Leak | None  # which requests never close their extra descriptors

    @property
    def keeps_serving(self) -> bool:
        """Whether a connection may carry more than one request."""
        return self.close_after_ns is None and self.exchange in {Exchange.ECHO, Exchange.HTTP}


class Connection:
    """One open connection. `at` is its record (see `Books`)."""

    __slots__ = ("at", "extras", "leaked", "received", "served", "sock", "watched")

    def __init__(self, sock: RawSocket, at: int, *, leaked: bool) -> None:
        self.sock = sock
        self.at = at
        self.leaked = leaked
        self.served = False
        self.watched = False
        self.received = b""
        self.extras: list[int] = []


class Connections:
    """All connections of the server, and the epoll interest in those that may still say something."""

    def __init__(self, service: Service, books: Books, epoll: select.epoll) -> None:
        self._service = service
        self._books = books
        self._epoll = epoll
        self._greeting = opening(service.exchange)
        self._talks_first = service.exchange in {Exchange.NONE, Exchange.HELLO}
        self._plain = self._talks_first and not service.extra_fds
        self._requests = 0
        self._watched: dict[int, Connection] = {}
        self._leaving: deque[tuple[int, Connection]] = deque()  # served connections by closing time
        self._kept: list[RawSocket | int] = []  # leaked sockets and descriptors that nothing will be read from

    def admit(self, sock: RawSocket, at: int, *, leaked: bool, readable: bool) -> None:
        """Take over a connection that was just accepted; `readable` says that its first bytes have arrived."""
        if self._plain and (leaked or self._service.close_after_ns == 0):  # the shortest life: no object, no epoll
            if self._greeting:
                _send(sock, self._greeting)
            if leaked:
                self._kept.append(sock)
            else:
                self._books.close(at, monotonic_ns())
                sock.close()
            return
        connection = Connection(sock, at, leaked=leaked)
        if self._talks_first:
            self._answer(connection, b"")
        elif readable:
            self._read(connection)
        else:
            self._watch(connection)

    def on_readable(self, fd: int) -> None:
        """Serve a connection that epoll reported; one that was closed in the same batch is ignored."""
        connection = self._watched.get(fd)
        if connection is not None:
            self._read(connection)

    @property
    def next_close_ns(self) -> int | None:
        """When `close_due` has something to do."""
        return self._leaving[0][0] if self._leaving else None

    def close_due(self, now: int) -> None:
        """Close the connections that were served long enough ago."""
        leaving = self._leaving
        while leaving and leaving[0][0] <= now:
            self._close(leaving.popleft()[1])

    def give_back(self) -> None:
        """Close every descriptor held, leaked ones too, without a word in the books: the run has been judged."""
        for kept in self._kept:
            os.close(kept) if isinstance(kept, int) else kept.close()
        for connection in self._watched.values():
            connection.sock.close()
            for fd in connection.extras:
                os.close(fd)
        for held in (self._kept, self._watched, self._leaving):
            held.clear()

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_RECEIVE_BYTES, _DONTWAIT)
        except BlockingIOError:  # reported for an earlier connection with this number
            self._watch(connection)
            return
        except OSError:  # reset
            data = b""
        if not data:
            self._end(connection)
        elif connection.served and not self._service.keeps_serving:
            self._watch(connection)  # said after the answer: nobody listens any more
        else:
            connection.received += data
            self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        """Answer every complete request that has been received."""
        while length := request_end(self._service.exchange, connection.received):
            request, connection.received = connection.received[:length], connection.received[length:]
            if self._service.exchange is Exchange.ECHO and not connection.served:
                self._books.payload(connection.at, request_number(request))
            if not self._answer(connection, request):
                return
        self._watch(connection)

    def _answer(self, connection: Connection, request: bytes) -> bool:
        """Answer one request; False when the connection is done with, so that nothing more may be read from it."""
        service = self._service
        failed = service.extra_fds > 0 and not self._open_extras(connection)
        first, connection.served = not connection.served, True
        if failed and service.exchange is not Exchange.HTTP:  # such protocols can only hang up
            self._end(connection)
            return False
        close = not service.keeps_serving or wants_close(request)
        reply = response(service.exchange, request, close=close, failed=failed) if request else self._greeting
        if reply and not _send(connection.sock, reply):
            self._end(connection)
            return False
        return self._after_answer(connection) if first else True

    def _after_answer(self, connection: Connection) -> bool:
        """Arrange how a connection ends that has been served for the first time; False when it is done with."""
        close_after = self._service.close_after_ns
        if connection.leaked and not self._service.keeps_serving:
            self._keep(connection)
            return False
        if close_after == 0:
            self._close(connection)
            return False
        if close_after is not None:
            self._leaving.append((monotonic_ns() + close_after, connection))
        if self._talks_first:
            self._watch(connection)
        return True

    def _open_extras(self, connection: Connection) -> bool:
        """Open what a request needs besides its socket; False, with none of them left open, when one failed."""
        opened: list[int] = []
        try:
            for _ in range(self._service.extra_fds):
                opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                self._books.open_fds += 1
        except OSError as error:
            now = monotonic_ns()
            self._books.fail(error.errno or 0, Where.HANDLER, idle=False, first=now, last=now)
            self._books.fail_handler(connection.at)
            self._close_extras(opened)
            return False
        self._requests += 1
        leak = self._service.extra_leak
        if leak is not None and leak.takes(self._requests):
            self._books.leak_extras(len(opened))
            self._kept.extend(opened)
        else:
            connection.extras.extend(opened)
        return True

    def _close_extras(self, extras: list[int]) -> None:
        for fd in extras:
            os.close(fd)
        self._books.open_fds -= len(extras)

    def _watch(self, connection: Connection) -> None:
        if not connection.watched:
            connection.watched = True
            fd = connection.sock.fileno()
            self._watched[fd] = connection
            self._epoll.register(fd, select.EPOLLIN)

    def _end(self, connection: Connection) -> None:
        """Be done with a connection: close it, or forget to."""
        if connection.leaked:
            self._keep(connection)
        else:
            self._close(connection)

    def _keep(self, connection: Connection) -> None:
        """Never close it, never listen to it again."""
        if connection.watched:
            fd = connection.sock.fileno()
            self._epoll.unregister(fd)
            del self._watched[fd]
        self._kept.append(connection.sock)
        self._kept.extend(connection.extras)

    def _close(self, connection: Connection) -> None:
        """Close a connection and what its requests opened; closing one twice does nothing."""
        fd = connection.sock.fileno()
        if fd < 0:
            return
        if connection.watched:
            del self._watched[fd]
        self._close_extras(connection.extras)
        self._books.close(connection.at, monotonic_ns())
        connection.sock.close()


def wants_close(request: bytes) -> bool:
    """Return whether an HTTP request asks for the connection to end: Connection: close, or HTTP/1.0 without more."""
    head = request.lower()
    if b"\r\nconnection:" not in head:
        return b" http/1.0\r\n" in head
    value = head.split(b"\r\nconnection:", 1)[1].split(b"\r\n", 1)[0]
    return b"close" in value


def _send(sock: RawSocket, data: bytes) -> bool:
    """Send a reply of a few bytes; False when the client has gone, or reads so little that it does not fit."""
    try:
        return sock.send(data, _DONTWAIT) == len(data)
    except OSError:
        return False
