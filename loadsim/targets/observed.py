"""The kernel's view of a server without records, written to its journals on its behalf."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import trio

from loadsim.kernel.accept_trace import AcceptTrace
from loadsim.kernel.perf import NotVisibleError
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.kernel.sockdiag import TCP_STATES
from loadsim.record.accept_log import AcceptLog
from loadsim.record.facts import ServerFacts
from loadsim.record.journal import Journal
from loadsim.record.records import ACCEPT, FAILURE, SOCKET, TABLE_HZ, SocketFlag, Where

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AsyncExitStack

    from loadsim.kernel.accept_trace import Wait
    from loadsim.kernel.perf import EmfileCounter
    from loadsim.kernel.processes import ProcessGroup
    from loadsim.kernel.sockdiag import SockDiag, Sockets
    from loadsim.scenario.specs import ObservedSpec

#: Time between two readings of the failure counter.
_COUNT_S: Final = 0.01
#: The TCP table is read at most TABLE_HZ times a second and for at most this share of the time, but at least once a
#: second: with 70,000 sockets in TIME_WAIT, which a host may have, one reading takes 8 ms (Linux 6.18).
_TABLE_S: Final = 1 / TABLE_HZ
_TABLE_AT_LEAST_S: Final = 1.0
_TABLE_SHARE: Final = 0.05
#: The states of a complete connection; if it has no owner, it waits for accept().
_COMPLETE: Final = [number for number, name in TCP_STATES.items() if name in {"ESTABLISHED", "CLOSE_WAIT"}]
#: The states of a socket that a process can own.
_OWNED: Final = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2", "LAST_ACK", "CLOSING")
_MS: Final = 1_000_000
#: The third word of an IPv4-mapped IPv6 address: ::ffff:127.0.0.1.
_MAPPED: Final = int.from_bytes(b"\0\0\xff\xff", "little")
_INTERVAL: Final = (
    "Accept latency is an interval [accept_least, accept], sampled from the queue and the owners of the sockets. "
    "{remedy}"
)
_INCONSISTENT_TRACE: Final = (
    "Accept latency is an interval, not exact: the trace of accept() is inconsistent ({waiting} connections left over, "
    "{queued} in the queue, {unmatched} calls without a connection, {lost} events lost, listeners at the port: "
    "{listeners}). Does the server accept on another port too?"
)


class Observations:
    """Writes the journals of one server; owns neither them nor the sources that it reads."""

    def __init__(
        self,
        log: AcceptLog,
        sockets: Journal,
        *,
        group: ProcessGroup | None,
        diag: SockDiag | None,
        port: int,
        counter: EmfileCounter | None,
        trace: AcceptTrace | None,
    ) -> None:
        self._log = log
        self._sockets = sockets
        self._group = group
        self._diag = diag
        self._port = port
        self._counter = counter
        self._trace = trace
        self._waits: list[Wait] = []  # traced waits, until the trace proves consistent
        self._waiting: dict[tuple[bytes, int], _Waiting] = {}  # by client
        self.notices: list[str] = []  # sentences why a trace is not used
        self._counted = 0
        self._read_ns = 0
        self._was_empty = True
        self._table_due = 0.0
        self._known: set[tuple[int, int]] = set()  # inode and client's port of connections that had an owner

    async def run(self) -> None:
        """Count failures and sample the TCP table until cancelled."""
        while True:
            self.count()
            if trio.current_time() >= self._table_due:
                begun = time.thread_time()
                self.sample()
                affordable = (time.thread_time() - begun) / _TABLE_SHARE
                self._table_due = trio.current_time() + min(max(affordable, _TABLE_S), _TABLE_AT_LEAST_S)
            await trio.sleep(_COUNT_S)

    def count(self) -> None:
        """Record the failures of accept() since the last call; `idle` if the queue was empty both times."""
        if self._counter is None or self._group is None:
            return
        now, counted = time.monotonic_ns(), self._counter.read()
        listener = self._group.listener()
        is_empty = listener is not None and listener.queue == 0
        if more := counted - self._counted:
            self._note_fds(self._group)
            idle = is_empty and self._was_empty
            self._log.fail(errno.EMFILE, Where.ACCEPT, idle=idle, first=self._read_ns or now, last=now, count=more)
        self._counted, self._read_ns, self._was_empty = counted, now, is_empty

    def sample(self) -> None:
        """Record the connections that got an owner or stopped waiting since the last sample."""
        if (diag := self._diag) is None:
            return
        begun = time.monotonic_ns()
        sockets, now = diag.dump(port=self._port, states=_OWNED), time.monotonic_ns()
        if self._trace is not None:
            self._waits += self._trace.take()
        sockets = sockets[(sockets["local_port"] == self._port) & (sockets["remote_port"] > 0)]
        self._note_waiting(diag, sockets[(sockets["inode"] == 0) & np.isin(sockets["state"], _COMPLETE)], begun)
        owned = sockets[sockets["inode"] > 0]
        keys = list(zip(owned["inode"].tolist(), owned["remote_port"].tolist(), strict=True))
        fresh = [key not in self._known for key in keys]
        self._known.update(keys)
        self._write(now, owned[np.array(fresh, dtype=np.bool_)], "remote", 0)

    def snapshot(self) -> None:
        """Record every connection as it is now, at both ends."""
        self.count()
        if (diag := self._diag) is None:
            return
        sockets, now = diag.dump(port=self._port), time.monotonic_ns()
        server = (sockets["local_port"] == self._port) & (sockets["remote_port"] > 0)
        client = sockets["remote_port"] == self._port
        self._write(now, sockets[server], "remote", SocketFlag.AT_END)
        self._write(now, sockets[client], "local", SocketFlag.AT_END | SocketFlag.AT_CLIENT)
        self._note_waiting(diag, sockets[:0], now)
        self._write_traced(diag)

    def _note_waiting(self, diag: SockDiag, sockets: Sockets, begun: int) -> None:
        """Note the connections that wait for accept() in this sample; record the ones that stopped waiting."""
        ports = sockets["remote_port"].tolist()
        here = dict(zip(zip(_unmapped(sockets["remote"]), ports, strict=True), range(len(ports)), strict=True))
        for client in self._waiting.keys() - here.keys():
            done = self._waiting.pop(client)
            self._sockets.append(done.seen_ns, 0, *client, done.state, SocketFlag.WAITED)
            self._sockets.append(done.entered_ns, 0, *client, done.state, SocketFlag.ENTERED)
        for client, place in here.items():
            known = self._waiting.get(client)
            if known is None:
                age_ms = diag.silent_ms(sockets[place])
                if age_ms is None:  # closed since that sample
                    continue
                entered = time.monotonic_ns() - age_ms * _MS
                known = self._waiting[client] = _Waiting(entered_ns=entered, state=int(sockets["state"][place]))
            known.seen_ns = begun

    def _write_traced(self, diag: SockDiag) -> None:
        """Record the traced waits, if the trace accounts for every connection."""
        if self._trace is None:
            return
        self._waits += self._trace.take(settle=True)
        listeners = diag.dump(port=self._port, states=("LISTEN",))
        queued, addresses = int(listeners["rqueue"].sum()), len(np.unique(listeners[["family", "local"]]))
        trace = self._trace
        if trace.lost or trace.unmatched or queued != trace.waiting or addresses < len(listeners):
            numbers = {"waiting": trace.waiting, "queued": queued, "unmatched": trace.unmatched, "lost": trace.lost}
            self.notices.append(_INCONSISTENT_TRACE.format(**numbers, listeners=len(listeners)))
            return
        for wait in self._waits:
            flags = SocketFlag.TRACED
            self._sockets.append(wait.accepted_ns, 0, wait.client, wait.port, 0, flags | SocketFlag.WAITED)
            self._sockets.append(wait.entered_ns, 0, wait.client, wait.port, 0, flags | SocketFlag.ENTERED)

    def _write(self, now: int, sockets: Sockets, end: str, flags: int) -> None:
        """Write one record for each socket; `end` is its end that belongs to the client."""
        addresses = _unmapped(sockets[end])
        columns = (sockets["inode"].tolist(), sockets[f"{end}_port"].tolist(), sockets["state"].tolist())
        for address, inode, port, state in zip(addresses, *columns, strict=True):
            self._sockets.append(now, inode, address, port, state, flags)

    def _note_fds(self, group: ProcessGroup) -> None:
        try:
            self._log.open_fds = group.open_fds()
        except ProcessGoneError:
            self._log.open_fds = 0


def open_observations(
    stack: AsyncExitStack,
    spec: ObservedSpec,
    group: ProcessGroup | None,
    diag: SockDiag | None,
    *,
    port: int,
    counter: EmfileCounter | None,
    trace: AcceptTrace | None,
) -> Observations:
    """Open the journals of a server that writes none itself, and return their writer; the stack closes them.

    `diag` reads both ends of its connections; None: they are not readable.
    """
    accepts = Journal.create(Path(spec.accepts_path), ACCEPT, 1)
    failures = Journal.create(Path(spec.failures_path), FAILURE, spec.failures_capacity)
    log = stack.enter_context(AcceptLog(accepts, failures))
    sockets = stack.enter_context(Journal.create(Path(spec.sockets_path), SOCKET, spec.sockets_capacity))
    return Observations(log, sockets, group=group, diag=diag, port=port, counter=counter, trace=trace)


def trace_accepts(
    stack: AsyncExitStack, port: int, pids: Callable[[], Sequence[int]]
) -> tuple[AcceptTrace | None, list[str]]:
    """Return a trace of the accept() calls of these processes, closed by the stack, or None and a notice why not."""
    known: set[int] = set()
    strangers: set[int] = set()

    def is_server(pid: int) -> bool:
        if pid not in known and pid not in strangers:
            known.update(pids())
            strangers.update({pid} - known)
        return pid in known

    try:
        return stack.enter_context(AcceptTrace.of(port, is_server)), []
    except NotVisibleError as why:
        remedy = (
            f"Exact values need a trace of the kernel ({why})."
            if os.geteuid() == 0
            else "Run as root for exact values."
        )
        return None, [_INTERVAL.format(remedy=remedy)]


def facts_of(
    group: ProcessGroup, command: list[str], *, address: str, port: int, emfile_seen: bool, started: bool = True
) -> ServerFacts:
    """Return the facts of a server with these processes; raises ProcessGoneError if it has ended."""
    limits, listener = group.limits(), group.listener()
    return ServerFacts(
        pid=group.pid,
        address=address,
        port=port,
        backlog_asked=None,
        backlog=listener.backlog if listener else None,
        nofile_soft=limits.soft,
        nofile_hard=limits.hard,
        baseline_fds=group.open_fds(),
        threads=group.threads(),
        command=command,
        emfile_seen=emfile_seen,
        started=started,
    )


def descriptors_notice(group: ProcessGroup, tree: str) -> str:
    """Return the notice that names the process of the descriptors and the process tree of the CPU time."""
    holders = len(group.holders())
    which = {0: "its fullest process", 1: "the process that holds the listener"}.get(
        holders, f"the fullest of the {holders} processes that hold the listener"
    )
    return f"Descriptors and limit are read from {which}, CPU and memory from {tree}."


def emfile_notice(why: NotVisibleError) -> str:
    """Return the notice that EMFILE is not counted."""
    return f"EMFILE is not counted: {why}."


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A connection that waits for accept()."""

    entered_ns: int  # by its age
    state: int
    seen_ns: int = 0  # the last sample in which it waited


def _unmapped(addresses: np.ndarray) -> list[bytes]:
    """Return the 16 bytes of each address; IPv4, also of an IPv6 socket, has it in the first four."""
    words = np.ascontiguousarray(addresses, dtype="<u4")
    mapped = (words[:, 0] == 0) & (words[:, 1] == 0) & (words[:, 2] == _MAPPED)
    words = words.copy()
    words[mapped, 0] = words[mapped, 3]
    words[mapped, 2:] = 0
    return [row.tobytes() for row in words]
