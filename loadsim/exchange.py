"""What a connection says, on both sides, as bytes in and bytes out.

Sans-io: no socket, no clock, no state. `load` speaks the client's half, `target` the server's.
"""

from __future__ import annotations

import enum
import struct

#: The byte with which a "hello" server greets a client that it has accepted.
HELLO = b"!"
_NUMBER = struct.Struct("!Q")
_HEAD_END = b"\r\n\r\n"
_REQUEST = b"GET %b HTTP/1.1\r\nHost: loadsim\r\nUser-Agent: loadsim\r\nConnection: %b\r\n\r\n"
#: What the simulated server answers under raw where a client expects nothing in particular.
_ANY_ANSWER = b"ok\n"
#: A request head longer than this is answered as if it were complete: no client of ours sends one.
_HEAD_LIMIT = 65_536


class Exchange(enum.StrEnum):
    """The conversations a scenario can ask for."""

    NONE = "none"
    HELLO = "hello"
    ECHO = "echo"
    HTTP = "http"
    RAW = "raw"


def opening(exchange: Exchange) -> bytes:
    """Return what the server says as soon as it has accepted, b"" where it waits for the client."""
    return HELLO if exchange is Exchange.HELLO else b""


def request(exchange: Exchange, number: int, path: str = "/", *, send: str = "", keep: bool = False) -> bytes:
    """Return what the client says once connected; under echo it is the attempt's number, 8 bytes, big-endian.

    `path` is what HTTP asks for, ASCII without spaces, `send` all that raw says; `keep`: more requests will follow on
    the same connection.
    """
    if exchange is Exchange.ECHO:
        return _NUMBER.pack(number)
    if exchange is Exchange.RAW:
        return send.encode()
    connection = b"keep-alive" if keep else b"close"
    return _REQUEST % (path.encode(), connection) if exchange is Exchange.HTTP else b""


def partial(request: bytes, portion: str) -> bytes:
    """Return what a client says of its request: "whole", "half" (its first half, then no more), or "none" of it."""
    return {"whole": request, "half": request[: len(request) // 2], "none": b""}[portion]


def request_end(exchange: Exchange, received: bytes) -> int:
    """Return how many of the received bytes the first request takes, 0 while it is incomplete.

    Under raw nobody knows where one ends: whatever has arrived is one.
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

    `close` says whether the server will end the connection after it (HTTP announces that). A failed echo, hello or raw
    answers nothing: such protocols have no way to say so. `expected` is what a client of raw wants to hear.
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
    """What the client makes of the bytes it has received so far."""

    INCOMPLETE = enum.auto()
    OK = enum.auto()
    ERROR = enum.auto()


def judge(exchange: Exchange, received: bytes, number: int, expected: str = "") -> Reply:
    """Return whether the reply is complete and good: the greeting, the client's own number, or an HTTP status < 400.

    An HTTP reply counts as complete at the end of its head and Content-Length bytes of body, or at its head where no
    length is given. Under raw it has to begin with what is `expected`, any byte where that is "".
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
    """Return ERROR as soon as the answer differs: one that is shorter than expected may be all that comes."""
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
