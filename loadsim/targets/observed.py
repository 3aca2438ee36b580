"""What the kernel shows of a server that writes no records, recorded on its behalf."""

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
    from loadsim.scenario.specs import WatchedSpec


#: How often the counter is read.
_COUNT_S: Final = 0.01
#: The table is read TABLE_HZ times a second at most, and takes at most this share of the time, but it is read once a
#: second in any case: among 70,000 sockets in TIME_WAIT, which a host may have, it takes 8 ms (Linux 6.18).
_TABLE_S: Final = 1 / TABLE_HZ
_TABLE_AT_LEAST_S: Final = 1.0
_TABLE_SHARE: Final = 0.05
#: What waits for accept(): complete, in the table, and without an owner.
_COMPLETE: Final = [number for number, name in TCP_STATES.items() if name in {"ESTABLISHED", "CLOSE_WAIT"}]
_MS: Final = 1_000_000
#: What a process can own.
_OWNED: Final = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2", "LAST_ACK", "CLOSING")
#: The third word of an IPv4 address as an IPv6 socket has it: ::ffff:127.0.0.1.
_MAPPED: Final = int.from_bytes(b"\0\0\xff\xff", "little")


_DOUBT: Final = (
    "Accept latency is not exact, but known between two bounds: what the kernel told of accept() does not fit together "
    "({waiting} connections left over, {queued} in the queue, {unmatched} calls too many, {lost} events lost, "
    "{listeners} listeners at the port): does it accept on another port, too?"
)


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A connection that waits for accept()."""

    entered_ns: int  # by its age
    state: int
    seen_ns: int = 0  # the last look that saw it wait


class Observations:
    """Writes both journals of one server; owns neither them nor what it reads."""

    def __init__(
        self,
        log: AcceptLog,
        sockets: Journal,
        *,
        followed: ProcessGroup | None,
        diag: SockDiag | None,
        port: int,
        counter: EmfileCounter | None,
        trace: AcceptTrace | None,
    ) -> None:
        self._books = log
        self._sockets = sockets
        self._followed = followed
        self._diag = diag
        self._port = port
        self._counter = counter
        self._trace = trace
        self._waits: list[Wait] = []  # what was traced, until it is known that all of it fits
        self._waiting: dict[tuple[bytes, int], _Waiting] = {}  # by client
        self.notices: list[str] = []  # why what was traced is not believed: whole sentences
        self._counted = 0
        self._read_ns = 0
        self._was_empty = True
        self._table_due = 0.0
        self._known: set[tuple[int, int]] = set()  # inode and client's port of the connections seen to be owned

    async def watch(self) -> None:
        """Look again and again until cancelled."""
        while True:
            self.count()
            if trio.current_time() >= self._table_due:
                begun = time.thread_time()
                self.look()
                dear = (time.thread_time() - begun) / _TABLE_SHARE
                self._table_due = trio.current_time() + min(max(dear, _TABLE_S), _TABLE_AT_LEAST_S)
            await trio.sleep(_COUNT_S)

    def count(self) -> None:
        """Write down how often accept() failed since the last time: as `idle` where nobody waited at both times."""
        if self._counter is None or self._followed is None:
            return
        now, counted = time.monotonic_ns(), self._counter.read()
        listener = self._followed.listener()
        is_empty = listener is not None and listener.queue == 0
        if more := counted - self._counted:
            self._note_fds(self._followed)
            idle = is_empty and self._was_empty
            self._books.fail(errno.EMFILE, Where.ACCEPT, idle=idle, first=self._read_ns or now, last=now, count=more)
        self._counted, self._read_ns, self._was_empty = counted, now, is_empty

    def look(self) -> None:
        """Write down the connections that a process was seen to own for the first time, and who no longer waits."""
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

    def judge(self) -> None:
        """Write down every connection as it is now, at both ends."""
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
        """Note who waits for accept() at this look, and write down those who do no longer."""
        ports = sockets["remote_port"].tolist()
        here = dict(zip(zip(_unmapped(sockets["remote"]), ports, strict=True), range(len(ports)), strict=True))
        for client in self._waiting.keys() - here.keys():
            one = self._waiting.pop(client)
            self._sockets.append(one.seen_ns, 0, *client, one.state, SocketFlag.WAITED)
            self._sockets.append(one.entered_ns, 0, *client, one.state, SocketFlag.ENTERED)
        for client, place in here.items():
            known = self._waiting.get(client)
            if known is None:
                age_ms = diag.silent_ms(sockets[place])
                if age_ms is None:  # gone since that look
                    continue
                entered = time.monotonic_ns() - age_ms * _MS
                known = self._waiting[client] = _Waiting(entered_ns=entered, state=int(sockets["state"][place]))
            known.seen_ns = begun

    def _write_traced(self, diag: SockDiag) -> None:
        """Write down what the kernel told of accept(), where every connection that came is accounted for."""
        if self._trace is None:
            return
        self._waits += self._trace.take(settle=True)
        listeners = diag.dump(port=self._port, states=("LISTEN",))
        queued, doors = int(listeners["rqueue"].sum()), len(np.unique(listeners[["family", "local"]]))
        trace = self._trace
        if trace.lost or trace.unmatched or queued != trace.waiting or doors < len(listeners):
            numbers = {"waiting": trace.waiting, "queued": queued, "unmatched": trace.unmatched, "lost": trace.lost}
            self.notices.append(_DOUBT.format(**numbers, listeners=len(listeners)))
            return
        for one in self._waits:
            flags = SocketFlag.TRACED
            self._sockets.append(one.accepted_ns, 0, one.client, one.port, 0, flags | SocketFlag.WAITED)
            self._sockets.append(one.entered_ns, 0, one.client, one.port, 0, flags | SocketFlag.ENTERED)

    def _write(self, now: int, sockets: Sockets, end: str, flags: int) -> None:
        """Write one record for each socket; `end` says which of its ends is the client's."""
        addresses = _unmapped(sockets[end])
        columns = (sockets["inode"].tolist(), sockets[f"{end}_port"].tolist(), sockets["state"].tolist())
        for address, inode, port, state in zip(addresses, *columns, strict=True):
            self._sockets.append(now, inode, address, port, state, flags)

    def _note_fds(self, followed: ProcessGroup) -> None:
        try:
            self._books.open_fds = followed.open_fds()
        except ProcessGoneError:
            self._books.open_fds = 0


