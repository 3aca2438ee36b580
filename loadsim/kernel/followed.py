"""The processes of a tree that matter, sample by sample: who holds the listener, and what all of them take.

Read like one process (`procfs.Process`, `fdtable.FdTable`): descriptors and limits are those of the fullest process
that holds the listening socket, CPU time and memory those of the whole tree. Workers come and go meanwhile. Owns the
/proc entries it keeps open. Must not know why anybody is followed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from loadsim.kernel.fdtable import FdTable
from loadsim.kernel.procfs import Process, ProcessGoneError
from loadsim.kernel.sockdiag import ListenerState
from loadsim.units import backlog_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadsim.kernel.limits import Limits
    from loadsim.kernel.sockdiag import SockDiag

#: How often new processes are looked for, and how often the descriptors of those that hold no listener are read again.
_LOOK_NS: Final = 100_000_000
_SEARCH_NS: Final = 1_000_000_000


class _Member:
    """One process of the tree; `holds` is the descriptor of its listener, -1 = it has none."""

    def __init__(self, process: Process, diag: SockDiag) -> None:
        self.process = process
        self.parent = process.parent()
        self.table = FdTable(process, diag)
        self.holds = -1
        self.searched_ns = 0


class Followed:
    """The tree under test; close it, or use it as a context manager."""

    def __init__(self, pids: Callable[[], Sequence[int]], diag: SockDiag, *, address: str, port: int) -> None:
        """Read nothing yet; `pids` returns the processes of the tree, `diag` sees their sockets."""
        self._pids = pids
        self._diag = diag
        self._address = address
        self._port = port
        self._members: dict[int, _Member] = {}
        self._spent: dict[int, int] = {}  # CPU time by pid, of the ended ones too
        self._listeners: list[int] = []  # inodes
        self._looked_ns = 0
        self._staff: frozenset[int] = frozenset()  # the parents of those that held the listener at the mark
        self.workers = 0  # processes that held the listener at the mark
        self.lost_workers = 0  # those of them, and of who took their place, that are gone

    @property
    def pid(self) -> int:
        """The process whose descriptors are read; raises ProcessGoneError as every reading, when nobody is left."""
        return self._fullest().process.pid

    def pids(self) -> Sequence[int]:
        """Return all processes of the tree, looked for now."""
        return self._pids()

    def holders(self) -> list[int]:
        """Return the processes that hold the listener, looked for now."""
        self._look()
        return [pid for pid, member in self._members.items() if member.holds >= 0]

    def mark(self) -> None:
        """Take whoever holds the listener now for the server's workers.

        Who comes later and has the same parent has taken a place. Who is the child of a worker serves one connection
        and ends with it: no worker. Neither is the parent of one that goes on: it only started a daemon.
        """
        holders = self.holders()
        self.workers = len(holders)
        self._staff = frozenset(self._members[pid].parent for pid in holders)

    def open_fds(self) -> int:
        """Return how many descriptors the fullest holder has open."""
        return self._fullest().process.open_fds()

    def limits(self) -> Limits:
        """Return its RLIMIT_NOFILE."""
        return self._fullest().process.limits()

    def fd_size(self) -> int:
        """Return the slots of its fd table."""
        return self._fullest().process.fd_size()

    def threads(self) -> int:
        """Return its number of threads."""
        return self._fullest().process.threads()

    def map(self) -> str:
        """Return one letter for each of its descriptors, as `FdTable.map`."""
        return self._fullest().table.map()

    def cpu_ns(self) -> int:
        """Return the CPU time of all processes that were ever seen: it never shrinks."""
        for pid, member in self._current().items():
            try:
                self._spent[pid] = member.process.cpu_ns()
            except ProcessGoneError:
                continue
        return sum(self._spent.values())

    def run_wait_ns(self) -> int:
        """Return how long the first threads of the processes that hold the listener waited for a CPU, in all.

        -1 where the kernel does not say. It shrinks where one of them ends.
        """
        waited = [_run_wait(member.process) for member in self._current().values() if member.holds >= 0]
        return -1 if not waited or min(waited) < 0 else sum(waited)

    def rss(self) -> int:
        """Return the resident memory of all of them together; what they share counts for each."""
        return sum(_rss(member.process) for member in self._current().values())

    def listener(self) -> ListenerState | None:
        """Return the accept queue; where several sockets share the port, their sum. None: nobody listens."""
        if len(self._listeners) <= 1:
            return self._diag.listener(self._address, self._port)
        return _sum([one for one in self._diag.listeners(self._port) if one.inode in self._listeners])

    def close(self) -> None:
        """Give the descriptors back; harmless the second time."""
        for member in self._members.values():
            member.process.close()
        self._members.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fullest(self) -> _Member:
        """Return the holder with the most descriptors open; of all processes, while nobody holds the listener."""
        fullest = self._choose()
        if fullest is None:
            self._look()
            fullest = self._choose()
        if fullest is None:
            raise ProcessGoneError("no process of the server is left")
        return fullest

    def _choose(self) -> _Member | None:
        found: _Member | None = None
        most = (False, -1)
        for member in self._current().values():
            try:
                rank = (member.holds >= 0, member.process.open_fds())
            except ProcessGoneError:
                continue
            if rank > most:
                found, most = member, rank
        return found

    def _current(self) -> dict[int, _Member]:
        if time.monotonic_ns() - self._looked_ns >= _LOOK_NS:
            self._look()
        return self._members

    def _look(self) -> None:
        """Look for processes that have come or gone, and for who holds the listener."""
        self._looked_ns = time.monotonic_ns()
        self._listeners = [one.inode for one in self._diag.listeners(self._port)]
        pids = self._pids()
        for pid in self._members.keys() - set(pids):
            member = self._members.pop(pid)
            member.process.close()
            started_another = pid in {one.parent for one in self._members.values() if one.holds >= 0}
            self.lost_workers += member.holds >= 0 and member.parent in self._staff and not started_another
        for pid in pids:
            try:
                member = self._members.get(pid) or _Member(Process(pid), self._diag)
                self._members[pid] = member
                self._search(member)
            except (ProcessGoneError, PermissionError):  # gone, or of another user: it stays in the sums
                continue

    def _search(self, member: _Member) -> None:
        links = {f"socket:[{inode}]" for inode in self._listeners}
        if member.holds >= 0 and member.process.fd_link(member.holds) in links:
            return
        if member.holds < 0 and self._looked_ns - member.searched_ns < _SEARCH_NS:
            return
        member.searched_ns = self._looked_ns
        numbers = member.process.fd_numbers()
        member.holds = next((fd for fd in numbers if member.process.fd_link(fd) in links), -1)


def _run_wait(process: Process) -> int:
    try:
        return process.run_wait_ns()
    except ProcessGoneError:
        return 0


def _rss(process: Process) -> int:
    try:
        return process.rss()
    except ProcessGoneError:
        return 0


def _sum(listeners: Sequence[ListenerState]) -> ListenerState | None:
    """Return the queues of one SO_REUSEPORT group as one; a client is dropped where its own socket is full."""
    if not listeners:
        return None
    return ListenerState(
        queue=sum(one.queue for one in listeners),
        backlog=backlog_for(sum(one.queue_capacity for one in listeners)),
        drops=sum(one.drops for one in listeners),
        inode=listeners[0].inode,
        uid=listeners[0].uid,
    )
