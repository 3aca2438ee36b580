"""Children start with the given limits and namespace, are awaited, and end with their parent."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.limits import Limits, own_nofile
from loadsim.kernel.procfs import Process, ProcessGoneError
from loadsim.process.launch import Child, launch, start_bare

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.real

PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEP = ["sleep", "60"]
PATIENCE_S = 20

#: Starts a namespace and a child, prints their pids, and waits to be killed.
CONDUCTOR = """
import sys
import trio
import trio.testing
from loadsim.process.launch import launch
from loadsim.process.netns import private_namespace

async def main():
    async with private_namespace({}) as namespace:
        with launch(["sleep", "60"], namespace=namespace) as child:
            print(child.pid, namespace.holder_pid or 0, flush=True)
            await trio.sleep(60)

trio.run(main)
"""


def output_of(argv: list[str], *, nofile: Limits | None = None) -> str:
    """Return the standard output of a launched command."""
    report, answer = os.pipe()
    with open(report) as pipe:  # noqa: PTH123 - a descriptor
        try:
            child = launch(argv, nofile=nofile, stdout=answer)
        finally:
            os.close(answer)
        with child:
            return pipe.read()


def ended(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        with Process(pid) as process:
            return not process.alive()
    except ProcessGoneError:
        return True


def wait_until(condition: Callable[[], bool]) -> bool:
    """Return whether a condition becomes true in reasonable time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_control_is_standard_input() -> None:
    """The control channel is the child's standard input; our copy of its end is closed, so EOF is seen."""
    ours, theirs = socket.socketpair()
    code = "import socket; s = socket.socket(fileno=0); s.sendall(s.recv(9)[::-1])"
    with ours, launch([*PYTHON, code], control=theirs) as child:
        assert theirs.fileno() == -1
        ours.sendall(b"abc")
        assert ours.recv(9) == b"cba"
        assert ours.recv(9) == b""
        assert trio.run(child.wait_exit) == 0


def test_child_has_three_descriptors() -> None:
    """A child inherits no descriptors of the launcher or the conductor."""
    code = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    assert output_of([*PYTHON, code]) == "['0', '1', '2', '3']\n"


def test_fd_table_starts_small() -> None:
    """A child's fd table has 64 slots, even if the conductor has a descriptor above 255."""
    high = fcntl.fcntl(0, fcntl.F_DUPFD, 300)
    try:
        assert output_of(["grep", "FDSize", "/proc/self/status"]) == "FDSize:\t64\n"
    finally:
        os.close(high)


def test_child_has_a_session_of_its_own() -> None:
    """Ctrl-C in the terminal does not reach a child."""
    with launch(SLEEP) as child:
        assert os.getsid(child.pid) == child.pid


def test_child_dies_of_a_broken_pipe() -> None:
    """The launcher's interpreter ignores SIGPIPE and SIGXFSZ; the command does not."""
    ignored = int(output_of(["grep", "SigIgn", "/proc/self/status"]).split()[1], 16)
    assert [number for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << number - 1] == []


def test_limits_of_the_child() -> None:
    """The child has the given limits, or inherits ours."""
    with launch(SLEEP, nofile=Limits(soft=40, hard=50)) as child, Process(child.pid) as process:
        assert process.limits() == Limits(soft=40, hard=50)
    with launch(SLEEP) as child, Process(child.pid) as process:
        assert process.limits() == own_nofile()


def test_environment_of_the_child() -> None:
    """The launcher's interpreter ignores PYTHON... variables but passes them on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONLOADSIMTEST", "kept")
        assert output_of(["printenv", "PYTHONLOADSIMTEST"]) == "kept\n"


@pytest.mark.parametrize(
    ("argv", "nofile", "sentence"),
    [
        (["/does/not/exist"], None, "cannot execute /does/not/exist: No such file or directory; check its spelling"),
        ([str(Path(__file__))], None, f"cannot execute {__file__}: Permission denied; make it executable"),
        (
            ["true"],
            Limits(soft=9, hard=2**62),
            "cannot set RLIMIT_NOFILE to 9 .hard 4611686018427387904.: .*ulimit -Hn",
        ),
    ],
)
def test_refusals(argv: list[str], nofile: Limits | None, sentence: str) -> None:
    """A command that cannot be executed is an error with a remedy, and leaves no process or descriptor."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - only names
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(EnvironmentRefusedError, match=sentence):
        launch(argv, nofile=nofile, control=theirs)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - only names
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_exit_status() -> None:
    """Several tasks may wait for a child; all get its exit status."""
    statuses: list[int] = []

    async def wait(child: Child) -> None:
        statuses.append(await child.wait_exit())

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with launch([*PYTHON, "import sys; sys.stdin.read(); sys.exit(3)"], control=theirs) as child:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, child)
                nursery.start_soon(wait, child)
                await trio.testing.wait_all_tasks_blocked()
                assert child.returncode is None
                ours.close()
            assert child.returncode == 3

    trio.run(main)
    assert statuses == [3, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_by_a_signal(number: signal.Signals) -> None:
    """A child killed by signal N has the status -N; later signals are harmless."""
    with launch(SLEEP) as child:
        child.send_signal(number)
        assert trio.run(child.wait_exit) == -number
        child.kill()
        assert repr(child) == f"<Child {child.pid} ended with {-number}>"


def test_closing_ends_the_child() -> None:
    """Leaving the context kills and reaps a running child and leaves no descriptor; closing twice is harmless."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - only names
    with launch(SLEEP) as child:
        assert child.returncode is None
    child.close()
    assert child.returncode == -signal.SIGKILL
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - only names


def test_only_the_main_thread_starts_children() -> None:
    """Another thread may not start a child, because the end of that thread would kill it."""
    errors: list[BaseException] = []

    def start() -> None:
        try:
            launch(SLEEP)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert [str(error).split(":")[0] for error in errors] == ["start children in the main thread"]


def test_orphan_is_not_executed() -> None:
    """A child executes nothing if its conductor ends before PR_SET_PDEATHSIG."""
    report, answer = os.pipe()
    stranger = 1
    orders = [str(stranger), str(answer), "-1", "-1", "-1", "-1", "sleep", "60"]
    process = start_bare("enter", orders, stdin=subprocess.DEVNULL, pass_fds=[answer])
    os.close(answer)
    with open(report) as pipe, Child(process) as child:  # noqa: PTH123 - a descriptor
        assert pipe.read() == f"parent {errno.ESRCH}"
        assert trio.run(child.wait_exit) == 126


def test_killed_conductor_leaves_no_process() -> None:
    """SIGKILL of the conductor ends its children and the holder of its namespace."""
    with subprocess.Popen([sys.executable, "-c", CONDUCTOR], stdout=subprocess.PIPE, text=True) as conductor:
        assert conductor.stdout is not None
        pids = [int(pid) for pid in conductor.stdout.readline().split() if pid != "0"]
        conductor.kill()
    assert pids
    assert wait_until(lambda: all(map(ended, pids)))


def test_launched_processes_import_little() -> None:
    """The modules that server and drivers import load no library with threads, which would share the fd table."""
    code = """
import sys
import loadsim.process.launch, loadsim.kernel.limits, loadsim.kernel.timing, loadsim.process.netns
print({"numpy", "pydantic", "rich", "psutil", "click"} & set(sys.modules))
"""
    assert output_of([sys.executable, "-P", "-c", code]) == "set()\n"
