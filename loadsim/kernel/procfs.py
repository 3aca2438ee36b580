"""One process in /proc: open descriptors, limits, CPU time, memory, and the TCP counters of its namespace."""

from __future__ import annotations

import errno
import os
import re
import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from loadsim.kernel.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable


_T = TypeVar("_T")

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_BYTES = 8192  # /proc/PID/status takes 1.5 KB, the others less
_NOFILE = re.compile(rb"^Max open files +(\S+) +(\S+)", re.MULTILINE)
#: Errors for a process that has ended: no entry, no such process, no such clock.
_GONE = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
_ENDED = b"ZX"  # states in /proc/PID/stat: a zombie has no descriptors any more


class ProcessGoneError(Exception):
    """The process has ended or never existed."""


class Process:
    """A process by its pid; close it, or use it as a context manager.

    Every reading raises ProcessGoneError after its end. A zombie, which has ended but is not reaped yet, has
    neither descriptors nor memory, but its CPU time can still be read.
    """

    def __init__(self, pid: int) -> None:
        """Open its /proc entries; raises ProcessGoneError if there are none."""
        self.pid = pid
        # posix-timers.h: the CPU clock of a process, including its ended threads, exact to the nanosecond
        self._cpu_clock = (~pid << 3) | 2
        with ExitStack() as opened:
            self._folder = self._keep(opened, f"/proc/{pid}", os.O_DIRECTORY | os.O_PATH, None)
            # O_PATH needs no right to read the folder; its size is public, its content is not
            self._fds = self._keep(opened, "fd", os.O_DIRECTORY | os.O_PATH, self._folder)
            self._stat = self._keep(opened, "stat", os.O_RDONLY, self._folder)
            self._statm = self._keep(opened, "statm", os.O_RDONLY, self._folder)
            self._status = self._keep(opened, "status", os.O_RDONLY, self._folder)
            self._limits = self._keep(opened, "limits", os.O_RDONLY, self._folder)
            self._schedstat = self._keep_if_any(opened, "schedstat")
            self._opened = opened.pop_all()

    def open_fds(self) -> int:
        """Return the number of open descriptors; 1 us at any number since Linux 6.2, a listing before."""
        number = _ask(lambda: os.fstat(self._fds).st_size)
        if number:
            return number
        self._raise_if_ended()
        return len(self.fd_numbers())

    def fd_numbers(self) -> list[int]:
        """Return the open descriptors in ascending order; 0.9 us each. May raise PermissionError."""
        folder = _ask(lambda: os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder))
        try:
            return sorted(map(int, _ask(lambda: os.listdir(folder))))  # noqa: PTH208  # a descriptor, not a path
        finally:
            os.close(folder)

    def fd_link(self, number: int) -> str:
        """Return the link of a descriptor, "socket:[4711]" or a path; "" if it is closed. 3.4 us."""
        try:
            return os.readlink(str(number), dir_fd=self._fds)
        except FileNotFoundError:
            return ""

    def limits(self) -> Limits:
        """Return its RLIMIT_NOFILE."""
        return parse_nofile(_read(self._limits))

    def cpu_ns(self) -> int:
        """Return the user and system CPU time of all its threads so far."""
        return _ask(lambda: time.clock_gettime_ns(self._cpu_clock))

    def run_wait_ns(self) -> int:
        """Return how long its first thread was ready to run but waited for a CPU.

        -1 if the kernel does not measure it (CONFIG_SCHED_INFO). A wait counts when it is over.
        """
        return -1 if self._schedstat is None else parse_run_wait(_read(self._schedstat))

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        return int(_read(self._statm).split()[1]) * _PAGE

    def fd_size(self) -> int:
        """Return the slots of its fd table, which grows by doubling and never shrinks."""
        return parse_number("FDSize", _read(self._status))

    def threads(self) -> int:
        """Return its number of threads."""
        return parse_number("Threads", _read(self._status))

    def parent(self) -> int:
        """Return the pid of its parent now; after the end of the first parent, of the process that adopted it."""
        return parse_number("PPid", _read(self._status))

    def alive(self) -> bool:
        """Return whether it has not ended; a zombie has."""
        try:
            self._raise_if_ended()
        except ProcessGoneError:
            return False
        return True

    def close(self) -> None:
        """Close the descriptors; harmless the second time."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, opened: ExitStack, name: str, flags: int, folder: int | None) -> int:
        fd = _ask(lambda: os.open(name, flags | os.O_CLOEXEC, dir_fd=folder))
        opened.callback(os.close, fd)
        return fd

    def _keep_if_any(self, opened: ExitStack, name: str) -> int | None:
        # some kernels lack it; the other entries show whether the process has ended
        try:
            return self._keep(opened, name, os.O_RDONLY, self._folder)
        except (ProcessGoneError, OSError):
            return None

    def _raise_if_ended(self) -> None:
        if parse_state(_read(self._stat)) in _ENDED:
            raise ProcessGoneError(f"process {self.pid} has ended")


def own_run_wait_ns() -> int:
    """Return how long the first thread of this process waited for a CPU; -1 if the kernel does not measure it."""
    try:
        return parse_run_wait(Path("/proc/self/schedstat").read_bytes())
    except OSError:
        return -1


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of a process, zombies included; parents come before children.

    A process that starts meanwhile may be missing. Needs CONFIG_PROC_CHILDREN, which distributions set.
    """
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found[1:]


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # pathlib costs the supervisor 10 ms
            with open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123  # the same
                children += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):  # it has ended, so its children have another parent
        pass
    return children


