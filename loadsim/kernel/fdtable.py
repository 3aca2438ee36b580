"""The descriptors of one process joined with the kernel's TCP table: what each number is.

Owns the letters of the map and what tells them apart. Must not know which of them are a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.kernel.descriptors import (
    DEVICE,
    EPOLL,
    FILE,
    PIPE,
    SOCKET,
    TERMINAL,
    inode_in,
    kind_of_link,
    socket_protocol,
)
from loadsim.kernel.sockdiag import FAMILIES, TCP_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.kernel.procfs import Process
    from loadsim.kernel.sockdiag import SockDiag

#: Letter of the map -> what the descriptor is.
LETTERS = {
    "f": "file, directory or device",
    "p": "pipe",
    "e": "epoll",
    "t": "timer, eventfd or another kernel object",
    "s": "socket, but not TCP",
    "L": "TCP LISTEN",
    "E": "TCP ESTABLISHED",
    "W": "TCP CLOSE_WAIT: the other side has closed, this process has not",
    "T": "TCP in another state, or reset",
    ".": "free",
}
#: Kind of descriptor -> its letter; sockets are told apart by their state.
_KINDS = {FILE: "f", TERMINAL: "f", DEVICE: "f", PIPE: "p", EPOLL: "e"}
_OTHER_KIND = "t"
_STATES = {"LISTEN": "L", "ESTABLISHED": "E", "CLOSE_WAIT": "W"}
_OTHER_STATE = "T"
#: Sockets in these states belong to no descriptor, and there may be 60,000 of them.
_WITHOUT_FD = {"SYN_RECV", "NEW_SYN_RECV", "TIME_WAIT"}
_WITH_FDS = [name for name in TCP_STATES.values() if name not in _WITHOUT_FD]


class FdTable:
    """The descriptors of a process; it must be ours, or we root. Owns neither the process nor the socket."""

    def __init__(self, process: Process, diag: SockDiag, *, families: Sequence[int] = FAMILIES) -> None:
        """Read nothing yet; `diag` must be of the network namespace in which the process opens its sockets.

        A process known to have TCP sockets of one family alone is read in half the time with that.
        """
        self._process = process
        self._diag = diag
        self._families = families

    def map(self) -> str:
        """Return one letter per number, from 0 to the highest open one; see LETTERS.

        Raises ProcessGoneError, and PermissionError for processes of other users.
        """
        letters = self._letters()
        return "".join(letters.get(number, ".") for number in range(max(letters, default=-1) + 1))

    def _letters(self) -> dict[int, str]:
        """Return the letter of each open descriptor."""
        links = {number: self._process.fd_link(number) for number in self._process.fd_numbers()}
        sockets = self._diag.dump(states=_WITH_FDS, families=self._families)
        states = dict(zip(sockets["inode"].tolist(), sockets["state"].tolist(), strict=True))
        inodes = {number: inode_in(link) or 0 for number, link in links.items() if kind_of_link(link) == SOCKET}
        letters = {number: letter_of_link(link) for number, link in links.items() if link}
        return letters | {number: self._letter_of_socket(number, inode, states) for number, inode in inodes.items()}

    def _letter_of_socket(self, number: int, inode: int, states: dict[int, int]) -> str:
        """Return a socket's letter; one that was reset is in no table, but still says which protocol it speaks."""
        if inode in states:
            return _STATES.get(TCP_STATES[states[inode]], _OTHER_STATE)
        return _OTHER_STATE if socket_protocol(self._process.pid, number).startswith("TCP") else "s"


def letter_of_link(link: str) -> str:
    """Return the letter of what /proc/PID/fd/N points to, where that is no socket."""
    return _KINDS.get(kind_of_link(link), _OTHER_KIND)
