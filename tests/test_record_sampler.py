"""When the sampler looks at what: on scripted readings and a clock that only readings move."""

from __future__ import annotations

import errno
import time
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from loadsim.kernel.fdtable import Kinds
from loadsim.record.events import SAMPLE
from loadsim.record.journal import Journal
from loadsim.record.sampler import KINDS_SHARE, KINDS_UP_TO, Sampler, Sources

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from loadsim.kernel.counters import TcpCounters

MS = 1_000_000


class Scene:
    """A target with so many descriptors, whose kinds take so long to read; `looks` are the times of each reading."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *, open_fds: int, takes_ns: int) -> None:
        self.now = 0
        self.looks: list[int] = []
        self._takes_ns = takes_ns
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now)
        process = SimpleNamespace(
            open_fds=lambda: open_fds,
            limits=lambda: SimpleNamespace(soft=64),
            cpu_ns=lambda: 0,
            rss=lambda: 0,
            fd_size=lambda: 64,
        )
        fields = dict.fromkeys(("listen_overflows", "listen_drops", "cookies", "request_drops"), 0)
        counters = SimpleNamespace(read=lambda: SimpleNamespace(**fields, embryonic_resets=0, syn_retransmits=0))
        sources = SimpleNamespace(
            process=process,
            table=SimpleNamespace(kinds=self.kinds),
            listener=lambda: None,
            counters=cast("TcpCounters", counters),
        )
        self.journal = Journal.create(path, SAMPLE, 1000)
        self.sampler = Sampler(self.journal, cast("Sources", sources))

    def kinds(self) -> Kinds:
        """Answer, after some time."""
        self.looks.append(self.now)
        self.now += self._takes_ns
        return Kinds(established=1, close_wait=2, other=3)

    def run(self, seconds: float) -> None:
        """Take ten full samples a second."""
        with self.journal:
            for step in range(round(seconds * 10)):
                self.now = max(self.now, step * 100 * MS)
                assert self.sampler.take(full=True)


def test_cheap_kinds_are_read_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What takes a millisecond of every hundred is read with every full sample."""
    scene = Scene(monkeypatch, tmp_path / "samples", open_fds=64, takes_ns=MS // 2)
    scene.run(2)
    assert len(scene.looks) == 20


def test_dear_kinds_take_a_bounded_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What takes 5 ms is read twice a second at most: it may not cost more than its share of the time."""
    scene = Scene(monkeypatch, tmp_path / "samples", open_fds=64, takes_ns=5 * MS)
    scene.run(10)
    gaps = [later - earlier for earlier, later in pairwise(scene.looks)]
    assert len(scene.looks) > 10
    assert min(gaps) >= 5 * MS / KINDS_SHARE


def test_kinds_of_a_large_table_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beyond some descriptors their kinds are left out, and nothing else is."""
    scene = Scene(monkeypatch, tmp_path / "samples", open_fds=KINDS_UP_TO + 1, takes_ns=0)
    scene.run(1)
    assert scene.looks == []
    assert scene.sampler.latest.open_fds == KINDS_UP_TO + 1


def test_a_want_of_its_own_is_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sample that the kernel refuses is left out, the next one is taken, and the reader is told how many and why."""
    scene = Scene(monkeypatch, tmp_path / "samples", open_fds=64, takes_ns=0)
    take = scene.kinds

    def refuse() -> Kinds:
        raise OSError(errno.EMFILE, "Too many open files")

    with scene.journal:
        for step, kinds in enumerate((take, refuse, refuse, take)):
            scene.now = step * 100 * MS
            monkeypatch.setattr(scene.sampler._sources.table, "kinds", kinds)
            assert scene.sampler.take(full=True)
        assert scene.journal.used == 2
    (notice,) = scene.sampler.notices
    assert notice.startswith("2 samples could not be taken (Too many open files): ")


def test_a_time_without_samples_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who was stopped for longer than a second has seen nothing meanwhile."""
    scene = Scene(monkeypatch, tmp_path / "samples", open_fds=64, takes_ns=0)
    with scene.journal:
        for now in (100 * MS, 1000 * MS, 5500 * MS, 5600 * MS):
            scene.now = now
            assert scene.sampler.take(full=False)
    assert [notice.split(",")[0] for notice in scene.sampler.notices] == ["nothing was sampled for 4.5 s"]
