"""A server that is already running, as the server under test: it is only observed.

It is never started, limited, stopped or ended. Numbers that are not visible are absent, and a notice says so.
"""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.perf import EmfileCounter, NotVisibleError
from loadsim.kernel.processes import ProcessGroup
from loadsim.kernel.procfs import Process, ProcessGoneError, TcpCounters
from loadsim.kernel.sockdiag import diag_of
from loadsim.process.tree import background
from loadsim.record.facts import ServerFacts
from loadsim.targets import Sources
from loadsim.targets.observed import (
    descriptors_notice,
    emfile_notice,
    facts_of,
    open_observations,
    trace_accepts,
)
from loadsim.targets.readiness import Reach, family_tree, join, listener_of, locate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import ExitStack

    from loadsim.kernel.sockdiag import ListenerState, SockDiag
    from loadsim.process.launch import Namespace
    from loadsim.scenario.specs import RunningSpec
    from loadsim.targets.observed import Observations

#: A connection has no owner while accept() returns it. One that has an owner after this time did not wait.
_RECHECK_S: Final = 0.02
_KEEPS_RUNNING: Final = (
    "The server was already running and keeps running: loadsim did not start, limit or stop it, and these numbers "
    "include the effects of its other clients."
)
_NO_PROCESS: Final = (
    "Descriptors, limit, CPU, memory and EMFILE of the server are not visible: add --pid N if it runs on this host."
)
_NO_SOCKETS: Final = (
    "Its accept queue, its drops and its ends of the connections are in no TCP table that can be read here: a client "
    "counts as accepted only if it got a reply; the others are unknown."
)
_NO_ENDS: Final = (
    "Its accept queue and its drops are read at {listener} in its network namespace. Its connections cannot be "
    "matched to our clients. A client counts as accepted only if it got a reply; the others are unknown."
)
_NO_KINDS: Final = (
    "The kinds of its descriptors are not visible, because it belongs to another user: run loadsim as that user or as "
    "root."
)
#: The port of a server that is in no readable table: no socket has it, so no socket of ours is taken for its own.
_NOWHERE: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The readable parts of a server; None: not readable."""

    group: ProcessGroup | None
    reads_table: bool  # whether its descriptors can be read and its sockets are known
    pidfd: int | None
    listener: Callable[[], ListenerState | None]
    counters_of: int | None  # a process in its network namespace


class Attached:
    """A server that was already running: a `Target` that ignores orders."""

    def __init__(self, facts: ServerFacts, seen: _Seen, observations: Observations, notices: Sequence[str]) -> None:
        self._facts = facts
        self._seen = seen
        self._observations = observations
        self._observing = trio.CancelScope()
        self._notices = notices

    @property
    def facts(self) -> ServerFacts:
        """Its facts so far; `exited_ns` is set when its process, if known, has ended."""
        return self._facts

    @property
    def notices(self) -> Sequence[str]:
        """Sentences about how it is observed, and about numbers that are not visible."""
        return [*self._notices, *self._observations.notices]

    def pids(self) -> list[int]:
        """Return no process: its limit must not be changed."""
        return []

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:  # noqa: ARG002 -- it was opened for the right table
        """Return the sources of the sampler; the stack closes them."""
        seen = self._seen
        return Sources(
            process=seen.group,
            table=seen.group if seen.reads_table else None,
            listener=seen.listener,
            counters=None if seen.counters_of is None else stack.enter_context(TcpCounters(seen.counters_of)),
        )

    async def observe(self) -> None:
        """Record what the kernel shows of it until the run is judged."""
        with self._observing:
            await self._observations.run()

    async def wait_exited(self) -> int:
        """Wait until it has ended and return 0: only its parent knows its status. Never returns without a PID."""
        if self._seen.pidfd is None:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._seen.pidfd)
        self._facts = dataclasses.replace(self._facts, exited_ns=time.monotonic_ns())
        return 0

    async def go(self, start_ns: int) -> None:
        """Do nothing: it is already serving."""

    async def listen(self, backlog: int) -> None:
        """Do nothing: its backlog cannot be changed (a scenario that wants to is rejected)."""

    async def freeze(self) -> None:
        """Record the state of every connection; the server keeps running, so a second sample follows."""
        self._observing.cancel()
        self._observations.snapshot()
        await trio.sleep(_RECHECK_S)
        self._observations.sample()

    async def drain(self) -> int:
        """Do nothing: its queue is not ours."""
        return 0

    async def leave(self) -> None:
        """Do nothing: it keeps running."""


@asynccontextmanager
async def attached(spec: RunningSpec, *, namespace: Namespace) -> AsyncIterator[Attached]:
    """Observe a running server during the block.

    Raises EnvironmentRefusedError if it does not run, or if it is not clear where it listens.
    """
    diag = namespace.diag
    async with AsyncExitStack() as stack:
        try:
            where = locate(spec, diag)
            facts, seen, notices, counter = _see(stack, spec, where, diag)
        except ProcessGoneError:
            raise EnvironmentRefusedError(f"process {spec.pid} has just ended; start the server again") from None
        trace, untraced = None, list[str]()
        if seen.group is not None and where.seen:
            trace, untraced = trace_accepts(stack, where.port, seen.group.pids)
        notices += untraced
        ends = diag if where.seen else None
        observations = open_observations(stack, spec, seen.group, ends, port=where.port, counter=counter, trace=trace)
        target = Attached(facts, seen, observations, notices)
        nursery = await stack.enter_async_context(background())
        nursery.start_soon(target.observe)
        yield target


def _see(
    stack: AsyncExitStack, spec: RunningSpec, where: Reach, diag: SockDiag
) -> tuple[ServerFacts, _Seen, list[str], EmfileCounter | None]:
    """Return its facts, its readable parts, the notices about them, and its counter of failures."""
    if spec.pid is None:
        return _see_address(where, diag)
    process = stack.enter_context(Process(spec.pid))
    pids = partial(_pids, process)
    there, address, port, notices = diag, where.address, where.port, [_KEEPS_RUNNING]
    if not where.seen:
        there, (address, port) = _inside(stack, spec.pid, where, diag)
        notices.append(_NO_SOCKETS if port == _NOWHERE else _NO_ENDS.format(listener=join(address, port)))
    group = stack.enter_context(ProcessGroup(pids, there, address=address, port=port))
    may_read = _may_read(group)
    notices += [descriptors_notice(group, "this process and all its children"), *([] if may_read else [_NO_KINDS])]
    counter = None
    try:
        counter = stack.enter_context(EmfileCounter.of_running(pids))
    except NotVisibleError as why:
        notices.append(emfile_notice(why))
    facts = facts_of(group, _command(spec.pid), address=where.address, port=where.port, emfile_seen=bool(counter))
    pidfd = os.pidfd_open(spec.pid)
    stack.callback(os.close, pidfd)
    seen = _Seen(
        group=group,
        reads_table=may_read and port != _NOWHERE,
        pidfd=pidfd,
        listener=group.listener,
        counters_of=os.getpid() if where.seen else spec.pid,
    )
    return dataclasses.replace(facts, started=False, sockets_seen=where.seen), seen, notices, counter


def _see_address(where: Reach, diag: SockDiag) -> tuple[ServerFacts, _Seen, list[str], EmfileCounter | None]:
    """Return the same as `_see` for a server that is known only by its address."""
    if not where.seen:
        seen = _Seen(group=None, reads_table=False, pidfd=None, listener=lambda: None, counters_of=None)
        return _address_facts(where, None), seen, [_KEEPS_RUNNING, _NO_SOCKETS, _NO_PROCESS], None
    listener = partial(diag.listener, where.address, where.port)
    seen = _Seen(group=None, reads_table=False, pidfd=None, listener=listener, counters_of=os.getpid())
    return _address_facts(where, listener()), seen, [_KEEPS_RUNNING, _NO_PROCESS], None


def _inside(stack: AsyncExitStack, pid: int, where: Reach, diag: SockDiag) -> tuple[SockDiag, tuple[str, int]]:
    """Return a SockDiag of the network namespace of a process, and where it listens there; _NOWHERE if not readable."""
    try:
        there = stack.enter_context(diag_of(pid))
    except PermissionError:
        return diag, (where.address, _NOWHERE)
    return there, listener_of(pid, where.port, there) or (where.address, _NOWHERE)


def _address_facts(where: Reach, state: ListenerState | None) -> ServerFacts:
    """Return the facts of a server that is known only by its address."""
    return ServerFacts(
        pid=0,
        address=where.address,
        port=where.port,
        backlog_asked=None,
        backlog=state.backlog if state else None,
        nofile_soft=0,
        nofile_hard=0,
        baseline_fds=0,
        threads=0,
        command=[],
        emfile_seen=False,
        started=False,
        process_seen=False,
        sockets_seen=where.seen,
    )


def _pids(process: Process) -> list[int]:
    return family_tree(process.pid) if process.alive() else []


def _may_read(group: ProcessGroup) -> bool:
    try:
        group.map()
    except PermissionError:
        return False
    return True


def _command(pid: int) -> list[str]:
    """Return the command line of a process."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return [word.decode(errors="replace") for word in words]
