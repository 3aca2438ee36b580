"""Steps of a timeline and the canary on the real kernel: changes are in force, and the canary detects outages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from real_runs import Ran, run_scenario, write_scenario

from loadsim.fates import Outcome
from loadsim.record.recording import known
from loadsim.record.records import AttemptFlag

pytestmark = pytest.mark.real

#: Sixty clients connect at once and stay; the table holds less than half of them. A second later all leave.
CROWD = """
[server]
nofile = 32
backlog = 1024
close_after = "client"
[client]
rate = "1000/s"
attempts = 60
hold = "20s"
exchange = "echo"
reply_timeout = "20s"
[timeline]
steps = [{at = "1s", release = 1.0}]
[canary]
every = "40ms"
timeout = "300ms"
held = 2
linger = "1s"
"""


def assert_accounted_for(ran: Ran) -> None:
    """Assert that the ledger balances, and that no accept is foreign."""
    assert ran.summary.imbalance == []
    assert ran.summary.foreign == 0
    assert sum(ran.summary.ledger.values()) == len(ran.recording.attempts)


@pytest.fixture(scope="module")
def relieved(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run in which all clients leave while most of them wait."""
    folder = tmp_path_factory.mktemp("relieved")
    return run_scenario(write_scenario(folder, CROWD), folder)


def test_a_release_ends_all_clients(relieved: Ran) -> None:
    """Served clients end as planned, waiting ones unfinished, and the run does not wait for the hold."""
    attempts, [step] = relieved.recording.attempts, relieved.recording.facts.steps
    assert_accounted_for(relieved)
    assert (attempts["flags"] & AttemptFlag.RELEASED != 0).all()
    assert set(attempts["outcome"].tolist()) == {Outcome.OK, Outcome.UNFINISHED}
    late = attempts["ended"].astype(np.int64) - step.done_ns
    assert (late.min() >= -1_000_000, late.max() < 500_000_000) == (True, True)
    assert relieved.summary.duration_s < 5


def test_the_canary_sees_an_outage_and_its_end(relieved: Ran) -> None:
    """No canary is answered while the table is full; after the release every canary is."""
    metrics, canary = relieved.summary.metrics, relieved.recording.canary
    assert 0.2 < metrics["canary.availability"] < 0.9
    assert metrics["canary.longest_outage_s"] > 0.8
    assert metrics["canary.silent"] > 5
    assert 0 < metrics["recovery.time_s"] < 0.1 * (metrics["recovery.emfile"] + 1) + 0.1
    assert (canary["source"] == 254).all()
    assert canary["outcome"][-1] == Outcome.OK
    assert not {finding.id for finding in relieved.summary.findings} & {"no-recovery", "foreign-accepts"}


def test_held_clients_are_served_during_the_outage(relieved: Ran) -> None:
    """Two early connections get replies before, during and after the outage."""
    metrics = relieved.summary.metrics
    assert (metrics["held.count"], metrics["held.cut"], metrics["held.unanswered"]) == (2, 0, 0)
    assert len(relieved.recording.held) > 50
    assert metrics["held.reply.max_s"] < 1


@pytest.mark.parametrize("patience", ["0s", "8s"])
def test_a_canary_with_patience_waits_for_a_late_recovery(patience: str, tmp_path: Path) -> None:
    """A server that retries once a second does not recover within a linger of 0.1 s, but within the patience."""
    late = ("server.emfile_delay=1s", "canary.every=500ms", "canary.linger=100ms", "canary.held=0")
    ran = run_scenario(write_scenario(tmp_path, CROWD), tmp_path, *late, f"canary.patience={patience}")
    found = {finding.id for finding in ran.summary.findings}
    assert ("no-recovery" in found) == (patience == "0s")
    if patience != "0s":
        assert 0.1 < ran.summary.metrics["recovery.time_s"] < 8


