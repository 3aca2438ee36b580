"""Starts children with limits and in a namespace. They never outlive the conductor; some have a control channel.

A child starts as `enter` in an interpreter without site-packages, which takes about 15 ms. Children are started in the
main thread, because PR_SET_PDEATHSIG kills a child when the thread that forked it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import trio

from loadsim.errors import EnvironmentRefusedError, explanation
from loadsim.process.control import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from loadsim.kernel.limits import Limits
    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.process.control import Message


_ROOT = str(Path(__file__).resolve().parent.parent.parent)
_NONE = -1

#: Step and errno at which `enter` failed, and the remedy. The first match counts; 0 matches every errno.
_REMEDIES = (
    ("exec", errno.ENOENT, "check its spelling and PATH"),
    ("exec", errno.EACCES, "make it executable (chmod +x), or name its interpreter"),
    ("exec", errno.ENOEXEC, "give it a #! line, or name its interpreter"),
    ("exec", 0, "run it by hand to see what it needs"),
    ("nofile", 0, "ask for less, or raise the hard limit (ulimit -Hn, LimitNOFILE=); only root can"),
    ("setns", 0, 'set network.namespace = "host"'),
    ("parent", 0, "start loadsim again"),
)
_STEPS = {
    "exec": "cannot execute {command}",
    "nofile": "cannot set RLIMIT_NOFILE to {nofile.soft} (hard {nofile.hard})",
    "setns": "cannot enter the private network namespace",
    "parent": "cannot make {command} end with loadsim",
}


class Child:
    """A child process. Close it, or use it as a context manager: a running child is then killed and reaped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; -N if signal N killed it, None while it runs."""
        return self._process.poll()

    async def wait_exit(self) -> int:
        """Wait for its end and return its exit status, -N if signal N killed it; several tasks may wait."""
        while (status := self.returncode) is None:
            pidfd = os.pidfd_open(self.pid)  # cannot be another process: only this object reaps it
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal; no effect if it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it if it still runs, and reap it; harmless the second time."""
        if self.returncode is None:
            self.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        status = self.returncode
        return f"<Child {self.pid} {'running' if status is None else f'ended with {status}'}>"


