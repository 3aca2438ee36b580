"""The accept queue is computed from both journals: its waits, its length and its pauses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import World
from recordings import START_NS, Row, accept, attempt, failure, ns, recording, sample, unserved

from loadsim.analysis.clock import Capacity, Clock
from loadsim.analysis.dataset import Dataset
from loadsim.analysis.metrics import measure
from loadsim.fates import Outcome
from loadsim.record.facts import StepFacts
from loadsim.record.records import AcceptFlag, AttemptFlag, FailureFlag, Where

MS = 1_000_000


def view_of(*args: object, **changes: object) -> Dataset:
    """Return the view of a recording made as in `recordings.recording`."""
    return Dataset.of(recording(*args, **changes))  # type: ignore[arg-type]


def milliseconds(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    """Return nanoseconds as rounded milliseconds."""
    return [round(float(value) / MS, 3) for value in values]


def test_a_wait_counts_from_the_stamp_after_connect() -> None:
    """A long wait is accepted - connected; a handshake is never stamped after accept()."""
    quick, race = attempt(1, 0.0), attempt(2, 0.1)
    data = view_of([quick, race], [accept(quick, 0.004), accept(race, -0.00004, age_ms=0)])
    assert milliseconds(data.waits.waited) == [4.0, 0.0]
    assert list(data.waits.late) == [False, False]


def waits_us(*times: tuple[float, float], **changes: int) -> list[float]:
    """Return accept latencies; each client has the microseconds after which its connect() and its accept() returned."""
    rows = [attempt(n, 0.001 * n, connected=0.001 * n + took / 1e6, **changes) for n, (took, _) in enumerate(times, 1)]
    accepts = [accept(row, (at - took) / 1e6, age_ms=0) for row, (took, at) in zip(rows, times, strict=True)]
    return [round(float(wait) / 1e3, 1) for wait in view_of(rows, accepts).waits.waited]


USUAL = [(42.0, 200.0)] * 5  # a handshake of 40 us, and 2 us until connect() returns


def test_a_slow_connect_that_woke_nobody_was_slow_before() -> None:
    """Cold caches make a connect() of 142 us; the server accepted long after it had returned."""
    assert waits_us(*USUAL, (142.0, 300.0))[-1] == 160.0


def test_a_slow_connect_before_an_accept_at_once_was_slow_after() -> None:
    """connect() returned late because it woke the server, which accepted 20 us later: the handshake was a usual one."""
    assert waits_us(*USUAL, (72.0, 92.0))[-1] == 52.0


def test_an_accept_inside_connect_leaves_the_handshake_its_share() -> None:
    """The server ran on the CPU of its client, which had to wait; of 100 us the handshake took 57."""
    assert waits_us(*USUAL, (150.0, 100.0), (9000.0, 100.0))[-2:] == [43.0, 43.0]


def test_a_server_without_a_cpu_inside_connect_has_waited() -> None:
    """A handshake takes at most 160 us here: the rest of 5 ms is its wait."""
    assert waits_us(*USUAL, (9000.0, 5000.0))[-1] == 4840.0


@pytest.mark.parametrize("changes", [{"flags": AttemptFlag.WOKEN}, {"syn_retransmits": 1}])
def test_a_connect_that_took_its_time_counts_from_its_stamp(changes: dict[str, int]) -> None:
    """The handshake was not inside the call."""
    assert waits_us((50.0, 150.0), (150.0, 100.0), **changes) == [100.0, 0.0]


def test_a_connect_that_woke_nobody_counts_from_its_stamp() -> None:
    """A server that was busy for 5 ms was not woken by the connection, and did not delay its stamp."""
    rows = [attempt(n, 0.001 * n, connected=0.001 * n + 0.00004 * n) for n in (1, 2, 3, 4)]
    data = view_of(rows, [accept(row, 0.005) for row in rows])
    assert milliseconds(data.waits.waited) == [5.0, 5.0, 5.0, 5.0]


def test_a_late_handshake_counts_from_the_age_of_the_socket() -> None:
    """Where the server's socket is more than 10 ms younger than the connection, its age is the wait."""
    late, within = attempt(1, 0.0, ended=2.0), attempt(2, 0.1, ended=2.0)
    data = view_of([late, within], [accept(late, 1.0, age_ms=3), accept(within, 1.0, age_ms=992)])
    assert milliseconds(data.waits.waited) == [3.0, 1000.0]
    assert list(data.waits.late) == [True, False]


def test_a_connection_without_a_stamp_counts_from_its_age() -> None:
    """Foreign connections, and clients that gave up as they were accepted, have only the age."""
    stranger = accept(attempt(9), 1.0, age_ms=40)
    assert milliseconds(view_of([attempt(1)], [stranger]).waits.waited) == [40.0]


