"""A command and all its descendants: started with a limit, tracked, and ended to the last process.

Owns the `supervisor` process and its control channel. A command that cannot be started is an error; after the start,
its end is data. Must not know the purpose of the command.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from loadsim.errors import EnvironmentRefusedError, innermost
from loadsim.kernel.limits import own_nofile
from loadsim.kernel.procfs import descendants
from loadsim.process.control import Channel
from loadsim.process.launch import Child, not_started, refusal, start_bare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from loadsim.kernel.limits import Limits
    from loadsim.process.control import Message
    from loadsim.process.launch import Namespace

#: Time between SIGTERM and SIGKILL.
GRACE_S: Final = 3.0
#: Time after which processes that hang in the kernel and cannot be killed are given up.
_GIVE_UP_S: Final = 10.0
_NONE = -1


class Tree:
    """A running or ended command with its descendants."""

    def __init__(self, child: Child, channel: Channel) -> None:
        self.exit_status: int | None = None  # of the command itself; -N: killed by signal N
        self.emptied_ns = 0  # when the last process of the tree ended; 0: one still runs
        self.killed = False  # it did not end in time after SIGTERM
        self._child = child
        self._channel = channel
        self._empty = trio.Event()

    @property
    def root_pid(self) -> int:
        """The supervisor of the tree, in its namespaces; it ends with the tree."""
        return self._child.pid

    def pids(self) -> list[int]:
        """Return the processes that run now; parents come before children."""
        return [] if self.emptied_ns else descendants(self._child.pid)

    async def wait_empty(self) -> None:
        """Wait until no process of the tree is left; several tasks may wait."""
        await self._empty.wait()

    async def end(self, grace_s: float = GRACE_S) -> None:
        """Send SIGTERM to all processes, and SIGKILL after `grace_s`; `killed` records whether that was needed."""
        begun = trio.current_time()
        await self._tell({"do": "end", "grace_s": grace_s})
        with trio.move_on_after(grace_s + _GIVE_UP_S):
            await self.wait_empty()
        self.killed = trio.current_time() - begun >= grace_s

    async def _tell(self, order: Message) -> None:
        if not self.emptied_ns:
            try:
                await self._channel.send(order)
            except trio.BrokenResourceError:
                await self.wait_empty()

    async def _start(self) -> Message | None:
        await self._tell({"do": "start"})
        return await self._channel.receive()

    async def _listen(self) -> None:
        """Record the ends of the command and of the tree."""
        while (message := await self._channel.receive()) is not None:
            if message["event"] == "exited":
                self.exit_status = message["status"]
            elif message["event"] == "empty":
                self.emptied_ns = message["at_ns"]
        self._empty.set()


@asynccontextmanager
async def tree(
    argv: Sequence[str],
    *,
    namespace: Namespace | None,
    nofile: Limits | None,
    stdout: int,
    stderr: int,
    before: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[Tree]:
    """Run a command in a new session; at the end of the block none of its descendants is left.

    `stdout` and `stderr` are descriptors, always closed here. `before` is called before the command starts, with the
    pid of the process that will be the root of the tree. The command may not raise its hard limit. Enter it
    in the main thread. Raises EnvironmentRefusedError if the kernel refuses the namespace, the limits or the command.
    """
    child, channel = _start_supervisor(argv, namespace, nofile, (stdout, stderr))
    with child:
        try:
            async with channel:
                before(child.pid)
                one = Tree(child, channel)
                answer = await one._start()  # noqa: SLF001 -- this is its constructor
                _raise_refusal(answer, argv[0], nofile)
                async with background() as nursery:
                    nursery.start_soon(one._listen)  # noqa: SLF001 -- the same
                    yield one
        finally:  # the channel is closed: that is the order to kill what is left
            with trio.move_on_after(_GIVE_UP_S, shield=True):
                await child.wait_exit()


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Yield a nursery with tasks that end with the block; an error of the block is raised without a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if isinstance(error := innermost(group), EnvironmentRefusedError):
            raise error from None
        raise


def _start_supervisor(
    argv: Sequence[str], namespace: Namespace | None, nofile: Limits | None, output: tuple[int, int]
) -> tuple[Child, Channel]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    user_fd, net_fd = (None, None) if namespace is None else (namespace.user_fd, namespace.net_fd)
    fds = [_NONE if fd is None else fd for fd in (user_fd, net_fd)]
    limits = [nofile.soft, nofile.hard] if nofile else [_NONE, _NONE]
    with ExitStack() as undo, theirs:
        undo.callback(ours.close)
        files = [open(fd, "wb", buffering=0) for fd in output]  # noqa: PTH123, SIM115  # descriptors, closed below
        try:
            process = start_bare(
                "supervisor",
                [*(str(number) for number in (*fds, *limits)), *argv],
                stdin=theirs.fileno(),
                stdout=files[0],
                stderr=files[1],
                pass_fds=[fd for fd in fds if fd >= 0],
            )
        except OSError as error:
            raise not_started(error) from error
        finally:
            for file in files:
                file.close()
        undo.pop_all()
    return Child(process), Channel(ours)


def _raise_refusal(answer: Message | None, command: str, nofile: Limits | None) -> None:
    if answer is None:
        raise EnvironmentRefusedError(f"cannot start {command}: its supervisor process ended; try again")
    if answer["event"] == "failed":
        raise refusal(answer["step"], answer["code"], command, nofile or own_nofile())
