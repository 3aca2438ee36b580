"""A real run writes the derived files into its folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from real_runs import run_scenario

from loadsim.analysis.latency import DIGITS, HIGHEST_NS, LOWEST_NS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def intervals_of(log: Path) -> list[HdrHistogram]:
    """Return the intervals of a log, stamped with milliseconds since the epoch."""
    reader = HistogramLogReader(str(log), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    with reader.input_file:
        return list(iter(reader.get_next_interval_histogram, None))


def test_a_run_writes_files_for_other_tools(tmp_path: Path) -> None:
    """Every client is in the logs, and the first interval has the wall clock of the start."""
    before = time.time()
    ran = run_scenario("healthy", tmp_path, "client.rate=100/s", "client.duration=0.5s", "client.hold=0s")
    for name in ("connect", "accept"):
        intervals = intervals_of(ran.folder / f"{name}.hlog")
        assert sum(one.get_total_count() for one in intervals) == ran.summary.clients == 50
        assert before < intervals[0].get_start_time_stamp() / 1000 < time.time()
        assert "TotalCount     =       50.000" in (ran.folder / f"{name}.hgrm").read_text()
    assert len((ran.folder / "timeseries.csv").read_text().splitlines()) == 1 + len(ran.recording.samples)
