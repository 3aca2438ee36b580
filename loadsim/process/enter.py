"""Prepares a child of `launch` before it executes its command: namespaces, limits, death with its parent.

Runs without site-packages in a process that lives for milliseconds, so it imports as little as possible (`_signal`, not
`signal` with its enums, which cost 5 ms). Its orders are its arguments. Its reply goes through a pipe that exec closes:
an empty reply means that the command runs; any other is "step errno".
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows it as signal only
import os

from loadsim.kernel import libc

#: Exit status of a child that did not execute its command, as in a shell.
NOT_EXECUTED = 126


def main(arguments: list[str]) -> None:
    """Execute the command: PARENT REPORT_FD USER_FD NET_FD SOFT HARD COMMAND...; -1 means none or inherited."""
    parent, report, user_fd, net_fd, soft, hard = (int(number) for number in arguments[:6])
    command = arguments[6:]
    step = "setns"
    try:
        os.set_inheritable(report, False)  # noqa: FBT003  # it is positional-only
        for fd, kind in ((user_fd, libc.CLONE_NEWUSER), (net_fd, libc.CLONE_NEWNET)):
            if fd >= 0:
                libc.enter_namespace(fd, kind)
                os.close(fd)
        step = "parent"
        libc.die_with_parent(parent)
        step = "nofile"
        if soft >= 0:
            _limit(soft, hard)
        step = "exec"
        libc.shrink_fd_table()
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them, and exec would keep that
            _signal.signal(number, _signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606  # no shell is wanted
    except (OSError, ValueError) as error:
        code = (isinstance(error, OSError) and error.errno) or 0
        try:  # noqa: SIM105  # importing contextlib costs milliseconds here
            os.write(report, f"{step} {code}".encode())
        except OSError:
            pass  # the parent has ended
        os._exit(NOT_EXECUTED)


def _limit(soft: int, hard: int) -> None:
    import resource  # noqa: PLC0415  # a quarter of a millisecond, and most children do not need it

    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
