"""Restrictions for one process and its descendants: seccomp filters, capabilities, mounts, limits.

Each function returns a function to call in a new process before it executes its command (`before` of
`faulty_runs`). The host is not changed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from typing import TYPE_CHECKING

import pytest

from loadsim.kernel import libc

if TYPE_CHECKING:
    from collections.abc import Callable

CAP_DAC_OVERRIDE, CAP_SYS_PTRACE = 1, 19
#: Numbers of the system calls that tests refuse, by machine (asm/unistd.h).
_CALLS = {
    "x86_64": {"socket": 41, "unshare": 272, "perf_event_open": 298},
    "aarch64": {"socket": 198, "unshare": 97, "perf_event_open": 241},
}
_MACHINE = _CALLS.get(platform.machine(), {})
# linux/bpf_common.h, linux/seccomp.h, linux/prctl.h
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_CALL_AT, _FIRST_ARGUMENT_AT = 0, 16
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_CLONE_NEWNS = 0x00020000

needs_seccomp = pytest.mark.skipif(not _MACHINE, reason=f"the system calls of {platform.machine()} are not known here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set up the restriction")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def without(call: str, first: int | None = None, error: int = errno.EPERM) -> Callable[[], None]:
    """Refuse a system call, or only calls with this first argument (the family of socket(2))."""
    refuse = (_RETURN, 0, 0, _REFUSE | error)
    steps = [(_LOAD, 0, 0, _CALL_AT), (_JUMP_IF_EQUAL, 0, 1 if first is None else 3, _MACHINE[call])]
    if first is not None:
        steps += [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_JUMP_IF_EQUAL, 0, 1, first)]
    code = b"".join(struct.pack("=HBBI", *step) for step in (*steps, refuse, (_RETURN, 0, 0, _ALLOW)))

    def install() -> None:
        buffer = ctypes.create_string_buffer(code)
        program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
        libc.check(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        libc.check(_libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0))

    return install


def without_capabilities(*numbers: int) -> Callable[[], None]:
    """Drop capabilities permanently."""

    def drop() -> None:
        for number in numbers:
            libc.drop_capability(number)

    return drop


def with_limit(which: int, most: int) -> Callable[[], None]:
    """Set a soft and a hard limit (resource.RLIMIT_...)."""
    return lambda: resource.setrlimit(which, (most, most))


def with_hidden_processes() -> None:
    """Mount a /proc that hides other users' processes, in a new mount namespace, and drop CAP_SYS_PTRACE."""
    libc.leave_namespaces(_CLONE_NEWNS)
    private = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC: the host does not see these mounts
    libc.check(_libc.mount(None, b"/", None, private, None))
    libc.check(_libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=2"))
    libc.drop_capability(CAP_SYS_PTRACE)


def without_network() -> None:
    """Move to a new network namespace without a loopback that is up."""
    libc.leave_namespaces(libc.CLONE_NEWNET)
