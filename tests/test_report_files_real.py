"""A real run leaves the derived files in its folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from real_runs import run_scenario

from loadsim.analysis.histogram import DIGITS, HIGHEST_NS, LOWEST_NS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def first_interval(log: Path) -> HdrHistogram:
    """Return the first interval of a log, stamped with milliseconds since the epoch."""
    reader = HistogramLogReader(str(log), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    with reader.input_file:
        return reader.get_next_interval_histogram()


def test_a_run_leaves_what_other_tools_read(tmp_path: Path) -> None:
    """Every client of half a second is in the first interval, whose time is that of the wall clock at its start."""
    before = time.time()
    ran = run_scenario("healthy", tmp_path, "client.rate=100/s", "client.duration=0.5s", "client.hold=0s")
    for name in ("connect", "accept"):
        interval = first_interval(ran.folder / f"{name}.hlog")
        assert interval.get_total_count() == ran.summary.clients == 50
        assert before < interval.get_start_time_stamp() / 1000 < time.time()
        assert "TotalCount     =       50.000" in (ran.folder / f"{name}.hgrm").read_text()
    assert len((ran.folder / "timeseries.csv").read_text().splitlines()) == 1 + len(ran.recording.samples)
