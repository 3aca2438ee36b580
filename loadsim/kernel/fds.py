"""The open descriptors of one process, and the kind of each, by a join with the kernel's TCP table."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadsim.kernel.procfs import ProcessGoneError
from loadsim.kernel.sockdiag import FAMILIES, TCP_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.kernel.procfs import Process
    from loadsim.kernel.sockdiag import SockDiag


SOCKET, PIPE, EPOLL, FILE, TERMINAL, DEVICE = "socket", "pipe", "epoll", "file", "terminal", "device"
#: Prefix of the link /proc/PID/fd/N -> kind of descriptor; the first match counts.
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
    link: str  # target of /proc/PID/fd/N
    inode: int | None  # None: it has none of its own (an epoll), or it cannot be read
    held_bytes: int = 0  # bytes on disk of a deleted file, freed by closing it


def kind_of_link(link: str) -> str:
    """Return the kind of descriptor for a target of /proc/PID/fd/N."""
    return next((kind for start, kind in _LINKS if link.startswith(start)), _OTHER)


def inode_in(link: str) -> int | None:
    """Return the inode in "socket:[4711]" or "pipe:[4711]"; None for anything else."""
    match = _IN_BRACKETS.fullmatch(link)
    return int(match[1]) if match else None


def read_descriptors(process: Process) -> list[Descriptor]:
    """Return the open descriptors in ascending order; 5 us each.

    Descriptors closed meanwhile are left out. Raises ProcessGoneError, and PermissionError for other users' processes.
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
    """Return the inode from fdinfo (Linux >= 5.14); stat() could block without end on a dead file server."""
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
    """Return the bytes on disk of a file without a name."""
    with suppress(OSError):
        found = Path(f"/proc/{pid}/fd/{number}").stat()
        return found.st_blocks * _BLOCK if found.st_nlink == 0 else 0
    return 0


def socket_protocol(pid: int, number: int) -> str:
    """Return "TCP", "TCPv6", "NETLINK" ... for a socket that is in no table; "" if it cannot be read."""
    try:
        name = os.getxattr(f"/proc/{pid}/fd/{number}", "system.sockprotoname")
    except OSError:
        return ""
    return name.rstrip(b"\0").decode()


#: Letter of the map -> kind of descriptor.
LETTERS = {
    "f": "file, directory or device",
    "p": "pipe",
    "e": "epoll",
    "t": "timer, eventfd or another kernel object",
    "s": "socket, but not TCP",
    "L": "TCP LISTEN",
    "E": "TCP ESTABLISHED",
    "W": "TCP CLOSE_WAIT: the peer has closed, this process has not",
    "T": "TCP in another state, or reset",
    ".": "free",
}
#: Kind of descriptor -> its letter; the letter of a socket depends on its state.
_KINDS = {FILE: "f", TERMINAL: "f", DEVICE: "f", PIPE: "p", EPOLL: "e"}
_OTHER_KIND = "t"
_STATES = {"LISTEN": "L", "ESTABLISHED": "E", "CLOSE_WAIT": "W"}
_OTHER_STATE = "T"
#: Sockets in these states belong to no descriptor, and there may be 60,000 of them.
_WITHOUT_FD = {"SYN_RECV", "NEW_SYN_RECV", "TIME_WAIT"}
_WITH_FDS = [name for name in TCP_STATES.values() if name not in _WITHOUT_FD]


class FdTable:
    """The descriptors of a process of this user, or of any process as root. Owns neither `process` nor `diag`."""

    def __init__(self, process: Process, diag: SockDiag, *, families: Sequence[int] = FAMILIES) -> None:
        """Read nothing yet; `diag` must be in the network namespace in which the process opens its sockets.

        With only one of the families, reading takes half the time.
        """
        self._process = process
        self._diag = diag
        self._families = families

    def map(self) -> str:
        """Return one letter for each number from 0 to the highest open one; see LETTERS.

        Raises ProcessGoneError, and PermissionError for processes of other users.
        """
        letters = self._letters()
        return "".join(letters.get(number, ".") for number in range(max(letters, default=-1) + 1))

    def _letters(self) -> dict[int, str]:

        links = {number: self._process.fd_link(number) for number in self._process.fd_numbers()}
        sockets = self._diag.dump(states=_WITH_FDS, families=self._families)
        states = dict(zip(sockets["inode"].tolist(), sockets["state"].tolist(), strict=True))
        inodes = {number: inode_in(link) or 0 for number, link in links.items() if kind_of_link(link) == SOCKET}
        letters = {number: letter_of_link(link) for number, link in links.items() if link}
        return letters | {number: self._letter_of_socket(number, inode, states) for number, inode in inodes.items()}

    def _letter_of_socket(self, number: int, inode: int, states: dict[int, int]) -> str:
        # a reset socket is in no table, but its protocol can still be read
        if inode in states:
            return _STATES.get(TCP_STATES[states[inode]], _OTHER_STATE)
        return _OTHER_STATE if socket_protocol(self._process.pid, number).startswith("TCP") else "s"


def letter_of_link(link: str) -> str:
    """Return the letter for a target of /proc/PID/fd/N, except for sockets."""
    return _KINDS.get(kind_of_link(link), _OTHER_KIND)
