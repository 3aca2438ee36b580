"""A look into the network namespace of another process: a sock_diag socket that sees it, or the reason for none.

Owns the short-lived child that enters the namespace; this process never does.
"""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

from loadsim.kernel import libc
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.kernel.sockdiag import SockDiag, open_socket

_DONE = b"d"


def namespace_of(pid: int | str, kind: str = "net") -> str:
    """Return what identifies a namespace of a process, "" where that is not permitted to be known."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except PermissionError:
        return ""
    except OSError as error:
        raise ProcessGoneError(f"process {pid} is gone") from error


def diag_of(pid: int) -> SockDiag:
    """Return a sock_diag socket of the network namespace of a process.

    Raises PermissionError where it is another one that we may not enter, and ProcessGoneError.
    """
    theirs = namespace_of(pid)
    if theirs in (namespace_of("self"), ""):
        return SockDiag()
    ours, childs = socket.socketpair()
    with ours, childs:
        child = _fork()
        if child == 0:  # pragma: no cover  # not traced behind a fork
            _visit(pid, childs)
        childs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(child, 0)
    if not fds:
        raise PermissionError(f"the network namespace of process {pid} may not be entered")
    return SockDiag(socket.socket(fileno=fds[0]))


def _fork() -> int:
    """Fork also where there are threads: the child takes no lock, and setns to a user namespace needs it alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python >= 3.12 warns of locks that other threads hold
        return os.fork()


def _visit(pid: int, answer: socket.socket) -> None:  # pragma: no cover
    """Enter, open a socket there, send it, and end without what a Python exit would do."""
    try:
        folder = Path(f"/proc/{pid}/ns")
        net = os.open(folder / "net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.enter_namespace(net, libc.CLONE_NEWNET)
        except PermissionError:  # ours by a user namespace of our own: there we are permitted
            user = os.open(folder / "user", os.O_RDONLY | os.O_CLOEXEC)
            libc.enter_namespace(user, libc.CLONE_NEWUSER)
            libc.enter_namespace(net, libc.CLONE_NEWNET)
        diag = open_socket()
        socket.send_fds(answer, [_DONE], [diag.fileno()])
    finally:
        os._exit(0)
