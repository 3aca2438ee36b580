"""The growth table, the timeline, the comparison with the prediction, and the times of the SYN timer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import Row, accept, attempt, failure, ns, recording, sample, summarise

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.descriptors import bands_of, growth_points, stalls
from loadsim.analysis.findings.queue import retransmit_times
from loadsim.analysis.metrics import compare, is_gap, measure
from loadsim.analysis.series import timeline_of
from loadsim.analysis.summary import Band, Compared, Mark, Timeline
from loadsim.record.facts import StepFacts
from loadsim.record.records import AcceptFlag, FailureFlag
from loadsim.render import tables


def view_of(*args: Any, **changes: Any) -> Dataset:  # noqa: ANN401 -- as for `recording`
    """Return the view of a recording made as in `recordings.recording`."""
    return Dataset.of(recording(*args, **changes))


def climbing(count: int, **changes: Any) -> Dataset:  # noqa: ANN401 -- as for `recording`
    """Return a server that keeps each of its connections: 9, 10, 11 ... open descriptors, one every 10 ms."""
    rows = [attempt(n, 0.01 * n, ended=9.0) for n in range(count)]
    accepts = [accept(row, 0.0001 * n, fd=8 + n, open_fds=9 + n) for n, row in enumerate(rows)]
    return view_of(rows, accepts, **changes)


def bands(data: Dataset, highest: int) -> list[Band]:
    """Return the bands from the usual baseline of 8 up."""
    return bands_of(data, 8, highest)


def test_a_table_that_did_not_grow_has_no_bands() -> None:
    """Without descriptors above the baseline there are no bands."""
    assert bands(view_of(), 8) == []


def test_few_descriptors_are_a_band_each() -> None:
    """Fewer than eight numbers of open descriptors are not put together."""
    found = bands(climbing(3), 11)
    assert [(band.label, band.accepted) for band in found] == [("9 fds", 1), ("10 fds", 1), ("11 fds", 1)]


def test_the_limit_is_a_band_of_its_own() -> None:
    """The last band is the limit, and its label says so."""
    found = bands(climbing(56), 64)
    assert (found[-1].label, found[-1].fds_from, found[-1].fds_to) == ("64 = the limit", 64, 64)
    assert len(found) == 8


def test_each_limit_that_held_for_a_time_is_a_band() -> None:
    """Before and after a step that raises the limit there is a band for each limit."""
    step = StepFacts(change="nofile", asked=64, done_ns=ns(0.2), before=20, after=64)
    found = bands(climbing(56, server_nofile_soft=20, steps=[step]), 64)
    assert [band.label for band in found if "limit" in band.label] == ["20 = a limit", "64 = a limit"]


def test_bands_begin_where_the_table_grew() -> None:
    """The 65th descriptor enlarges a table of 64; sizes between two readings are found by doubling."""
    samples = [sample(0.0, fd_size=64), sample(1.0), sample(2.0, fd_size=512)]
    data = climbing(300, samples=samples, server_nofile_soft=1000)
    assert growth_points(data) == [64, 128, 256]
    found = bands(data, 308)
    assert [band.fds_from for band in found if band.growth_point] == [65, 129, 257]
    assert found[-1].label == "257 - 308 fds"


def test_a_table_whose_size_was_not_read_has_no_growth_points() -> None:
    """A table without readings, or with one size only, has no growth points."""
    assert growth_points(climbing(3)) == []
    assert growth_points(climbing(3, samples=[sample(0.0, fd_size=256)])) == []


@pytest.mark.slow
@given(count=st.integers(1, 200), limit=st.integers(20, 300))
def test_bands_cover_everything_once(count: int, limit: int) -> None:
    """Every accept falls into one band, and bands follow each other without a gap."""
    found = bands(climbing(count, server_nofile_soft=limit), 8 + count)
    assert sum(band.accepted for band in found) == count
    assert found[0].fds_from == 9
    assert found[-1].fds_to == 8 + count
    assert all(after.fds_from == before.fds_to + 1 for before, after in itertools.pairwise(found))
    assert len(found) >= min(8, count)


def test_records_at_or_below_the_baseline_have_bands_of_their_own() -> None:
    """A server that sheds clients does so on a descriptor that it had kept in reserve."""
    rows = [attempt(n, 0.01 * n, ended=0.02 * n) for n in range(1, 21)]
    at = [7, *[8] * 16, 9, 9, 10]
    accepts = [accept(row, flags=AcceptFlag.SHED, open_fds=fds) for row, fds in zip(rows, at, strict=True)]
    found = bands(view_of(rows, accepts, [failure(0.5, 3, open_fds=8)]), 10)

    assert [(band.fds_from, band.accepted, band.emfile) for band in found] == [
        (7, 1, 0),
        (8, 16, 3),
        (9, 2, 0),
        (10, 1, 0),
    ]


def test_a_band_shows_its_latencies() -> None:
    """Median and maximum always, p99 from 100 accepts on; a band without accepts shows none."""
    few, many = bands(climbing(16), 24)[0], bands(climbing(900, server_nofile_soft=5000), 2000)
    assert (few.accepted, few.accept_p50_s, few.accept_p99_s, few.accept_max_s) == (2, 2e-06, None, 0.000102)
    assert many[0].accept_p99_s == pytest.approx(0.0246)
    assert (many[-1].accepted, many[-1].accept_p50_s, many[-1].pause_max_s) == (0, None, None)


def test_failures_and_losses_fall_into_the_band_of_their_moment() -> None:
    """A failure counts at its open descriptors, a loss at the ones of the reading before."""
    samples = [
        sample(0.0, open_fds=8, listen_overflows=5),
        sample(0.3, open_fds=30, listen_overflows=5),
        sample(0.5, open_fds=64, listen_overflows=7),
        sample(0.9, open_fds=64, listen_overflows=17),
    ]
    failures = [failure(0.6, 40), failure(0.7, 2, flags=FailureFlag.IDLE), failure(0.7, 3, open_fds=9)]
    found = bands(climbing(56, samples=samples, failures=failures), 64)
    assert [band.emfile for band in found] == [3, 0, 0, 0, 0, 0, 0, 40]
    assert [band.overflows for band in found] == [0, 0, 2, 0, 0, 0, 0, 10]


def test_the_rows_of_a_column_make_its_total() -> None:
    """Connections that were shed, are foreign, or still wait at the end are in both or in neither."""
    rows = [attempt(n, 0.01 * n, ended=9.0) for n in range(60)]
    accepts = [
        accept(row, 0.0001 * n, fd=8 + n, open_fds=9 + n % 56, flags=AcceptFlag.SHED if n % 3 else 0)
        for n, row in enumerate(rows)
    ]
    waiting, foreign = attempt(60, 0.7, ended=9.0), accept(attempt(99, 0.1), open_fds=9)
    accepts += [foreign, accept(waiting, 6.0, flags=AcceptFlag.AFTER_END, open_fds=9)]
    seen = [sample(0.1 * n, open_fds=9 + 10 * (n % 5), listen_overflows=n * n) for n in range(10)]
    summary = summarise(recording([*rows, waiting], accepts, [failure(0.3, 7), failure(0.4, 5, open_fds=9)], seen))
    for column in tables._COLUMNS:
        cells = [getattr(band, column.field) for band in summary.growth]
        if column.field.startswith("accept_p"):
            continue
        total = max(cell for cell in cells if cell is not None) if column.time else sum(cells)
        assert total == summary.metrics[column.metric], column.head


def test_losses_that_were_not_read_are_not_zero() -> None:
    """Without a counter losses are unknown; in a shared namespace the listener's own drops replace it."""
    assert bands(climbing(9), 17)[0].overflows is None
    samples = [sample(0.0, open_fds=9, drops=1, listen_overflows=1), sample(1.0, open_fds=9, drops=4)]
    assert bands(climbing(9, samples=samples, namespace="shared"), 17)[0].overflows == 3


