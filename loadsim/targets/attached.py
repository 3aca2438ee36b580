"""A server that runs already, as the server under test: looked at, and nothing else.

Nothing of it is started, limited, stopped or ended. What cannot be seen of it is not made up: it is absent, and said.
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
from loadsim.targets.address import Reach, door_of, family_tree, join, locate
from loadsim.targets.observed import facts_of, not_counted, open_observations, trace_accepts, whose
from loadsim.targets.target import Sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import ExitStack

    from loadsim.kernel.sockdiag import ListenerState, SockDiag
    from loadsim.process.launch import Namespace
    from loadsim.scenario.specs import RunningSpec
    from loadsim.targets.observed import Observations

#: A connection that accept() is just returning belongs to nobody for a moment: who has an owner after this is no
#: longer taken for one that waits.
_SECOND_LOOK_S: Final = 0.02
_GOES_ON: Final = (
    "The server ran before and goes on: nothing of it was started, limited or stopped, and what its other clients do "
    "to it is in these numbers, too."
)
_NO_PROCESS: Final = (
    "Descriptors, limit, CPU, memory and EMFILE of the server are not seen: add --pid N where it runs on this host."
)
_NO_SOCKETS: Final = (
    "Its accept queue, its drops and its ends of the connections are not in a table that can be read here: only an "
    "answer proves that it took a client, and where all others ended is unknown."
)
_NO_ENDS: Final = (
    "Its accept queue and its drops, at {door}, are read where it is. Which of its connections are those of clients "
    "from here is not known: only an answer proves that it took one; where all others ended is unknown."
)
#: No socket has this port: where a server is in no table that can be read, nothing in ours is taken for its.
_NOWHERE: Final = 0
_NO_TABLE: Final = (
    "What its descriptors are is not seen, for it belongs to another user: run loadsim as that user, or as root."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is looked at; None: it cannot be."""

    followed: ProcessGroup | None
    reads_table: bool  # whether one may look into its descriptors, and knows its sockets
    pidfd: int | None
    listener: Callable[[], ListenerState | None]
    counters_of: int | None  # a process in its network namespace


class Running:
    """A server that runs: a `contract.Target` that obeys nobody."""

    def __init__(self, facts: ServerFacts, seen: _Seen, sightings: Observations, notices: Sequence[str]) -> None:
        self._facts = facts
        self._seen = seen
        self._sightings = sightings
        self._watching = trio.CancelScope()
        self._notices = notices

    @property
    def facts(self) -> ServerFacts:
        """What is known of it; `exited_ns` says when it ended, where its process is known."""
        return self._facts

    @property
    def notices(self) -> Sequence[str]:
        """How it is seen, and what of it is not: whole sentences."""
        return [*self._notices, *self._sightings.notices]

    def pids(self) -> list[int]:
        """None whose limit may be changed."""
        return []

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:  # noqa: ARG002 -- what is seen is known already
        """Return what the sampler reads, open as long as the stack."""
        seen = self._seen
        return Sources(
            process=seen.followed,
            table=seen.followed if seen.reads_table else None,
            listener=seen.listener,
            counters=None if seen.counters_of is None else stack.enter_context(TcpCounters(seen.counters_of)),
        )

    async def watch(self) -> None:
        """Write down what is seen of it until the run is judged."""
        with self._watching:
            await self._sightings.watch()

    async def wait_exited(self) -> int:
        """Wait until it has ended; 0, for how it did is its parent's to know. For ever, where no process is known."""
        if self._seen.pidfd is None:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._seen.pidfd)
        self._facts = dataclasses.replace(self._facts, exited_ns=time.monotonic_ns())
        return 0

    async def go(self, start_ns: int) -> None:
        """Do nothing: it waits for nobody."""

    async def listen(self, backlog: int) -> None:
        """Do nothing: it cannot be told its backlog (a scenario that asks for it is refused)."""

    async def freeze(self) -> None:
        """Write down where all connections are; it goes on meanwhile, so a second look follows."""
        self._watching.cancel()
        self._sightings.judge()
        await trio.sleep(_SECOND_LOOK_S)
        self._sightings.look()

    async def drain(self) -> int:
        """Do nothing: what is in its queue is its own."""
        return 0

    async def leave(self) -> None:
        """Do nothing: it goes on."""


