"""The numbers of the kernel's tracepoints, also where tracefs is mounted nowhere."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from loadsim.kernel.libc import check

_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
#: asm-generic/unistd.h: the same number on every architecture.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_libc = ctypes.CDLL(None, use_errno=True)


def open_root() -> int:
    """Return a descriptor of tracefs; where it is mounted nowhere, root can look into one all the same.

    Raises OSError where that is not permitted.
    """
    folder = next((str(path) for path in _TRACEFS if (path / "events").is_dir()), None)
    return os.open(folder, os.O_PATH | os.O_DIRECTORY) if folder else _unmounted()


def tracepoint(root: int, name: str) -> int | None:
    """Return the number of a tracepoint ("sock/inet_sock_set_state"); None where this kernel has none."""
    try:
        fd = os.open(f"events/{name}/id", os.O_RDONLY, dir_fd=root)
    except FileNotFoundError:
        return None
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


def mount_remedy() -> str:
    """Return the command that lets others than root read the numbers of tracepoints."""
    where = _TRACEFS[0]
    return f"mount -o remount,mode=755 {where}" if where.is_mount() else f"mount -t tracefs -o mode=755 none {where}"


def _unmounted() -> int:
    """Return a descriptor of a tracefs that nobody else sees."""
    context = check(_libc.syscall(_FSOPEN, b"tracefs", 1))
    try:
        check(_libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return check(_libc.syscall(_FSMOUNT, context, 1, 0))
    finally:
        os.close(context)