def grown(waits: list[float], **changes: Any) -> Dataset:  # noqa: ANN401 -- as for `recording`
    """Return a server with a table that grows at fd 64; its accepts of fd 62, 63 ... came after these waits."""
    rows = [attempt(n, 0.1 * n, ended=9.0) for n in range(len(waits))]
    accepts = [
        accept(row, wait, fd=62 + n, open_fds=63 + n) for n, (row, wait) in enumerate(zip(rows, waits, strict=True))
    ]
    samples = [sample(0.0, fd_size=64), sample(5.0, fd_size=128)]
    return view_of(rows, accepts, samples=samples, server_nofile_soft=1000, **changes)


@pytest.mark.parametrize(
    ("waits", "length"),
    [([0.0, 0.0, 0.012, 0.0, 0.05], 0.012), ([0.0, 0.0, 0.001, 0.007], 0.007), ([0.0, 0.0, 0.009], 0.009)],
)
def test_a_stall_is_the_pause_at_a_growth(waits: list[float], length: float) -> None:
    """The accept that met the full table, or the next one, has the pause; later pauses have another cause."""
    assert [(stall.fds, round(stall.length_s, 4)) for stall in stalls(grown(waits))] == [(64, length)]


def test_waiting_for_a_descriptor_is_no_stall() -> None:
    """A pause with EMFILE in it is caused by the limit."""
    assert [stall.length_s for stall in stalls(grown([0.0, 0.0, 0.05], failures=[failure(0.21)]))] == [0.0]


