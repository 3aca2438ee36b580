"""Any command as the server under test: observed, explained if it does not listen, and ended with its children."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from perf_rights import needs_perf, needs_trace
from real_runs import run_scenario, wait_until, write_scenario

from loadsim.analysis.dataset import Dataset
from loadsim.errors import EnvironmentRefusedError
from loadsim.record.recording import column, has_flag
from loadsim.record.records import SocketFlag
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from real_runs import Ran

pytestmark = pytest.mark.real

SERVER = str(Path(__file__).parent.parent / "support" / "foreign_server.py")
SCENARIO = """
[server]
command = {command}
nofile = {nofile}
start_timeout = "{start}"
[client]
rate = "100/s"
attempts = {attempts}
exchange = "none"
hold = "500ms"
[network]
namespace = "{namespace}"
"""


def foreign(folder: Path, *words: str, **settings: object) -> Ran:
    """Run a scenario with the test server; the words choose its behaviour, and the folder marks its processes."""
    command = [sys.executable, SERVER, "{port}", *words, f"of={folder}"]
    values = {"nofile": 64, "start": "5s", "attempts": 30, "namespace": "private", **settings}
    text = SCENARIO.format(command=json.dumps(command), **values)
    return run_scenario(write_scenario(folder, text), folder)


def left_over(folder: Path) -> list[str]:
    """Return the command lines of processes that were started for this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"of={folder}" in line:
            found.append(line)
    return found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No process of the command runs after a test."""
    yield
    assert left_over(tmp_path) == []


def test_a_command_is_loaded_and_observed(tmp_path: Path) -> None:
    """The TCP table shows that every client was accepted; metrics that need records are absent."""
    ran = foreign(tmp_path)
    summary = ran.summary
    assert (summary.ledger["accepted"], summary.ledger["unknown"]) == (30, 0)
    assert summary.balanced
    assert summary.metrics["fds.limit"] == 64
    assert summary.metrics["fds.max"] > summary.metrics["fds.baseline"] == summary.metrics["fds.end"]
    assert not {"join.foreign", "emfile.handler"} & set(summary.metrics)
    assert summary.metrics["accept.samples"] == 30
    assert ran.recording.facts.server.command is not None


@pytest.mark.parametrize("namespace", ["host", "private"])
def test_it_runs_in_either_namespace(namespace: str, tmp_path: Path) -> None:
    """A command runs in the host's namespace or in a private one."""
    ran = foreign(tmp_path, namespace=namespace, attempts=5)
    assert ran.summary.ledger["accepted"] == 5


@needs_trace
def test_the_kernels_own_waits_lie_between_the_bounds(tmp_path: Path) -> None:
    """A server that pauses has exact waits with a trace of the kernel, and bounds between two samples without."""
    traced = foreign(tmp_path, "pauses", attempts=60).recording
    without = dataclasses.replace(traced, sockets=traced.sockets[~has_flag(traced.sockets, SocketFlag.TRACED)])
    exact, bounded = (Dataset.of(recording).bounds for recording in (traced, without))

    assert exact is not None
    assert bounded is not None
    assert (exact.exact, bounded.exact) == (True, False)
    assert len(exact.most) == len(bounded.most) == 60
    by_attempt = np.argsort(column(traced.attempts, "connected"))  # first in, first out
    assert (bounded.least[by_attempt] <= exact.most).all()
    assert (exact.most <= bounded.most[by_attempt]).all()
    assert exact.most.max() > 0.2 * NANOSECONDS
    assert bounded.least.max() > 0.1 * NANOSECONDS


@needs_perf
def test_emfile_is_counted_exactly(tmp_path: Path) -> None:
    """A server prints that accept() failed 1,000 times, and the kernel's counter agrees."""
    ran = foreign(tmp_path, "spins", nofile=16)
    metrics = ran.summary.metrics
    assert (ran.folder / "target.stdout").read_text() == "EMFILE 1000\n"
    assert metrics["emfile.count"] + metrics["emfile.idle"] == 1000
    assert ran.summary.ledger["queued"] > 0
    assert ran.summary.balanced


def test_a_command_that_exits_at_once_is_quoted(tmp_path: Path) -> None:
    """The error has its status and its last output."""
    with pytest.raises(EnvironmentRefusedError, match=r"ended with status 1 before it listened(?s:.)*no configuration"):
        foreign(tmp_path, "exits")


def test_a_command_that_never_listens_is_given_up(tmp_path: Path) -> None:
    """The error has the time and the knob."""
    with pytest.raises(EnvironmentRefusedError, match=r"after 500 ms; .*server\.start_timeout"):
        foreign(tmp_path, "hangs", start="500ms")


