"""What the scheduler of the real kernel is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadsim.kernel.timing import LONGEST_SLICE_NS, giving_way

pytestmark = pytest.mark.real


def slice_ns() -> int:
    """Return how long this thread may run at a stretch, as the kernel shows it."""
    for line in Path("/proc/self/sched").read_text().splitlines():
        if line.startswith("se.slice"):
            return int(line.split(":")[1])
    pytest.skip("this kernel does not show slices (Linux 6.12, CONFIG_SCHED_DEBUG)")


def test_gives_way_for_a_while() -> None:
    """The longest slice there is, so that whoever wakes up comes first; afterwards all is as it was."""
    before = slice_ns()
    with giving_way():
        assert slice_ns() == LONGEST_SLICE_NS > before
    assert slice_ns() == before


def test_niceness_stays() -> None:
    """Asking for slices changes nothing else: nice, as users set it for the whole command, stays."""
    before = os.nice(1)
    with giving_way():
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_other_policies_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs loadsim under SCHED_BATCH keeps that, and no slice is asked for."""
    before = slice_ns()
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_BATCH)
    with giving_way():
        assert slice_ns() == before
