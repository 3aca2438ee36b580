"""Runs of the command line that are disturbed from outside, and their remains.

For tests, and for the checks in `tests/bench/`. A run and all its processes have a unique word in their environment,
which finds every process that the run leaves behind.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from click.testing import CliRunner

from loadsim.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The scenario of every run: clients with a hold, a canary and held clients, in two seconds.
SCENARIO = """
schema = 1
name = "hurt"
[server]
nofile = 64
close_after = "client"
[client]
rate = "200/s"
duration = "600ms"
exchange = "echo"
hold = "200ms"
connect_timeout = "500ms"
reply_timeout = "500ms"
[canary]
held = 2
every = "100ms"
linger = "100ms"
"""
#: A run that takes longer than this hangs.
PATIENCE_S = 30.0
_MARK = "LOADSIM_HURT"
_REPORTING = threading.Lock()  # click's runner replaces standard output
#: The parts that get refused calls, and the calls with their possible errnos.
PARTS_HURT = ("conductor", "driver", "server")
REFUSALS = {
    "accept4": ("ENOMEM", "EMFILE", "ENFILE", "ECONNABORTED"),
    "socket": ("ENFILE", "ENOMEM", "EMFILE", "ENOBUFS"),
    "connect": ("ENOMEM", "EADDRNOTAVAIL", "ENOBUFS", "ECONNREFUSED"),
    "openat": ("EMFILE", "ENFILE", "ENOMEM", "ENOSPC"),
    "mmap": ("ENOMEM",),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
}
#: A part of the command line of each process of a run.
_PARTS = {
    "driver": "loadsim.driver.driver",
    "server": "loadsim.simulated.server",
    "held": "loadsim.driver.held",
    "holder": "import holder",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The remains of a run."""

    code: int | None  # None: it hung and was killed
    stdout: str
    stderr: str
    folder: Path | None  # of its result; None: no folder
    orphans: list[str]  # command lines of processes that outlived it
    hit: bool = False  # the chosen call was made, and failed

    @property
    def tracebacks(self) -> list[str]:
        """The texts with a traceback: output of the command and of its processes."""
        texts = [self.stdout, self.stderr]
        texts += [path.read_text(errors="replace") for path in self.folder.glob("*.stderr")] if self.folder else []
        return [text for text in texts if "Traceback (most recent call last)" in text]

    @property
    def begun(self) -> bool:
        """Whether its folder can be reported on."""
        return self.folder is not None and (self.folder / "manifest.json").exists()

    def report(self) -> dict[str, Any]:
        """Return the output of `loadsim report --json`; fails if there is none. Only one thread reports at a time."""
        assert self.folder is not None, self.stderr
        with _REPORTING:
            done = CliRunner().invoke(main, ["report", str(self.folder), "--json"])
        assert done.exit_code == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary


class Hurt:
    """A run in progress."""

    def __init__(self, process: subprocess.Popen[str], out: Path, word: str) -> None:
        self.process = process
        self.pid = process.pid
        self._out = out
        self._word = word
        self._first_line = ""

    def wait_ready(self) -> None:
        """Wait for the first line, which appears when all parts are ready, just before the first client."""
        assert self.process.stderr is not None
        self._first_line = self.process.stderr.readline()
        assert " clients, " in self._first_line, self._first_line + self.process.stderr.read()
        until = time.monotonic() + 10
        while time.monotonic() < until and not ((path := self.folder()) and (path / "manifest.json").exists()):
            time.sleep(0.002)

    def wait_part(self, part: str) -> int:
        """Wait until a part has started, and return its pid; if the run ends first, return that of the conductor."""
        while self.process.poll() is None:
            if (pid := parts_of(self.pid).get(part)) is not None:
                return pid
            time.sleep(0.002)
        return self.pid

    def pid_of(self, part: str) -> int:
        """Return the pid of one part; see `parts_of`."""
        return parts_of(self.pid)[part]

    def folder(self) -> Path | None:
        """Return its result folder; None: not made yet."""
        return next((path for path in self._out.glob("2*") if path.is_dir()), None)

    def wait_end(self) -> Left:
        """Wait until the command has ended, and return its remains; kill it if it hangs."""
        try:
            stdout, stderr = self.process.communicate(timeout=PATIENCE_S)
            code: int | None = self.process.returncode
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            code = None
        return Left(
            code=code,
            stdout=stdout or "",
            stderr=self._first_line + (stderr or ""),
            folder=self.folder(),
            orphans=wait_gone(self._word),
        )


