"""The ways in which a command is run out of descriptors: how many clients come, from which limit, in which order."""

from __future__ import annotations

import pytest

from loadsim.errors import ScenarioError
from loadsim.verdict.trials import AT_START, HANDLER, LOWERED, Probe, TrialPlan

HARD = 20_000


def plan(nofile: int = 64, *, hard: int = HARD, workers: int = 1, probe: Probe | None = None) -> TrialPlan:
    """Return a command that nobody starts."""
    return TrialPlan(command=["serve", "{port}"], probe=probe or Probe(), nofile=nofile, hard=hard, workers=workers)


@pytest.mark.parametrize(
    ("nofile", "workers", "clients"), [(8, 1, 200), (64, 1, 200), (1024, 1, 3072), (8192, 1, 13_192), (64, 5, 960)]
)
def test_enough_clients_come(nofile: int, workers: int, clients: int) -> None:
    """For the tables of all workers and their queues, but not thrice a large limit."""
    assert plan(nofile, workers=workers).clients == clients


@pytest.mark.parametrize("nofile", [8, 64, 1024, 4096, 8192])
def test_a_limit_is_lowered_from_above_what_is_open(nofile: int) -> None:
    """All clients are in before, and who is in stays until it has been put back for a while."""
    one = plan(nofile)
    [trial] = one.trials([LOWERED])
    lowered, raised, left = trial.scenario.timeline.ordered

    assert trial.scenario.server.nofile == one.roomy == raised.nofile
    assert one.roomy >= one.clients + 100
    assert (lowered.nofile, left.release) == (nofile, 1.0)
    assert lowered.at > one.clients / one.rate
    assert raised.at - lowered.at == one.exhausted_s
    assert left.at - raised.at == one.watched_s


def test_a_limit_without_room_above_it_cannot_be_lowered() -> None:
    """The error has the hard limit and two ways out; the other ways are not affected."""
    with pytest.raises(ScenarioError, match=r"--nofile 19990 leaves no room above it: the hard limit is 20000"):
        plan(19_990).trials()

    assert [trial.name for trial in plan(19_990).trials([AT_START])] == [AT_START]


def test_clients_beyond_one_drivers_limit_come_from_several() -> None:
    """Each has descriptors of its own."""
    [trial] = plan(900, hard=1024).trials([AT_START])

    assert (trial.scenario.client.attempts, trial.scenario.client.processes) == (2700, 4)


def test_a_path_that_opens_something_is_a_third_way() -> None:
    """Its limit is put back in the end."""
    probe = Probe(leak_path="/leak")

    assert [trial.name for trial in plan(probe=probe).trials()] == [AT_START, LOWERED, HANDLER]
    assert [trial.scenario.client.path for trial in plan(probe=probe).trials()] == ["/", "/", "/leak"]


def test_before_all_one_client_asks_once() -> None:
    """With room, without a canary, and long enough for a server that is slow at first."""
    trial = plan(probe=Probe(exchange="raw", send="PING", expect="+PONG")).before()
    client = trial.scenario.client

    assert (client.attempts, client.send, client.expect, client.reply_timeout) == (1, "PING", "+PONG", 10.0)
    assert (trial.scenario.server.nofile, trial.scenario.canary, trial.scenario.timeline.steps) == (4096, None, ())
