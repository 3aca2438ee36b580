"""Intended start times: counts, spacing, ramps, seeds and shares."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsim.scenario.arrivals import expected_count, offsets, upper_count

SECOND = 1_000_000_000


def schedule(
    stages: list[list[float]],
    *,
    arrivals: str = "constant",
    seed: int = 1,
    attempts: int | None = None,
    duration_s: float | None = None,
) -> list[int]:
    """Return all start times, by default of constant arrivals to the end of the stages."""
    lasts = sum(stage[0] for stage in stages) if duration_s is None else duration_s
    return list(offsets(stages, arrivals=arrivals, seed=seed, attempts=attempts, duration_s=lasts))


def test_a_constant_rate_starts_at_zero_and_is_evenly_spaced() -> None:
    """200/s for 3 s are 600 attempts, 5 ms apart, the first at the start."""
    times = schedule([[3.0, 200.0, 200.0]])

    assert [index * SECOND // 200 for index in range(600)] == times


@pytest.mark.parametrize(
    ("rate", "for_s", "count"), [(1 / 3, 60.0, 20), (200.0, 3.0, 600), (100 / 60, 4.2, 7), (7.0, 0.5, 4)]
)
def test_float_sums_never_add_an_attempt_at_the_end(rate: float, for_s: float, count: int) -> None:
    """An attempt belongs to the load when it starts before its end, despite rounding of rate x time."""
    assert count == len(schedule([[for_s, rate, rate]]))
    assert count == expected_count([[for_s, rate, rate]], attempts=None, duration_s=for_s)


def test_a_ramp_gives_the_area_under_the_rate() -> None:
    """From 0/s to 100/s in 2 s are 100 attempts, and a quarter of them start in the first half of the time."""
    times = schedule([[2.0, 0.0, 100.0]])

    assert len(times) == 100
    assert sum(time < SECOND for time in times) == 25
    assert sorted(times) == times


def test_a_falling_ramp_mirrors_a_rising_one() -> None:
    """A ramp down to zero starts the same number, early instead of late."""
    times = schedule([[2.0, 100.0, 0.0]])

    assert len(times) == 100
    assert sum(time < SECOND for time in times) == 75


def test_stages_follow_each_other_without_gap_or_overlap() -> None:
    """A stage begins where the last one ended, and a stage of rate 0 is a pause."""
    times = schedule([[1.0, 10.0, 10.0], [1.0, 0.0, 0.0], [1.0, 20.0, 20.0]])

    assert [sum(low <= time // SECOND < low + 1 for time in times) for low in range(3)] == [10, 0, 20]
    assert times[10] == 2 * SECOND


def test_attempts_go_on_at_the_last_rate_where_the_stages_are_too_short() -> None:
    """A number of attempts is kept exactly, also by Poisson arrivals that need longer than their mean."""
    assert len(schedule([[1.0, 10.0, 10.0]], attempts=50)) == 50
    assert len(schedule([[1.0, 10.0, 10.0]], attempts=50, arrivals="poisson")) == 50
    assert schedule([[1.0, 10.0, 10.0]], attempts=50)[-1] == 49 * SECOND // 10


def test_a_duration_cuts_the_stages() -> None:
    """The load never lasts longer than its duration."""
    times = schedule([[3.0, 10.0, 10.0]], duration_s=1.0)

    assert len(times) == 10
    assert expected_count([[3.0, 10.0, 10.0]], attempts=None, duration_s=1.0) == 10


def test_one_seed_gives_one_poisson_schedule() -> None:
    """The same seed gives the same times, and another seed gives other times."""
    one, again, other = (schedule([[2.0, 100.0, 100.0]], arrivals="poisson", seed=seed) for seed in (7, 7, 8))

    assert one == again
    assert one != other


def test_poisson_arrivals_have_the_gaps_of_a_poisson_process() -> None:
    """Mean gap 1/rate, and a standard deviation of the same size, which even spacing would not have."""
    times = schedule([[100.0, 200.0, 200.0]], arrivals="poisson")
    gaps = [(after - before) / SECOND for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5

    assert mean == pytest.approx(1 / 200, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_the_poisson_schedule_of_a_seed_never_changes() -> None:
    """A seed in an old result folder still means the same load."""
    assert schedule([[1.0, 100.0, 100.0]], arrivals="poisson", seed=7)[:3] == [6_970_594, 31_859_622, 34_357_989]


STAGES = st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 500), st.floats(0, 500)).map(list), min_size=1, max_size=4)


@settings(deadline=None)  # other tests may use the CPU
@given(stages=STAGES)
def test_the_planned_count_is_the_number_of_start_times(stages: list[list[float]]) -> None:
    """`expected_count` and `offsets` agree on every schedule of constant arrivals, to one attempt at a boundary."""
    total = sum(stage[0] for stage in stages)
    times = schedule(stages)

    assert abs(expected_count(stages, attempts=None, duration_s=total) - len(times)) <= 1
    assert sorted(times) == times
    assert all(0 <= time <= total * SECOND for time in times)


@pytest.mark.slow
@settings(deadline=None)  # other tests may use the CPU
@given(stages=STAGES, seed=st.integers(0, 2**63 - 1))
def test_no_schedule_exceeds_its_upper_count(stages: list[list[float]], seed: int) -> None:
    """Records never run out of space because a Poisson schedule was lucky."""
    total = sum(stage[0] for stage in stages)
    upper = upper_count(stages, arrivals="poisson", attempts=None, duration_s=total)

    assert len(schedule(stages, arrivals="poisson", seed=seed)) <= upper
