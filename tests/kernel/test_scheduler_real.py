"""Scheduler slices on the real kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadsim.kernel.timing import LONGEST_SLICE_NS, giving_way

pytestmark = pytest.mark.real


def slice_ns() -> int:
    """Return this thread's slice from /proc."""
    for line in Path("/proc/self/sched").read_text().splitlines():
        if line.startswith("se.slice"):
            return int(line.split(":")[1])
    pytest.skip("this kernel does not show slices (Linux 6.12, CONFIG_SCHED_DEBUG)")


def test_gives_way_for_a_while() -> None:
    """The slice is the longest possible one inside the block and the old one after it."""
    before = slice_ns()
    with giving_way():
        assert slice_ns() == LONGEST_SLICE_NS > before
    assert slice_ns() == before


def test_the_nice_value_is_kept() -> None:
    """A change of the slice keeps the nice value, which users may set for loadsim."""
    before = os.nice(1)
    with giving_way():
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_other_policies_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under SCHED_BATCH no slice is set."""
    before = slice_ns()
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_BATCH)
    with giving_way():
        assert slice_ns() == before
