"""What is to start when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import MILLISECOND, PLAIN, open_loop

from loadsim.driver.driver import clamp, schedule_of
from loadsim.driver.schedule import NEVER, PAUSE_NS, ClosedLoop, OpenLoop

START = 1_000_000_000_000


def closed_loop(clients: int = 3, *, attempts: int | None = None, end_ns: int = NEVER) -> ClosedLoop:
    """Return a closed loop that starts at START."""
    return ClosedLoop(clients, start_ns=START, end_ns=end_ns, attempts=attempts)


def test_open_loop_follows_its_offsets() -> None:
    """Arrivals are due at their offsets, neither before nor all at once, and then no more."""
    demand = OpenLoop(iter([0, 10, 20, 30]), start_ns=START)
    assert demand.take_due(START - 1, 9) == []
    assert demand.take_due(START + 9, 9) == [START]
    assert demand.next_due() == START + 10
    assert demand.take_due(START + 99, 2) == [START + 10, START + 20]
    assert not demand.exhausted
    assert demand.take_due(START + 99, 2) == [START + 30]
    assert demand.exhausted
    assert demand.next_due() == NEVER


def test_open_loop_does_not_wait_for_ends() -> None:
    """What an open loop wants next does not depend on when attempts end."""
    demand = OpenLoop(iter([0, 10]), start_ns=START)
    demand.take_due(START, 9)
    demand.give_back(START + 5, START + 6)
    assert demand.next_due() == START + 10


def test_stopped_open_loop() -> None:
    """A stopped open loop wants nothing more."""
    demand = OpenLoop(iter([0, 10]), start_ns=START)
    demand.stop()
    assert demand.exhausted
    assert demand.take_due(START + 99, 9) == []


def test_closed_loop_waits_for_ends() -> None:
    """All clients start at once; then one is due for each that is given back, from that moment."""
    demand = closed_loop()
    assert demand.take_due(START, 9) == [START] * 3
    assert demand.next_due() == NEVER
    assert demand.take_due(START + 50, 9) == []
    demand.give_back(START + 60, START + 70)
    assert demand.next_due() == START + 60
    assert demand.take_due(START + 70, 9) == [START + 60, START + 70]


def test_closed_loop_takes_a_batch() -> None:
    """No more are taken than asked for, and the oldest first."""
    demand = closed_loop()
    demand.take_due(START, 3)
    demand.give_back(START + 1, START + 2, START + 3)
    assert demand.take_due(START + 9, 2) == [START + 1, START + 2]


def test_pausing_clients_are_due_later() -> None:
    """A client that pauses is free 10 ms later; the others are not held up by it."""
    demand = closed_loop()
    demand.take_due(START, 3)
    demand.give_back(START + 1, pause=True)
    demand.give_back(START + 5)
    assert demand.next_due() == START + 5
    assert demand.take_due(START + 6, 9) == [START + 5]
    assert demand.next_due() == START + 1 + PAUSE_NS
    assert demand.take_due(START + PAUSE_NS, 9) == []
    assert demand.take_due(START + 1 + PAUSE_NS, 9) == [START + 1 + PAUSE_NS]


def test_closed_loop_ends_by_attempts() -> None:
    """A closed loop with five attempts wants five, however its clients come back."""
    demand = closed_loop(attempts=5)
    taken = demand.take_due(START, 9)
    demand.give_back(*taken)
    taken += demand.take_due(START, 9)
    assert len(taken) == 5
    assert demand.exhausted
    assert demand.next_due() == NEVER


def test_closed_loop_ends_by_time() -> None:
    """Nothing is due at or after the end."""
    demand = closed_loop(end_ns=START + 10)
    assert demand.take_due(START + 9, 1) == [START]
    assert demand.take_due(START + 10, 9) == []
    assert demand.exhausted


def test_closed_loop_without_clients_is_over() -> None:
    """A share without clients has nothing to wait for."""
    assert closed_loop(0).exhausted


@given(attempts=st.integers(1, 50), processes=st.integers(1, 7))
def test_shares_of_an_open_loop_interleave(attempts: int, processes: int) -> None:
    """Driver number s takes every attempt k with k % processes == s of one schedule."""
    for share in range(processes):
        spec = replace(PLAIN, share=share, processes=processes, **open_loop(1000, attempts))
        taken = schedule_of(spec, START, 99).take_due(NEVER - 1, 999)
        assert [START + k * MILLISECOND for k in range(share, attempts, processes)] == taken


@given(attempts=st.integers(1, 50), processes=st.integers(1, 7))
def test_shares_of_a_closed_loop_add_up(attempts: int, processes: int) -> None:
    """The drivers of a closed loop make as many attempts together as were asked for, with numbers in their steps."""
    for share in range(processes):
        spec = replace(PLAIN, share=share, processes=processes, clients=99, attempts=attempts)
        taken = schedule_of(spec, START, 99).take_due(START, 999)
        assert len(range(share, attempts, processes)) == len(taken)


def test_no_clamp_where_nothing_is_taken() -> None:
    """A default max_in_flight above the limit is lowered silently, where the plan cannot reach it anyway."""
    spec = replace(PLAIN, max_in_flight=20_000, **open_loop(rate=10, attempts=50))
    assert clamp(spec, available=1000) == (1000, None)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"clients": 200, "attempts": None}, "200"),
        (open_loop(rate=1000, attempts=5000), "5,000"),
        (open_loop(rate=30, attempts=100_000), "300"),  # in 5 s of connecting and 5 s of waiting
        (open_loop(rate=1000, attempts=5000) | {"processes": 5}, "1,000"),
        (open_loop(rate=1000, attempts=5000) | {"max_in_flight": 150}, "150"),
    ],
)
def test_clamp_names_the_knob(settings: dict[str, Any], wanted: str) -> None:
    """What the plan may want beyond the limit is said with its numbers, and with two ways out."""
    spec = replace(PLAIN, **({"max_in_flight": 20_000} | settings))
    most, notice = clamp(spec, available=100)
    assert most == 100
    assert notice is not None
    assert f"may need {wanted} connections" in notice
    assert "leaves 100" in notice
    assert "ulimit -Hn" in notice
    assert "client.processes" in notice


def test_clamp_leaves_one() -> None:
    """A driver without any descriptor to spare still tries, one at a time."""
    assert clamp(PLAIN, available=-3)[0] == 1
