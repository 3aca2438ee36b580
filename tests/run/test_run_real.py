"""Complete runs on the real kernel have the promised numbers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from real_runs import Ran, run_scenario, write_scenario

from loadsim.fates import Outcome
from loadsim.record.records import AcceptFlag
from loadsim.scenario.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

#: Overrides that shorten each shipped scenario to a few seconds without changing its subject.
SHORTER = {
    "backlog-sweep": ["server.backlog=8"],
    "nofile-sweep": ["server.nofile=48"],
    "emfile-policies": ["server.on_emfile=shed"],
    "recovery": ["server.on_emfile=sleep"],
    "ten-thousand-clients": ["client.rate=2000/s", "client.duration=500ms", "client.hold=1s"],
}


def assert_accounted_for(ran: Ran) -> None:
    """Assert that every attempt has one fate and one outcome, and that both margins agree."""
    summary = ran.summary
    assert summary.imbalance == []
    assert summary.balanced
    assert sum(summary.ledger.values()) == len(ran.recording.attempts)
    assert sum(summary.outcomes.values()) == len(ran.recording.attempts)
    assert summary.ledger.get("unknown", 0) == 0


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run of the main scenario."""
    return run_scenario("too-many-open-files", tmp_path_factory.mktemp("exhausted"))


def test_every_planned_arrival_starts(exhausted: Ran) -> None:
    """An open loop of 200/s for 3 s starts 600 attempts, independent of the server."""
    assert exhausted.summary.metrics["attempts.count"] == 600
    assert (exhausted.recording.attempts["started"] > 0).all()
    assert_accounted_for(exhausted)


def test_exhaustion_is_reproduced(exhausted: Ran) -> None:
    """The fd table is at its limit, accept() fails, and every accepted connection has leaked."""
    summary, accepts = exhausted.summary, exhausted.recording.accepts
    served = (accepts["flags"] & AcceptFlag.AFTER_END) == 0
    assert summary.status == "REPRODUCED"
    assert summary.metrics["fds.max"] == 64
    assert summary.metrics["emfile.count"] > 0
    assert summary.metrics["fds.leaked"] == served.sum() == summary.ledger["accepted"]
    assert summary.metrics["fds.leaked"] == 64 - summary.metrics["fds.baseline"]


def test_the_queue_is_full_before_the_load_ends(exhausted: Ran) -> None:
    """A backlog of 128 holds 129 connections until the run is judged."""
    facts = exhausted.recording.facts
    during = exhausted.recording.samples[exhausted.recording.samples["time"] < facts.load_end_ns]
    assert during["queue"][-1] == 129
    assert exhausted.summary.metrics["queue.max"] == 129
    assert exhausted.summary.ledger["queued"] == 129


def test_the_findings_say_that_clients_still_connect(exhausted: Ran) -> None:
    """There is a finding about successful connects to a server without descriptors."""
    ids = [finding.id for finding in exhausted.summary.findings]
    assert "fd-leak" in ids
    assert "false-connect" in ids


def test_a_healthy_server_is_called_healthy(tmp_path: Path) -> None:
    """Every attempt is accepted and served, and the fd table returns to its baseline."""
    ran = run_scenario("healthy", tmp_path)
    assert ran.summary.status == "HEALTHY"
    assert ran.summary.ledger["accepted"] == ran.summary.outcomes["ok"] == len(ran.recording.attempts)
    assert ran.summary.metrics["fds.end"] == ran.summary.metrics["fds.baseline"]
    assert ran.summary.metrics["fds.leaked"] == 0
    assert_accounted_for(ran)


@pytest.mark.parametrize("scenario", [scenario.name for scenario in shipped()])
def test_the_ledger_balances_in_every_shipped_scenario(scenario: str, tmp_path: Path) -> None:
    """Fates and outcomes add up to the attempts, and no accept is foreign or ambiguous."""
    if scenario == "real-nginx" and not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    ran = run_scenario(scenario, tmp_path, *SHORTER.get(scenario, []))
    if ran.recording.facts.server.is_simulated:
        assert_accounted_for(ran)
        assert ran.summary.foreign == 0
    else:  # it writes no records: short connections between two samples may be unknown
        assert ran.summary.balanced
        assert sum(ran.summary.ledger.values()) == len(ran.recording.attempts)