def test_a_growth_that_no_accept_met_has_no_stall() -> None:
    """A table that grew without an accept has no stall."""
    assert stalls(grown([0.0])) == []


def timeline(data: Dataset) -> Timeline:
    """Return the timeline of a view with its metrics."""
    return timeline_of(data, measure(data))


def test_a_timeline_has_at_most_240_steps() -> None:
    """Steps have the same length, which is at least two samples."""
    long, short = timeline(view_of(load_end_ns=ns(60.0))), timeline(view_of(load_end_ns=ns(0.1)))
    assert (len(long.open_fds), long.step_s) == (240, 0.25)
    assert (len(short.open_fds), short.step_s) == (5, 0.02)
    assert len(timeline(view_of(load_end_ns=ns(0.0))).queue) == 1


def test_a_step_shows_the_largest_value_or_that_there_was_none() -> None:
    """A step shows the largest value of samples and accept records; None if nothing was read."""
    samples = [
        sample(0.005, open_fds=9, queue=1),
        sample(0.015, open_fds=12, queue=4),
        sample(0.045, open_fds=11, queue=0),
    ]
    row = attempt(1, 0.05, ended=3.0)
    shown = timeline(view_of(samples=samples, load_end_ns=ns(0.1)))
    assert shown.open_fds == [12, None, 11, None, None]
    assert shown.queue == [4, None, 0, None, None]
    with_journals = timeline(view_of([row], [accept(row, 0.04, open_fds=20)], samples=samples, load_end_ns=ns(0.1)))
    assert with_journals.open_fds == [12, None, 11, None, 20]
    assert with_journals.queue == [4, 0, 1, 1, 1]


def test_a_queue_shows_no_more_than_it_holds() -> None:
    """Overlapping stamps are cut at the capacity, if it is known."""
    rows = [attempt(n, 0.0, ended=1.0) for n in range(3)]
    accepts = [accept(row, 0.5) for row in rows]
    assert timeline(view_of(rows, accepts, server_backlog=1)).queue[0] == 2
    assert timeline(view_of(rows, accepts, server_backlog=None)).queue[0] == 3


