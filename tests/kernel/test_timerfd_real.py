"""A timer expires at its time, not before, and only if it is armed."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from loadsim.kernel.timing import Timer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

FAR_NS = 3_600_000_000_000


@pytest.fixture
def timer() -> Iterator[Timer]:
    """Yield a disarmed timer."""
    with Timer() as opened:
        yield opened


def expired(timer: Timer, wait_s: float = 0) -> bool:
    """Return whether the timer's descriptor is readable within this time."""
    return bool(select.select([timer.fd], [], [], wait_s)[0])


def test_unset_at_first(timer: Timer) -> None:
    """A new timer does not expire, and draining it does not block."""
    assert not expired(timer)
    timer.drain()


@pytest.mark.parametrize("at_ns", [-5, 0, 1])
def test_set_in_the_past(timer: Timer, at_ns: int) -> None:
    """A time in the past expires at once, even 0."""
    timer.set_at(at_ns)
    assert expired(timer)


def test_set_in_the_future(timer: Timer) -> None:
    """A timer does not expire before its time, nor again after draining."""
    due = time.monotonic_ns() + 3_456_789
    timer.set_at(due)
    assert expired(timer, 20)
    assert time.monotonic_ns() >= due
    timer.drain()
    assert not expired(timer)


def test_set_again(timer: Timer) -> None:
    """A new time replaces the one before and discards its expiry."""
    timer.set_at(1)
    timer.set_at(time.monotonic_ns() + FAR_NS)
    assert not expired(timer)


def test_clear(timer: Timer) -> None:
    """Clearing a timer discards its expiry."""
    timer.set_at(1)
    timer.clear()
    assert not expired(timer)


def test_close() -> None:
    """Closing twice closes the descriptor once."""
    timer = Timer()
    fd = timer.fd
    timer.close()
    timer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
