"""The trials of a verdict: their number of clients, their limits, and the order of their steps."""

from __future__ import annotations

import pytest

from loadsim.errors import ScenarioError
from loadsim.verdict.trials import AT_START, HANDLER, LOWERED, Probe, TrialPlan

HARD = 20_000


def plan(nofile: int = 64, *, hard: int = HARD, workers: int = 1, probe: Probe | None = None) -> TrialPlan:
    """Return a plan for a command that is never started."""
    return TrialPlan(command=["serve", "{port}"], probe=probe or Probe(), nofile=nofile, hard=hard, workers=workers)


@pytest.mark.parametrize(
    ("nofile", "workers", "clients"), [(8, 1, 200), (64, 1, 200), (1024, 1, 3072), (8192, 1, 13_192), (64, 5, 960)]
)
def test_there_are_enough_clients(nofile: int, workers: int, clients: int) -> None:
    """They fill the tables of all workers and the accept queue, with fewer per descriptor at high limits."""
    assert plan(nofile, workers=workers).clients == clients


@pytest.mark.parametrize("nofile", [8, 64, 1024, 4096, 8192])
def test_a_limit_is_lowered_from_above_what_is_open(nofile: int) -> None:
    """All clients are connected before, and stay connected for a while after the limit is raised again."""
    one = plan(nofile)
    [trial] = one.trials([LOWERED])
    lowered, raised, left = trial.scenario.timeline.ordered

    assert trial.scenario.server.nofile == one.roomy == raised.nofile
    assert one.roomy >= one.clients + 100
    assert (lowered.nofile, left.release) == (nofile, 1.0)
    assert lowered.at > one.clients / one.rate
    assert raised.at - lowered.at == one.exhausted_s
    assert left.at - raised.at == one.watched_s


def test_a_limit_close_to_the_hard_limit_cannot_be_lowered_to() -> None:
    """The error names the hard limit and the remedies; the other trials are not affected."""
    with pytest.raises(
        ScenarioError, match=r"--nofile 19990 is too close to the hard limit of 20000: use at most 19872"
    ):
        plan(19_990).trials()

    assert [trial.name for trial in plan(19_990).trials([AT_START])] == [AT_START]


def test_clients_beyond_one_drivers_limit_come_from_several() -> None:
    """Each driver has its own descriptors."""
    [trial] = plan(900, hard=1024).trials([AT_START])

    assert (trial.scenario.client.attempts, trial.scenario.client.processes) == (2700, 4)


def test_a_leak_path_adds_a_third_trial() -> None:
    """Only that trial requests the path."""
    probe = Probe(leak_path="/leak")

    assert [trial.name for trial in plan(probe=probe).trials()] == [AT_START, LOWERED, HANDLER]
    assert [trial.scenario.client.path for trial in plan(probe=probe).trials()] == ["/", "/", "/leak"]


def test_one_request_comes_before_all_trials() -> None:
    """It has enough descriptors, no canary, and a timeout for servers that are slow at first."""
    trial = plan(probe=Probe(exchange="raw", send="PING", expect="+PONG")).before()
    client = trial.scenario.client

    assert (client.attempts, client.send, client.expect, client.reply_timeout) == (1, "PING", "+PONG", 10.0)
    assert (trial.scenario.server.nofile, trial.scenario.canary, trial.scenario.timeline.steps) == (4096, None, ())
