"""A run that is interrupted, killed, or loses a part leaves no process and a readable folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real

LONG = """
schema = 1
name = "long"
[server]
nofile = 64
leak = 1.0
[client]
rate = "200/s"
duration = "30s"
connect_timeout = "1s"
reply_timeout = "1s"
"""


def loadsim(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start the command line in its own session."""
    return subprocess.Popen(
        [sys.executable, "-m", "loadsim", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_until_under_load(folder: Path) -> Path:
    """Wait until the run in this folder has accepted connections, and return its result folder."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for manifest in folder.glob("results/*/manifest.json"):
            if not manifest.parent.is_symlink():
                time.sleep(1.0)
                return manifest.parent
        time.sleep(0.05)
    pytest.fail("the run did not start within 20 s")


def wait_gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run after 5 s."""
    alive: list[psutil.Process] = psutil.wait_procs(processes, timeout=5)[1]
    return alive


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, list[psutil.Process]]]:
    """A run under load: its conductor, its result folder, and its child processes."""
    (tmp_path / "long.toml").write_text(LONG)
    with loadsim("run", "long.toml", "--ui", "none", "--json", cwd=tmp_path) as conductor:
        try:
            folder = wait_until_under_load(tmp_path)
            children = psutil.Process(conductor.pid).children(recursive=True)
            assert len(children) >= 2
            yield conductor, folder, children
        finally:
            if conductor.poll() is None:
                os.killpg(conductor.pid, signal.SIGKILL)
            conductor.communicate(timeout=10)


def report(folder: Path) -> dict[str, object]:
    """Return the output of `loadsim report --json` for a result folder."""
    done = subprocess.run(
        [sys.executable, "-m", "loadsim", "report", str(folder), "--json"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    summary: dict[str, object] = json.loads(done.stdout)
    return summary


def test_sigkill_of_the_conductor_leaves_no_process(
    running: tuple[subprocess.Popen[bytes], Path, list[psutil.Process]],
) -> None:
    """Server, drivers and namespace holder end with the conductor, and the records up to then are readable."""
    conductor, folder, children = running
    conductor.kill()
    conductor.wait(timeout=10)
    assert wait_gone(children) == []
    summary = report(folder)
    assert summary["complete"] is False
    ledger = summary["ledger"]
    assert isinstance(ledger, dict)
    assert ledger["accepted"] > 0


def test_the_first_signal_drains_and_writes(
    running: tuple[subprocess.Popen[bytes], Path, list[psutil.Process]],
) -> None:
    """After SIGINT no attempt starts, attempts in flight end, the result is balanced, and the status is 130."""
    conductor, folder, children = running
    conductor.send_signal(signal.SIGINT)
    stdout, _ = conductor.communicate(timeout=15)
    assert conductor.returncode == 130
    summary = json.loads(stdout)
    assert summary["interrupted"] == "SIGINT"
    assert summary["balanced"]
    assert (folder / "attempts.npy").exists()
    assert wait_gone(children) == []


def test_a_signal_before_the_first_client_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C before the load gives exit status 130 and leaves no folder, no process and no dangling "latest"."""
    (tmp_path / "long.toml").write_text(LONG)
    with loadsim("run", "long.toml", "--ui", "none", cwd=tmp_path) as conductor:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("results/*/host.json")) and time.monotonic() < deadline:
            time.sleep(0.002)
        children = psutil.Process(conductor.pid).children(recursive=True)
        conductor.send_signal(signal.SIGINT)
        _, stderr = conductor.communicate(timeout=15)
    assert conductor.returncode == 130
    assert stderr == b"loadsim: interrupted before the first client; nothing was recorded\n"
    assert list((tmp_path / "results").iterdir()) == []
    assert wait_gone(children) == []


def test_the_second_signal_quits_at_once(
    running: tuple[subprocess.Popen[bytes], Path, list[psutil.Process]],
) -> None:
    """Two SIGINTs end the run without waiting for the clients in flight; the records so far are readable."""
    conductor, folder, children = running
    conductor.send_signal(signal.SIGINT)
    time.sleep(0.2)
    begun = time.monotonic()
    conductor.send_signal(signal.SIGINT)
    conductor.communicate(timeout=15)
    assert conductor.returncode == 130
    assert time.monotonic() - begun < 2.0
    assert wait_gone(children) == []
    assert report(folder)["complete"] is False


def test_a_killed_server_is_data(running: tuple[subprocess.Popen[bytes], Path, list[psutil.Process]]) -> None:
    """A server killed under load is a finding, and every attempt is still accounted for."""
    conductor, folder, children = running
    server = json.loads((folder / "manifest.json").read_text())["facts"]["server"]["pid"]
    os.kill(server, signal.SIGKILL)
    time.sleep(1)
    conductor.send_signal(signal.SIGINT)
    stdout, stderr = conductor.communicate(timeout=20)
    assert conductor.returncode == 130, stderr.decode()
    summary = json.loads(stdout)
    assert summary["balanced"]
    assert summary["ledger"]["refused"] > 0
    assert "target-ended" in [finding["id"] for finding in summary["findings"]]
    assert wait_gone(children) == []


def test_a_driver_that_is_killed_is_named(running: tuple[subprocess.Popen[bytes], Path, list[psutil.Process]]) -> None:
    """A run without its driver ends, is saved, and is marked incomplete."""
    conductor, folder, children = running
    drivers = [child for child in children if "loadsim.driver.driver" in child.cmdline()]
    drivers[0].kill()
    stdout, stderr = conductor.communicate(timeout=20)
    summary = json.loads(stdout)
    assert summary["complete"] is False, stderr.decode()
    assert "driver 1 ended with status -9" in summary["interrupted"]
    assert (folder / "summary.json").exists()
    assert wait_gone(children) == []
