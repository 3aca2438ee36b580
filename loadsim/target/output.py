"""What a command writes to its standard output and error: all of it counted, its beginning and its end kept.

A server out of descriptors may write 25 MB a second: that is a result, and no reason to fill a disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Bytes kept of the beginning, and as many of the end.
KEPT: Final = 1_000_000
#: Room in the pipe: the command is not to wait for us. As much as every user may ask for (fs.pipe-max-size).
_PIPE_BYTES: Final = 1_048_576
_LAST_LINES: Final = 8
#: How often one looks how much was written, and how many readings are kept: of more than that every second one.
METERED_EVERY_S: Final = 0.1
_READINGS: Final = 400
_PATIENCE_S: Final = 1.0


class Meter:
    """How much was written by when, since the meter was made."""

    def __init__(self, written: Callable[[], int]) -> None:
        self._written = written
        self._before = written()
        self._reading_every = 1  # of the looks
        self._looks = 0
        self.readings: list[tuple[int, int]] = [(time.monotonic_ns(), 0)]  # when, and bytes until then

    @property
    def total(self) -> int:
        """Return the bytes until the last look."""
        return self.readings[-1][1]

    def read(self) -> None:
        """Look once."""
        newest = (time.monotonic_ns(), self._written() - self._before)
        if self._looks % self._reading_every:
            self.readings[-1] = newest
        else:
            self.readings.append(newest)
        self._looks += 1
        if len(self.readings) > _READINGS:
            del self.readings[1:-1:2]
            self._reading_every *= 2


class Output:
    """One stream of a command. `end` is the descriptor that the command writes to; whoever starts it closes that."""

    def __init__(self, path: Path) -> None:
        """Make the pipe and the file."""
        self.written = 0
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        ours, self.end = os.pipe()
        with contextlib.suppress(OSError):  # the user has too many large pipes already: a small one does
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._stream = trio.lowlevel.FdStream(ours)
        self._ended = trio.Event()

    async def pump(self) -> None:
        """Read all there is, until every process that could write has ended."""
        while piece := await self._stream.receive_some(_PIPE_BYTES):
            self._take(piece)
        self._ended.set()

    async def wait_end(self) -> None:
        """Wait until all has been read; at most a second, should somebody else have got hold of the pipe."""
        with trio.move_on_after(_PATIENCE_S):
            await self._ended.wait()

    def last_words(self) -> str:
        """Return its last lines, each after two spaces on a line of its own; "" where it wrote nothing."""
        kept = b"".join(self._tail) or self._path.read_bytes()
        lines = kept[-_PIPE_BYTES:].decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return "".join(f"\n  {line[:200]}" for line in lines)

    def close(self) -> None:
        """Write the end to the file, below how much is missing in between; harmless the second time."""
        if self._file.closed:
            return
        tail = b"".join(self._tail)[-KEPT:]
        if left_out := self.written - min(self.written, KEPT) - len(tail):
            self._file.write(f"\n[loadsim: {left_out:,} bytes are left out here]\n".encode())
        self._file.write(tail)
        self._file.close()

    async def aclose(self) -> None:
        """Give up reading, and `close`."""
        await self._stream.aclose()
        self.close()

    def _take(self, piece: bytes) -> None:
        room = max(KEPT - self.written, 0)
        self.written += len(piece)
        if room:
            self._file.write(piece[:room])
        if rest := piece[room:]:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) >= KEPT:
                self._tail_bytes -= len(self._tail.popleft())
