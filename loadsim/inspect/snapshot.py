"""Takes a snapshot of one process from /proc and sock_diag, in an order that misses nothing.

It reads the descriptors first, then the socket table, then the other holders of the sockets. It only reads and stops
no process, so a snapshot of a process that changes meanwhile is a few milliseconds wide.
"""

from __future__ import annotations

import gc
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from loadsim.inspect.join import Index, Join, links_wanted
from loadsim.inspect.model import UNHELD, HostFacts, Snapshot
from loadsim.kernel.fds import SOCKET, read_descriptors, socket_protocol
from loadsim.kernel.limits import read_sysctl
from loadsim.kernel.processes import Holder, Search, identify, search
from loadsim.kernel.procfs import Process, passive_opens
from loadsim.kernel.sockdiag import diag_of, namespace_of
from loadsim.kernel.sockets import SocketTable, read_table, read_table_of

if TYPE_CHECKING:
    from loadsim.kernel.fds import Descriptor

_INOTIFY = "inotify"


def take(pid: int) -> Snapshot:
    """Take a snapshot of a process; raises ProcessGoneError if it ends before everything is read."""
    collects = gc.isenabled()
    gc.disable()  # none of the rows is in a cycle, and walking 40,000 of them repeatedly costs a sixth of the time
    try:
        with Process(pid) as process:
            return _take(process)
    finally:
        if collects:
            gc.enable()


def _take(process: Process) -> Snapshot:
    pid = process.pid
    identity = identify(pid)
    missing: list[str] = []
    at_s = time.monotonic()
    open_fds = process.open_fds()
    descriptors = _descriptors(process, identity.uid, missing)
    index = Index(_table(pid, missing))
    found = search(links_wanted(descriptors, index), leave_out=pid)
    limits = process.limits()
    own: dict[str, list[Holder]] = {}
    for one in descriptors:
        if one.kind == SOCKET:
            own.setdefault(one.link, []).append(Holder(pid, identity.name, one.number))
    join = Join(index, found.holders, own, _protocols(pid, descriptors, index))
    rows = join.rows(descriptors)
    if found.unreadable and any(row.other is not None and row.other.where == UNHELD for row in rows):
        missing.append(_unreadable(pid, found.unreadable))
    own_inodes = {row.inode for row in rows}
    return Snapshot(
        process=identity,
        at_s=at_s,
        open_fds=len(descriptors) or open_fds,
        soft=limits.soft,
        hard=limits.hard,
        rows=tuple(rows),
        waiting=tuple(join.waiting(rows)),
        knocking=tuple(join.knocking(rows)),
        host=_host(identity.uid, descriptors, found),
        passive_opens=passive_opens(pid),
        other_listeners=sum(one.inode not in own_inodes for one in index.listeners()),
        enter=_enter(pid),
        missing=tuple(missing),
    )


def _descriptors(process: Process, uid: int, missing: list[str]) -> list[Descriptor]:
    try:
        return read_descriptors(process)
    except PermissionError:
        missing.append(
            f"The descriptors: process {process.pid} belongs to user {uid}, and Linux shows them only to that user and "
            f"to root. Other users see only their number and the limits. "
            f"sudo loadsim inspect {process.pid} shows all."
        )
        return []


def _table(pid: int, missing: list[str]) -> SocketTable:
    """Return the sockets in the namespace of a process, from sock_diag, or from /proc/PID/net without the rights."""
    try:
        with diag_of(pid) as diag:
            table = read_table(diag)
    except PermissionError:
        missing.append(
            f"Process {pid} is in another network namespace ({namespace_of(pid)}), which we may not enter. Its sockets "
            f"come from /proc/{pid}/net: limits of accept queues, drops and idle times are unknown. "
            f"sudo loadsim inspect {pid} enters it."
        )
        table = read_table_of(pid)
    missing += table.missing
    return table


def _enter(pid: int) -> str:
    """Return the command that enters the network namespace of a process, "" if it is ours."""
    if namespace_of(pid) in (namespace_of("self"), ""):
        return ""
    # without the option nsenter becomes uid 0, which a user namespace of the user does not map
    ours = os.geteuid() == 0 or namespace_of(pid, "user") == namespace_of("self", "user")
    return f"nsenter -t {pid} {'' if ours else '-U --preserve-credentials '}-n"


def _protocols(pid: int, descriptors: list[Descriptor], index: Index) -> dict[int, str]:
    """Return the protocol of each socket that is in no table, by descriptor."""
    return {
        one.number: socket_protocol(pid, one.number)
        for one in descriptors
        if one.kind == SOCKET and one.inode not in index.by_inode and one.inode not in index.unix
    }


def _unreadable(pid: int, number: int) -> str:
    if os.geteuid() == 0:
        return f"Some holders of the other ends: even root may not read all processes here ({number} refused)."
    return (
        f"Some holders of the other ends: {number} of the processes of other users could not be read. "
        f"sudo loadsim inspect {pid} reads them."
    )


def _host(uid: int, descriptors: list[Descriptor], found: Search) -> HostFacts:
    # the limit of inotify instances is one per user
    own = sum(one.kind == _INOTIFY for one in descriptors)
    file_nr = (read_sysctl("fs.file-nr") or "").split()
    inotify_max = None
    with suppress(TypeError, ValueError):
        inotify_max = int(read_sysctl("fs.inotify.max_user_instances") or "")
    readable = os.geteuid() in (0, uid)
    return HostFacts(
        file_nr=int(file_nr[0]) if file_nr else None,
        file_max=int(file_nr[2]) if file_nr else None,
        inotify=found.inotify.get(uid, 0) + own if readable else None,
        inotify_max=inotify_max,
    )