def test_the_queue_rises_with_connects_and_falls_with_accepts() -> None:
    """Three connect within 3 ms, the server takes them 10 ms later: the queue held three."""
    rows = [attempt(n, 0.001 * n, ended=1.0) for n in (1, 2, 3)]
    queue = view_of(rows, [accept(row, 0.010) for row in rows]).queue
    assert queue.peak == 3
    assert queue.first_full(holding(3)) == rows_at(rows[2])
    assert queue.first_full(holding(4)) is None
    assert queue.time_full(holding(3), START_NS, ns(1.0)) == pytest.approx(8 * MS, abs=10)


def rows_at(row: Row) -> int:
    """Return when an attempt was connected, on the clock."""
    return ns(row["connected"])


def test_a_queue_nobody_entered_is_empty() -> None:
    """Without events the queue has no peak and was never full."""
    queue = view_of().queue
    assert (queue.peak, queue.first_full(holding(1)), queue.time_full(holding(1), START_NS, ns(1.0))) == (0, None, 0)
    assert list(queue.peaks(np.array([START_NS, ns(1.0)]))) == [0]


def test_the_peak_of_a_step_includes_what_was_there_before() -> None:
    """A step without an event has the length at the end of the step before."""
    rows = [attempt(n, 0.001 * n, ended=5.0) for n in (1, 2)]
    queue = view_of(rows, [accept(row, 3.0) for row in rows]).queue
    edges = np.array([ns(second) for second in (0.0, 1.0, 2.0, 3.5)])
    assert list(queue.peaks(edges)) == [2, 2, 2]


