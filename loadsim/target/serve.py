"""The simulated server alone, for people and for other load generators, with a line for each thing that happens.

Owns the words. The server process itself prints nothing: what is told here is read from its journals while it runs,
so that these numbers come from where those of a recorded run come from.
"""

from __future__ import annotations

import dataclasses
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, Protocol

import trio

from loadsim.kernel.sockdiag import SockDiag
from loadsim.record.events import ACCEPT, AcceptFlag
from loadsim.record.journal import HEADER_BYTES, Journal
from loadsim.target.process import simulated_server
from loadsim.units import NANOSECONDS, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from loadsim.record.facts import ServerFacts
    from loadsim.scenario.spec import ServerSpec
    from loadsim.target.process import Server

#: How often the journals are looked at.
LOOK_S: Final = 0.05
#: Accepts told one by one per look; a load generator's others are summed up.
LINES_PER_LOOK: Final = 20
#: Failures are summed up over this time: at most two lines a second.
FAILURES_S: Final = 0.5
#: Accepts for which there is room in the journal, 16 MB; further ones are only counted.
CAPACITY: Final = 262_144

_NOTES = (
    (AcceptFlag.SHED, "shed: closed unserved"),
    (AcceptFlag.FAILED, "its handler found no descriptor"),
    (AcceptFlag.LEAKED, "never closed"),
)
_FAILED = (("emfile_accept", "accept()"), ("emfile_handler", "the handler"))
_IDLE = ("emfile_idle", "accept() with nobody waiting")


async def serve(spec: ServerSpec, out: Callable[[str], None]) -> None:
    """Run the server that the spec describes until Ctrl-C, SIGTERM or its own end; `out` gets one line at a time.

    Its journals, standard output and standard error go to the folder of `spec.accepts_path`.
    """
    spec = dataclasses.replace(spec, accepts_capacity=max(spec.accepts_capacity, CAPACITY))
    folder = Path(spec.accepts_path).parent
    files = {"stdout_path": folder / "server.stdout", "stderr_path": folder / "server.stderr"}
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with simulated_server(spec, namespace=None, **files) as server:
            with ExitStack() as stack:
                accepts = stack.enter_context(Journal.attach(Path(spec.accepts_path)))
                queue = KernelQueue(stack.enter_context(SockDiag()), server.facts)
                teller = Teller(accepts, server.facts, queue=queue)
                _tell(out, teller.opening())
                start_ns = monotonic_ns()
                await server.go(start_ns)
                await _watch(server, teller, signals, out)
                _tell(out, teller.closing(start_ns))
                if server.exited is not None:
                    _tell(out, _last_words(server.exited, files["stderr_path"]))


async def _watch(server: Server, teller: Teller, signals: AsyncIterator[int], out: Callable[[str], None]) -> None:
    """Tell what happens until a signal comes or the server ends; what came last is told as well."""
    async with trio.open_nursery() as nursery:

        async def stop_on_signal() -> None:
            async for _ in signals:
                nursery.cancel_scope.cancel()

        async def stop_on_exit() -> None:
            await server.wait_exited()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop_on_signal)
        nursery.start_soon(stop_on_exit)
        while True:
            await trio.sleep(LOOK_S)
            _tell(out, teller.news(monotonic_ns()))
    _tell(out, teller.news(monotonic_ns(), final=True))


def _tell(out: Callable[[str], None], lines: Iterator[str]) -> None:
    for line in lines:
        out(line)


def _last_words(status: int, stderr: Path) -> Iterator[str]:
    how = f"with status {status}" if status >= 0 else f"of {signal.Signals(-status).name}"
    yield f"the server died {how}"
    yield from stderr.read_text(errors="replace").splitlines()


class Queue(Protocol):
    """An accept queue whose length can be asked."""

    def length(self) -> int:
        """Return how many clients wait."""
        ...


class KernelQueue:
    """The accept queue of the server, as the kernel tells it."""

    def __init__(self, diag: SockDiag, facts: ServerFacts) -> None:
        self._diag = diag
        self._facts = facts

    def length(self) -> int:
        """Return how many clients wait, 0 when nobody listens any more."""
        state = self._diag.listener(self._facts.address, self._facts.port)
        return state.queue if state else 0


