"""The record of an attempt, and the stages in which it waits."""

from __future__ import annotations

import dataclasses
import mmap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadsim.driver.attempt import Attempt, Phase
from loadsim.driver.schedule import NEVER
from loadsim.fates import Outcome
from loadsim.record.records import ATTEMPT, AttemptFlag

if TYPE_CHECKING:
    from _socket import socket


@dataclasses.dataclass
class Descriptor:
    """The part of a socket that an attempt uses."""

    number: int

    def fileno(self) -> int:
        """Return the number."""
        return self.number


def attempt(number: int = 1, *, at: int = 0, since: int = 0) -> Attempt:
    """Return an attempt on a descriptor with the same number."""
    sock: socket = Descriptor(number)  # type: ignore[assignment]
    return Attempt(sock, number, at, source=2, port=3, connected=4, since=since)


def enter(phase: Phase, number: int, since: int) -> Attempt:
    """Add a new attempt to a stage."""
    entered = attempt(number, since=since)
    phase.enter(number, entered)
    return entered


def test_record_is_what_the_attempt_is() -> None:
    """All fields are written at its end, except the first ones, which are written at its start."""
    buffer = mmap.mmap(-1, 4096)
    ended = attempt(at=128)
    ended.replied, ended.errno, ended.syn_retransmits, ended.flags = 5, 6, 7, AttemptFlag.CUT
    ATTEMPT.struct.pack_into(buffer, 128, 1, 2, 3, *[0] * 9)
    ended.write(buffer, ended=9, outcome=Outcome.OK)
    record = (1, 2, 3, 0, 5, 9, 2, 3, 6, Outcome.OK, 7, AttemptFlag.CUT)
    assert ATTEMPT.struct.unpack_from(buffer, 128) == record
    ended.write_connected(buffer)
    ended.write_never_started(buffer)
    assert ATTEMPT.struct.unpack_from(buffer, 128) == (1, 2, 0, 4, *record[4:])
    assert buffer[:128] == bytes(128)


def test_attempt_without_a_slot_is_not_written() -> None:
    """An attempt without a slot in the journal does not change the buffer."""
    buffer = mmap.mmap(-1, 4096)
    lost = attempt(at=-1)
    lost.write(buffer, ended=1)
    lost.write_connected(buffer)
    lost.write_never_started(buffer)
    assert buffer[:] == bytes(4096)


def test_stage_ends_in_order() -> None:
    """Attempts expire at their own time-out, oldest first; attempts that left earlier do not expire."""
    phase = Phase(100)
    waiting = [enter(phase, number, 1000 + number) for number in range(5)]
    del phase.attempts[1]
    assert phase.leave_expired(1099, 9) == []
    assert phase.leave_expired(1102, 9) == [waiting[0], waiting[2]]
    assert phase.check_at == 1103
    assert phase.leave_expired(9999, 1) == [waiting[3]]
    assert phase.leave_expired(9999, 9) == [waiting[4]]
    assert phase.check_at == NEVER
    assert not phase.attempts


@given(steps=st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=40), most=st.integers(1, 5))
def test_stage_never_checks_too_late(steps: list[tuple[int, bool]], most: int) -> None:
    """`check_at` is never later than the end of an attempt that still waits."""
    phase = Phase(60)
    now = 0
    for number, (passed, leaves) in enumerate(steps):
        now += passed
        for expired in phase.leave_expired(now, most):
            assert expired.since + 60 <= now
        enter(phase, number, now)
        if leaves:
            del phase.attempts[min(phase.attempts)]
        assert phase.check_at <= min((one.since + 60 for one in phase.attempts.values()), default=NEVER)


@pytest.mark.parametrize("most", [1, 3, 10])
def test_stage_gives_up_at_most_a_batch(most: int) -> None:
    """If many attempts expire at once, at most the requested number leaves, and the rest are due immediately."""
    phase = Phase(100)
    for number in range(10):
        enter(phase, number, 0)
    assert len(phase.leave_expired(100, most)) == most
    assert len(phase.attempts) == 10 - most
    assert phase.check_at == (NEVER if most == 10 else 100)