def launch(
    argv: Sequence[str],
    *,
    control: socket.socket | None = None,
    namespace: Namespace | None = None,
    nofile: Limits | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Child:
    """Start a command in a new session and return once it is executed.

    `control` becomes its standard input (otherwise /dev/null) and is always closed here. `stdout` and
    `stderr` are as for subprocess.Popen; None means inherited. Without `nofile`, RLIMIT_NOFILE is inherited. Its fd
    table starts with 64 slots, however many descriptors the caller has open.

    Raises EnvironmentRefusedError if the kernel refuses the namespace, the limits or the command.
    """
    report, answer = os.pipe()
    namespaces = (None, None) if namespace is None else (namespace.user_fd, namespace.net_fd)
    fds = [answer, *(_NONE if fd is None else fd for fd in namespaces)]
    limits = [nofile.soft, nofile.hard] if nofile else [_NONE, _NONE]
    with open(report, "rb") as pipe:  # noqa: PTH123  # a descriptor, not a path
        try:
            process = start_bare(
                "enter",
                [*(str(number) for number in (os.getpid(), *fds, *limits)), *argv],
                stdin=subprocess.DEVNULL if control is None else control.fileno(),
                stdout=stdout,
                stderr=stderr,
                pass_fds=[fd for fd in fds if fd >= 0],
            )
        except OSError as error:
            raise not_started(error) from error
        finally:
            os.close(answer)
            if control is not None:
                control.close()
        with contextlib.ExitStack() as undo:
            child = undo.enter_context(Child(process))
            _raise_refusal(pipe.read().decode(), argv[0], nofile)
            undo.pop_all()
    return child


def start_bare(
    module: str,
    arguments: Sequence[str],
    *,
    stdin: int,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Run `main` of a module of this folder in a new session and a bare interpreter: no site-packages, no PYTHON*.

    Raises RuntimeError outside the main thread: the end of another thread would kill the child.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "start children in the main thread: the kernel kills them when the thread that started them ends"
        )
    code = f"import sys; sys.path.append({_ROOT!r}); from loadsim.process import {module}; {module}.main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def _raise_refusal(answer: str, command: str, nofile: Limits | None) -> None:
    """Raise the error in the reply of `enter`, "step errno"; an empty reply is success."""
    if answer:
        step, _, number = answer.partition(" ")
        raise refusal(step, int(number), command, nofile)


def not_started(error: OSError) -> EnvironmentRefusedError:
    """Return the error for a process that could not be created."""
    why = explanation(error) or f"{error}; raise the limits of processes and memory (ulimit -u, -v)"
    return EnvironmentRefusedError(f"cannot start a process: {why}")


def refusal(step: str, number: int, command: str, nofile: Limits | None) -> EnvironmentRefusedError:
    """Return the error for a command that was not executed: the step of `enter` that failed, and its errno or 0."""
    code = number or errno.EPERM  # Python reports a refused setrlimit as ValueError, without errno
    remedy = next(remedy for where, which, remedy in _REMEDIES if where == step and which in (0, code))
    what = _STEPS[step].format(command=command, nofile=nofile)
    return EnvironmentRefusedError(f"{what}: {os.strerror(code)}; {remedy}")


#: A child must be ready within this time after its start.
READY_S: Final = 30.0
#: A child is killed this long after the order to exit.
LEAVE_S: Final = 5.0
_LAST_LINES: Final = 8


class ControlledChild:
    """A child with a control channel; `ready` is the message with which it reported itself ready."""

    def __init__(self, child: Child, channel: Channel) -> None:
        self.child = child
        self.ready: Message = {}
        self._channel = channel

    async def tell(self, order: Message) -> None:
        """Send an order; no effect if the child has ended."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._channel.send(order)

    async def hear(self, event: str) -> Message | None:
        """Wait for an event; None if the child ends first."""
        while (message := await self._channel.receive()) is not None:
            if message["event"] == event:
                return message
        return None

    async def ask(self, order: str, event: str) -> Message | None:
        """Send an order and wait for an event; None if the child ends first."""
        await self.tell({"do": order})
        return await self.hear(event)

    async def leave(self) -> None:
        """Order it to exit and wait until it has; kill it after `LEAVE_S`."""
        await self.tell({"do": "exit"})
        await self.wait_ended()

    async def wait_ended(self) -> int:
        """Wait for the end of a child that was ordered to exit or lost its channel; return its exit status.

        It is killed after `LEAVE_S`: without its channel no order can reach it.
        """
        with trio.move_on_after(LEAVE_S):
            return await self.child.wait_exit()
        self.child.kill()
        return await self.child.wait_exit()


@asynccontextmanager
async def controlled_child(
    module: str,
    spec: Message,
    *,
    what: str,
    namespace: Namespace | None,
    stdout: Path | None = None,
    stderr: Path,
) -> AsyncIterator[ControlledChild]:
    """Run a module as a child, prepared with a spec; it exits at the end of the block.

    `what` names it in errors: "the simulated server". Enter it in the main thread. If the block raises, the child
    is killed at once. Raises EnvironmentRefusedError if it does not become ready.
    """
    child, channel = _start(module, namespace, stdout, stderr)
    with child:
        async with channel:
            one = ControlledChild(child, channel)
            one.ready = await _prepare(one, spec, what, stderr)
            yield one
            with trio.CancelScope(shield=True):
                await one.leave()


def _start(module: str, namespace: Namespace | None, stdout: Path | None, stderr: Path) -> tuple[Child, Channel]:
    """Start the process with one end of a control channel; return it with the other end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    argv = (sys.executable, "-P", "-m", module)
    with contextlib.ExitStack() as undo, theirs, contextlib.ExitStack() as files:
        undo.callback(ours.close)
        out = files.enter_context(stdout.open("wb")) if stdout else None
        errors = files.enter_context(stderr.open("wb"))
        child = launch(argv, control=theirs, namespace=namespace, stdout=out, stderr=errors)
        undo.pop_all()
    return child, Channel(ours)


async def _prepare(one: ControlledChild, spec: Message, what: str, stderr: Path) -> Message:
    """Send the spec and return the child's "ready" message."""
    answer: Message | None = None
    with trio.move_on_after(READY_S) as timeout, contextlib.suppress(trio.BrokenResourceError):
        await one._channel.send({"do": "prepare", "spec": spec})  # noqa: SLF001 -- `tell` would hide a lost message
        answer = await one._channel.receive()  # noqa: SLF001 -- "ready" or "failed"
    if answer is None:
        raise EnvironmentRefusedError(await _not_ready(one.child, what, stderr, late=timeout.cancelled_caught))
    if answer["event"] == "failed":
        raise EnvironmentRefusedError(answer["error"])
    return answer


async def _not_ready(child: Child, what: str, stderr: Path, *, late: bool) -> str:
    """Return why a child did not become ready, with the end of its standard error."""
    how = f"was not ready after {READY_S:.0f} s"
    if not late:
        how = f"ended with status {await child.wait_exit()} before it was ready"
    return f"{what} {how}; its last lines in {stderr}: {_end_of(stderr)}"


def _end_of(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """The network namespace of a run; valid inside the context manager that yields it."""

    kind: str  # "private" | "shared"
    reason: str = ""  # the reason why it is shared, a sentence that ends with the remedy
    diag: SockDiag  # reads the sockets in this namespace
    net_fd: int | None = None  # None: shared
    user_fd: int | None = None  # None: no user namespace was needed
    holder_pid: int | None = None  # /proc/PID/net is this namespace's; None: shared
    sysctls: dict[str, str] = field(default_factory=dict)  # in force
    not_applied: list[str] = field(default_factory=list)  # wanted sysctls that are not in force, as sentences
    notices: list[str] = field(default_factory=list)  # other differences from the intended namespace, as sentences

    @property
    def enter_hint(self) -> str:
        """The command that shows its TCP sockets to its owner."""
        if self.holder_pid is None:
            return "ss -tan"
        # without the option nsenter becomes uid 0, which is not mapped: only the id of its owner is
        user = "" if self.user_fd is None else "-U --preserve-credentials "
        return f"nsenter -t {self.holder_pid} {user}-n ss -tan"