@asynccontextmanager
async def running(spec: RunningSpec, *, namespace: Namespace) -> AsyncIterator[Running]:
    """Look at a server as long as the block lasts.

    Raises EnvironmentRefusedError where it does not run, or nobody can say where it listens.
    """
    diag = namespace.diag
    async with AsyncExitStack() as stack:
        try:
            where = locate(spec, diag)
            facts, seen, notices, counter = _see(stack, spec, where, diag)
        except ProcessGoneError:
            raise EnvironmentRefusedError(f"process {spec.pid} has just ended; start the server again") from None
        trace, untraced = None, list[str]()
        if seen.followed is not None and where.seen:
            trace, untraced = trace_accepts(stack, where.port, seen.followed.pids)
        notices += untraced
        ends = diag if where.seen else None
        sightings = open_observations(stack, spec, seen.followed, ends, port=where.port, counter=counter, trace=trace)
        one = Running(facts, seen, sightings, notices)
        nursery = await stack.enter_async_context(background())
        nursery.start_soon(one.watch)
        yield one


def _see(
    stack: AsyncExitStack, spec: RunningSpec, where: Reach, diag: SockDiag
) -> tuple[ServerFacts, _Seen, list[str], EmfileCounter | None]:
    """Return what is known, what is looked at, and what has to be said of that."""
    if spec.pid is None:
        return _see_address(where, diag)
    process = stack.enter_context(Process(spec.pid))
    pids = partial(_pids, process)
    there, address, port, notices = diag, where.address, where.port, [_GOES_ON]
    if not where.seen:
        there, (address, port) = _inside(stack, spec.pid, where, diag)
        notices.append(_NO_SOCKETS if port == _NOWHERE else _NO_ENDS.format(door=join(address, port)))
    followed = stack.enter_context(ProcessGroup(pids, there, address=address, port=port))
    may_read = _may_read(followed)
    notices += [whose(followed, "this process and all its children"), *([] if may_read else [_NO_TABLE])]
    counter = None
    try:
        counter = stack.enter_context(EmfileCounter.of_running(pids))
    except NotVisibleError as why:
        notices.append(not_counted(why))
    facts = facts_of(followed, _command(spec.pid), address=where.address, port=where.port, emfile_seen=bool(counter))
    pidfd = os.pidfd_open(spec.pid)
    stack.callback(os.close, pidfd)
    seen = _Seen(
        followed=followed,
        reads_table=may_read and port != _NOWHERE,
        pidfd=pidfd,
        listener=followed.listener,
        counters_of=os.getpid() if where.seen else spec.pid,
    )
    return dataclasses.replace(facts, started=False, sockets_seen=where.seen), seen, notices, counter


def _see_address(where: Reach, diag: SockDiag) -> tuple[ServerFacts, _Seen, list[str], EmfileCounter | None]:
    """Return the same as `_see` of a server of which only the address is known."""
    if not where.seen:
        seen = _Seen(followed=None, reads_table=False, pidfd=None, listener=_nobody_knows, counters_of=None)
        return _little(where, None), seen, [_GOES_ON, _NO_SOCKETS, _NO_PROCESS], None
    listener = partial(diag.listener, where.address, where.port)
    seen = _Seen(followed=None, reads_table=False, pidfd=None, listener=listener, counters_of=os.getpid())
    return _little(where, listener()), seen, [_GOES_ON, _NO_PROCESS], None


def _inside(stack: AsyncExitStack, pid: int, where: Reach, diag: SockDiag) -> tuple[SockDiag, tuple[str, int]]:
    """Return who sees the sockets of a process that is elsewhere, and where it listens there, as far as permitted."""
    try:
        there = stack.enter_context(diag_of(pid))
    except PermissionError:
        return diag, (where.address, _NOWHERE)
    return there, door_of(pid, where.port, there) or (where.address, _NOWHERE)


def _little(where: Reach, state: ListenerState | None) -> ServerFacts:
    """Return the facts of a server of which only the address is known."""
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


def _nobody_knows() -> None:
    """Stand for a listener that is in no table that can be read here."""


def _pids(process: Process) -> list[int]:
    return family_tree(process.pid) if process.alive() else []


def _may_read(followed: ProcessGroup) -> bool:
    try:
        followed.map()
    except PermissionError:
        return False
    return True


def _command(pid: int) -> list[str]:
    """Return how a process was started, as it says itself."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return [word.decode(errors="replace") for word in words]
