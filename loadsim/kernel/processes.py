"""All processes of this machine: their identity, and the holders of a given socket or pipe.

psutil gives pids, names, command lines and start times. Descriptors are read here, because psutil follows only regular
files. Reads only. Must not know the purpose of a search.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import psutil

from loadsim.kernel.procfs import ProcessGoneError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PROC = Path("/proc")
_UNIT = re.compile(r"[^/]+\.(?:service|scope)(?=/|$)")
_INOTIFY = "anon_inode:inotify"


class Holder(NamedTuple):
    """A descriptor of some process."""

    pid: int
    name: str
    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of a process. They are foreign text: make them harmless before they reach a terminal."""

    pid: int
    name: str  # comm; where the kernel cut it at 15 characters, completed from argv[0]
    argv: tuple[str, ...]
    unit: str  # of systemd, from its cgroup; "" for none

    @property
    def called(self) -> set[str]:
        """The names by which people search for it: comm, argv[0], its last part, the unit with and without suffix."""
        first = self.argv[0] if self.argv else ""
        return {self.name, first, first.rpartition("/")[2], self.unit, self.unit.rpartition(".")[0]} - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Names):
    """A process with its names, its owner and its age."""

    uid: int  # the owner of /proc/PID, who may read its descriptors: root where the process is not dumpable
    up_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search through the descriptors of all processes found."""

    holders: dict[str, list[Holder]]  # link -> who has it, by pid and number
    unreadable: int  # processes whose descriptors only their owner or root may see
    inotify: dict[int, int]  # uid -> inotify instances found


def names_of(pid: int) -> Names:
    """Return the names of a process; raises ProcessGoneError for one that has ended, or that may not be read."""
    with _translated(pid):
        return Names(**_names(psutil.Process(pid)))


def identify(pid: int) -> Identity:
    """Return the identity of a process; raises ProcessGoneError as `names_of`.

    For one process only: each start time makes psutil read all of /proc/stat, which is long on a host with many CPUs.
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
    """Return the systemd unit in /proc/PID/cgroup, the innermost one; "" where there is none."""
    units = [unit for line in cgroup.splitlines() for unit in _UNIT.findall(line.rpartition(":")[2])]
    return units[-1] if units else ""


def name_of(pid: int) -> str:
    """Return the name of a process, "?" for one that has ended."""
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
    """Return the numbers under which a process has the links, and how many inotify instances it has."""
    found: dict[str, list[int]] = {}
    instances = 0
    for number, link in _links(pid):
        if link in links:
            found.setdefault(link, []).append(int(number))
        elif link == _INOTIFY:
            instances += 1
    return found, instances


def _links(pid: int) -> Iterator[tuple[str, str]]:
    """Yield number and link of each descriptor; raises PermissionError, ends early where the process does."""
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
