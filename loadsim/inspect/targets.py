"""Finds the processes that a target names: a pid, a name, a systemd unit, or the listeners at a port."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from loadsim.errors import EnvironmentRefusedError, ScenarioError
from loadsim.inspect.join import Index, link_of
from loadsim.kernel.processes import names_of, search
from loadsim.kernel.procfs import Process, ProcessGoneError
from loadsim.kernel.sockdiag import SockDiag
from loadsim.kernel.sockets import read_table

if TYPE_CHECKING:
    from loadsim.kernel.limits import Limits
    from loadsim.kernel.processes import Names

_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A process with the use of its descriptor limit."""

    process: Names
    open_fds: int
    limits: Limits

    @property
    def share(self) -> float:
        """Its open descriptors as a share of its soft limit."""
        return self.open_fds / self.limits.soft if self.limits.soft else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The processes that a target names."""

    pids: list[int]  # nearest to its limit first
    port: int | None = None


def parse_port(target: str) -> int | None:
    """Return the port in ":9999"; None without a colon. Raises ScenarioError for a bad number."""
    if not target.startswith(":"):
        return None
    digits = target[1:]
    if not digits.isdecimal() or not 1 <= int(digits) <= _MOST_PORT:
        raise ScenarioError(f'"{target}" is not a port: write a colon and 1 to {_MOST_PORT}, such as :9999')
    return int(digits)


def find(target: str, *, exact: bool = False) -> Found:
    """Return the processes that a target names; raises EnvironmentRefusedError if there is none."""
    port = parse_port(target)
    if port is not None:
        return Found(pids=_at_port(port), port=port)
    if target.isdecimal():
        return Found(pids=[_existing(int(target))])
    named = [one for one in candidates() if _is_called(one.process, target, exact=exact)]
    if not named:
        widen = "without --exact, part of a name is enough" if exact else "loadsim inspect lists all"
        raise EnvironmentRefusedError(f'no process is called "{target}" (command, argv[0] or systemd unit): {widen}')
    return Found(pids=[one.process.pid for one in named])


def candidates() -> list[Candidate]:
    """Return all other processes with open descriptors, nearest to their limit first."""
    found = []
    for pid in psutil.pids():
        if pid == os.getpid():
            continue
        try:
            with Process(pid) as process:
                one = Candidate(process=names_of(pid), open_fds=process.open_fds(), limits=process.limits())
        except (ProcessGoneError, PermissionError):
            continue
        if one.open_fds:
            found.append(one)
    return sorted(found, key=lambda one: (-one.share, one.process.pid))


def _is_called(process: Names, name: str, *, exact: bool) -> bool:
    """Return whether a process has this name; unless `exact`, part of the name is enough, as with pgrep."""
    return name in process.called if exact else any(name in one for one in process.called)


def _existing(pid: int) -> int:
    try:
        names_of(pid)
    except ProcessGoneError as error:
        raise EnvironmentRefusedError(f"process {pid} does not exist: loadsim inspect lists all") from error
    return pid


def holders_at(port: int) -> list[int]:
    """Return the pids of listeners and UDP sockets at a port, nearest to their limit first."""
    with SockDiag() as diag:
        table = read_table(diag)
    inodes = [one.inode for one in Index(table).listeners(port)]
    inodes += [one.inode for one in table.inet if one.protocol == "UDP" and one.local_port == port]
    if not inodes:
        return []
    holders = search({link_of(inode) for inode in inodes}, leave_out=os.getpid()).holders
    pids = {holder.pid for found in holders.values() for holder in found}
    if not pids:
        raise EnvironmentRefusedError(
            f"the process that listens on :{port} could not be read by this user: sudo loadsim inspect :{port}"
        )
    return [one.process.pid for one in candidates() if one.process.pid in pids]


def _at_port(port: int) -> list[int]:
    found = holders_at(port)
    if not found:
        raise EnvironmentRefusedError(
            f"no process listens on :{port} in this network namespace: loadsim inspect lists all listeners, "
            f"loadsim inspect :{port} --watch waits for one"
        )
    return found
