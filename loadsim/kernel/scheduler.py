"""How the scheduler treats the calling thread, where Python has no name for it.

Owns one system call; must not know who calls it, or why.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loadsim.kernel import libc

if TYPE_CHECKING:
    from collections.abc import Iterator

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
