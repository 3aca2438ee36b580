"""Counts calls that failed with EMFILE in a process tree, through perf_event_open on the kernel's tracepoints."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from loadsim.kernel.libc import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: The system calls that accept; some architectures lack the older one.
ACCEPTS: Final = ("accept4", "accept")
ANY: Final = -1

_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
#: asm-generic/unistd.h: the same number on every architecture.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6

#: perf_event_attr up to sample_max_stack (PERF_ATTR_SIZE_VER5): type, size, config, period, sample type, read format,
#: flags, wake-up, breakpoint type, config1, config2, branches, user registers, user stack, clock, and three more.
_ATTRIBUTES: Final = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
_TRACEPOINT = 2
_DISABLED, _INHERIT, _USE_CLOCKID = 1 << 0, 1 << 1, 1 << 25
_CLOEXEC = 8
_SET_FILTER, _ENABLE = 0x40082406, 0x2400
_SYSTEM_CALLS = {"x86_64": 298, "aarch64": 241}
_THIS_THREAD = 0
_TRIES = 5
_libc = ctypes.CDLL(None, use_errno=True)


class NotVisibleError(Exception):
    """Tracing does not work here; the message is a clause with the reason, and ends with the remedy."""


class EmfileCounter:
    """Counts from its creation; close it, or use it as a context manager."""

    def __init__(self, *tasks: int) -> None:
        """Count in these threads (a pid is the first thread of its process) and in all tasks that they will start.

        Raises NotVisibleError if that is not permitted, or if a trial fails.
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
        """Count in all threads of running processes; raises NotVisibleError also if their threads change too fast.

        A thread that starts between the listing and the count would be missed, so the threads are listed twice.
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
        raise NotVisibleError("its threads start and end too fast; try again when the server is less busy")

    def read(self) -> int:
        """Return the number of failures so far; 2 us."""
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


def open_event(number: int, *, pid: int = ANY, processor: int = ANY, sampled: int = 0, condition: str) -> int:
    """Return a descriptor that counts a tracepoint, or samples the fields in `sampled`; `condition` filters.

    It covers one task and all tasks that it will start, or every task on one processor. Samples use CLOCK_MONOTONIC.
    """
    call = _SYSTEM_CALLS.get(platform.machine())
    if call is None:
        raise NotVisibleError(f"loadsim does not know perf_event_open on {platform.machine()}; use x86-64 or arm64")
    flags = _DISABLED | (_USE_CLOCKID if sampled else _INHERIT)
    clock = time.CLOCK_MONOTONIC if sampled else 0
    attributes = _ATTRIBUTES.pack(
        _TRACEPOINT, _ATTRIBUTES.size, number, int(sampled > 0), sampled, 0, flags, *(0,) * 7, clock, *(0,) * 4
    )
    fd = check(_libc.syscall(call, attributes, pid, processor, -1, _CLOEXEC))
    try:
        fcntl.ioctl(fd, _SET_FILTER, condition.encode() + b"\0")
    except OSError:
        os.close(fd)
        raise
    return fd


def start(fd: int) -> None:
    """Start counting or sampling."""
    fcntl.ioctl(fd, _ENABLE, 0)


def tracepoints(*names: str) -> list[int]:
    """Return the numbers of these tracepoints ("syscalls/sys_exit_accept4") without the ones this kernel lacks."""
    root = _open_tracefs()
    try:
        return [number for name in names if (number := _tracepoint(root, name)) is not None]
    finally:
        os.close(root)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise NotVisibleError for an OSError in this block."""
    try:
        yield
    except OSError as error:
        raise NotVisibleError(f"the kernel refuses it ({error.strerror}); {remedy()}") from error


def remedy() -> str:
    """Return the command that permits counting and reading the numbers of tracepoints."""
    return f"sudo sysctl kernel.perf_event_paranoid=-1 && sudo {_mount_remedy()}, or run loadsim as root"


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
    """Make accept() fail once in this thread, on a descriptor of -1, and check that the failure is counted."""
    counters = _open_all(numbers, _THIS_THREAD, errno.EBADF)
    try:
        _libc.accept4(-1, None, None, 0)
        counted = sum(_value(fd) for fd in counters)
    finally:
        for fd in counters:
            os.close(fd)
    if counted != 1:
        raise NotVisibleError(f"a test failure was counted {counted} times instead of once; {remedy()}")


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


def _tracepoint(root: int, name: str) -> int | None:
    """Return the number of a tracepoint ("sock/inet_sock_set_state"); None if this kernel lacks it."""
    try:
        fd = os.open(f"events/{name}/id", os.O_RDONLY, dir_fd=root)
    except FileNotFoundError:
        return None
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


def _open_tracefs() -> int:
    """Return a descriptor of tracefs; root gets one even if tracefs is not mounted.

    Raises OSError if that is not permitted.
    """
    folder = next((str(path) for path in _TRACEFS if (path / "events").is_dir()), None)
    return os.open(folder, os.O_PATH | os.O_DIRECTORY) if folder else _mount_private()


def _mount_private() -> int:
    """Return a descriptor of a private tracefs mount."""
    context = check(_libc.syscall(_FSOPEN, b"tracefs", 1))
    try:
        check(_libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return check(_libc.syscall(_FSMOUNT, context, 1, 0))
    finally:
        os.close(context)


def _mount_remedy() -> str:
    """Return the command that lets all users read the numbers of tracepoints."""
    where = _TRACEFS[0]
    return f"mount -o remount,mode=755 {where}" if where.is_mount() else f"mount -t tracefs -o mode=755 none {where}"
