"""Children under limits, in a namespace, which never outlive the conductor.

Owns how a process of ours is started, awaited and ended. Knows nothing of what it runs.

Always `subprocess.Popen` in the main thread: the kernel's bond to the parent is one to the *thread* that forked, and
trio's own `open_process` forks in a worker thread that ends after 10 s of idleness, taking the child along. The child
starts as `enter`, in an interpreter without site-packages, which costs about 15 ms; it enters namespaces, sets
limits, ties itself to the conductor, and executes the command.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import trio

from loadsim.errors import EnvironmentRefusedError, explanation

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from loadsim.kernel.limits import Limits
    from loadsim.kernel.netns import Namespace

_ROOT = str(Path(__file__).resolve().parent.parent.parent)
_NONE = -1

#: Where `enter` failed, and with what -> the remedy. The first row that fits; 0 fits every errno.
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
    "parent": "cannot tie {command} to the life of loadsim",
}


class Child:
    """One running child. Close it, or use it as a context manager: what still runs then is killed and reaped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, -N when signal N killed it, None while it runs."""
        return self._process.poll()

    async def wait_exit(self) -> int:
        """Wait for its end and return its exit status, -N when signal N killed it; several tasks may wait."""
        while (status := self.returncode) is None:
            pidfd = os.pidfd_open(self.pid)  # cannot be another process: nobody but us reaps it
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it (SIGKILL)."""
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
    """Start a command in a session of its own and return when it has been executed.

    `control` becomes its standard input and is closed here in any case; without it that is /dev/null. `stdout` and
    `stderr` are as for subprocess.Popen, None = inherited. `nofile` None: RLIMIT_NOFILE as inherited. Its fd table
    starts at 64 slots, whatever the caller has open.

    Raises EnvironmentRefusedError where the namespace, the limits or the command are refused.
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

    Raises RuntimeError outside the main thread, whose end would otherwise be the child's.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "start children in the main thread: the kernel kills them when the thread ends that started them"
        )
    code = f"import sys; sys.path.append({_ROOT!r}); from loadsim.kernel import {module}; {module}.main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def _raise_refusal(answer: str, command: str, nofile: Limits | None) -> None:
    """Raise what `enter` answered, "step errno"; nothing when the command was executed."""
    if answer:
        step, _, number = answer.partition(" ")
        raise refusal(step, int(number), command, nofile)


def not_started(error: OSError) -> EnvironmentRefusedError:
    """Return why the kernel made no process at all."""
    why = explanation(error) or f"{error}; raise the limits of processes and memory (ulimit -u, -v)"
    return EnvironmentRefusedError(f"cannot start a process: {why}")


def refusal(step: str, number: int, command: str, nofile: Limits | None) -> EnvironmentRefusedError:
    """Return why a command was not executed, from the step of `enter` at which it failed and the errno, 0 = none."""
    code = number or errno.EPERM  # Python reports a refused setrlimit as ValueError, without errno
    remedy = next(remedy for where, which, remedy in _REMEDIES if where == step and which in (0, code))
    what = _STEPS[step].format(command=command, nofile=nofile)
    return EnvironmentRefusedError(f"{what}: {os.strerror(code)}; {remedy}")
