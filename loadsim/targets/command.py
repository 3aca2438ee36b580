"""A command as the target: started under a limit, sampled, its output counted, ended with all its children."""

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
from loadsim.targets.address import choose_port, wait_ready
from loadsim.targets.observed import facts_of, not_counted, open_observations, trace_accepts, whose
from loadsim.targets.target import Sources
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


#: Bytes kept of the beginning, and as many of the end.
KEPT: Final = 1_000_000
#: Room in the pipe: the command is not to wait for us. As much as every user may ask for (fs.pipe-max-size).
_PIPE_BYTES: Final = 1_048_576
_LAST_LINES: Final = 8
#: How often one looks how much was written, and how many readings are kept: of more than that every second one.
METERED_EVERY_S: Final = 0.1
_READINGS: Final = 400
_PATIENCE_S: Final = 1.0


class Meter:
    """How much was written by when, since the meter was made."""

    def __init__(self, written: Callable[[], int]) -> None:
        self._written = written
        self._before = written()
        self._reading_every = 1  # of the looks
        self._looks = 0
        self.readings: list[tuple[int, int]] = [(time.monotonic_ns(), 0)]  # when, and bytes until then

    @property
    def total(self) -> int:
        """Return the bytes until the last look."""
        return self.readings[-1][1]

    def read(self) -> None:
        """Look once."""
        newest = (time.monotonic_ns(), self._written() - self._before)
        if self._looks % self._reading_every:
            self.readings[-1] = newest
        else:
            self.readings.append(newest)
        self._looks += 1
        if len(self.readings) > _READINGS:
            del self.readings[1:-1:2]
            self._reading_every *= 2


class Output:
    """One stream of a command. `end` is the descriptor that the command writes to; whoever starts it closes that."""

    def __init__(self, path: Path) -> None:
        """Make the pipe and the file."""
        self.written = 0
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        ours, self.end = os.pipe()
        with contextlib.suppress(OSError):  # the user has too many large pipes already: a small one does
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._stream = trio.lowlevel.FdStream(ours)
        self._ended = trio.Event()

    async def pump(self) -> None:
        """Read all there is, until every process that could write has ended."""
        while piece := await self._stream.receive_some(_PIPE_BYTES):
            self._take(piece)
        self._ended.set()

    async def wait_end(self) -> None:
        """Wait until all has been read; at most a second, should somebody else have got hold of the pipe."""
        with trio.move_on_after(_PATIENCE_S):
            await self._ended.wait()

    def last_words(self) -> str:
        """Return its last lines, each after two spaces on a line of its own; "" where it wrote nothing."""
        kept = b"".join(self._tail) or self._path.read_bytes()
        lines = kept[-_PIPE_BYTES:].decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return "".join(f"\n  {line[:200]}" for line in lines)

    def close(self) -> None:
        """Write the end to the file, below how much is missing in between; harmless the second time."""
        if self._file.closed:
            return
        tail = b"".join(self._tail)[-KEPT:]
        if left_out := self.written - min(self.written, KEPT) - len(tail):
            self._file.write(f"\n[loadsim: {left_out:,} bytes are left out here]\n".encode())
        self._file.write(tail)
        self._file.close()

    async def aclose(self) -> None:
        """Give up reading, and `close`."""
        await self._stream.aclose()
        self.close()

    def _take(self, piece: bytes) -> None:
        room = max(KEPT - self.written, 0)
        self.written += len(piece)
        if room:
            self._file.write(piece[:room])
        if rest := piece[room:]:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) >= KEPT:
                self._tail_bytes -= len(self._tail.popleft())


#: Where the port goes in a command.
PORT: Final = "{port}"
_DETACHED: Final = (
    "The command itself ended with status {status}; the processes that it left behind hold the listener, and are "
    "followed."
)
#: A process that was stopped stops within this, wherever its threads run.
_STOPPED_S: Final = 0.01


