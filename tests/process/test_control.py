"""The control channel: who is gone is told apart from what the kernel refuses."""

from __future__ import annotations

import errno
import socket
from typing import NoReturn

import pytest
import trio

from loadsim.process.control import Channel, Message


async def _close_unread(other: socket.socket) -> Message | None:
    async with Channel(other) as channel:
        return await channel.receive()


@pytest.mark.parametrize("unread", [b"", b"never read\n"], ids=["end of file", "reset"])
def test_who_is_gone_has_said_all(unread: bytes) -> None:
    """Also where it left something unread, which resets the connection: no message, no error."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    ours.send(unread)
    theirs.close()
    assert trio.run(_close_unread, ours) is None


def test_a_refusal_of_the_kernel_is_no_end_of_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised as it is, with what led to it: trio repeats a refused epoll_ctl, and that fails in another way."""
    repeated = OSError(errno.EEXIST, "repeated")
    repeated.__context__ = OSError(errno.ENOMEM, "refused")

    async def refuse(*_: object) -> NoReturn:
        raise repeated

    async def converse() -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        with theirs:
            async with Channel(ours) as channel:
                monkeypatch.setattr(channel._stream.socket, "recv", refuse)
                monkeypatch.setattr(channel._stream.socket, "send", refuse)
                with pytest.raises(OSError, match="repeated"):
                    await channel.receive()
                with pytest.raises(OSError, match="repeated"):
                    await channel.send({"do": "go"})

    trio.run(converse)
    assert isinstance(repeated.__context__, OSError)
    assert repeated.__context__.errno == errno.ENOMEM
