"""How often accept() failed with EMFILE in a process and all that descend from it: exactly, of any program.

Owns a perf counter on the return of the system call, with a filter in the kernel: no event is copied anywhere, so that
a million failures a second cost the server next to nothing. It takes the right to count (root, or
kernel.perf_event_paranoid of 1 at most) and to read the numbers of tracepoints (tracefs). Whether it works is tried
out, not assumed. accept() through io_uring is not seen. Must not know who fails, nor why.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from loadsim.kernel.perf import ACCEPTS, NotVisibleError, explained, open_event, remedy, start, tracepoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_THIS_THREAD = 0
_TRIES = 5
_libc = ctypes.CDLL(None, use_errno=True)


class EmfileCounter:
    """Counts from its making on; close it, or use it as a context manager."""

    def __init__(self, *tasks: int) -> None:
        """Count in these threads (a process without others is one), and in all that they will start.

        Raises NotVisibleError where that is not permitted, or where a trial shows that it does not work.
        """
        self._counters: list[int] = []
        with explained():
            numbers = _event_numbers()
            _try_out(numbers)
            try:
                for task in tasks:
                    self._counters += _open_all(numbers, task, errno.EMFILE)
            except OSError:
                self.close()
                raise

    @classmethod
    def of_running(cls, pids: Callable[[], Sequence[int]]) -> Self:
        """Count in all threads of processes that run already; raises NotVisibleError, too, where these never settle.

        A thread that is started between a look and the count would be missed, so they are looked at again.
        """
        for _ in range(_TRIES):
            before = _threads(pids())
            try:
                counter = cls(*before)
            except NotVisibleError as why:
                if isinstance(why.__cause__, ProcessLookupError):  # one has just ended
                    continue
                raise
            if _threads(pids()) == before:
                return counter
            counter.close()
        raise NotVisibleError("its threads come and go too fast to be counted; try again when it has less to do")

    def read(self) -> int:
        """Return how often it happened so far; 2 us."""
        return sum(_value(fd) for fd in self._counters)

    def close(self) -> None:
        """Stop counting; harmless the second time."""
        for fd in self._counters:
            os.close(fd)
        self._counters = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _threads(pids: Sequence[int]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())
    return found


def _event_numbers() -> list[int]:
    numbers = tracepoints(*(f"syscalls/sys_exit_{call}" for call in ACCEPTS))
    if not numbers:
        raise NotVisibleError("this kernel has no tracepoints of system calls; use one with CONFIG_FTRACE_SYSCALLS")
    return numbers


def _try_out(numbers: list[int]) -> None:
    """Let accept() fail once in this thread, on no socket at all, and see whether that is counted."""
    counters = _open_all(numbers, _THIS_THREAD, errno.EBADF)
    try:
        _libc.accept4(-1, None, None, 0)
        counted = sum(_value(fd) for fd in counters)
    finally:
        for fd in counters:
            os.close(fd)
    if counted != 1:
        raise NotVisibleError(f"a failure made on purpose was counted {counted} times instead of once; {remedy()}")


def _open_all(numbers: list[int], pid: int, code: int) -> list[int]:
    opened: list[int] = []
    try:
        for number in numbers:
            opened.append(open_event(number, pid=pid, condition=f"ret == -{code}"))
            start(opened[-1])
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def _value(fd: int) -> int:
    return int.from_bytes(os.read(fd, 8), "little")
