"""perf_event_open by hand, for tracepoints: how one is opened, and the words for where that is not permitted.

Owns the structures of linux/perf_event.h. Must not know what is counted or traced.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import struct
import time
from typing import TYPE_CHECKING, Final

from loadsim.kernel.libc import check
from loadsim.kernel.tracefs import mount_remedy, open_root, tracepoint

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The calls that accept; a kernel without the older one does without.
ACCEPTS: Final = ("accept4", "accept")
ANY: Final = -1

#: perf_event_attr up to sample_max_stack (PERF_ATTR_SIZE_VER5): type, size, config, period, sample type, read format,
#: flags, wake-up, breakpoint type, config1, config2, branches, user registers, user stack, clock, and three more.
_ATTRIBUTES: Final = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
_TRACEPOINT = 2
_DISABLED, _INHERIT, _USE_CLOCKID = 1 << 0, 1 << 1, 1 << 25
_CLOEXEC = 8
_SET_FILTER, _ENABLE = 0x40082406, 0x2400
_SYSTEM_CALLS = {"x86_64": 298, "aarch64": 241}
_libc = ctypes.CDLL(None, use_errno=True)


class NotVisibleError(Exception):
    """It cannot be seen here; the message is a clause that says why, and ends with the remedy."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise NotVisibleError for what the kernel refuses in this block."""
    try:
        yield
    except OSError as error:
        raise NotVisibleError(f"the kernel refuses it ({error.strerror}); {remedy()}") from error


def remedy() -> str:
    """Return the command that would permit it: to count, and to read which numbers the tracepoints have."""
    return f"sudo sysctl kernel.perf_event_paranoid=-1 && sudo {mount_remedy()}, or run loadsim as root"


def tracepoints(*names: str) -> list[int]:
    """Return the numbers of those of these tracepoints that there are ("syscalls/sys_exit_accept4")."""
    root = open_root()
    try:
        return [number for name in names if (number := tracepoint(root, name)) is not None]
    finally:
        os.close(root)


def open_event(number: int, *, pid: int = ANY, processor: int = ANY, sampled: int = 0, condition: str) -> int:
    """Return a descriptor that counts a tracepoint, or samples it where `sampled` says what of it; `condition` filters.

    Of one task and all that it will start, or of every task on one processor. Samples carry CLOCK_MONOTONIC.
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
    """Let an event count or sample from now on."""
    fcntl.ioctl(fd, _ENABLE, 0)
