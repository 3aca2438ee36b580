"""A part of loadsim is killed or stopped: the run says so, keeps its records, and leaves no process."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faulty_runs import hurt_run, needs_strace, refused
from real_runs import run_scenario

from loadsim.errors import EnvironmentRefusedError
from loadsim.targets.simulated import Server

if TYPE_CHECKING:
    from contextlib import ExitStack

    from faulty_runs import Left

    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.targets import Sources

pytestmark = pytest.mark.real


def assert_nothing_left(left: Left) -> None:
    """Assert that it ended without a traceback and left no process."""
    assert left.code is not None, "it hangs"
    assert (left.tracebacks, left.orphans) == ([], []), left.stderr


def test_killed_observers_are_named(tmp_path: Path) -> None:
    """A run with killed canary, held clients and namespace holder accounts for all other clients, and says so."""
    with hurt_run(tmp_path) as run:
        run.wait_ready()
        time.sleep(0.2)
        for pid in [run.pid_of(part) for part in ("canary", "held", "holder")]:
            os.kill(pid, signal.SIGKILL)
        left = run.wait_end()
    assert_nothing_left(left)
    summary = left.report()
    assert (left.code, summary["status"], summary["balanced"]) == (0, "INCONCLUSIVE", True)
    assert summary["ledger"]["accepted"] == 120
    for what in ("the canary", "the held clients"):
        assert f"{what} ended with status -9" in " ".join(left.stdout.split())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_conductor_ends_at_any_moment(number: signal.Signals, tmp_path: Path) -> None:
    """Killed or interrupted at the start, under load or while saving, it leaves no orphan and a readable folder."""
    chance = random.Random(int(number))  # noqa: S311  # no secret
    moments = [1.0 + chance.uniform(0.0, 2.0) for _ in range(4 if number is signal.SIGINT else 3)]

    def end_at(moment_s: float) -> Left:
        folder = tmp_path / f"{moment_s:.6f}"
        folder.mkdir()
        with hurt_run(folder) as run:
            time.sleep(moment_s)
            run.process.send_signal(number)
            return run.wait_end()

    with ThreadPoolExecutor(4) as pool:
        for left in pool.map(end_at, moments):
            assert_nothing_left(left)
            if left.begun:
                left.report()
            assert left.code in (0, -signal.SIGKILL if number is signal.SIGKILL else 128 + signal.SIGINT)


def test_a_server_that_dies_before_the_first_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so and names the file with its last output."""
    sources = Server.sources

    def too_late(server: Server, stack: ExitStack, diag: SockDiag) -> Sources:
        server.child.close()
        return sources(server, stack, diag)

    monkeypatch.setattr(Server, "sources", too_late)
    with pytest.raises(
        EnvironmentRefusedError, match=r"the server ended before the first client; see .*target\.stderr"
    ):
        run_scenario("healthy", tmp_path)


def test_a_stopped_conductor_continues_and_says_so(tmp_path: Path) -> None:
    """The load does not wait for it, and the result has a notice about the gap in the samples."""
    with hurt_run(tmp_path) as run:
        run.wait_ready()
        time.sleep(0.2)
        run.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        run.process.send_signal(signal.SIGCONT)
        left = run.wait_end()
    assert_nothing_left(left)
    summary = left.report()
    assert (left.code, summary["ledger"]["accepted"]) == (0, 120)
    assert [notice for notice in summary["notices"] if notice.startswith("no sample was taken for 1.")]


def test_a_closed_standard_output_does_not_lose_the_result(tmp_path: Path) -> None:
    """If standard output is a closed pipe, the result is saved and the exit code is normal."""
    with hurt_run(tmp_path) as run:
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.process.stdout = None
        left = run.wait_end()
    assert_nothing_left(left)
    assert left.code == 0
    command = [sys.executable, "-m", "loadsim", "report", str(left.folder)]
    with Path("/dev/full").open("wb", buffering=0) as full:
        again = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert again.returncode == 3
    assert again.stderr.startswith("loadsim: the result could not be printed: No space left on device; ")


def test_without_standard_descriptors_it_runs(tmp_path: Path) -> None:
    """Started with 0, 1 and 2 closed, as by some init systems, it does not use their numbers for its own files."""

    def close_all() -> None:
        for fd in range(3):
            os.close(fd)

    with hurt_run(tmp_path, before=close_all) as run:
        left = run.wait_end()
    assert_nothing_left(left)
    assert left.code == 0
    assert left.report()["ledger"]["accepted"] == 120


def on_a_terminal(folder: Path, *, hang_up: bool) -> tuple[Left, bytes]:
    """Run on a terminal until clients start, then close it or type Ctrl-C; return the remains and the output."""
    master, slave = pty.openpty()
    shown = b""

    def take_terminal() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with hurt_run(folder, terminal=slave, before=take_terminal) as run:
        os.close(slave)
        while b" started" not in shown:
            shown += os.read(master, 65_536)
        if not hang_up:
            os.write(master, b"\x03")
            shown += read_all(master)
        os.close(master)
        return run.wait_end(), shown


def read_all(master: int) -> bytes:
    """Return all output of a terminal until its last writer has closed it."""
    shown = b""
    try:
        while True:
            shown += os.read(master, 65_536)
    except OSError:
        return shown


def test_ctrl_c_gives_the_terminal_back(tmp_path: Path) -> None:
    """After Ctrl-C at a terminal, the run drains, is saved and shown, and the hidden cursor is visible again."""
    left, shown = on_a_terminal(tmp_path, hang_up=False)
    assert_nothing_left(left)
    assert left.code == 130
    assert b"Traceback" not in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    summary = left.report()
    assert (summary["interrupted"], summary["balanced"]) == ("SIGINT", True)


def test_a_terminal_that_is_closed_ends_the_run(tmp_path: Path) -> None:
    """After SIGHUP, without a terminal, the run drains and is saved."""
    left, _ = on_a_terminal(tmp_path, hang_up=True)
    assert_nothing_left(left)
    assert left.code == 128 + signal.SIGHUP
    summary = left.report()
    assert (summary["interrupted"], summary["balanced"]) == ("SIGHUP", True)


#: One run for each case; together they cover every call and every part that makes it during a run.
DIAGONAL = (
    ("server", "accept4", 2),
    ("server", "epoll_ctl", 3),
    ("driver", "socket", 4),
    ("driver", "connect", 2),
    ("driver", "epoll_ctl", 5),
    ("conductor", "openat", 5),
    ("conductor", "epoll_ctl", 4),
    ("conductor", "mmap", 1),
    ("conductor", "write", 2),
    ("conductor", "socket", 1),
)


@needs_strace
def test_the_nth_call_fails(tmp_path: Path) -> None:
    """A call that the kernel refuses to any part leaves no traceback, no orphan, and a readable result."""

    def refuse(case: tuple[str, str, int]) -> Left:
        part, call, number = case
        return refused(tmp_path / f"{part}-{call}-{number}", part, call, number)

    with ThreadPoolExecutor(4) as pool:
        for case, left in zip(DIAGONAL, pool.map(refuse, DIAGONAL), strict=True):
            assert_nothing_left(left)
            assert left.code in (0, 1, 3), (case, left.stderr)
            assert left.code == 3 or left.begun, case
            if left.begun:  # otherwise it was refused before the first record
                found = [finding["id"] for finding in left.report()["findings"]]
                assert "target-ended" not in found, case  # a server continues without one client
