"""A command as the target: started under a limit, observed, its output counted, ended with all its children."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import time
from collections import deque
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from loadsim.errors import DidNotStartError
from loadsim.kernel.limits import Limits, own_nofile
from loadsim.kernel.perf import EmfileCounter, NotVisibleError
from loadsim.kernel.processes import ProcessGroup
from loadsim.kernel.procfs import ProcessGoneError, TcpCounters
from loadsim.process.tree import GRACE_S, background, tree
from loadsim.targets import Sources
from loadsim.targets.observed import (
    descriptors_notice,
    emfile_notice,
    facts_of,
    open_observations,
    trace_accepts,
)
from loadsim.targets.readiness import choose_port, wait_ready
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.process.launch import Namespace
    from loadsim.process.tree import Tree
    from loadsim.record.facts import ServerFacts
    from loadsim.scenario.specs import CommandSpec
    from loadsim.targets.observed import Observations

#: The placeholder for the port in a command.
PORT: Final = "{port}"
#: Bytes of an output that are kept from its beginning, and again from its end.
KEPT: Final = 1_000_000
#: Time between two readings of the amount written, and the number of readings after which every second one is dropped.
METERED_EVERY_S: Final = 0.1
_READINGS: Final = 400
#: Size of the pipe, so large that the command does not wait for us: the most that any user may set (fs.pipe-max-size).
_PIPE_BYTES: Final = 1_048_576
_LAST_LINES: Final = 8
_PATIENCE_S: Final = 1.0
#: After SIGSTOP, all threads of a process have stopped within this time.
_STOPPED_S: Final = 0.01
_DETACHED: Final = (
    "The command itself ended with status {status}; the processes that it left behind hold the listener and are "
    "observed."
)


class Command:
    """A command that listens: a `Target`."""

    def __init__(
        self,
        facts: ServerFacts,
        running: Tree,
        *,
        group: ProcessGroup,
        observations: Observations,
        outputs: tuple[Output, Output],
        notices: list[str],
    ) -> None:
        self._facts = facts
        self._tree = running
        self._group = group
        self._observations = observations
        self._outputs = outputs
        self._notices = notices
        self._observing = trio.CancelScope()
        self._log = Meter(self._written)
        self._parent_status: int | None = None  # exit status of the command, if its children outlive it
        self._leaving = False

    @property
    def facts(self) -> ServerFacts:
        """Its facts so far; `exit_status` and `exited_ns` are set if it died by itself."""
        self._note_exit()
        return self._facts

    @property
    def notices(self) -> list[str]:
        """Sentences about how it is observed, numbers that are not visible, and other events."""
        notices = [*self._notices, *self._observations.notices]
        self._note_exit()
        if self._parent_status is not None:
            notices.append(_DETACHED.format(status=self._parent_status))
        if self._tree.killed:
            notices.append(f"The command did not end within {format_duration(GRACE_S)} after SIGTERM and was killed.")
        return notices

    def pids(self) -> list[int]:
        """Return all its processes: a changed limit applies to its workers too."""
        return list(self._tree.pids())

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:  # noqa: ARG002 -- its sockets are already read
        """Return the sources of the sampler; the stack closes them.

        Raises DidNotStartError if the command has already ended.
        """
        try:
            counters = TcpCounters(self._tree.root_pid)  # the holder of the listener may have ended
        except ProcessGoneError as error:
            output = self._outputs[1].last_words() or self._outputs[0].last_words() or "nothing"
            raise DidNotStartError(
                f"{(self._facts.command or ['the command'])[0]} ended right after it began to listen; run it by hand "
                f"to see the reason. Its last output: {output}"
            ) from error
        return Sources(
            process=self._group,
            table=self._group,
            listener=self._group.listener,
            counters=stack.enter_context(counters),
        )

    async def observe(self) -> None:
        """Record what the kernel shows of it until the run is judged."""
        with self._observing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._observations.run)
                while True:
                    await trio.sleep(METERED_EVERY_S)
                    self._log.read()

    async def wait_exited(self) -> int:
        """Wait until its last process has ended and return the exit status of the command itself."""
        await self._tree.wait_empty()
        self._note_exit()
        return self._tree.exit_status or 0

    async def go(self, start_ns: int) -> None:  # noqa: ARG002 -- it is already serving
        """Count its output and the ends of its workers from now on."""
        self._log = Meter(self._written)
        self._group.mark()

    async def listen(self, backlog: int) -> None:
        """Do nothing: the backlog of a command cannot be changed (a scenario that wants to is rejected)."""

    async def freeze(self) -> None:
        """Stop all its processes by SIGSTOP for a consistent snapshot; they continue in `leave`."""
        self._note_exit()
        self._observing.cancel()
        self._log.read()
        facts = dataclasses.replace(self._facts, log_bytes=self._log.total, log_read=self._log.readings)
        lost = 0 if self._tree.emptied_ns else self._group.lost_workers
        self._facts = dataclasses.replace(facts, workers=self._group.workers, restarts=lost)
        for pid in self._tree.pids():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        await trio.sleep(_STOPPED_S)
        self._observations.snapshot()

    async def drain(self) -> int:
        """Do nothing: a command cannot be asked to empty its queue."""
        return 0

    async def leave(self) -> None:
        """End all its processes by SIGTERM, and by SIGKILL after a grace period."""
        self._note_exit()
        self._leaving = True
        await self._tree.end()

    def _written(self) -> int:
        return sum(output.written for output in self._outputs)

    def _note_exit(self) -> None:
        died = self._tree.emptied_ns
        if self._leaving:
            return
        if not died:
            self._parent_status = self._tree.exit_status
        elif self._facts.exit_status is None:
            self._facts = dataclasses.replace(self._facts, exit_status=self._tree.exit_status or 0, exited_ns=died)


@asynccontextmanager
async def command(
    spec: CommandSpec, *, namespace: Namespace, stdout_path: Path, stderr_path: Path
) -> AsyncIterator[Command]:
    """Start a command, wait until it listens, and end all its processes at the end of the block.

    Raises EnvironmentRefusedError, with its last output, if it does not listen at its address in time.
    """
    port = choose_port(spec, namespace.diag)
    argv = [part.replace(PORT, str(port)) for part in spec.command]
    nofile = Limits(soft=spec.nofile, hard=max(spec.nofile, spec.nofile_later)) if spec.nofile is not None else None
    async with AsyncExitStack() as stack:
        outputs = (Output(stdout_path), Output(stderr_path))
        for output in outputs:
            stack.push_async_callback(output.aclose)
        nursery = await stack.enter_async_context(background())
        for output in outputs:
            nursery.start_soon(output.pump)
        gate = _Gate(stack)
        running = await stack.enter_async_context(
            tree(
                argv,
                namespace=namespace,
                nofile=nofile,
                stdout=outputs[0].end,
                stderr=outputs[1].end,
                before=gate.open_counter,
            )
        )
        group = stack.enter_context(ProcessGroup(running.pids, namespace.diag, address=spec.address, port=port))
        trace, untraced = trace_accepts(stack, port, running.pids)

        def last_words() -> str:
            return outputs[1].last_words() or outputs[0].last_words()

        await wait_ready(running, group, namespace.diag, spec=spec, port=port, last_words=last_words)
        emfile_seen = gate.counter is not None
        facts = facts_of(group, argv, address=spec.address, port=port, emfile_seen=emfile_seen)
        observations = open_observations(
            stack, spec, group, namespace.diag, port=port, counter=gate.counter, trace=trace
        )
        notices = [*_notices(facts, nofile or own_nofile(), group), *gate.notices, *untraced]
        target = Command(facts, running, group=group, observations=observations, outputs=outputs, notices=notices)
        nursery.start_soon(target.observe)
        yield target
        await target.leave()
        for output in outputs:
            await output.wait_end()


class Meter:
    """The bytes written over time, since the meter was made."""

    def __init__(self, written: Callable[[], int]) -> None:
        self._written = written
        self._before = written()
        self._keep_every = 1  # keep every n-th reading
        self._taken = 0
        self.readings: list[tuple[int, int]] = [(time.monotonic_ns(), 0)]  # time, and bytes until then

    @property
    def total(self) -> int:
        """The bytes until the last reading."""
        return self.readings[-1][1]

    def read(self) -> None:
        """Take one reading."""
        newest = (time.monotonic_ns(), self._written() - self._before)
        if self._taken % self._keep_every:
            self.readings[-1] = newest
        else:
            self.readings.append(newest)
        self._taken += 1
        if len(self.readings) > _READINGS:
            del self.readings[1:-1:2]
            self._keep_every *= 2


class Output:
    """One output stream of a command. The command writes to the descriptor `end`, which the launcher closes."""

    def __init__(self, path: Path) -> None:
        self.written = 0
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        ours, self.end = os.pipe()
        with contextlib.suppress(OSError):  # the user has too many large pipes; a small one suffices
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._stream = trio.lowlevel.FdStream(ours)
        self._ended = trio.Event()

    async def pump(self) -> None:
        """Read the pipe until every process that can write to it has ended."""
        while piece := await self._stream.receive_some(_PIPE_BYTES):
            self._take(piece)
        self._ended.set()

    async def wait_end(self) -> None:
        """Wait until everything was read, for at most a second: another process may have inherited the pipe."""
        with trio.move_on_after(_PATIENCE_S):
            await self._ended.wait()

    def last_words(self) -> str:
        """Return its last lines, each indented on a new line; "" if it wrote nothing."""
        kept = b"".join(self._tail) or self._path.read_bytes()
        lines = kept[-_PIPE_BYTES:].decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return "".join(f"\n  {line[:200]}" for line in lines)

    def close(self) -> None:
        """Write the end of the output to the file, after a line with the size of the gap; may be called twice."""
        if self._file.closed:
            return
        tail = b"".join(self._tail)[-KEPT:]
        if left_out := self.written - min(self.written, KEPT) - len(tail):
            self._file.write(f"\n[loadsim: {left_out:,} bytes are left out here]\n".encode())
        self._file.write(tail)
        self._file.close()

    async def aclose(self) -> None:
        """Stop reading, and `close`."""
        await self._stream.aclose()
        self.close()

    def _take(self, piece: bytes) -> None:
        left = max(KEPT - self.written, 0)
        self.written += len(piece)
        if left:
            self._file.write(piece[:left])
        if rest := piece[left:]:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) >= KEPT:
                self._tail_bytes -= len(self._tail.popleft())


class _Gate:
    """Opens the counter of failures in the moment when the command's parent exists and the command does not."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.counter: EmfileCounter | None = None
        self.notices: list[str] = []
        self._stack = stack

    def open_counter(self, pid: int) -> None:
        try:
            self.counter = self._stack.enter_context(EmfileCounter(pid))
        except NotVisibleError as why:
            self.notices.append(emfile_notice(why))


def _notices(facts: ServerFacts, given: Limits, group: ProcessGroup) -> list[str]:
    notices = [descriptors_notice(group, "the command and all its children")]
    if facts.nofile_soft != given.soft:
        notices.append(
            f"The command changed its own RLIMIT_NOFILE from {format_count(given.soft)} to "
            f"{format_count(facts.nofile_soft)}; set server.nofile, which is also its hard limit."
        )
    return notices