def test_a_command_that_listens_elsewhere_is_recognised(tmp_path: Path) -> None:
    """The error names the port that it listens on."""
    with pytest.raises(EnvironmentRefusedError, match=r"listens on port \d+, not on 127\.0\.0\.1:\d+"):
        foreign(tmp_path, "elsewhere", start="500ms")


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """The command is not started if its port is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = SCENARIO.format(command='["true"]', nofile=64, start="1s", attempts=1, namespace="host")
        scenario = write_scenario(tmp_path, f"{text}port = {port}\n")
        with pytest.raises(EnvironmentRefusedError, match=f"port {port} of 127.0.0.1 is in use"):
            run_scenario(scenario, tmp_path)


def test_a_command_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    """The error names the program."""
    text = SCENARIO.format(
        command='["no-such-program", "{port}"]', nofile=64, start="1s", attempts=1, namespace="private"
    )
    with pytest.raises(EnvironmentRefusedError, match="cannot execute no-such-program"):
        run_scenario(write_scenario(tmp_path, text), tmp_path)


def test_a_daemon_is_observed_and_ended(tmp_path: Path) -> None:
    """A daemon that left its session and its parent is observed, and ended at the end."""
    ran = foreign(tmp_path, "detaches")
    assert ran.summary.ledger["accepted"] == 30
    assert ran.recording.facts.server.exit_status is None
    assert any("itself ended with status 0" in notice for notice in ran.summary.notices)


def test_workers_are_observed(tmp_path: Path) -> None:
    """The fullest of the processes that hold the listener is sampled, and a notice says so."""
    ran = foreign(tmp_path, "forks")
    assert any("the fullest of the 3 processes" in notice for notice in ran.summary.notices)
    assert ran.summary.ledger["accepted"] == 30


@pytest.mark.parametrize(("word", "workers"), [("forks", 3), ("forks_each", 1), ("detaches", 1), ("respawns", 2)])
def test_only_workers_that_end_are_restarts(word: str, workers: int, tmp_path: Path) -> None:
    """A child for one client and the parent of a daemon are not lost workers."""
    server = foreign(tmp_path, word, attempts=60).recording.facts.server
    assert server.workers == workers
    assert (server.restarts > 0) == (word == "respawns")


def test_its_death_is_data(tmp_path: Path) -> None:
    """A command that ends while the load lasts is a finding with its status; later clients are refused."""
    ran = foreign(tmp_path, "dies", attempts=100)
    server = ran.recording.facts.server
    assert (server.exit_status, ran.summary.metrics["server.exit"]) == (7, 7)
    assert ran.summary.findings[0].id == "target-ended"
    assert ran.summary.ledger["refused"] > 0
    assert sum(ran.summary.ledger.values()) == 100
    assert ran.summary.balanced


def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """It is killed after some seconds, and a notice says so."""
    ran = foreign(tmp_path, "ignores", attempts=5)
    assert any("was killed" in notice for notice in ran.summary.notices)


def test_a_flood_of_log_lines_does_not_fill_the_disk(tmp_path: Path) -> None:
    """All bytes are counted, and the first and the last megabyte are saved."""
    ran = foreign(tmp_path, "floods", attempts=50)
    size = (ran.folder / "target.stderr").stat().st_size
    assert ran.summary.metrics["server.log_rate"] > 2e6
    assert 1_900_000 < size < 2_100_000
    assert b"bytes are left out here" in (ran.folder / "target.stderr").read_bytes()


def test_a_command_cannot_raise_its_hard_limit(tmp_path: Path) -> None:
    """This also holds for root, because the capability was dropped."""
    ran = foreign(tmp_path, "raises", attempts=5)
    assert (ran.folder / "target.stdout").read_text() == "refused\n"
    assert ran.recording.facts.server.nofile_hard == 64


TALKING = """
[server]
command = {command}
[client]
rate = "100/s"
attempts = 20
exchange = "raw"
send = "{send}"
expect = "{expect}"
[canary]
held = 2
linger = "300ms"
[network]
namespace = "private"
"""


@pytest.mark.parametrize(
    ("command", "send", "expect"),
    [
        ("redis-server --port {port} --protected-mode no --dir {folder}", r"PING\r\n", "+PONG"),
        ("memcached -u nobody -p {port} -U 0", r"stats\r\n", "STAT pid"),
    ],
)
def test_servers_with_their_own_protocol(command: str, send: str, expect: str, tmp_path: Path) -> None:
    """A raw exchange recognises their replies, also if a reply is longer than the expected text."""
    words = command.replace("{folder}", str(tmp_path)).split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    text = TALKING.format(command=json.dumps(words), send=send, expect=expect)
    ran = run_scenario(write_scenario(tmp_path, text), tmp_path)
    metrics = ran.summary.metrics
    assert (ran.summary.outcomes["ok"], ran.summary.ledger["accepted"]) == (20, 20)
    assert (metrics["canary.availability"], metrics["held.count"], metrics["held.cut"]) == (1.0, 2, 0)


def test_a_killed_conductor_leaves_no_process(tmp_path: Path) -> None:
    """The processes of a command end with the conductor, daemons too."""
    command = [sys.executable, SERVER, "{port}", "detaches", "ignores", f"of={tmp_path}"]
    text = SCENARIO.format(command=json.dumps(command), nofile=64, start="5s", attempts=1000, namespace="private")
    argv = [sys.executable, "-m", "loadsim", "run", write_scenario(tmp_path, text), "--out", str(tmp_path / "out")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as conductor:
        wait_until(lambda: any("detaches" in line for line in left_over(tmp_path)))
        time.sleep(0.5)
        conductor.send_signal(signal.SIGKILL)
    wait_until(lambda: left_over(tmp_path) == [])