def parts_of(conductor: int) -> dict[str, int]:
    """Return the pids of a run in progress: "conductor", "driver", "server", "held", "canary", "holder"."""
    found = {"conductor": conductor}
    try:
        children: list[psutil.Process] = psutil.Process(conductor).children()
    except psutil.Error:
        return found
    for child in children:
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:  # it has ended meanwhile
            continue
        part = next((part for part, word in _PARTS.items() if word in line), None)
        if part is not None:
            found["canary" if part in found else part] = child.pid  # the canary is the driver that starts last
    return found


@contextmanager
def hurt_run(
    folder: Path,
    *arguments: str,
    before: Callable[[], None] | None = None,
    out: Path | None = None,
    terminal: int | None = None,
) -> Iterator[Hurt]:
    """Start a run in this folder, in its own session; `before` is called in its process before exec().

    With a `terminal` as its standard descriptors, it shows the live view. At the end of the block, its remaining
    processes are killed.
    """
    scenario = folder / "hurt.toml"
    scenario.write_text(SCENARIO)
    out, word, ui = out or folder / "out", secrets.token_hex(8), "plain" if terminal is None else "live"
    process = subprocess.Popen(
        [sys.executable, "-m", "loadsim", "run", str(scenario), "--out", str(out), "--ui", ui, *arguments],
        cwd=folder,
        env=os.environ | {_MARK: word, "TERM": "xterm"},
        stdin=terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE if terminal is None else terminal,
        text=True,
        start_new_session=True,
        preexec_fn=before,  # noqa: PLW1509  # no test has threads
    )
    try:
        yield Hurt(process, out, word)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        for pid in _marked(word):
            os.kill(pid, signal.SIGKILL)


def run_to_end(
    *arguments: str, before: Callable[[], None] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, and return its output; `before` as for `hurt_run`."""
    command = [sys.executable, "-m", "loadsim", *arguments]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=cwd,
        preexec_fn=before,
    )


def wait_gone(word: str, patience_s: float = 5.0) -> list[str]:
    """Wait until no process has this word; return the command lines of processes that still have it."""
    deadline = time.monotonic() + patience_s
    while (marked := _marked(word)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return list(marked.values())


def _marked(word: str) -> dict[int, str]:
    """Return pid and command line of every running process that has this word."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARK}={word}".encode() in path.read_bytes():
                line = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(path.parent.name)] = line
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


@contextmanager
def failing(pid: int, fault: tuple[str, int, str], log: Path) -> Iterator[None]:
    """Make a call fail by strace: its name, its number in each process from now on, the errno."""
    call, number, error = fault
    orders = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"]
    command = ["strace", "-f", "-o", str(log), *orders, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            line = strace.stderr.readline()
            if "attached" not in line:
                pytest.skip(f"strace may not attach here: {line.strip()}")
            yield
        finally:
            if strace.poll() is None:
                strace.terminate()  # it detaches from the remaining processes
            strace.communicate()


def refused(folder: Path, part: str, call: str, number: int) -> Left:
    """Make a run in a new folder in which the n-th call of a part fails, counted from when all parts are ready."""
    folder.mkdir()
    errors, log = REFUSALS[call], folder / "strace.log"
    with hurt_run(folder) as run:
        run.wait_ready()
        with failing(run.pid_of(part), (call, number, errors[(number - 1) % len(errors)]), log):
            left = run.wait_end()
    return replace(left, hit="(INJECTED)" in log.read_text())


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
