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
import fcntl
import os
import platform
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Self

from loadsim.kernel.libc import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Its calls; a kernel without the older one does without.
_CALLS = ("accept4", "accept")
_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

#: linux/perf_event.h: the first 64 bytes of perf_event_attr (PERF_ATTR_SIZE_VER0): type, size, config, period, sample
#: type, read format, flags, wake-up, breakpoint type, config1.
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
_TYPE_TRACEPOINT = 2
_DISABLED, _INHERIT = 1, 2
_FD_CLOEXEC = 8
_SET_FILTER, _ENABLE = 0x40082406, 0x2400
_SYSTEM_CALLS = {"x86_64": 298, "aarch64": 241}
#: asm-generic/unistd.h: the same number on every architecture.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_THIS_THREAD = 0
_TRIES = 5
_libc = ctypes.CDLL(None, use_errno=True)


class NotVisibleError(Exception):
    """It cannot be counted here; the message is a clause that says why, and ends with the remedy."""


class EmfileCounter:
    """Counts from its making on; close it, or use it as a context manager."""

    def __init__(self, *tasks: int) -> None:
        """Count in these threads (a process without others is one), and in all that they will start.

        Raises NotVisibleError where that is not permitted, or where a trial shows that it does not work.
        """
        self._counters: list[int] = []
        with _explained():
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


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotVisibleError(f"the kernel refuses it ({error.strerror}); {_remedy()}") from error


def _remedy() -> str:
    """Return the command that would permit it: to count, and to read which numbers the tracepoints have."""
    where = _TRACEFS[0]
    mount = f"mount -o remount,mode=755 {where}" if where.is_mount() else f"mount -t tracefs -o mode=755 none {where}"
    return f"sudo sysctl kernel.perf_event_paranoid=-1 && sudo {mount}, or run loadsim as root"


def _event_numbers() -> list[int]:
    """Return the numbers of the tracepoints; where tracefs is mounted nowhere, root can look into one all the same."""
    folder = next((str(path) for path in _TRACEFS if (path / "events").is_dir()), None)
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY) if folder else _unmounted_tracefs()
    numbers = []
    try:
        for call in _CALLS:
            with contextlib.suppress(FileNotFoundError):
                numbers.append(_number(root, call))
    finally:
        os.close(root)
    if not numbers:
        raise NotVisibleError("this kernel has no tracepoints of system calls; use one with CONFIG_FTRACE_SYSCALLS")
    return numbers


def _number(root: int, call: str) -> int:
    fd = os.open(f"events/syscalls/sys_exit_{call}/id", os.O_RDONLY, dir_fd=root)
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


def _unmounted_tracefs() -> int:
    """Return a descriptor of a tracefs that nobody else sees."""
    context = check(_libc.syscall(_FSOPEN, b"tracefs", 1))
    try:
        check(_libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return check(_libc.syscall(_FSMOUNT, context, 1, 0))
    finally:
        os.close(context)


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
        raise NotVisibleError(f"a failure made on purpose was counted {counted} times instead of once; {_remedy()}")


def _open_all(numbers: list[int], pid: int, code: int) -> list[int]:
    opened: list[int] = []
    try:
        for number in numbers:
            opened.append(_open(number, pid))
            fcntl.ioctl(opened[-1], _SET_FILTER, f"ret == -{code}\0".encode())
            fcntl.ioctl(opened[-1], _ENABLE, 0)
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def _open(number: int, pid: int) -> int:
    call = _SYSTEM_CALLS.get(platform.machine())
    if call is None:
        raise NotVisibleError(f"loadsim does not know perf_event_open on {platform.machine()}; use x86-64 or arm64")
    flags = _DISABLED | _INHERIT
    attributes = _ATTRIBUTES.pack(_TYPE_TRACEPOINT, _ATTRIBUTES.size, number, 0, 0, 0, flags, 0, 0, 0)
    return check(_libc.syscall(call, attributes, pid, -1, -1, _FD_CLOEXEC))


def _value(fd: int) -> int:
    return int.from_bytes(os.read(fd, 8), "little")
