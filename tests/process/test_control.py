"""The control channel distinguishes a closed channel from other errors of the kernel."""

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
def test_a_closed_channel_is_not_an_error(unread: bytes) -> None:
    """Reading from a closed channel returns None, even if unread data reset it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    ours.send(unread)
    theirs.close()
    assert trio.run(_close_unread, ours) is None


def test_an_error_of_the_kernel_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError is raised with its context: trio repeats a refused epoll_ctl, and that fails differently."""
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