CORNER = """
[server]
nofile = {nofile}
backlog = {backlog}
leak = 1.0
[client]
rate = "2000/s"
attempts = 23
exchange = "hello"
close = "{close}"
connect_timeout = "150ms"
reply_timeout = "150ms"
"""


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The descriptors of the simulated server before its first client."""
    folder = tmp_path_factory.mktemp("baseline")
    scenario = write_scenario(folder, CORNER.format(nofile=64, backlog=8, close="fin"))
    return run_scenario(scenario, folder).recording.facts.server.baseline_fds


@pytest.mark.timeout(240)
@pytest.mark.parametrize("backlog", [0, 1, 8, 64])
def test_the_ledger_balances_at_every_fd_limit(backlog: int, baseline: int, tmp_path: Path) -> None:
    """With any number of spare descriptors, clients with a descriptor are accepted and the queue holds the next."""
    for spare in range(24) if backlog == 8 else (0, 1, 2, 9, 16, 22, 23):
        close = "rst" if spare % 2 else "fin"
        text = CORNER.format(nofile=baseline + spare, backlog=backlog, close=close)
        ran = run_scenario(write_scenario(tmp_path, text), tmp_path)
        assert_accounted_for(ran)
        assert ran.summary.ledger["accepted"] <= spare
        assert ran.summary.ledger["queued"] <= backlog + 1
        if backlog >= 64:
            assert (spare, 23 - spare) == (ran.summary.ledger["accepted"], ran.summary.ledger["queued"])


REUSE = """
[server]
backlog = 64
close_after = "client"
accept_delay = "{delay}"
[client]
clients = 40
duration = "1500ms"
exchange = "echo"
close = "rst"
connect_timeout = "300ms"
reply_timeout = "40ms"
[sysctl]
net.ipv4.ip_local_port_range = "40000 40063"
"""


@pytest.mark.parametrize("delay", ["0s", "1ms"])
def test_the_join_finds_the_right_attempt_when_ports_recur(delay: str, tmp_path: Path) -> None:
    """With 64 ports, RST closes and many attempts, the join gives each accept to the attempt in its payload."""
    ran = run_scenario(write_scenario(tmp_path, REUSE.format(delay=delay)), tmp_path)
    attempts, accepts = ran.recording.attempts, ran.recording.accepts
    assert_accounted_for(ran)
    assert (np.unique(attempts["port"], return_counts=True)[1] > 5).any(), "no port recurred: the test shows nothing"
    assert (accepts["payload"] > 0).sum() > 20
    assert ran.summary.metrics["join.mismatched"] == 0


OVERFLOW = """
[server]
backlog = {backlog}
pause = "400ms"
pause_every = "900ms"
[client]
rate = "400/s"
duration = "1s"
connect_timeout = "3s"
reply_timeout = "3s"
[sysctl]
net.core.somaxconn = 16
"""


@pytest.mark.parametrize(("backlog", "holds"), [(8, 9), (64, 17)])
def test_the_queue_overflows_at_the_smaller_of_backlog_and_somaxconn(backlog: int, holds: int, tmp_path: Path) -> None:
    """queue.max is min(backlog, somaxconn) + 1, and the reported overflows are those of the kernel."""
    ran = run_scenario(write_scenario(tmp_path, OVERFLOW.format(backlog=backlog)), tmp_path)
    samples = ran.recording.samples
    counted = samples["listen_overflows"][samples["listen_overflows"] >= 0]
    assert ran.summary.metrics["queue.max"] == holds
    assert ran.summary.metrics["listen.overflows"] == counted[-1] - counted[0] > 0
    assert ran.summary.metrics["attempts.delayed"] > 0
    assert_accounted_for(ran)


def test_generator_failures_are_not_charged_to_the_server(tmp_path: Path) -> None:
    """Arrivals without a free ephemeral port are local failures, and the status is INCONCLUSIVE."""
    text = """
[server]
close_after = "client"
[client]
rate = "200/s"
duration = "1s"
hold = "3s"
[sysctl]
net.ipv4.ip_local_port_range = "40000 40007"
"""
    ran = run_scenario(write_scenario(tmp_path, text), tmp_path)
    attempts = ran.recording.attempts
    assert ran.summary.status == "INCONCLUSIVE"
    assert ran.summary.ledger["local"] == (attempts["outcome"] == Outcome.LOCAL).sum() > 0
    assert ran.summary.ledger["local"] + ran.summary.ledger["accepted"] == 200
    assert_accounted_for(ran)


def test_an_abort_threshold_ends_the_load(tmp_path: Path) -> None:
    """The first EMFILE stops new attempts within a second; the result is saved, balanced and has the reason."""
    ran = run_scenario("too-many-open-files", tmp_path, 'thresholds.abort=["emfile.count > 0"]')
    assert ran.summary.interrupted == "aborted: emfile.count > 0"
    assert not ran.summary.complete
    assert 0 < len(ran.recording.attempts) < 600
    assert_accounted_for(ran)


HOLDING = """
[server]
nofile = 32
[client]
rate = "200/s"
attempts = 60
exchange = "http"
request = "{portion}"
hold = "1s"
[canary]
timeout = "200ms"
linger = "500ms"
"""


@pytest.mark.parametrize("portion", ["half", "none"])
def test_clients_that_only_hold_their_connection_use_up_the_table(portion: str, tmp_path: Path) -> None:
    """No client is served, the table is full until they leave, and canaries are served before that."""
    ran = run_scenario(write_scenario(tmp_path, HOLDING.format(portion=portion)), tmp_path)
    metrics = ran.summary.metrics
    assert ran.summary.outcomes["connected"] == 60
    assert (metrics["fds.max"], metrics["fds.leaked"]) == (32, 0)
    assert metrics["emfile.count"] > 0
    assert 0 < metrics["canary.availability"] < 1
    assert "reply.max_s" not in metrics
    assert_accounted_for(ran)


RAW = """
[server]
close_after = "client"
[client]
rate = "200/s"
attempts = 40
exchange = "raw"
send = "PING\\r\\n"
expect = "{expect}"
[canary]
held = 2
linger = "300ms"
"""


@pytest.mark.parametrize("expect", ["+PONG", ""])
def test_a_raw_exchange_is_served_and_held(expect: str, tmp_path: Path) -> None:
    """Clients, the canary and held clients get every reply that they expect."""
    ran = run_scenario(write_scenario(tmp_path, RAW.format(expect=expect)), tmp_path)
    metrics = ran.summary.metrics
    assert ran.summary.outcomes["ok"] == 40
    assert (metrics["canary.availability"], metrics["held.count"], metrics["held.cut"]) == (1.0, 2, 0)
    assert metrics["held.unanswered"] == 0
    assert_accounted_for(ran)
