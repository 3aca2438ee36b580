"""The system calls that Python 3.11 has no name for, through ctypes.

Owns the constants and the error handling. Imports little: it is loaded by processes that should start in
milliseconds, before their descriptors are limited.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os

#: sched.h: the namespaces that loadsim makes and enters.
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

#: linux/capability.h: who has it may raise a hard limit.
CAP_SYS_RESOURCE = 24

_CLONE_FILES = 0x400
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9  # importing signal costs 5 ms
_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    """Return the result of a libc call, or raise the OSError that its -1 stands for."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; raises ProcessLookupError if it has.

    `parent` is the pid of that process: it may have ended before the request was in force, and then this process has
    been given to another parent already. The request does not survive a change of credentials, so it comes after
    setns; it survives exec.
    """
    check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        raise OSError(errno.ESRCH, f"the process that started this one, {parent}, is gone")


def enter_namespace(fd: int, kind: int) -> None:
    """Enter the namespace of this kind (a CLONE_NEW... constant) that the descriptor refers to."""
    check(_libc.setns(fd, kind))


def leave_namespaces(kinds: int) -> None:
    """Leave for new namespaces of these kinds; CLONE_NEWUSER needs a process of one thread."""
    check(_libc.unshare(kinds))


def shrink_fd_table() -> None:
    """Give this process an fd table of the smallest size that holds what is open, usually 64 slots, where permitted.

    A fork copies the size in use, so that one high descriptor of the conductor, inherited from whoever started it,
    would give every child 256 slots or more. The kernel makes a new table only for who shares one (kernel/fork.c,
    unshare_fd): hence the thread, which ends with the next exec.
    """
    forever = _thread.allocate_lock()
    forever.acquire()
    _thread.start_new_thread(forever.acquire, ())
    _libc.unshare(_CLONE_FILES)  # containers may refuse it: then the table keeps the conductor's size


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, instead of init: none of them can get away."""
    check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def drop_capability(number: int) -> None:
    """Take a capability (a CAP_... constant) out of all sets of this thread, for good: exec gives it back to nobody.

    What this process may not take away it does not have either: the bounding set matters to root alone.
    """
    _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for numbers from 32 on
    check(_libc.capget(header, sets))
    for which in range(3):
        sets[3 * (number // 32) + which] &= ~(1 << number % 32)
    check(_libc.capset(header, sets))
