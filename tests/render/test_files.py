"""The derived files of a result folder have the numbers of its records, in formats that other tools read."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from file_samples import LATENCIES_NS, WALL_CLOCK, made_up, written
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from recordings import START_NS, attempt, ns, recording

from loadsim.analysis.clock import Clock
from loadsim.analysis.dataset import Dataset
from loadsim.analysis.judge import summary_of
from loadsim.analysis.latency import (
    DIGITS,
    HIGHEST_NS,
    LOWEST_NS,
    Histogram,
    Latencies,
    accept_latencies,
    connect_latencies,
)
from loadsim.record.records import SAMPLE
from loadsim.record.result import Bundle
from loadsim.render.files import histogram_log, percentile_table, timeseries, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.record.recording import Ints


def read_log(log: Path) -> tuple[HdrHistogram, list[HdrHistogram]]:
    """Return the histograms that HdrHistogram's reader finds in a log: all merged, and each interval."""
    reader = HistogramLogReader(str(log), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    merged, steps = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS), []
    with reader.input_file:
        while (step := reader.get_next_interval_histogram()) is not None:
            merged.add(step)
            steps.append(step)
    return merged, steps


def expected_table(values: Ints) -> list[str]:
    """Return HdrHistogram's own percentile table of these values in microseconds, by lines."""
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for value in values.tolist():
        histogram.record_value(value)
    out = io.BytesIO()
    histogram.output_percentile_distribution(out, 1e3)
    return out.getvalue().decode().splitlines()


def test_a_result_folder_gets_its_files(tmp_path: Path) -> None:
    """No other file is written."""
    written(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    logs = ["accept.hgrm", "accept.hlog", "connect.hgrm", "connect.hlog"]
    assert names == [*logs, "junit.xml", "report.html", "summary.md", "timeseries.csv"]


@pytest.mark.parametrize("name", ["connect", "accept"])
def test_a_log_reads_back_with_the_percentiles_of_the_records(tmp_path: Path, name: str) -> None:
    """HdrHistogram's own reader finds every latency, to three digits."""
    data = written(tmp_path)
    kinds = {"connect": connect_latencies(data.recording.attempts), "accept": accept_latencies(data)}
    values = kinds[name].nanoseconds
    merged, _ = read_log(tmp_path / f"{name}.hlog")
    assert merged.get_total_count() == len(values) == 500
    for percent in (0.2, 10, 50, 90, 99, 99.9, 100):
        exact = int(np.percentile(values, percent, method="inverted_cdf"))
        assert merged.get_value_at_percentile(percent) == pytest.approx(exact, rel=1e-3)
        assert merged.get_value_at_percentile(percent) >= exact


def test_a_log_has_an_interval_for_each_second_of_the_load(tmp_path: Path) -> None:
    """Intervals are stamped with the wall clock, in milliseconds since the epoch."""
    written(tmp_path)
    _, steps = read_log(tmp_path / "connect.hlog")
    starts = [step.get_start_time_stamp() / 1000 - WALL_CLOCK for step in steps]
    lengths = [(step.get_end_time_stamp() - step.get_start_time_stamp()) / 1000 for step in steps]
    assert starts == pytest.approx([0.0, 1.0, 2.0])
    assert lengths == pytest.approx([1.0, 1.0, 0.6])
    assert [step.get_total_count() for step in steps] == [200, 200, 100]


def test_a_log_begins_with_a_header(tmp_path: Path) -> None:
    """Format 1.3 has a comment, version, start, base and legend; the maximum of an interval is in milliseconds."""
    written(tmp_path)
    heading, *header, first, _, _ = (tmp_path / "connect.hlog").read_text().splitlines()
    assert heading.startswith("#[loadsim ")
    assert "made-up, seed 7: connect, from the intended start; values are nanoseconds]" in heading
    assert header == [
        "#[Histogram log format version 1.3]",
        "#[StartTime: 1795340467.250 (seconds since epoch), 2026-11-22 09:41:07.250+00:00]",
        "#[BaseTime: 1795340467.250 (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    start, length, highest, _ = first.split(",")
    assert (start, length) == ("0.000", "1.000")
    assert float(highest) == pytest.approx(LATENCIES_NS[:200].max() / 1e6, rel=1e-3)


def test_a_log_without_a_wall_clock_counts_from_its_first_interval(tmp_path: Path) -> None:
    """A recording without a wall clock is not dated to 1970."""
    data = Dataset.of(recording([attempt(1, 1.5)], load_end_ns=ns(2.0)))
    write_files(Bundle(tmp_path), data, summary_of(data))
    assert "Time:" not in (tmp_path / "connect.hlog").read_text()
    _, steps = read_log(tmp_path / "connect.hlog")
    assert [(step.get_start_time_stamp(), step.get_total_count()) for step in steps] == [(0.0, 0), (1000.0, 1)]


def test_values_outside_the_range_are_counted() -> None:
    """Latencies above an hour are reported, not lost silently."""
    data = made_up()
    day = np.array([1_000, 86_400 * 10**9], dtype=np.int64)
    latencies = Latencies(known=np.array([ns(0.1), ns(0.2)]), nanoseconds=day)
    remark = "#[1 more values are left out: outside the range of 1 ns to 1 h]"
    assert remark in histogram_log(latencies, data.recording.facts, data.clock, heading="").splitlines()
    assert remark in percentile_table(Histogram.of(day)).splitlines()


@pytest.mark.parametrize("values", [LATENCIES_NS, LATENCIES_NS[:1], LATENCIES_NS[:0]], ids=len)
def test_a_table_equals_that_of_hdrhistogram(values: Ints) -> None:
    """All lines are equal except the deviation, which the Python library leaves in nanoseconds."""
    expected, found = expected_table(values), percentile_table(Histogram.of(values)).splitlines()
    (mean,) = (index for index, line in enumerate(expected) if line.startswith("#[Mean"))
    assert expected[:mean] == found[:mean]
    assert expected[mean + 1 :] == found[mean + 1 :]
    assert expected[mean].split(",")[0] == found[mean].split(",")[0]


def test_the_deviation_of_a_table_has_the_unit_of_its_values() -> None:
    """Half of the values are 1 ms and half 3 ms: the mean is 2 ms and the deviation 1 ms, in microseconds."""
    table = percentile_table(Histogram.of(np.array([1_000_000, 3_000_000] * 50)))
    (line,) = (line for line in table.splitlines() if line.startswith("#[Mean"))
    numbers = [float(part.strip(" ]")) for part in (line.split("=")[1].split(",")[0], line.split("=")[2])]
    assert numbers == pytest.approx([2_000, 1_000], rel=1e-3)


def test_the_samples_read_back_from_csv() -> None:
    """Every field of every sample is there; a reading that was not taken is an empty cell."""
    data = made_up()
    samples = data.recording.samples
    rows = list(csv.DictReader(io.StringIO(timeseries(samples, data.clock))))
    names = [name for name, _ in SAMPLE.fields if name != "time"]
    assert list(rows[0]) == ["time_s", *names]
    assert [START_NS + round(float(row["time_s"]) * 1e9) for row in rows] == samples["time"].tolist()
    read: list[list[Any]] = [[int(row[name] or -1) for name in names] for row in rows]
    assert read == [[int(one[name]) for name in names] for one in samples]
    assert rows[0]["queue"] == ""
    assert rows[1]["queue"] == "0"


def test_a_run_without_samples_has_a_header() -> None:
    """The file has the field names and no rows."""
    run = recording()
    assert timeseries(run.samples, Clock.of(run)).splitlines() == [
        ",".join(["time_s", *(name for name, _ in SAMPLE.fields[1:])])
    ]
