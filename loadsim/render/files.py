"""The derived files of a result folder, for people and other tools. They can be regenerated from the records.

    report.html                the page of the run
    summary.md                 a short form, for job summaries and pull requests
    junit.xml                  a test case for each threshold
    timeseries.csv             every sample, one row each
    connect.hlog accept.hlog   latencies second by second, HdrHistogram's log format 1.3
    connect.hgrm accept.hgrm   percentiles of the run, HdrHistogram's table

Both HdrHistogram formats are written here, because hdrhistogram 0.10.8 crashes on the start time of a log and does not
scale the deviation in a table.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from loadsim import __version__
from loadsim.analysis.latency import Histogram, accept_latencies, connect_latencies, distribution, intervals
from loadsim.analysis.series import series_of
from loadsim.record.records import SAMPLE
from loadsim.render.html.page import run_page
from loadsim.render.junit import Cell, junit
from loadsim.render.markdown import run_markdown
from loadsim.render.text import printable
from loadsim.units import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.analysis.clock import Clock
    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.latency import Interval, Latencies, Row
    from loadsim.analysis.summary import Summary
    from loadsim.record.facts import Facts
    from loadsim.record.recording import Records
    from loadsim.record.result import Bundle

#: Value of a reading that was not taken; its cell in the CSV is empty.
_UNREAD = -1
#: Nanoseconds in the units of a log's Interval_Max (HdrHistogram's convention) and of a percentile table.
_MS, _US = 1e6, 1e3


def write_files(bundle: Bundle, data: Dataset, summary: Summary) -> None:
    """Write the derived files of a run into its result folder."""
    bundle.write_text("report.html", run_page(summary, series_of(data), host=bundle.read_host()))
    bundle.write_text("summary.md", run_markdown(summary))
    bundle.write_text("junit.xml", junit(summary.scenario, [Cell(name="", runs=[summary])]))
    bundle.write_text("timeseries.csv", timeseries(data.recording.samples, data.clock))
    for name, meaning, latencies in (
        ("connect", "connect, from the intended start", connect_latencies(data.recording.attempts)),
        ("accept", "wait in the accept queue", accept_latencies(data)),
    ):
        heading = f"{printable(summary.scenario)}, seed {summary.seed}: {meaning}; values are nanoseconds"
        bundle.write_text(f"{name}.hlog", histogram_log(latencies, data.recording.facts, data.clock, heading=heading))
        bundle.write_text(f"{name}.hgrm", percentile_table(Histogram.of(latencies.nanoseconds)))


def timeseries(samples: Records, clock: Clock) -> str:
    """Return the samples as CSV: seconds from the start of the load, then every reading under the name of its field."""
    names = [name for name, _ in SAMPLE.fields if name != "time"]
    times = [f"{clock.at(moment):.9f}" for moment in samples["time"].tolist()]
    readings = [["" if value == _UNREAD else str(value) for value in samples[name].tolist()] for name in names]
    rows = [("time_s", *names), *zip(times, *readings, strict=True)]
    return "".join(",".join(row) + "\n" for row in rows)


def histogram_log(latencies: Latencies, facts: Facts, clock: Clock, *, heading: str) -> str:
    """Return latencies as a histogram log with one interval per second; it begins with the load.

    The lines have no tag: HdrHistogram's HistogramLogProcessor skips tagged lines unless it is given the tag.
    """
    steps = list(intervals(latencies, start_ns=clock.start, end_ns=clock.load_end))
    beyond = _beyond(sum(step.histogram.beyond for step in steps))
    lines = [f"#[loadsim {__version__}: {heading}]", *beyond, *_log_header(facts), *map(_log_line, steps)]
    return "\n".join(lines) + "\n"


def percentile_table(histogram: Histogram) -> str:
    """Return a histogram as a percentile table (.hgrm), in microseconds."""
    shown = distribution(histogram)
    lines = [
        f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}",
        "",
        *map(_table_row, shown.rows),
        f"#[Mean    = {shown.mean_ns / _US:12.3f}, StdDeviation   = {shown.deviation_ns / _US:12.3f}]",
        f"#[Max     = {shown.max_ns / _US:12.3f}, TotalCount     = {shown.total:12.3f}]",
        f"#[Buckets = {shown.buckets:12d}, SubBuckets     = {shown.sub_buckets:12d}]",
        *_beyond(histogram.beyond),
    ]
    return "\n".join(lines) + "\n"


def _log_header(facts: Facts) -> Iterator[str]:
    """Yield the first lines of a log; without a wall clock its times count from the first interval."""
    yield "#[Histogram log format version 1.3]"
    if facts.start_unix_s:
        start = round(facts.start_unix_s, 3)
        date = dt.datetime.fromtimestamp(start, dt.UTC).isoformat(sep=" ", timespec="milliseconds")
        yield f"#[StartTime: {start:.3f} (seconds since epoch), {date}]"
        yield f"#[BaseTime: {start:.3f} (seconds since epoch)]"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'


def _log_line(interval: Interval) -> str:
    counted = interval.histogram
    return f"{interval.start_s:.3f},{interval.length_s:.3f},{counted.max_ns / _MS:.3f},{counted.encoded()}"


def _table_row(row: Row) -> str:
    line = f"{row.value_ns / _US:12.3f} {row.share:2.12f} {row.count:10d}"
    return line if row.one_in is None else f"{line} {row.one_in:14.2f}"


def _beyond(count: int) -> list[str]:
    """Return the comment on latencies outside the range of the histogram; no lines if there are none."""
    return [f"#[{format_count(count)} more values are left out: outside the range of 1 ns to 1 h]"] if count else []
