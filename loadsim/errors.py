"""The errors that loadsim raises on purpose, their exit codes, and sentences for errors of the kernel.

Every message names the place and ends with the remedy. A failure of the server under test is data, never an exception.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


#: The exit status of a run in which a threshold does not hold, or `abort` ended it.
EXIT_THRESHOLD = 99


class LoadsimError(Exception):
    """An error that loadsim can explain; the command line exits with `exit_code`."""

    exit_code = 1


def status_of_run(*, complete: bool, met: bool) -> int:
    """Return the exit status of a run; `met`: every threshold holds. An INCONCLUSIVE run has none of its own."""
    if not met:
        return EXIT_THRESHOLD
    return 0 if complete else LoadsimError.exit_code


class ScenarioError(LoadsimError):
    """The command line or the scenario is wrong; nothing was started."""

    exit_code = 2


class EnvironmentRefusedError(LoadsimError):
    """This host or the target cannot run the scenario: a limit, a sysctl, a namespace, a port, a failed start."""

    exit_code = 3


class DidNotStartError(EnvironmentRefusedError):
    """The command under test was started, but it did not listen or did not stay: its fault, not this host's."""


class RecordingError(LoadsimError):
    """A result folder cannot be read: it is missing, damaged or of a newer format."""

    exit_code = 2


_MEMORY = "free memory, or raise its limit (ulimit -v, MemoryMax=, the limit of the container)"
_SPACE = "free space there, or choose another folder with --out DIR"
_PERMISSION = "fix its permissions, or allow it in the seccomp profile or the container"
_NETWORK = "use a kernel and a seccomp profile with the network families that loadsim needs"
#: Errno of a refusal by the kernel -> the remedy. Any other errno is a bug in loadsim.
_REMEDIES = {
    errno.EMFILE: "loadsim itself is out of descriptors: raise its limit (ulimit -n 1024, LimitNOFILE=)",
    errno.ENFILE: "this host is out of open files: end the processes that hold them, or raise fs.file-max",
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
    errno.EAGAIN: "the limit of processes is reached: raise it (ulimit -u, TasksMax=, pids.max)",
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "choose another folder with --out DIR",
    errno.ENOENT: "it or its folder was removed: do not touch a result before its run has ended, or choose another "
    "folder with --out DIR",
    errno.ENOTDIR: "it was replaced: do not touch a result before its run has ended",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOSYS: "use a newer kernel, or allow it in the seccomp profile",
    errno.EAFNOSUPPORT: _NETWORK,
    errno.EPROTONOSUPPORT: _NETWORK,
    errno.EADDRNOTAVAIL: "give the loopback interface its address again (ip link set lo up)",
    errno.EIO: "the disk or the terminal failed: see dmesg",
}


def explanation(raised: BaseException) -> LoadsimError | None:
    """Return one error with its remedy for an error or a group of errors; None if any of them is a bug in loadsim.

    In a group, the first error that loadsim raised on purpose wins, then the first refusal by the kernel.
    """
    leaves = list(_leaves(raised))
    own = [error for error in leaves if isinstance(error, LoadsimError)]
    refused = [error for error in map(_refusal, leaves) if error]
    if len(own) + len(refused) < len(leaves):
        return None
    return (own + refused)[0]


def innermost(error: BaseException) -> BaseException:
    """Return the single error inside nested groups; trio's nurseries wrap each error that is raised in them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in groups and in trio's internal errors (trio is not imported here: that is slow)."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif type(error).__name__ == "TrioInternalError" and error.__cause__ is not None:
        yield from _leaves(error.__cause__)
    else:
        yield error


def _refusal(error: BaseException) -> LoadsimError | None:
    """Return a refusal by the kernel with its remedy; None for any other error."""
    if isinstance(error, ImportError) and "map segment" in str(error):  # the loader's message when memory is exhausted
        error = MemoryError()
    while isinstance(error, OSError) and error.errno not in _REMEDIES and isinstance(error.__context__, OSError):
        error = error.__context__  # trio's epoll retries after a refusal, and the second error hides the first
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    place = error.filename if "/" in str(error.filename) else "the kernel refused loadsim something"
    return EnvironmentRefusedError(f"{place}: {os.strerror(error.errno)}; {_REMEDIES[error.errno]}")
