"""All processes of this machine, and one process tree read as a unit: holders of a socket, CPU, memory."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypedDict

import psutil

from loadsim.kernel.fds import FdTable
from loadsim.kernel.procfs import Process, ProcessGoneError
from loadsim.kernel.sockdiag import ListenerState
from loadsim.units import backlog_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from loadsim.kernel.limits import Limits
    from loadsim.kernel.sockdiag import SockDiag


_PROC = Path("/proc")
_UNIT = re.compile(r"[^/]+\.(?:service|scope)(?=/|$)")
_INOTIFY = "anon_inode:inotify"


class Holder(NamedTuple):
    """A descriptor of a process."""

    pid: int
    name: str
    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of a process. They are untrusted text: escape them before they reach a terminal."""

    pid: int
    name: str  # comm, which the kernel cuts at 15 characters, completed from argv[0]
    argv: tuple[str, ...]
    unit: str  # systemd unit, from its cgroup; "" for none

    @property
    def called(self) -> set[str]:
        """The names for a search: comm, argv[0] with and without folder, the unit with and without suffix."""
        first = self.argv[0] if self.argv else ""
        return {self.name, first, first.rpartition("/")[2], self.unit, self.unit.rpartition(".")[0]} - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Names):
    """A process with its names, its owner and its age."""

    uid: int  # owner of /proc/PID, with the right to read its descriptors: root if the process is not dumpable
    up_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The result of a search through the descriptors of all processes."""

    holders: dict[str, list[Holder]]  # link -> its holders, by pid and number
    unreadable: int  # number of processes with descriptors that only their owner or root may read
    inotify: dict[int, int]  # uid -> number of inotify instances found


def names_of(pid: int) -> Names:
    """Return the names of a process; raises ProcessGoneError if it has ended or may not be read."""
    with _translated(pid):
        return Names(**_names(psutil.Process(pid)))


def identify(pid: int) -> Identity:
    """Return the identity of a process; raises ProcessGoneError like `names_of`.

    Do not call it for all processes: each call makes psutil read /proc/stat, which is long on a host with many CPUs.
    """
    with _translated(pid):
        process = psutil.Process(pid)
        # since boot: a difference of wall-clock times would inherit the whole seconds of the boot time
        started_s = process.create_time() - psutil.boot_time()
        up_s = max(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s, 0.0)
        return Identity(**_names(process), uid=(_PROC / str(pid)).stat().st_uid, up_s=up_s)


@contextmanager
def _translated(pid: int) -> Iterator[None]:
    try:
        yield
    except (psutil.Error, FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGoneError(f"process {pid} is gone") from error


class _Names(TypedDict):
    pid: int
    name: str
    argv: tuple[str, ...]
    unit: str


def _names(process: psutil.Process) -> _Names:
    with process.oneshot():
        name, argv = _readable(process.name()), tuple(_readable(word) for word in process.cmdline())
    return _Names(pid=process.pid, name=name, argv=argv, unit=parse_unit(_cgroup(process.pid)))


def parse_unit(cgroup: str) -> str:
    """Return the innermost systemd unit in /proc/PID/cgroup; "" if there is none."""
    units = [unit for line in cgroup.splitlines() for unit in _UNIT.findall(line.rpartition(":")[2])]
    return units[-1] if units else ""


def name_of(pid: int) -> str:
    """Return the name of a process; "?" if it has ended."""
    try:
        return _readable(psutil.Process(pid).name())
    except psutil.Error:
        return "?"


def search(links: Collection[str], *, leave_out: int) -> Search:
    """Search the descriptors of all other processes for links such as "socket:[4711]"; 4 us a descriptor."""
    holders: dict[str, list[Holder]] = {}
    inotify: dict[int, int] = {}
    unreadable = 0
    for pid in psutil.pids():
        if pid == leave_out:
            continue
        try:
            found, instances = _search_one(pid, links)
        except PermissionError:
            unreadable += 1
            continue
        name = name_of(pid) if found else ""
        for link, numbers in found.items():
            holders.setdefault(link, []).extend(Holder(pid, name, number) for number in sorted(numbers))
        if instances:
            with suppress(OSError):
                uid = (_PROC / str(pid)).stat().st_uid
                inotify[uid] = inotify.get(uid, 0) + instances
    return Search(holders=holders, unreadable=unreadable, inotify=inotify)


def _search_one(pid: int, links: Collection[str]) -> tuple[dict[str, list[int]], int]:
    """Return the numbers of a process's descriptors for each link, and its number of inotify instances."""
    found: dict[str, list[int]] = {}
    instances = 0
    for number, link in _links(pid):
        if link in links:
            found.setdefault(link, []).append(int(number))
        elif link == _INOTIFY:
            instances += 1
    return found, instances


def _links(pid: int) -> Iterator[tuple[str, str]]:
    """Yield number and link of each descriptor until the process ends; raises PermissionError."""
    try:
        folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return
    try:
        for number in os.listdir(folder):  # noqa: PTH208  # a descriptor, not a path
            with suppress(FileNotFoundError, ProcessLookupError):
                yield number, os.readlink(number, dir_fd=folder)
    except (FileNotFoundError, ProcessLookupError):
        return
    finally:
        os.close(folder)


