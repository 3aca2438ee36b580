"""The ways in which a command is run out of descriptors: how many clients come, from which limit, in which order."""

from __future__ import annotations

import pytest

from loadsim.errors import ScenarioError
from loadsim.verdict.trials import AT_START, HANDLER, LOWERED, Probe, Trial

HARD = 20_000


def trial(nofile: int = 64, *, hard: int = HARD, workers: int = 1, probe: Probe | None = None) -> Trial:
    """Return a command that nobody starts."""
    return Trial(command=["serve", "{port}"], probe=probe or Probe(), nofile=nofile, hard=hard, workers=workers)


@pytest.mark.parametrize(
    ("nofile", "workers", "clients"), [(8, 1, 200), (64, 1, 200), (1024, 1, 3072), (8192, 1, 13_192), (64, 5, 960)]
)
def test_enough_clients_come(nofile: int, workers: int, clients: int) -> None:
    """For the tables of all workers and their queues, but not thrice a large limit."""
    assert trial(nofile, workers=workers).clients == clients


@pytest.mark.parametrize("nofile", [8, 64, 1024, 4096, 8192])
def test_a_limit_is_lowered_from_above_what_is_open(nofile: int) -> None:
    """All clients are in before, and who is in stays until it has been put back for a while."""
    one = trial(nofile)
    [way] = one.ways([LOWERED])
    lowered, raised, left = way.scenario.timeline.ordered

    assert way.scenario.server.nofile == one.roomy == raised.nofile
    assert one.roomy >= one.clients + 100
    assert (lowered.nofile, left.release) == (nofile, 1.0)
    assert lowered.at > one.clients / one.rate
    assert raised.at - lowered.at == one.exhausted_s
    assert left.at - raised.at == one.watched_s


def test_a_limit_without_room_above_it_cannot_be_lowered() -> None:
    """The error has the hard limit and two ways out; the other ways are not affected."""
    with pytest.raises(ScenarioError, match=r"--nofile 19990 leaves no room above it: the hard limit is 20000"):
        trial(19_990).ways()

    assert [way.name for way in trial(19_990).ways([AT_START])] == [AT_START]


def test_clients_beyond_one_drivers_limit_come_from_several() -> None:
    """Each has descriptors of its own."""
    [way] = trial(900, hard=1024).ways([AT_START])

    assert (way.scenario.client.attempts, way.scenario.client.processes) == (2700, 4)


def test_a_path_that_opens_something_is_a_third_way() -> None:
    """Its limit is put back in the end."""
    probe = Probe(leak_path="/leak")

    assert [way.name for way in trial(probe=probe).ways()] == [AT_START, LOWERED, HANDLER]
    assert [way.scenario.client.path for way in trial(probe=probe).ways()] == ["/", "/", "/leak"]


def test_before_all_one_client_asks_once() -> None:
    """With room, without a canary, and long enough for a server that is slow at first."""
    way = trial(probe=Probe(exchange="raw", send="PING", expect="+PONG")).before()
    client = way.scenario.client

    assert (client.attempts, client.send, client.expect, client.reply_timeout) == (1, "PING", "+PONG", 10.0)
    assert (way.scenario.server.nofile, way.scenario.canary, way.scenario.timeline.steps) == (4096, None, ())