class Command:
    """A command that listens: a `contract.Target`."""

    def __init__(
        self,
        facts: ServerFacts,
        running: Tree,
        *,
        followed: ProcessGroup,
        sightings: Observations,
        outputs: tuple[Output, Output],
        notices: list[str],
    ) -> None:
        self._facts = facts
        self._tree = running
        self._followed = followed
        self._sightings = sightings
        self._outputs = outputs
        self._notices = notices
        self._watching = trio.CancelScope()
        self._log = Meter(self._written)
        self._survived: int | None = None  # exit status of the command itself, when others had gone on without it
        self._told_to_leave = False

    @property
    def facts(self) -> ServerFacts:
        """What is known of it; `exit_status` and `exited_ns` say whether and when it died by itself."""
        self._note_exit()
        return self._facts

    @property
    def notices(self) -> list[str]:
        """What is sampled of it, what cannot be seen, and what else it did: whole sentences."""
        notices = [*self._notices, *self._sightings.notices]
        self._note_exit()
        if self._survived is not None:
            notices.append(_DETACHED.format(status=self._survived))
        if self._tree.killed:
            notices.append(f"The command had not ended {format_duration(GRACE_S)} after SIGTERM, and was killed.")
        return notices

    def pids(self) -> list[int]:
        """All processes of the command: a limit that is changed holds for its workers, too."""
        return list(self._tree.pids())

    def sources(self, stack: ExitStack, diag: SockDiag) -> Sources:  # noqa: ARG002 -- it sees its sockets already
        """Return what the sampler reads, open as long as the stack.

        Raises DidNotStartError where the command has ended meanwhile: it listened, and did not stay.
        """
        try:
            counters = TcpCounters(self._tree.root_pid)  # whoever held the listener may be gone
        except ProcessGoneError as error:
            said = (self._outputs[1].last_words() or self._outputs[0].last_words()) or "nothing"
            raise DidNotStartError(
                f"{(self._facts.command or ['the command'])[0]} ended right after it had begun to listen; run it by "
                f"hand to see what it needs. Its last words: {said}"
            ) from error
        return Sources(
            process=self._followed,
            table=self._followed,
            listener=self._followed.listener,
            counters=stack.enter_context(counters),
        )

    async def watch(self) -> None:
        """Write down what is seen of it until the run is judged."""
        with self._watching:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sightings.watch)
                while True:
                    await trio.sleep(METERED_EVERY_S)
                    self._log.read()

    async def wait_exited(self) -> int:
        """Wait until nothing is left of it and return the exit status of the command itself."""
        await self._tree.wait_empty()
        self._note_exit()
        return self._tree.exit_status or 0

    async def go(self, start_ns: int) -> None:  # noqa: ARG002 -- it does not wait for anybody
        """Count what it writes from now on, and who of its workers ends."""
        self._log = Meter(self._written)
        self._followed.mark()

    async def listen(self, backlog: int) -> None:
        """Do nothing: no command can be told its backlog (a scenario that asks for it is refused)."""

    async def freeze(self) -> None:
        """Stop all its processes (SIGSTOP), so that what is seen of them is one state; they go on in `leave`."""
        self._note_exit()
        self._watching.cancel()
        self._log.read()
        facts = dataclasses.replace(self._facts, log_bytes=self._log.total, log_read=self._log.readings)
        lost = 0 if self._tree.emptied_ns else self._followed.lost_workers
        self._facts = dataclasses.replace(facts, workers=self._followed.workers, restarts=lost)
        for pid in self._tree.pids():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        await trio.sleep(_STOPPED_S)
        self._sightings.judge()

    async def drain(self) -> int:
        """Do nothing: no command can be asked to empty its queue."""
        return 0

    async def leave(self) -> None:
        """End all of it: SIGTERM, and SIGKILL for what has not ended soon after."""
        self._note_exit()
        self._told_to_leave = True
        await self._tree.end()

    def _written(self) -> int:
        return sum(output.written for output in self._outputs)

    def _note_exit(self) -> None:
        died = self._tree.emptied_ns
        if self._told_to_leave:
            return
        if not died:
            self._survived = self._tree.exit_status
        elif self._facts.exit_status is None:
            self._facts = dataclasses.replace(self._facts, exit_status=self._tree.exit_status or 0, exited_ns=died)


@asynccontextmanager
async def command(
    spec: CommandSpec, *, namespace: Namespace, stdout_path: Path, stderr_path: Path
) -> AsyncIterator[Command]:
    """Start a command, wait until it listens, and end all of it at the end of the block.

    Raises EnvironmentRefusedError, with its last words, where it does not come to listen where it should.
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
        followed = stack.enter_context(ProcessGroup(running.pids, namespace.diag, address=spec.address, port=port))
        trace, untraced = trace_accepts(stack, port, running.pids)

        def last_words() -> str:
            return outputs[1].last_words() or outputs[0].last_words()

        await wait_ready(running, followed, namespace.diag, spec=spec, port=port, last_words=last_words)
        seen = gate.counter is not None
        facts = facts_of(followed, argv, address=spec.address, port=port, emfile_seen=seen)
        sightings = open_observations(
            stack, spec, followed, namespace.diag, port=port, counter=gate.counter, trace=trace
        )
        notices = [*_notices(facts, nofile or own_nofile(), followed), *gate.notices, *untraced]
        one = Command(facts, running, followed=followed, sightings=sightings, outputs=outputs, notices=notices)
        nursery.start_soon(one.watch)
        yield one
        await one.leave()
        for output in outputs:
            await output.wait_end()


class _Gate:
    """Opens the counter of failures in the short time in which the command's parent exists and the command does not."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.counter: EmfileCounter | None = None
        self.notices: list[str] = []
        self._stack = stack

    def open_counter(self, pid: int) -> None:
        try:
            self.counter = self._stack.enter_context(EmfileCounter(pid))
        except NotVisibleError as why:
            self.notices.append(not_counted(why))


def _notices(facts: ServerFacts, given: Limits, followed: ProcessGroup) -> list[str]:
    notices = [whose(followed, "the command and all its children")]
    if facts.nofile_soft != given.soft:
        notices.append(
            f"The command changed its own RLIMIT_NOFILE from {format_count(given.soft)} to "
            f"{format_count(facts.nofile_soft)}; set server.nofile, which is its hard limit too."
        )
    return notices
