"""An attempt's record, and the stages in which it waits."""

from __future__ import annotations

import dataclasses
import mmap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadsim.load.attempt import TAIL, TAIL_AT, Attempt, Stage
from loadsim.load.demand import NEVER
from loadsim.record.events import ATTEMPT, AttemptFlag, Outcome

if TYPE_CHECKING:
    from _socket import socket


@dataclasses.dataclass
class Descriptor:
    """As much of a socket as an attempt looks at."""

    number: int

    def fileno(self) -> int:
        """Return the number."""
        return self.number


def attempt(number: int = 1, *, at: int = 0) -> Attempt:
    """Return an attempt on a descriptor of the same number."""
    sock: socket = Descriptor(number)  # type: ignore[assignment]
    return Attempt(sock, number, 10, at)


def test_record_is_what_the_attempt_is() -> None:
    """Every field of the record is the attempt's attribute of that name."""
    buffer = mmap.mmap(-1, 4096)
    made = attempt(7, at=128)
    values = {name: place + 1 for place, (name, _) in enumerate(ATTEMPT.fields)}
    values |= {"outcome": Outcome.OK, "flags": AttemptFlag.CUT}
    for name, value in values.items():
        setattr(made, name, value)
    made.write(buffer)
    assert tuple(values.values()) == ATTEMPT.struct.unpack_from(buffer, 128)
    assert bytes(128) == buffer[:128]


def test_tail_is_the_end_of_a_record() -> None:
    """The tail holds the last fields, from `ended` on, at their places."""
    whole, parts = bytearray(ATTEMPT.size), bytearray(ATTEMPT.size)
    values = range(1, 13)
    ATTEMPT.struct.pack_into(whole, 0, *values)
    ATTEMPT.struct.pack_into(parts, 0, *values[:5], *[0] * 7)
    TAIL.pack_into(parts, TAIL_AT, *values[5:])
    assert whole == parts


def test_attempt_without_a_slot_is_not_written() -> None:
    """An attempt that found no space in the journal leaves the buffer alone."""
    buffer = mmap.mmap(-1, 4096)
    attempt(at=-1).write(buffer)
    assert bytes(4096) == buffer[:]


def test_stage_ends_in_order() -> None:
    """Attempts leave when their own time is over, oldest first, and those that left before do not come up."""
    stage = Stage(100)
    waiting = [attempt(number) for number in range(5)]
    for number, one in enumerate(waiting):
        stage.enter(one, 1000 + number)
    del stage.attempts[1]
    assert stage.leave_expired(1099, 9) == []
    assert [waiting[0], waiting[2]] == stage.leave_expired(1102, 9)
    assert stage.check_at == 1103
    assert [waiting[3]] == stage.leave_expired(9999, 1)
    assert [waiting[4]] == stage.leave_expired(9999, 9)
    assert stage.check_at == NEVER
    assert not stage.attempts


@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=40),
    most=st.integers(1, 5),
)
def test_stage_never_looks_too_late(steps: list[tuple[int, bool]], most: int) -> None:
    """`check_at` is never later than the deadline of an attempt that still waits."""
    stage = Stage(60)
    now = 0
    for number, (passed, leaves) in enumerate(steps):
        now += passed
        for expired in stage.leave_expired(now, most):
            assert expired.deadline <= now
        stage.enter(attempt(number), now)
        if leaves:
            del stage.attempts[min(stage.attempts)]
        assert stage.check_at <= min((one.deadline for one in stage.attempts.values()), default=NEVER)


@pytest.mark.parametrize("most", [1, 3, 10])
def test_stage_gives_up_at_most_a_batch(most: int) -> None:
    """When many reach their time-out at once no more leave than asked for, and the rest are due at once."""
    stage = Stage(100)
    for number in range(10):
        stage.enter(attempt(number), 0)
    assert most == len(stage.leave_expired(100, most))
    assert 10 - most == len(stage.attempts)
    assert stage.check_at == (NEVER if most == 10 else 100)