def _cgroup(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cgroup").read_text(errors="backslashreplace")
    except OSError:  # no cgroups here, or the process has ended
        return ""


def _readable(text: str) -> str:
    r"""Return text with bytes that are not UTF-8 as "\xff"; psutil keeps them as surrogates, which JSON forbids."""
    return os.fsencode(text).decode(errors="backslashreplace")


#: Interval between listings of the tree, and between reads of the descriptors of a process without the listener.
_REFRESH_NS: Final = 100_000_000
_SEARCH_NS: Final = 1_000_000_000


class _Member:
    """One process of the tree; `holds` is the descriptor of its listener, -1 for none."""

    def __init__(self, process: Process, diag: SockDiag) -> None:
        self.process = process
        self.parent = process.parent()
        self.table = FdTable(process, diag)
        self.holds = -1
        self.searched_ns = 0


class ProcessGroup:
    """The process tree of the server under test; close it, or use it as a context manager."""

    def __init__(self, pids: Callable[[], Sequence[int]], diag: SockDiag, *, address: str, port: int) -> None:
        """Read nothing yet; `pids` returns the processes of the tree, `diag` is in the namespace of their sockets."""
        self._pids = pids
        self._diag = diag
        self._address = address
        self._port = port
        self._members: dict[int, _Member] = {}
        self._spent: dict[int, int] = {}  # CPU time by pid, also of ended processes
        self._listeners: list[int] = []  # inodes
        self._refreshed_ns = 0
        self._worker_parents: frozenset[int] = frozenset()  # parents of the workers at the mark
        self.workers = 0  # processes that held the listener at the mark
        self.lost_workers = 0  # workers that have ended since the mark, their replacements included

    @property
    def pid(self) -> int:
        """The process that all readings describe. Every reading raises ProcessGoneError if no process is left."""
        return self._fullest().process.pid

    def pids(self) -> Sequence[int]:
        """Return all processes of the tree now."""
        return self._pids()

    def holders(self) -> list[int]:
        """Return the processes that hold the listener now."""
        self._refresh()
        return [pid for pid, member in self._members.items() if member.holds >= 0]

    def mark(self) -> None:
        """Count the processes that hold the listener now as the server's workers.

        A later holder with the same parent replaces a worker. A child of a worker is not a worker: it serves one
        connection and ends with it. A holder that ends while its child goes on is not one either: it started a daemon.
        """
        holders = self.holders()
        self.workers = len(holders)
        self._worker_parents = frozenset(self._members[pid].parent for pid in holders)

    def open_fds(self) -> int:
        """Return the number of open descriptors of the holder that has the most."""
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
        """Return one letter for each of its descriptors, like `FdTable.map`."""
        return self._fullest().table.map()

    def cpu_ns(self) -> int:
        """Return the CPU time of all processes so far, ended ones included; it never shrinks."""
        for pid, member in self._current().items():
            try:
                self._spent[pid] = member.process.cpu_ns()
            except ProcessGoneError:
                continue
        return sum(self._spent.values())

    def run_wait_ns(self) -> int:
        """Return the total time for which the first threads of the listener's holders waited for a CPU.

        -1 if the kernel does not measure it. It shrinks when one of them ends.
        """
        waited = [_run_wait(member.process) for member in self._current().values() if member.holds >= 0]
        return -1 if not waited or min(waited) < 0 else sum(waited)

    def rss(self) -> int:
        """Return the sum of the resident memory of all processes; shared pages count once for each."""
        return sum(_rss(member.process) for member in self._current().values())

    def listener(self) -> ListenerState | None:
        """Return the listener, or the sum of all that share the port; None without one."""
        if len(self._listeners) <= 1:
            return self._diag.listener(self._address, self._port)
        return _sum([one for one in self._diag.listeners(self._port) if one.inode in self._listeners])

    def close(self) -> None:
        """Close the descriptors; harmless the second time."""
        for member in self._members.values():
            member.process.close()
        self._members.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fullest(self) -> _Member:
        """Return the holder with the most open descriptors, or any process if none holds the listener."""
        fullest = self._choose()
        if fullest is None:
            self._refresh()
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
        if time.monotonic_ns() - self._refreshed_ns >= _REFRESH_NS:
            self._refresh()
        return self._members

    def _refresh(self) -> None:
        """Read the processes of the tree and the holders of the listener again."""
        self._refreshed_ns = time.monotonic_ns()
        self._listeners = [one.inode for one in self._diag.listeners(self._port)]
        pids = self._pids()
        for pid in self._members.keys() - set(pids):
            member = self._members.pop(pid)
            member.process.close()
            started_another = pid in {one.parent for one in self._members.values() if one.holds >= 0}
            self.lost_workers += member.holds >= 0 and member.parent in self._worker_parents and not started_another
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
        if member.holds < 0 and self._refreshed_ns - member.searched_ns < _SEARCH_NS:
            return
        member.searched_ns = self._refreshed_ns
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
    """Return the sum of a SO_REUSEPORT group; a client is dropped when the queue of its own socket is full."""
    if not listeners:
        return None
    return ListenerState(
        queue=sum(one.queue for one in listeners),
        backlog=backlog_for(sum(one.queue_capacity for one in listeners)),
        drops=sum(one.drops for one in listeners),
        inode=listeners[0].inode,
        uid=listeners[0].uid,
    )
