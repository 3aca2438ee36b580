"""The numbers of a run in progress come from the headers of its journals and from the newest sample."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from loadsim.metrics import LIVE, METRICS
from loadsim.record.journal import Journal
from loadsim.record.records import ACCEPT, ATTEMPT
from loadsim.run.sampler import Latest, Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Samples:
    """A sampler with one sample."""

    def __init__(self, latest: Latest) -> None:
        self.latest = latest


class World:
    """Two drivers, a server and the newest sample."""

    def __init__(self, attempts: list[Journal], accepts: Journal) -> None:
        self.drivers, self.server, self.samples = attempts, accepts, Samples(Latest())
        self.monitor = Monitor(attempts=attempts, accepts=accepts, sampler=self.samples, shared=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Journals with empty headers."""
    with ExitStack() as stack:
        one, two = (stack.enter_context(Journal.create(tmp_path / name, ATTEMPT, 1)) for name in ("one", "two"))
        yield World([one, two], stack.enter_context(Journal.create(tmp_path / "accepts", ACCEPT, 1)))


def test_every_live_metric_is_a_metric_and_is_known(world: World) -> None:
    """The monitor of a visible server has exactly the metrics that `abort` may name."""
    unseen = set(world.monitor.metrics())
    world.samples.latest = Latest(open_fds=12, queue=0)
    assert set(world.monitor.metrics()) == LIVE <= set(METRICS)
    assert LIVE - unseen == {"fds.max", "queue.max"}


def test_drivers_are_added_up(world: World) -> None:
    """Attempts of all drivers count, and the rate is that since the last call."""
    world.drivers[0].count("started", 30)
    world.drivers[1].count("started", 12)
    assert world.monitor.progress(2.0).rate == pytest.approx(21.0)
    world.drivers[1].count("started", 8)
    progress = world.monitor.progress(2.5)
    assert progress.started == 50
    assert progress.rate == pytest.approx(16.0)


def test_peaks_are_kept_and_overflows_count_from_the_start(world: World) -> None:
    """The peak of a drained queue stays, and overflows before the run do not count."""
    world.samples.latest = Latest(open_fds=64, queue=129, queue_capacity=129, listen_overflows=1000)
    world.monitor.metrics()
    world.samples.latest = Latest(open_fds=12, queue=0, queue_capacity=129, listen_overflows=1007)
    metrics = world.monitor.metrics()
    assert (metrics["fds.max"], metrics["queue.max"], metrics["listen.overflows"]) == (64, 129, 7)


def test_unread_values_are_none(world: World) -> None:
    """Descriptors and queue are None before the first sample."""
    empty = world.monitor.progress(0.1)
    assert (empty.open_fds, empty.queue, empty.queue_capacity) == (None, None, None)
    world.samples.latest = Latest(open_fds=12, fd_limit=64, queue=0, queue_capacity=129)
    full = world.monitor.progress(0.2)
    assert (full.open_fds, full.fd_limit, full.queue, full.queue_capacity) == (12, 64, 0, 129)
