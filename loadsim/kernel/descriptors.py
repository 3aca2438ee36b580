"""The open descriptors of one process as /proc shows them: number, link, inode, and the kind that the link tells.

Owns the words for kinds. Sockets are told apart elsewhere, by the kernel's tables. Must not know other processes.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadsim.kernel.procfs import ProcessGoneError

if TYPE_CHECKING:
    from loadsim.kernel.procfs import Process

SOCKET, PIPE, EPOLL, FILE, TERMINAL, DEVICE = "socket", "pipe", "epoll", "file", "terminal", "device"
#: How the link of /proc/PID/fd/N begins -> the kind of descriptor; the first that fits.
_LINKS = (
    ("socket:", SOCKET),
    ("pipe:", PIPE),
    ("anon_inode:[eventpoll]", EPOLL),
    ("anon_inode:[eventfd", "eventfd"),
    ("anon_inode:[timerfd]", "timerfd"),
    ("anon_inode:[signalfd]", "signalfd"),
    ("anon_inode:inotify", "inotify"),
    ("anon_inode:[pidfd]", "pidfd"),
    ("pidfd:", "pidfd"),
    ("anon_inode:[io_uring]", "io_uring"),
    ("/dev/pts/", TERMINAL),
    ("/dev/tty", TERMINAL),
    ("/dev/console", TERMINAL),
    ("/dev/shm/", FILE),  # noqa: S108  # a prefix to recognize, nothing is opened
    ("/dev/", DEVICE),
    ("/", FILE),
)
_OTHER = "other"
_DELETED = " (deleted)"
_IN_BRACKETS = re.compile(r"(?:socket|pipe):\[(\d+)\]")
_FDINFO_BYTES = 1024
_BLOCK = 512


class Descriptor(NamedTuple):
    """One open descriptor."""

    number: int
    kind: str
    link: str  # what /proc/PID/fd/N points to
    inode: int | None  # None: it has none of its own, as an epoll, or it cannot be read
    held_bytes: int = 0  # of a deleted file: what closing it frees


def kind_of_link(link: str) -> str:
    """Return what kind of descriptor /proc/PID/fd/N points to."""
    return next((kind for start, kind in _LINKS if link.startswith(start)), _OTHER)


def inode_in(link: str) -> int | None:
    """Return the inode in "socket:[4711]" or "pipe:[4711]", None for anything else."""
    match = _IN_BRACKETS.fullmatch(link)
    return int(match[1]) if match else None


def read_descriptors(process: Process) -> list[Descriptor]:
    """Return the open descriptors, ascending; 5 us each.

    One that is closed meanwhile is left out. Raises ProcessGoneError, and PermissionError for processes of others.
    """
    read = []
    for number in process.fd_numbers():
        link = process.fd_link(number)
        if link:
            read.append(_descriptor(process.pid, number, link))
    if not read and not process.alive():
        raise ProcessGoneError(f"process {process.pid} has ended")
    return read


def _descriptor(pid: int, number: int, link: str) -> Descriptor:
    kind = kind_of_link(link)
    if kind in (SOCKET, PIPE):
        return Descriptor(number, kind, link, inode_in(link))
    inode = _inode_of_file(pid, number) if link.startswith("/") else None
    held = _held_bytes(pid, number) if kind == FILE and link.endswith(_DELETED) else 0
    return Descriptor(number, kind, link, inode, held)


def _inode_of_file(pid: int, number: int) -> int | None:
    """Return the inode as fdinfo tells it (Linux >= 5.14): stat() could wait for ever on a dead file server."""
    with suppress(OSError):
        fd = os.open(f"/proc/{pid}/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for line in os.read(fd, _FDINFO_BYTES).splitlines():
                if line.startswith(b"ino:"):
                    return int(line[4:])
        finally:
            os.close(fd)
    return None


def _held_bytes(pid: int, number: int) -> int:
    """Return the bytes on disk of a file that has no name any more."""
    with suppress(OSError):
        found = Path(f"/proc/{pid}/fd/{number}").stat()
        return found.st_blocks * _BLOCK if found.st_nlink == 0 else 0
    return 0


def socket_protocol(pid: int, number: int) -> str:
    """Return "TCP", "TCPv6", "NETLINK" ... of a socket that is in no table; "" where it cannot be told."""
    try:
        name = os.getxattr(f"/proc/{pid}/fd/{number}", "system.sockprotoname")
    except OSError:
        return ""
    return name.rstrip(b"\0").decode()