def test_moments_are_marked_in_their_order() -> None:
    """The first EMFILE, the full queue and the server's end are marked."""
    rows = [attempt(n, 0.5, ended=3.0) for n in (1, 2)]
    accepts = [accept(row, 1.0) for row in rows]
    made: Row = {"failures": [failure(0.25)], "server_backlog": 1, "server_exited_ns": ns(4.0)}
    assert timeline(view_of(rows, accepts, **made)).marks == [
        Mark(at_s=0.25, label="first EMFILE"),
        Mark(at_s=0.50003, label="queue full"),
        Mark(at_s=4.0, label="the server ended"),
    ]


def test_a_full_queue_that_lost_something_says_so() -> None:
    """The mark distinguishes a full queue from one that dropped packets."""
    samples = [sample(0.0, listen_overflows=0, queue=2), sample(1.0, listen_overflows=3)]
    marks = timeline(view_of(samples=samples, server_backlog=1)).marks
    assert marks == [Mark(at_s=0.0, label="queue full: SYNs dropped")]


FORETOLD = {"emfile_at_s": 0.28, "queue_full_at_s": None, "fates": {"accepted": 56.0, "shed": 0.0, "queued": 129.0}}


def test_what_was_foretold_stands_beside_what_was_measured() -> None:
    """Numbers that were not predicted, or are 0 in both, are left out."""
    data = view_of([attempt(1)], [accept(attempt(1))], prediction=FORETOLD)
    assert compare(data, measure(data)) == [
        Compared(name="EMFILE", unit="s", predicted=0.28, measured=None),
        Compared(name="accepted", unit="", predicted=56.0, measured=1),
        Compared(name="queued", unit="", predicted=129.0, measured=0),
    ]
    assert compare(view_of(), {}) == []


def test_a_never_is_compared_like_any_number() -> None:
    """A 'never' agrees if nothing happened, and is a gap if something did."""
    made = view_of([attempt(1)], [accept(attempt(1))], prediction={"never": ["emfile", "queue_full"]})
    kept, broken = (compare(made, measure(made) | measured) for measured in ({}, {"emfile.first_at": 0.5}))

    assert kept == [Compared(name=name, unit="s", predicted=None, measured=None) for name in ("EMFILE", "queue full")]
    assert broken[0] == Compared(name="EMFILE", unit="s", predicted=None, measured=0.5)
    assert [is_gap(row) for row in broken] == [True, False]


@pytest.mark.parametrize(
    ("unit", "predicted", "measured", "gap"),
    [
        ("", 100, 91, False), ("", 100, 89, True), ("", 2, 4, False), ("", 0, 3, True),
        ("s", 0.28, 0.32, False), ("s", 1.0, 1.2, True), ("s", 1.0, None, True), ("s", None, None, False),
    ],
)  # fmt: skip
def test_a_gap_is_more_than_ten_percent_and_the_grain(
    *, unit: str, predicted: float | None, measured: float | None, gap: bool
) -> None:
    """Small differences of small numbers do not count; an event that never came is a gap."""
    assert is_gap(Compared(name="x", unit=unit, predicted=predicted, measured=measured)) == gap


@pytest.mark.parametrize(
    ("sysctls", "first", "count"),
    [
        ({"net.ipv4.tcp_syn_linear_timeouts": "4", "net.ipv4.tcp_syn_retries": "6"}, [1, 2, 3, 4, 5, 7, 11, 19], 10),
        ({}, [1, 3, 7, 15, 31, 63], 6),
        ({"net.ipv4.tcp_syn_retries": "2"}, [1, 3], 2),
    ],
)
def test_a_syn_is_sent_again_by_the_kernels_own_timer(sysctls: dict[str, str], first: list[int], count: int) -> None:
    """Linear time-outs come first if this kernel has them, then doubled ones."""
    times = retransmit_times(sysctls)
    assert times[: len(first)] == first
    assert len(times) == count
