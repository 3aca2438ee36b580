"""What becomes of a child of `launch` before it executes its command: namespaces, limits, the bond to its parent.

Runs without site-packages, in a process that exists for some milliseconds; imports as little as it can (`_signal` for
`signal`, whose enums would cost 5 ms). Its orders are its arguments; its answer goes through a pipe that exec closes:
nothing = the command runs, otherwise "step errno".
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows it as signal only
import os

from loadsim.kernel import libc

#: Exit status of a child that never became its command; the same as a shell's "cannot execute".
NOT_EXECUTED = 126


def main(arguments: list[str]) -> None:
    """Become the command: PARENT REPORT_FD USER_FD NET_FD SOFT HARD COMMAND...; -1 = none, as inherited."""
    parent, report, user_fd, net_fd, soft, hard = (int(number) for number in arguments[:6])
    command = arguments[6:]
    step = "setns"
    try:
        os.set_inheritable(report, False)  # noqa: FBT003  # the only spelling that the os module has
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
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # ignored by every Python, and exec would hand that on
            _signal.signal(number, _signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606  # no shell is wanted
    except (OSError, ValueError) as error:
        code = (isinstance(error, OSError) and error.errno) or 0
        try:  # noqa: SIM105  # importing contextlib costs milliseconds here
            os.write(report, f"{step} {code}".encode())
        except OSError:
            pass  # whoever started this one is gone
        os._exit(NOT_EXECUTED)


def _limit(soft: int, hard: int) -> None:
    import resource  # noqa: PLC0415  # a quarter of a millisecond that most children do not need

    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
