"""The readings of the sampler, with scripted sources and a clock that the test moves."""

from __future__ import annotations

import errno
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from loadsim.record.journal import Journal
from loadsim.record.recording import records_of
from loadsim.record.records import SAMPLE
from loadsim.run.sampler import Sampler
from loadsim.targets import Sources

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from loadsim.kernel.procfs import TcpCounters

MS = 1_000_000


class Scene:
    """A target with 64 open descriptors and a listener that is not visible."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.now = 0
        self.counters = SimpleNamespace(read=lambda: SimpleNamespace(listen_overflows=5, listen_drops=4, cookies=3))
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now)
        process = SimpleNamespace(
            open_fds=lambda: 64,
            limits=lambda: SimpleNamespace(soft=128),
            cpu_ns=lambda: 7,
            rss=lambda: 8,
            run_wait_ns=lambda: 9,
            fd_size=lambda: 256,
        )
        sources = Sources(
            process=process,
            table=None,
            listener=lambda: None,
            counters=cast("TcpCounters", self.counters),
        )
        self.journal = Journal.create(path, SAMPLE, 1000)
        self.sampler = Sampler(self.journal, sources)


def test_each_reading_has_its_field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A full sample has all readings, any other has -1 for the slow ones."""
    scene = Scene(monkeypatch, tmp_path / "samples")
    with scene.journal:
        for full in (True, False):
            scene.now += 10 * MS
            assert scene.sampler.take(full=full)
        rows = records_of(scene.journal)
    quick = {
        "open_fds": 64,
        "fd_limit": 128,
        "queue": -1,
        "queue_capacity": -1,
        "drops": -1,
        "cpu_ns": 7,
        "rss": 8,
        "run_wait_ns": 9,
    }
    slow = {"listen_overflows": 5, "listen_drops": 4, "cookies": 3, "fd_size": 256}
    assert {name: rows[name].tolist() for name in quick} == {name: [value] * 2 for name, value in quick.items()}
    assert {name: rows[name].tolist() for name in slow} == {name: [value, -1] for name, value in slow.items()}


def test_a_failed_sample_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sampling continues after a sample that the kernel refuses, and a notice has the number and the reason."""
    scene = Scene(monkeypatch, tmp_path / "samples")
    answer = scene.counters.read

    def refuse() -> SimpleNamespace:
        raise OSError(errno.EMFILE, "Too many open files")

    with scene.journal:
        for step, scene.counters.read in enumerate((answer, refuse, refuse, answer)):
            scene.now = step * 100 * MS
            assert scene.sampler.take(full=True)
        assert scene.journal.used == 2
    (notice,) = scene.sampler.notices
    assert notice.startswith("2 samples could not be taken (Too many open files): ")


def test_a_gap_between_samples_is_a_notice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The notice has the length of a gap of more than a second."""
    scene = Scene(monkeypatch, tmp_path / "samples")
    with scene.journal:
        for now in (100 * MS, 1000 * MS, 5500 * MS, 5600 * MS):
            scene.now = now
            assert scene.sampler.take(full=False)
    assert [notice.split(",")[0] for notice in scene.sampler.notices] == ["no sample was taken for 4.5 s"]