class Teller:
    """Puts into words what has been added to a server's journal since the last time."""

    def __init__(self, accepts: Journal, facts: ServerFacts, *, queue: Queue) -> None:
        self._accepts = accepts
        self._facts = facts
        self._queue = queue
        self._told = 0  # records
        self._seen: Mapping[str, int] = dict.fromkeys(accepts.index, 0)  # counters when failures were last told
        self._failures_at = 0
        self._start_ns = monotonic_ns()

    def opening(self) -> Iterator[str]:
        """Tell where it listens, and how to look at it."""
        facts = self._facts
        where = _address(facts.address, facts.port)
        yield f"simulated server on {where}, pid {facts.pid}"
        free = max(facts.nofile_soft - facts.baseline_fds, 0)
        yield (
            f"{facts.baseline_fds} of {format_count(facts.nofile_soft)} descriptors are open, "
            f"{format_count(free)} free; the accept queue holds {format_count(facts.queue_capacity or 0)}"
        )
        yield f"look     ls -l /proc/{facts.pid}/fd     ss -tan 'sport = :{facts.port}'     Ctrl-C ends it"

    def news(self, now: int, *, final: bool = False) -> Iterator[str]:
        """Tell accepts one by one, or their number where there are many, and failures twice a second at most."""
        used = self._accepts.used
        fresh = range(self._told, used)
        self._told = used
        for slot in fresh[:LINES_PER_LOOK]:
            yield self._accept(slot)
        if len(fresh) > LINES_PER_LOOK:
            yield f"{self._since(now)}  accept   {format_count(len(fresh) - LINES_PER_LOOK)} more"
        if final or now - self._failures_at >= FAILURES_S * NANOSECONDS:
            yield from self._failures(now)

    def closing(self, start_ns: int) -> Iterator[str]:
        """Tell the sums."""
        total = {name: self._accepts.read(name) for name in self._accepts.index}
        took = format_duration((monotonic_ns() - start_ns) / NANOSECONDS)
        still = total["accepted"] - total["closed"]
        yield ""
        yield (
            f"{took}: {format_count(total['accepted'])} accepted, {format_count(total['closed'])} closed, "
            f"{format_count(still)} still open"
        )
        if total["shed"]:
            yield f"{format_count(total['shed'])} of them shed: accepted and closed unserved"
        for name, where in (*_FAILED, _IDLE):
            if total[name]:
                yield f"{_times(total[name])} {where} found no free descriptor (EMFILE)"
        if waiting := self._queue.length():
            yield f"{format_count(waiting)} waiting in the accept queue: connected, and never served"
        if self._accepts.lost:
            yield f"{format_count(self._accepts.lost)} of them only counted: there was no room to list more"

    def _accept(self, slot: int) -> str:
        """Tell one accept."""
        values = ACCEPT.struct.unpack_from(self._accepts.buffer, HEADER_BYTES + slot * ACCEPT.size)
        record = dict(zip((name for name, _ in ACCEPT.fields), values, strict=True))
        family, length = (socket.AF_INET6, 16) if any(record["peer"][4:]) else (socket.AF_INET, 4)
        peer = _address(socket.inet_ntop(family, record["peer"][:length]), record["port"])
        notes = "".join(f"   {note}" for flag, note in _NOTES if record["flags"] & flag)
        limit = format_count(self._facts.nofile_soft)
        open_fds = f"{format_count(record['open_fds'])} of {limit} open"
        return f"{self._since(record['accepted'])}  accept   fd {record['fd']:<5}  {open_fds}   from {peer}{notes}"

    def _failures(self, now: int) -> Iterator[str]:
        """Tell how often something found no descriptor since this was last told."""
        total = {name: self._accepts.read(name) for name in self._accepts.index}
        waiting = self._queue.length()
        for name, where in _FAILED:
            if more := total[name] - self._seen[name]:
                self._failures_at = now
                yield (
                    f"{self._since(now)}  EMFILE   {where} found no free descriptor, {_times(more)}; "
                    f"{format_count(waiting)} waiting in the queue"
                )
        self._seen = total

    def _since(self, then: int) -> str:
        return f"{max(then - self._start_ns, 0) / NANOSECONDS:9.3f} s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{format_count(count)} times"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
