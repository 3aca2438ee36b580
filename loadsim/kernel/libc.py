"""The system calls that Python 3.11 lacks, through ctypes.

Owns the constants and the error handling. Imports little, because processes load it that should start in
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

#: linux/capability.h: the right to raise a hard limit.
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
    """Return the result of a libc call; raise OSError from errno if it is -1."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that started it ends; ProcessLookupError if it has ended.

    `parent` is the pid of that process. If it ended before the request took effect, this process already has another
    parent. A change of credentials cancels the request, so call this after setns; exec does not cancel it.
    """
    check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        raise OSError(errno.ESRCH, f"the parent of this process, {parent}, has ended")


def enter_namespace(fd: int, kind: int) -> None:
    """Enter the namespace of this kind (a CLONE_NEW... constant) that the descriptor refers to."""
    check(_libc.setns(fd, kind))


def leave_namespaces(kinds: int) -> None:
    """Move this process to new namespaces of these kinds; CLONE_NEWUSER needs a single-threaded process."""
    check(_libc.unshare(kinds))


def shrink_fd_table() -> None:
    """Shrink the fd table of this process to the smallest size that holds its descriptors, usually 64 slots.

    A fork copies the size in use, so one high descriptor that the conductor inherited would give every child 256 slots
    or more. The kernel makes a new table only if the old one is shared (kernel/fork.c, unshare_fd): hence the thread,
    which ends with the next exec.
    """
    forever = _thread.allocate_lock()
    forever.acquire()
    _thread.start_new_thread(forever.acquire, ())
    _libc.unshare(_CLONE_FILES)  # a container may refuse it; then the table keeps the conductor's size


def adopt_orphans() -> None:
    """Become the parent, instead of init, of every descendant orphaned from now on, so none can escape."""
    check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def drop_capability(number: int) -> None:
    """Remove a capability (a CAP_... constant) from all sets of this thread permanently: exec does not restore it.

    Errors of the first two calls are ignored: only root has a use for the bounding set, and root may change it.
    """
    _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for numbers from 32 on
    check(_libc.capget(header, sets))
    for which in range(3):
        sets[3 * (number // 32) + which] &= ~(1 << number % 32)
    check(_libc.capset(header, sets))
