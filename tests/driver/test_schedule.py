"""The start times of attempts."""

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
    """Arrivals are due at their offsets, not before, and the schedule ends after the last one."""
    schedule = OpenLoop(iter([0, 10, 20, 30]), start_ns=START)
    assert schedule.take_due(START - 1, 9) == []
    assert schedule.take_due(START + 9, 9) == [START]
    assert schedule.next_due() == START + 10
    assert schedule.take_due(START + 99, 2) == [START + 10, START + 20]
    assert not schedule.exhausted
    assert schedule.take_due(START + 99, 2) == [START + 30]
    assert schedule.exhausted
    assert schedule.next_due() == NEVER


def test_open_loop_does_not_wait_for_ends() -> None:
    """The next arrival of an open loop does not depend on the ends of attempts."""
    schedule = OpenLoop(iter([0, 10]), start_ns=START)
    schedule.take_due(START, 9)
    schedule.give_back(START + 5, START + 6)
    assert schedule.next_due() == START + 10


def test_stopped_open_loop() -> None:
    """A stopped open loop has no further arrivals."""
    schedule = OpenLoop(iter([0, 10]), start_ns=START)
    schedule.stop()
    assert schedule.exhausted
    assert schedule.take_due(START + 99, 9) == []


def test_closed_loop_waits_for_ends() -> None:
    """All clients start at once; later starts follow the ends of attempts."""
    schedule = closed_loop()
    assert schedule.take_due(START, 9) == [START] * 3
    assert schedule.next_due() == NEVER
    assert schedule.take_due(START + 50, 9) == []
    schedule.give_back(START + 60, START + 70)
    assert schedule.next_due() == START + 60
    assert schedule.take_due(START + 70, 9) == [START + 60, START + 70]


def test_closed_loop_takes_a_batch() -> None:
    """At most the requested number is taken, oldest first."""
    schedule = closed_loop()
    schedule.take_due(START, 3)
    schedule.give_back(START + 1, START + 2, START + 3)
    assert schedule.take_due(START + 9, 2) == [START + 1, START + 2]


def test_pausing_clients_are_due_later() -> None:
    """A pausing client is free 10 ms later and does not delay the others."""
    schedule = closed_loop()
    schedule.take_due(START, 3)
    schedule.give_back(START + 1, pause=True)
    schedule.give_back(START + 5)
    assert schedule.next_due() == START + 5
    assert schedule.take_due(START + 6, 9) == [START + 5]
    assert schedule.next_due() == START + 1 + PAUSE_NS
    assert schedule.take_due(START + PAUSE_NS, 9) == []
    assert schedule.take_due(START + 1 + PAUSE_NS, 9) == [START + 1 + PAUSE_NS]


def test_closed_loop_ends_by_attempts() -> None:
    """A closed loop with five attempts starts five, independent of their ends."""
    schedule = closed_loop(attempts=5)
    taken = schedule.take_due(START, 9)
    schedule.give_back(*taken)
    taken += schedule.take_due(START, 9)
    assert len(taken) == 5
    assert schedule.exhausted
    assert schedule.next_due() == NEVER


def test_closed_loop_ends_by_time() -> None:
    """No attempt is due at or after the end."""
    schedule = closed_loop(end_ns=START + 10)
    assert schedule.take_due(START + 9, 1) == [START]
    assert schedule.take_due(START + 10, 9) == []
    assert schedule.exhausted


def test_closed_loop_without_clients_is_over() -> None:
    """A share without clients is exhausted at once."""
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
    """The drivers of a closed loop together make the requested number of attempts."""
    for share in range(processes):
        spec = replace(PLAIN, share=share, processes=processes, clients=99, attempts=attempts)
        taken = schedule_of(spec, START, 99).take_due(START, 999)
        assert len(range(share, attempts, processes)) == len(taken)


def test_no_clamp_without_effect() -> None:
    """A max_in_flight above the limit is lowered silently if the plan cannot reach it."""
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
    """The notice about a limit below the plan has both numbers and two remedies."""
    spec = replace(PLAIN, **({"max_in_flight": 20_000} | settings))
    most, notice = clamp(spec, available=100)
    assert most == 100
    assert notice is not None
    assert f"may need {wanted} connections" in notice
    assert "leaves 100" in notice
    assert "ulimit -Hn" in notice
    assert "client.processes" in notice


def test_clamp_leaves_one() -> None:
    """A driver without spare descriptors still opens one connection at a time."""
    assert clamp(PLAIN, available=-3)[0] == 1