@given(seed=st.integers(0, 2**32), cut=st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_steps_and_the_whole_agree(seed: int, cut: int) -> None:
    """The largest peak of all steps is the peak, and the queue never falls below zero."""
    history = World(seed=seed, rst=0.5, sources=3).run()
    queue = view_of(history.attempts, history.accepts).queue
    edges = np.linspace(START_NS, ns(10.0), cut + 1).astype(np.int64)
    assert int(queue.peaks(edges).max()) == queue.peak
    assert int(queue.levels.min(initial=0)) >= 0


def test_who_was_orphaned_stayed_in_the_queue_to_the_end() -> None:
    """The queue of a listener that died holds its orphans."""
    orphan = unserved(1, 0.1, ended=1.0, outcome=Outcome.RESET)
    data = view_of([orphan], server_exited_ns=ns(1.0), server_exit_status=1)
    assert data.queue.peak == 1
    assert milliseconds(data.pauses.lengths) == [pytest.approx(899.97)]


def test_who_came_before_the_load_waits_from_its_start() -> None:
    """A server that has not begun to accept does not pause while a foreign client waits."""
    early = accept(attempt(1, 0.0), 0.002, age_ms=176, port=999)
    data = view_of([attempt(2, 0.5)], [early, accept(attempt(2, 0.5), 0.001)])
    assert milliseconds(data.waits.waited) == [2.03, 1.0]
    assert milliseconds(data.pauses.lengths) == [2.03, 1.0]


def test_a_pause_lasts_from_the_accept_before_or_the_first_to_wait() -> None:
    """Nothing counts as a pause while no client waits."""
    rows = [attempt(1, 0.0, ended=1.0), attempt(2, 0.001, ended=1.0), attempt(3, 0.5, ended=1.0)]
    accepts = [accept(rows[0], 0.010), accept(rows[1], 0.029), accept(rows[2], 0.002)]
    pauses = view_of(rows, accepts).pauses
    assert milliseconds(pauses.lengths) == [10.0, 20.0, 2.0]
    assert (milliseconds(np.array([pauses.longest])), pauses.final) == ([20.0], False)


def test_who_still_waits_when_the_run_is_judged_ends_it_with_a_pause() -> None:
    """The last pause lasts until the server stopped accepting."""
    row = unserved(1, 1.0, ended=None, flags=AttemptFlag.PENDING, outcome=Outcome.UNFINISHED)
    pauses = view_of([row], [accept(row, 5.0, flags=AcceptFlag.AFTER_END, state=7)], end_queue=1).pauses
    assert (milliseconds(pauses.lengths), pauses.final) == ([4099.97], True)


def test_pauses_for_want_of_a_descriptor_are_told_apart() -> None:
    """A pause with EMFILE in accept() is starved; with a failure on an empty queue or in a handler it is not."""
    rows = [attempt(n, float(n), ended=9.0) for n in range(4)]
    accepts = [accept(row, 0.1) for row in rows]
    failures = [
        failure(1.05),
        failure(2.05, flags=FailureFlag.IDLE),
        failure(3.05, where=Where.HANDLER),
        failure(0.05, errno=103),
    ]
    assert list(view_of(rows, accepts, failures).pauses.starved) == [False, True, False, False]


def test_nobody_who_waits_makes_no_pause() -> None:
    """Without accepts and without a queue there are no pauses."""
    assert view_of([attempt(1, outcome=Outcome.REFUSED, connected=None)]).pauses.longest == 0


def test_a_killed_run_ends_with_its_last_record() -> None:
    """Moments that the conductor did not note come from the records."""
    made = recording([attempt(1, 1.0)], samples=[sample(2.5)], load_end_ns=0, judged_ns=0)
    assert (Clock.of(made).load_s, Clock.of(made).judged) == (2.5, ns(2.5))
    assert Clock.of(recording(load_end_ns=0, judged_ns=0)).load_s == 0.0


def test_a_server_that_ended_is_judged_at_its_end() -> None:
    """Nothing is accepted after the server's own end."""
    clock = Clock.of(recording(server_exited_ns=ns(2.0)))
    assert (clock.at(clock.judged), clock.load_s) == (2.0, 5.0)


def holding(connections: int) -> Capacity:
    """Return the capacity of a queue that never changes."""
    return Capacity(since=np.array([0]), holds=np.array([connections]))


def backlog_set(after: int, at: float, *, asked: int | None = None) -> StepFacts:
    """Return a step that set a backlog, which was 4 before."""
    return StepFacts(change="backlog", asked=asked or after, done_ns=ns(at), before=4, after=after)


def test_a_backlog_that_a_step_changes_counts_from_then_on() -> None:
    """Five clients fill a backlog of 4; five more do not fill one of 200."""
    rows = [attempt(n, 0.1 * n + (0.6 if n >= 5 else 0.0), ended=9.0) for n in range(10)]
    data = view_of(rows, [accept(row, 4.0) for row in rows], server_backlog=4, steps=[backlog_set(200, 1.0)])
    numbers = measure(data)
    assert data.queue_full_at_s == pytest.approx(0.40003)
    assert numbers["queue.full_share"] == pytest.approx(0.6 / 5, abs=1e-4)
    assert (numbers["queue.max"], numbers["queue.capacity"]) == (10, 201)


def test_a_queue_that_a_lower_backlog_fills_is_full_from_then_on() -> None:
    """Six wait when the backlog falls to 4: they stay, and the next client is dropped."""
    rows = [attempt(n, 0.1 * n, ended=9.0) for n in range(6)]
    lowered = dataclasses.replace(backlog_set(4, 2.0), before=200)
    data = view_of(rows, [accept(row, 4.0) for row in rows], server_backlog=200, steps=[lowered])
    numbers = measure(data)
    assert (data.queue_full_at_s, numbers["queue.max"], numbers["queue.capacity"]) == (2.0, 6, 201)
    assert numbers["queue.full_share"] == pytest.approx(2.1 / 5, abs=1e-3)


def test_samples_show_a_backlog_that_a_command_changes_itself() -> None:
    """Samples show a second listen() of the server that no step made."""
    samples = [sample(0.1 * n, queue=9, queue_capacity=9 if n < 20 else 17) for n in range(50)]
    data = view_of(samples=samples, server_backlog=8, server_command=["./server"])
    assert data.capacity is not None
    assert (data.capacity.since.tolist(), data.capacity.holds.tolist()) == ([0, ns(2.0)], [9, 17])
    assert measure(data)["queue.full_share"] == pytest.approx(0.4)


@pytest.mark.parametrize(("limit", "read", "holds"), [(128, [], 129), (None, [65], 65), (None, [], None), (0, [], 1)])
def test_the_queue_holds_one_more_than_the_backlog(limit: int | None, read: list[int], holds: int | None) -> None:
    """The capacity comes from the server's start, else from a sample, else it is not known."""
    samples = [sample(0.1, queue_capacity=value) for value in read]
    assert view_of(samples=samples, server_backlog=limit).queue_peak == (0, holds)


def test_a_full_queue_is_seen_by_journals_or_by_a_sample() -> None:
    """The first moment of the two counts, in seconds from the start."""
    rows = [attempt(n, 0.5, ended=2.0) for n in (1, 2)]
    accepts = [accept(row, 0.2) for row in rows]
    seen = [sample(0.1, queue=1), sample(0.3, queue=2)]
    assert view_of(rows, accepts, server_backlog=1).queue_full_at_s == pytest.approx(0.50003)
    assert view_of(rows, accepts, samples=seen, server_backlog=1).queue_full_at_s == 0.3
    assert view_of(rows, accepts, server_backlog=9).queue_full_at_s is None
    assert view_of(rows, accepts, server_backlog=None).queue_full_at_s is None


def test_a_setting_that_a_scenario_lacks_is_none() -> None:
    """Recordings of other versions may lack tables and keys."""
    data = view_of(settings={"server": {"backlog": 3}})
    assert (data.setting("server", "backlog"), data.setting("server", "x"), data.setting("x", "y")) == (3, None, None)