def _read(fd: int) -> bytes:
    return _ask(lambda: os.pread(fd, _MOST_BYTES, 0))


def _ask(call: Callable[[], _T]) -> _T:
    """Return the result of a system call; raises ProcessGoneError for the errors of an ended process."""
    try:
        return call()
    except OSError as error:
        if error.errno in _GONE:
            raise ProcessGoneError("the process has ended") from error
        raise


def parse_nofile(text: bytes) -> Limits:
    """Return RLIMIT_NOFILE from /proc/PID/limits."""
    match = _NOFILE.search(text)
    if match is None:
        raise ValueError('/proc/PID/limits has no line "Max open files"')
    soft, hard = (resource.RLIM_INFINITY if word == b"unlimited" else int(word) for word in match.groups())
    return Limits(soft=soft, hard=hard)


def parse_run_wait(text: bytes) -> int:
    """Return the nanoseconds that a thread waited for a CPU, the second number in /proc/PID/schedstat."""
    return int(text.split()[1])


def parse_state(text: bytes) -> bytes:
    """Return the state letter in /proc/PID/stat; the name before it may contain parentheses."""
    return text[text.rindex(b")") + 2 :][:1]


def parse_number(name: str, text: bytes) -> int:
    """Return the number on the line with this name in /proc/PID/status."""
    for line in text.splitlines():
        key, _, value = line.partition(b":")
        if key == name.encode():
            return int(value.split()[0])
    raise ValueError(f'/proc/PID/status has no line "{name}"')


_MOST_COUNTER_BYTES = 32_768  # 4.1 KB on Linux 6.18
_GROUP = b"TcpExt:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The counters of full listen queues; 0 for a counter that the kernel lacks."""

    listen_overflows: int  # ListenOverflows: SYNs and last ACKs that met a full accept queue
    listen_drops: int  # ListenDrops: the same, and drops for other reasons
    cookies: int  # TCPReqQFullDoCookies: SYNs answered by a cookie because the SYN queue was full


#: Field of Counters -> the kernel's name.
KERNEL_NAMES = {
    "listen_overflows": b"ListenOverflows",
    "listen_drops": b"ListenDrops",
    "cookies": b"TCPReqQFullDoCookies",
}


class TcpCounters:
    """The counters of a process's network namespace; close it, or use it as a context manager."""

    def __init__(self, pid: int) -> None:
        """Open the file, which outlives the process; raises ProcessGoneError if it has already ended."""
        try:
            self._fd = os.open(f"/proc/{pid}/net/netstat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessGoneError(f"process {pid} is gone") from error

    def read(self) -> Counters:
        """Return the counters now; 50 us (Linux 6.18)."""
        return parse_netstat(os.pread(self._fd, _MOST_COUNTER_BYTES, 0))

    def close(self) -> None:
        """Close the descriptor; harmless the second time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_netstat(text: bytes) -> Counters:
    """Return the counters from the two TcpExt lines of /proc/net/netstat: names, then numbers."""
    lines = (line.split() for line in text.splitlines() if line.startswith(_GROUP))
    numbers = dict(zip(next(lines), next(lines), strict=True))
    return Counters(**{field: int(numbers.get(name, 0)) for field, name in KERNEL_NAMES.items()})


def passive_opens(pid: int) -> int | None:
    """Return PassiveOpens of a process's network namespace; None if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/net/snmp").read_bytes()
    except OSError:
        return None
    names, numbers = (line.split() for line in text.splitlines() if line.startswith(b"Tcp:"))
    return int(dict(zip(names, numbers, strict=True))[b"PassiveOpens"])