def _unmapped(addresses: np.ndarray) -> list[bytes]:
    """Return the 16 bytes of each address, of IPv4 in the first four, also where the socket is an IPv6 one."""
    words = np.ascontiguousarray(addresses, dtype="<u4")
    mapped = (words[:, 0] == 0) & (words[:, 1] == 0) & (words[:, 2] == _MAPPED)
    words = words.copy()
    words[mapped, 0] = words[mapped, 3]
    words[mapped, 2:] = 0
    return [row.tobytes() for row in words]


def open_observations(
    stack: AsyncExitStack,
    spec: WatchedSpec,
    followed: ProcessGroup | None,
    diag: SockDiag | None,
    *,
    port: int,
    counter: EmfileCounter | None,
    trace: AcceptTrace | None,
) -> Observations:
    """Return who writes the journals of a server that writes none itself; they are open as long as the stack.

    `diag` sees both ends of its connections; None: nobody does.
    """
    accepts = Journal.create(Path(spec.accepts_path), ACCEPT, 1)
    failures = Journal.create(Path(spec.failures_path), FAILURE, spec.failures_capacity)
    log = stack.enter_context(AcceptLog(accepts, failures))
    sockets = stack.enter_context(Journal.create(Path(spec.sockets_path), SOCKET, spec.sockets_capacity))
    return Observations(log, sockets, followed=followed, diag=diag, port=port, counter=counter, trace=trace)


def trace_accepts(
    stack: AsyncExitStack, port: int, pids: Callable[[], Sequence[int]]
) -> tuple[AcceptTrace | None, list[str]]:
    """Return who traces the accept() calls of these processes as long as the stack; where nobody can, why, in words."""
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
        where = f"the kernel may be traced ({why})" if os.geteuid() == 0 else "loadsim runs as root"
        return None, [_BETWEEN_LOOKS.format(where=where)]


def facts_of(
    followed: ProcessGroup, command: list[str], *, address: str, port: int, emfile_seen: bool, started: bool = True
) -> ServerFacts:
    """Return what is known of a server whose processes are followed; raises ProcessGoneError where it has ended."""
    limits, listener = followed.limits(), followed.listener()
    return ServerFacts(
        pid=followed.pid,
        address=address,
        port=port,
        backlog_asked=None,
        backlog=listener.backlog if listener else None,
        nofile_soft=limits.soft,
        nofile_hard=limits.hard,
        baseline_fds=followed.open_fds(),
        threads=followed.threads(),
        command=command,
        emfile_seen=emfile_seen,
        started=started,
    )


_BETWEEN_LOOKS: Final = (
    "Accept latency is known between two bounds, accept_least.* and accept.*, from looks at the queue and at who is "
    "served; exactly, where {where}."
)


def whose(followed: ProcessGroup, what: str) -> str:
    """Return the sentence that says whose descriptors are read, and whose CPU; `what` is the tree: "the command"."""
    holders = len(followed.holders())
    which = {0: "its fullest process", 1: "the process that holds the listener"}.get(
        holders, f"the fullest of the {holders} processes that hold the listener"
    )
    return f"Descriptors and limit are those of {which}; CPU and memory are those of {what}."


def not_counted(why: NotVisibleError) -> str:
    """Return the sentence that says that EMFILE is not seen."""
    return f"EMFILE is not visible, so that nothing is said of it: {why}."
