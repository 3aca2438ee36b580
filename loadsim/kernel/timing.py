"""A timerfd that epoll can wait for, and scheduler slices, for which Python 3.11 has no calls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from loadsim.kernel import libc

if TYPE_CHECKING:
    from collections.abc import Iterator


_libc = ctypes.CDLL(None, use_errno=True)

if sys.version_info >= (3, 13):

    def _create() -> int:
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _set(fd: int, at_ns: int) -> None:
        os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=at_ns)

else:

    class _Itimerspec(ctypes.Structure):
        _fields_ = (
            ("interval_s", ctypes.c_long),
            ("interval_ns", ctypes.c_long),
            ("value_s", ctypes.c_long),
            ("value_ns", ctypes.c_long),
        )

    _TFD_TIMER_ABSTIME = 1
    _settime = _libc.timerfd_settime
    _settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

    def _create() -> int:
        return libc.check(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

    def _set(fd: int, at_ns: int) -> None:
        spec = _Itimerspec(0, 0, *divmod(at_ns, 1_000_000_000))
        libc.check(_settime(fd, _TFD_TIMER_ABSTIME, ctypes.addressof(spec), None))


class Timer:
    """A timerfd on CLOCK_MONOTONIC, disarmed at first; `fd` becomes readable when it expires.

    Close it, or use it as a context manager.
    """

    def __init__(self) -> None:
        self.fd = _create()

    def set_at(self, monotonic_ns: int) -> None:
        """Arm it for this time, replacing any earlier one; a time in the past expires at once."""
        _set(self.fd, max(monotonic_ns, 1))  # all zero would disarm it

    def clear(self) -> None:
        """Disarm it and discard an expiry that was not drained."""
        _set(self.fd, 0)

    def drain(self) -> None:
        """Consume an expiry, after which `fd` is not readable; harmless without one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Close the descriptor; harmless the second time."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


#: The longest slice that Linux grants (kernel/sched/syscalls.c, __setparam_fair).
LONGEST_SLICE_NS = 100_000_000
_DEFAULT = 0
#: Number of sched_setattr by machine, as in `uname -m` (asm-generic/unistd.h for all but x86).
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}


class _Attributes(ctypes.Structure):
    """struct sched_attr of linux/sched/types.h, without the fields of later versions."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


@contextmanager
def giving_way() -> Iterator[None]:
    """Let any thread that wakes up preempt this one at once.

    Since Linux 6.12, a waking thread with a shorter slice preempts a thread that asked for long slices
    (kernel/sched/fair.c, PREEMPT_SHORT). Otherwise it waits for the rest of the slice, 1.4 ms on two CPUs, even
    if another CPU is idle. This needs no rights and costs this thread nothing in the long run. Children started
    meanwhile inherit it. An older kernel, or one that refuses, changes nothing.
    """
    _ask_for_slice(LONGEST_SLICE_NS)
    try:
        yield
    finally:
        _ask_for_slice(_DEFAULT)


def _ask_for_slice(nanoseconds: int) -> None:
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    attributes = _Attributes(
        size=ctypes.sizeof(_Attributes), nice=os.getpriority(os.PRIO_PROCESS, 0), runtime=nanoseconds
    )
    try:
        libc.check(_libc.syscall(number, 0, ctypes.byref(attributes), 0))
    except OSError:  # refused by a seccomp profile: keep the default
        return
