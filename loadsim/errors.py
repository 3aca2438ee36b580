"""The errors that loadsim raises on purpose, the exit code that each one means, and what the kernel's own say.

Every message names the place and ends with the remedy. What goes wrong in the thing under test is data, never an
exception.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class LoadsimError(Exception):
    """Anything that loadsim can explain; `exit_code` is what the command line returns for it."""

    exit_code = 1


class ScenarioError(LoadsimError):
    """The command line or the scenario is wrong; nothing was started."""

    exit_code = 2


class EnvironmentRefusedError(LoadsimError):
    """This host or the target cannot run it: a limit, a sysctl, a namespace, a port, a server that did not start."""

    exit_code = 3


class DidNotStartError(EnvironmentRefusedError):
    """The command under test was started, and did not come to listen, or to stay: about it, not about this host."""


class RecordingError(LoadsimError):
    """A result folder cannot be read: it is missing, damaged or of a newer format."""

    exit_code = 2


_MEMORY = "free memory, or raise its limit (ulimit -v, MemoryMax=, that of the container)"
_SPACE = "free space there, or choose another folder with --out DIR"
_PERMISSION = "see to its permissions, or to what a seccomp profile or a container forbids"
_NETWORK = "this kernel, or a seccomp profile, is without what loadsim needs of the network"
#: What the kernel may refuse loadsim itself -> the remedy. An errno that is not here would be a mistake of ours.
_REMEDIES = {
    errno.EMFILE: "loadsim itself is out of descriptors: raise its limit (ulimit -n 1024, LimitNOFILE=)",
    errno.ENFILE: "this host is out of open files: end what holds them, or raise fs.file-max",
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
    errno.EAGAIN: "no more processes are permitted: raise their limit (ulimit -u, TasksMax=, pids.max)",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit of the size of files (ulimit -f)",
    errno.EROFS: "choose another folder with --out DIR",
    errno.ENOENT: "something has removed it, or the folder around it: leave a result alone until its run has ended, "
    "or choose another folder with --out DIR",
    errno.ENOTDIR: "something has replaced it: leave a result alone until its run has ended",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOSYS: "this kernel is too old, or a seccomp profile forbids it",
    errno.EAFNOSUPPORT: _NETWORK,
    errno.EPROTONOSUPPORT: _NETWORK,
    errno.EADDRNOTAVAIL: "give the loopback interface its address again (ip link set lo up)",
    errno.EIO: "the disk or the terminal failed: dmesg says more",
}


def explanation(raised: BaseException) -> LoadsimError | None:
    """Return an error, or a group of them, as one that says what to do; None where that would hide a mistake of ours.

    Of several the first that loadsim raised on purpose counts, else the first refusal of the kernel.
    """
    leaves = list(_leaves(raised))
    own = [error for error in leaves if isinstance(error, LoadsimError)]
    refused = [error for error in map(_refusal, leaves) if error]
    if len(own) + len(refused) < len(leaves):
        return None
    return (own + refused)[0]


def innermost(error: BaseException) -> BaseException:
    """Return the one error in a group of groups; trio's nurseries wrap what is raised in them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in groups, and under trio's wrapping of what hits itself (not imported here: it is slow)."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    elif type(error).__name__ == "TrioInternalError" and error.__cause__ is not None:
        yield from _leaves(error.__cause__)
    else:
        yield error


def _refusal(error: BaseException) -> LoadsimError | None:
    """Return what the kernel refused loadsim itself, None where it is something else."""
    if isinstance(error, ImportError) and "map segment" in str(error):  # what the loader says without memory
        error = MemoryError()
    while isinstance(error, OSError) and error.errno not in _REMEDIES and isinstance(error.__context__, OSError):
        error = error.__context__  # trio's epoll tries once more after a refusal, and that fails as a mistake would
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    place = error.filename if "/" in str(error.filename) else "the kernel refused loadsim something"
    return EnvironmentRefusedError(f"{place}: {os.strerror(error.errno)}; {_REMEDIES[error.errno]}")
