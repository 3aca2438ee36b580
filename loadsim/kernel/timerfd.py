"""A timer that epoll can wait for, to the microsecond.

epoll's own time-out counts whole milliseconds and rounds up. Owns one descriptor; knows nothing of what is due.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from typing import Self

from loadsim.kernel import libc

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
