"""The decisions of the simulated server about leaks and EMFILE."""

from __future__ import annotations

import pytest

from loadsim.simulated.policy import BACKOFF_LIMIT_NS, POLICIES, Action, Decision, Exhausted, Leak, next_pause

MS = 1_000_000


@pytest.mark.parametrize("share", [0.0, 0.01, 1 / 3, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("seed", [0, 7, 4242])
def test_leak_is_exact(share: float, seed: int) -> None:
    """The number of chosen things always differs from the share by less than one."""
    leak = Leak.of(share, seed=seed)
    chosen = 0
    for number in range(1, 2_000):
        chosen += leak.takes(number)
        assert abs(chosen - share * number) < 1


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 1_000)])
def test_leak_of_nothing_and_of_everything(share: float, expected: int) -> None:
    """A share of 0 chooses nothing and a share of 1 everything, for every phase."""
    assert {expected} == {sum(map(Leak.of(share, seed=seed).takes, range(1, 1_001))) for seed in range(50)}


def test_leak_does_not_drift() -> None:
    """The share is still exact after 10,000 million things, because no rounding adds up."""
    leak = Leak.of(0.1, seed=1)
    start = 10_000_000_000
    chosen = sum(map(leak.takes, range(start + 1, start + 1_001)))
    assert abs(chosen - 100) < 2


def test_leak_follows_the_seed() -> None:
    """The same seed chooses the same things, and the seed determines the first one."""
    firsts = {seed: next(n for n in range(1, 102) if Leak.of(0.01, seed=seed).takes(n)) for seed in range(20)}
    assert firsts == {seed: next(n for n in range(1, 102) if Leak.of(0.01, seed=seed).takes(n)) for seed in firsts}
    assert len(set(firsts.values())) > 10


def decide(policy: str, *, delay_ms: int = 5, in_a_row: int = 1) -> Decision:
    """Return the decision of a policy at one second."""
    return POLICIES[policy](Exhausted(now_ns=1_000 * MS, delay_ns=delay_ms * MS, in_a_row=in_a_row))


@pytest.mark.parametrize("in_a_row", [1, 2, 100])
def test_sleep_waits_the_same_each_time(in_a_row: int) -> None:
    """Sleep waits its delay after any number of failures."""
    assert decide("sleep", delay_ms=100, in_a_row=in_a_row) == Decision(action=Action.WAIT, until_ns=1_100 * MS)


def test_backoff_doubles_up_to_a_second() -> None:
    """Back-off waits 5, 10, 20 ... ms and never more than a second."""
    waits = [(decide("backoff", in_a_row=n).until_ns or 0) // MS - 1_000 for n in range(1, 12)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]


def test_backoff_is_bounded_after_a_million_failures() -> None:
    """After a million failures, back-off waits its limit, and computing it is cheap."""
    assert decide("backoff", in_a_row=1_000_000).until_ns == 1_000 * MS + BACKOFF_LIMIT_NS


def test_backoff_keeps_a_longer_first_delay() -> None:
    """A first delay above the limit is the limit."""
    assert decide("backoff", delay_ms=3_000, in_a_row=3).until_ns == 4_000 * MS


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("spin", Decision(action=Action.RETRY)),
        ("shed", Decision(action=Action.SHED)),
        ("until_close", Decision(action=Action.WAIT, until_ns=None)),
        ("exit", Decision(action=Action.EXIT)),
    ],
)
def test_policies_without_a_clock(policy: str, expected: Decision) -> None:
    """The other policies always decide the same."""
    assert expected == decide(policy)


@pytest.mark.parametrize(
    ("now", "expected"), [(0, 600), (100, 600), (599, 600), (600, 1_100), (601, 1_100), (5_000, 5_100)]
)
def test_next_pause_is_on_the_grid(now: int, expected: int) -> None:
    """Pauses begin at whole multiples of their period after the start, never at the start itself."""
    assert expected == next_pause(now_ns=now, start_ns=100, every_ns=500)
