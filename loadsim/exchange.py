"""The protocols that a connection can speak, on both sides, as bytes in and bytes out.

Sans-I/O: no socket, no clock, no state. `driver` speaks the client's half, `simulated` the server's.
"""

from __future__ import annotations

import enum
import struct

#: A "hello" server sends this byte as soon as it has accepted a client.
HELLO = b"!"
_NUMBER = struct.Struct("!Q")
_HEAD_END = b"\r\n\r\n"
_REQUEST = b"GET %b HTTP/1.1\r\nHost: loadsim\r\nUser-Agent: loadsim\r\nConnection: %b\r\n\r\n"
#: The answer of the simulated server to a raw request whose client expects no particular answer.
_ANY_ANSWER = b"ok\n"
#: A longer request head is answered as if it were complete; clients of loadsim never send one.
_HEAD_LIMIT = 65_536


class Exchange(enum.StrEnum):
    """The exchanges that a scenario can choose."""

    NONE = "none"
    HELLO = "hello"
    ECHO = "echo"
    HTTP = "http"
    RAW = "raw"


def opening(exchange: Exchange) -> bytes:
    """Return the bytes that the server sends right after accept(); b"" if it waits for the client."""
    return HELLO if exchange is Exchange.HELLO else b""


def request(exchange: Exchange, number: int, path: str = "/", *, send: str = "", keep: bool = False) -> bytes:
    """Return the client's request; for echo it is the attempt's number as 8 bytes, big-endian.

    `path` is the path of an HTTP request, ASCII without spaces. `send` is a whole raw request. `keep` announces further
    requests on the same connection.
    """
    if exchange is Exchange.ECHO:
        return _NUMBER.pack(number)
    if exchange is Exchange.RAW:
        return send.encode()
    connection = b"keep-alive" if keep else b"close"
    return _REQUEST % (path.encode(), connection) if exchange is Exchange.HTTP else b""


def partial(request: bytes, portion: str) -> bytes:
    """Return the part of a request that a client sends: "whole", "half" (the first half), or "none" (b"")."""
    return {"whole": request, "half": request[: len(request) // 2], "none": b""}[portion]


def request_end(exchange: Exchange, received: bytes) -> int:
    """Return the length of the first request in the received bytes, 0 while it is incomplete.

    A raw request has no known end, so all bytes received so far count as one request.
    """
    if exchange is Exchange.ECHO:
        return _NUMBER.size if len(received) >= _NUMBER.size else 0
    if exchange is Exchange.HTTP:
        end = received.find(_HEAD_END)
        if end < 0:
            return len(received) if len(received) > _HEAD_LIMIT else 0
        return end + len(_HEAD_END)
    return len(received) if exchange is Exchange.RAW else 0


def request_number(received: bytes) -> int:
    """Return the attempt number that an echo request carries."""
    return int(_NUMBER.unpack_from(received)[0])


def response(exchange: Exchange, received: bytes, *, close: bool, failed: bool = False, expected: str = "") -> bytes:
    """Return the server's answer to one complete request; `failed` means that its handler ran out of descriptors.

    `close` says whether the server closes the connection after the answer (HTTP announces it). A failed request of
    echo, hello or raw gets no answer, because these protocols cannot report an error. `expected` is the answer that a
    raw client expects.
    """
    if exchange is Exchange.HTTP:
        status, body = ("500 Internal Server Error", b"out of file descriptors\n") if failed else ("200 OK", b"ok\n")
        connection = "close" if close else "keep-alive"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Connection: {connection}\r\n\r\n".encode() + body
    if failed:
        return b""
    if exchange is Exchange.RAW:
        return expected.encode() or _ANY_ANSWER
    return received if exchange is Exchange.ECHO else b""


class Reply(enum.Enum):
    """The client's judgement of the bytes that it has received so far."""

    INCOMPLETE = enum.auto()
    OK = enum.auto()
    ERROR = enum.auto()


def judge(exchange: Exchange, received: bytes, number: int, expected: str = "") -> Reply:
    """Return whether the reply is complete and good: the greeting, the client's own number, or an HTTP status < 400.

    An HTTP reply is complete after its head and Content-Length bytes of body, or after its head if it gives no length.
    A raw reply must begin with `expected`; if that is "", any byte is a good reply.
    """
    if exchange is Exchange.HTTP:
        return _judge_http(received)
    if exchange is Exchange.RAW:
        return _judge_raw(received, expected.encode())
    wanted = HELLO if exchange is Exchange.HELLO else request(exchange, number)
    if len(received) < len(wanted):
        return Reply.INCOMPLETE
    return Reply.OK if received.startswith(wanted) else Reply.ERROR


def _judge_raw(received: bytes, expected: bytes) -> Reply:
    """Return ERROR at the first different byte; a wrong answer may be shorter than the expected one."""
    if not expected.startswith(received[: len(expected)]):
        return Reply.ERROR
    return Reply.OK if len(received) >= max(len(expected), 1) else Reply.INCOMPLETE


def _judge_http(received: bytes) -> Reply:
    end = received.find(_HEAD_END)
    if end < 0:
        return Reply.INCOMPLETE
    head = received[:end].lower()
    mark = head.find(b"\r\ncontent-length:")
    if mark >= 0:
        length = head[mark + 17 :].split(b"\r\n", 1)[0].strip()
        if length.isdigit() and len(received) < end + len(_HEAD_END) + int(length):
            return Reply.INCOMPLETE
    status = head[9:12]
    return Reply.OK if head.startswith(b"http/1.") and status.isdigit() and status < b"400" else Reply.ERROR
