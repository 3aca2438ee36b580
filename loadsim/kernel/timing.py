"""A timerfd that epoll can wait for, and the scheduler's slice: times that Python has no call for."""

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
    _libc = ctypes.CDLL(None, use_errno=True)
    _settime = _libc.timerfd_settime
    _settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

    def _create() -> int:
        return libc.check(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

    def _set(fd: int, at_ns: int) -> None:
        spec = _Itimerspec(0, 0, *divmod(at_ns, 1_000_000_000))
        libc.check(_settime(fd, _TFD_TIMER_ABSTIME, ctypes.addressof(spec), None))


class Timer:
    """A timerfd on CLOCK_MONOTONIC, unset at first; `fd` is readable once its time has come.

    Close it, or use it as a context manager.
    """

    def __init__(self) -> None:
        self.fd = _create()

    def set_at(self, monotonic_ns: int) -> None:
        """Have it expire at this time, at once if that is past; replaces what was set before."""
        _set(self.fd, max(monotonic_ns, 1))  # all zero would disarm it

    def clear(self) -> None:
        """Unset it; an expiry that nobody has drained is forgotten."""
        _set(self.fd, 0)

    def drain(self) -> None:
        """Take note of an expiry, so that `fd` is not readable any more; harmless when there was none."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Give the descriptor back; harmless the second time."""
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
#: Number of sched_setattr by what `uname -m` says (asm-generic/unistd.h for all but x86).
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_libc = ctypes.CDLL(None, use_errno=True)


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
    """Let whoever wakes up take the CPU from this thread at once, whatever it is doing.

    From Linux 6.12 on a thread that asks for long slices is preempted by each that wakes up with a shorter one
    (kernel/sched/fair.c, PREEMPT_SHORT). Otherwise that one waits for the rest of the slice, 1.4 ms on two CPUs, even
    where another CPU is idle. Needs no rights and costs this thread nothing in the long run. Children that are started
    meanwhile inherit it. Nothing happens where the kernel is older or refuses.
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
    except OSError:  # a seccomp profile: then all goes on as usual
        return