def test_a_run_with_a_dead_canary_is_inconclusive(tmp_path: Path) -> None:
    """The run names the dead observer and is inconclusive."""
    path = write_scenario(tmp_path, CROWD)
    command = [sys.executable, "-m", "loadsim", "run", path, "--out", str(tmp_path), "--ui", "none", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as conductor:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("*/manifest.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        children = psutil.Process(conductor.pid).children(recursive=True)
        next(child for child in children if "loadsim.driver.held" in child.cmdline()).kill()
        summary = json.loads(conductor.communicate(timeout=30)[0])

    assert summary["status"] == "INCONCLUSIVE"
    assert "the held clients ended with status -9" in summary["findings"][0]["evidence"]


def test_a_limit_that_is_changed_live_is_in_force(tmp_path: Path) -> None:
    """A changed limit is read back at each step, appears in the samples, and is marked in the timeline."""
    text = CROWD.replace('{at = "1s", release = 1.0}', '{at = "500ms", nofile = 20}, {at = "1s", nofile = 200}')
    ran = run_scenario(write_scenario(tmp_path, text), tmp_path, "client.hold=1500ms", "canary.held=0")
    steps = [(step.before, step.after, step.refused) for step in ran.recording.facts.steps]
    times, limits = known(ran.recording.samples, "fd_limit")

    assert_accounted_for(ran)
    assert steps == [(32, 20, None), (20, 200, None)]
    for step in ran.recording.facts.steps:
        later = limits[(times > step.done_ns) & (times < step.done_ns + 100_000_000)]
        assert set(later.tolist()) == {int(step.after or 0)}
    assert [mark.label for mark in ran.summary.timeline.marks if "limit" in mark.label] == [
        "the limit fell to 20",
        "the limit rose to 200",
    ]
    assert ran.summary.metrics["recovery.time_s"] < 0.5


def test_a_step_cannot_exceed_a_lowered_hard_limit(tmp_path: Path) -> None:
    """The step says so and still counts as a change; with the right to raise a hard limit it gets all it asked for."""
    text = """
[server]
command = {command}
nofile = 64
[client]
rate = "100/s"
attempts = 20
exchange = "none"
hold = "400ms"
[timeline]
steps = [{{at = "100ms", nofile = 20}}, {{at = "200ms", nofile = 64}}]
[network]
namespace = "private"
"""
    command = [sys.executable, str(Path(__file__).parent.parent / "support" / "foreign_server.py"), "{port}", "lowers"]
    ran = run_scenario(write_scenario(tmp_path, text.format(command=json.dumps(command))), tmp_path)
    lowered, raised = ran.recording.facts.steps

    assert (lowered.before, lowered.after, lowered.refused) == (40, 20, None)
    assert raised.after == (64 if raised.refused is None else 40)
    assert raised.refused is None or "limited to 40, the server's own hard limit" in raised.refused
    marks = {mark.label for mark in ran.summary.timeline.marks}
    assert {"the limit fell to 20", f"the limit rose to {raised.after:.0f}"} <= marks


def test_a_backlog_that_is_changed_live_is_in_force(tmp_path: Path) -> None:
    """A second listen() changes the queue capacity that the kernel reports."""
    text = CROWD.replace('{at = "1s", release = 1.0}', '{at = "300ms", backlog = 8}, {at = "600ms", release = 1.0}')
    ran = run_scenario(write_scenario(tmp_path, text), tmp_path, "server.backlog=16", "canary.held=0")

    assert_accounted_for(ran)
    assert next((step.change, step.before, step.after) for step in ran.recording.facts.steps) == ("backlog", 16, 8)
    assert set(known(ran.recording.samples, "queue_capacity")[1].tolist()) == {17, 9}


def test_a_share_of_the_clients_leaves(tmp_path: Path) -> None:
    """A release of 0.5 ends every second connection, served or waiting."""
    text = CROWD.replace("release = 1.0", "release = 0.5").replace('hold = "20s"', 'hold = "2s"')
    ran = run_scenario(write_scenario(tmp_path, text), tmp_path, "canary.held=0")
    left = (ran.recording.attempts["flags"] & AttemptFlag.RELEASED) != 0

    assert_accounted_for(ran)
    assert 29 <= left.sum() <= 30


def test_an_interrupted_run_does_not_wait_for_a_step_that_is_far_off(tmp_path: Path) -> None:
    """Ctrl-C releases clients that wait for the step, and accounts for each of them."""
    text = CROWD.replace('at = "1s"', 'at = "50s"').replace('"20s"', '"60s"')
    command = [sys.executable, "-m", "loadsim", "run", write_scenario(tmp_path, text), "--out", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        running.stderr.readline()  # all are ready
        time.sleep(1.0)
        running.send_signal(signal.SIGINT)
        printed, _ = running.communicate(timeout=30)
    summary = json.loads(printed)

    assert (running.returncode, summary["interrupted"], summary["balanced"]) == (130, "SIGINT", True)
    assert sum(summary["ledger"].values()) == 60
    assert summary["outcomes"]["unfinished"] > 0  # clients that still waited for a reply
    assert summary["outcomes"]["ok"] > 0  # clients with a reply


def test_a_server_that_dies_is_never_back(tmp_path: Path) -> None:
    """A step after its death is harmless, and the canary finds no listener."""
    ran = run_scenario(write_scenario(tmp_path, CROWD), tmp_path, "server.on_emfile=exit", "canary.held=0")

    assert "recovery.time_s" not in ran.summary.metrics
    assert ran.summary.metrics["canary.turned_away"] > 5
    assert "no-recovery" in [finding.id for finding in ran.summary.findings]
    assert sum(ran.summary.ledger.values()) == 60


def test_a_step_after_the_end_of_the_server_is_no_doubt(tmp_path: Path) -> None:
    """A server that ended before a step gives a finding, and the step does not degrade the run."""
    ended = """
    [server]
    nofile = 20
    on_emfile = "exit"
    leak = 1.0
    [client]
    rate = "100/s"
    duration = "300ms"
    connect_timeout = "500ms"
    reply_timeout = "500ms"
    [timeline]
    steps = [{at = "600ms", nofile = 64}]
    """
    ran = run_scenario(write_scenario(tmp_path, ended), tmp_path)
    assert ran.recording.facts.degraded == []
    assert [step.target_ended for step in ran.recording.facts.steps] == [True]
    assert ran.summary.findings[0].id == "target-ended"
    assert "1 step of the timeline came later and had no effect." in ran.summary.findings[0].evidence


def test_a_server_that_pauses_has_leaked_nothing(tmp_path: Path) -> None:
    """Descriptors are counted after a paused server has closed its connections."""
    pausing = """
    [server]
    pause = "900ms"
    pause_every = "1s"
    close_after = "client"
    [client]
    rate = "50/s"
    duration = "1s"
    hold = "50ms"
    connect_timeout = "300ms"
    reply_timeout = "500ms"
    """
    metrics = run_scenario(write_scenario(tmp_path, pausing), tmp_path).summary.metrics
    assert (metrics["fds.leaked"], metrics["fds.end"]) == (0, metrics["fds.baseline"])
