"""All processes of this machine: who they are, and which of them hold a given socket or pipe.

Owns the search through /proc. Reads only. Must not know why somebody asks.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadsim.kernel.procfs import ProcessGoneError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PROC = Path("/proc")
_UNIT = re.compile(r"[^/]+\.(?:service|scope)(?=/|$)")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_FIELD = 19  # of /proc/PID/stat, counted behind the name
_INOTIFY = "anon_inode:inotify"


class Holder(NamedTuple):
    """A descriptor of some process."""

    pid: int
    name: str
    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a process is. Names are foreign text: make them harmless before they reach a terminal."""

    pid: int
    name: str  # comm, at most 15 characters
    argv: tuple[str, ...]
    uid: int
    unit: str  # of systemd, from its cgroup; "" for none
    up_s: float

    @property
    def called(self) -> set[str]:
        """The names under which people look for it: comm, argv[0], its last part, the unit with and without suffix."""
        first = self.argv[0] if self.argv else ""
        return {self.name, first, first.rpartition("/")[2], self.unit, self.unit.rpartition(".")[0]} - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search through the descriptors of all processes found."""

    holders: dict[str, list[Holder]]  # link -> who has it, by pid and number
    unreadable: int  # processes whose descriptors only their owner or root may see
    inotify: dict[int, int]  # uid -> inotify instances found


def pids() -> list[int]:
    """Return the pids of all processes, ascending."""
    return sorted(int(name) for name in os.listdir(_PROC) if name.isdecimal())  # noqa: PTH208  # names are enough


def identify(pid: int) -> Identity:
    """Return who a process is; raises ProcessGoneError where there is none."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
        uid = (_PROC / str(pid)).stat().st_uid
    except OSError as error:
        raise ProcessGoneError(f"process {pid} is gone") from error
    command = _text(pid, "cmdline")
    name = stat[stat.index(b"(") + 1 : stat.rindex(b")")].decode(errors="backslashreplace")
    started = int(stat[stat.rindex(b")") + 2 :].split()[_START_FIELD]) / _TICKS_PER_S
    return Identity(
        pid=pid,
        name=name,
        argv=tuple(command.rstrip("\0").split("\0")) if command else (),
        uid=uid,
        unit=parse_unit(_text(pid, "cgroup")),
        up_s=max(_uptime_s() - started, 0.0),
    )


def parse_unit(cgroup: str) -> str:
    """Return the systemd unit in /proc/PID/cgroup, the innermost one; "" where there is none."""
    units = [unit for line in cgroup.splitlines() for unit in _UNIT.findall(line.rpartition(":")[2])]
    return units[-1] if units else ""


def name_of(pid: int) -> str:
    """Return the name of a process, "?" where it has ended."""
    return _text(pid, "comm").rstrip("\n") or "?"


def search(links: Collection[str], *, leave_out: int) -> Search:
    """Look for links such as "socket:[4711]" among the descriptors of all other processes; 4 us a descriptor."""
    holders: dict[str, list[Holder]] = {}
    inotify: dict[int, int] = {}
    unreadable = 0
    for pid in pids():
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


def _text(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_bytes().decode(errors="backslashreplace")
    except OSError:
        return ""


def _uptime_s() -> float:
    return float((_PROC / "uptime").read_text().split()[0])
