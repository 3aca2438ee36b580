"""Metrics come from all samples, under the names of the table, and are absent where nothing was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import Row, accept, attempt, failure, ns, packed, recording, sample, settings, unanswered, unserved

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.latency import family
from loadsim.analysis.metrics import in_json, measure
from loadsim.fates import Outcome
from loadsim.metrics import METRICS
from loadsim.record.facts import StepFacts
from loadsim.record.recording import nearest_rank
from loadsim.record.records import AcceptFlag, AttemptFlag, FailureFlag, Where
from loadsim.scenario.specs import CANARY_SOURCE, HELD_SOURCE, source_address


def measured(*args: Any, **changes: Any) -> dict[str, float]:  # noqa: ANN401 -- as for `recording`
    """Return the metrics of a recording made as in `recordings.recording`."""
    return measure(Dataset.of(recording(*args, **changes)))


def busy() -> list[Row]:
    """Return samples of a server that is at its limit from 1 s to 3 s and burns half a core there."""
    return [
        sample(
            second, open_fds=64 if 1 <= second <= 3 else 10, cpu_ns=round(second * 5e8), rss=10**7, queue=int(second)
        )
        for second in (-0.1, 0.0, 1.0, 2.0, 3.0, 4.0)
    ]


def test_every_number_has_a_name() -> None:
    """Nothing is measured that the table of metrics does not define, in a rich run as in an empty one."""
    row = attempt(1)
    rich = measured([row], [accept(row)], [failure(1.0)], busy(), server_exit_status=1)
    assert set(rich) <= set(METRICS)
    assert set(measured()) <= set(METRICS)
    assert list(in_json({"fds.max": 3, "accept.p50": 0.5})) == ["fds.max", "accept.p50_s"]


def test_an_empty_recording_measures_nothing_but_zeros() -> None:
    """Absent metrics are absent, and counts are 0."""
    numbers = measured()
    assert numbers["attempts.count"] == 0
    assert {"accept.p50", "connect.p50", "queue.full_share", "attempts.rate", "server.cpu"} & set(numbers) == {
        "queue.full_share"
    }


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, set()),
        (1, {"p50", "max", "mean"}),
        (99, {"p50", "max", "mean"}),
        (100, {"p50", "p90", "p99", "max", "mean"}),
        (9_999, {"p50", "p90", "p99", "max", "mean"}),
        (10_000, {"p50", "p90", "p99", "p999", "max", "mean"}),
    ],
)
def test_percentiles_need_samples(count: int, shown: set[str]) -> None:
    """p90 and p99 are shown from 100 samples on, p999 from 10,000."""
    assert {name.removeprefix("x.") for name in family("x", np.arange(count))} == shown


@given(values=st.lists(st.integers(0, 100), min_size=1), share=st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_a_percentile_is_one_of_the_samples(values: list[int], share: float) -> None:
    """It is the smallest sample that the share of them does not exceed."""
    rank = nearest_rank(np.sort(np.array(values)), share)
    assert sum(value <= rank for value in values) >= share * len(values)
    assert sum(value < rank for value in values) < share * len(values)


def test_attempts_are_counted_and_timed() -> None:
    """The rate runs from the start of the load to the last start; what never started has no part in it."""
    rows = [attempt(1, 0.5), attempt(2, 1.0), unanswered(3, 2.0, syn_retransmits=2), attempt(4, 9.0, started=None)]
    numbers = measured(rows, lost_records={"attempts": 6})
    assert (numbers["attempts.count"], numbers["attempts.rate"]) == (10, 1.5)
    assert (numbers["attempts.delayed"], numbers["syn.retransmits"]) == (1, 2)


def test_response_time_counts_from_the_intended_start() -> None:
    """A client that started 10 ms late has that in its response time, and not in its service time."""
    late = attempt(1, 1.0, intended=0.99)
    numbers = measured([late, unanswered(2)])
    assert numbers["connect.max"] == pytest.approx(0.01003)
    assert numbers["connect_service.max"] == pytest.approx(0.00003)
    assert numbers["reply.max"] == pytest.approx(0.0105)


def test_accept_latency_has_its_survivor_bias_beside_it() -> None:
    """Clients that still wait are counted, with the longest wait; they are in no percentile."""
    taken, waits = attempt(1), unserved(2, 0.1)
    numbers = measured([taken, waits], [accept(taken, 0.004), accept(waits, 9.0, flags=AcceptFlag.AFTER_END)])
    assert (numbers["accept.samples"], numbers["accept.waiting"]) == (1, 1)
    assert numbers["accept.p50"] == pytest.approx(0.004)
    assert numbers["accept.waiting_max"] == pytest.approx(4.99997)
    assert numbers["accept.pause_max"] == pytest.approx(4.99997)


def test_a_queue_ends_with_its_listener() -> None:
    """A client in the queue of a listener that died is orphaned, and does not wait when the run is judged."""
    orphan = unserved(1, 0.5, ended=1.5, outcome=Outcome.RESET)
    numbers = measured([orphan], server_exited_ns=ns(1.5))
    assert (numbers["fate.orphaned"], numbers["fate.queued"], numbers["accept.waiting"]) == (1, 0, 0)
    assert "accept.waiting_max" not in numbers
    assert numbers["accept.pause_max"] == pytest.approx(0.99997)


def test_the_uncertainty_is_the_time_that_connecting_took() -> None:
    """Clients whose connect() did not end in the call are counted, too: the handshake ended between their stamps."""
    rows = [
        attempt(1),
        attempt(2, connected=0.5, ended=2.0, flags=AttemptFlag.WOKEN),
        attempt(3, connected=1.0, ended=2.0, syn_retransmits=1),
        unanswered(4),
    ]
    accepts = [accept(row) for row in rows[:3]]
    assert measured(rows, accepts)["accept.uncertainty"] == pytest.approx(0.5)


def test_late_admissions_are_counted() -> None:
    """A handshake that was completed long after the client was connected."""
    row = attempt(1, ended=2.0)
    assert measured([row], [accept(row, 1.0, age_ms=2)])["accept.late"] == 1


def test_the_queue_is_exact_but_never_more_than_it_holds() -> None:
    """Stamps after the fact can overlap by one; a sample is what the kernel says."""
    rows = [attempt(n, 0.5, ended=2.0) for n in (1, 2, 3)]
    accepts = [accept(row, 0.25) for row in rows]
    assert measured(rows, accepts)["queue.max"] == 3
    assert measured(rows, accepts, server_backlog=1)["queue.max"] == 2
    assert measured(rows, accepts, samples=[sample(0.6, queue=9)])["queue.max"] == 9
    unknown = measured(rows, accepts, server_backlog=None)
    assert (unknown["queue.max"], "queue.capacity" in unknown) == (3, False)


def test_the_share_of_a_full_queue_is_of_the_load() -> None:
    """The queue is full for two of five seconds; the time after the load does not count."""
    rows = [attempt(n, 3.0, ended=9.0) for n in (1, 2)]
    numbers = measured(rows, [accept(row, 5.0) for row in rows], server_backlog=1)
    assert numbers["queue.capacity"] == 2
    assert numbers["queue.full_share"] == pytest.approx(0.4, abs=1e-4)
    assert "queue.full_share" not in measured(rows, load_end_ns=ns(0.0))


def test_counters_are_differences() -> None:
    """What the namespace had counted before is not part of the run; drops beyond ListenDrops are final ACKs."""
    samples = [
        sample(0.0, listen_overflows=5, listen_drops=7, cookies=1, drops=7),
        sample(0.5, drops=8),
        sample(1.0, listen_overflows=9, listen_drops=11, cookies=4, drops=14),
    ]
    numbers = measured(samples=samples)
    names = ("listen.overflows", "listen.drops", "listen.cookies", "listen.ack_drops")
    assert [numbers[name] for name in names] == [4, 4, 3, 3]


def test_a_shared_namespace_shows_the_listeners_own_drops_alone() -> None:
    """The counters of the host are everybody's."""
    samples = [sample(0.0, listen_overflows=5, drops=7), sample(1.0, listen_overflows=50, drops=9)]
    numbers = measured(samples=samples, namespace="shared")
    listen = {name: numbers[name] for name in numbers if name.startswith("listen")}
    assert listen == {"listen.drops": 2, "listen.overflows": 2}


def test_unread_counters_are_absent() -> None:
    """Nothing read, nothing said."""
    assert [name for name in measured() if name.startswith("listen")] == []


def test_the_server_is_measured_during_the_load() -> None:
    """CPU in cores, memory at its worst, and how it ended."""
    numbers = measured(samples=busy(), server_exit_status=-9)
    assert (numbers["server.cpu"], numbers["server.rss_max"], numbers["server.exit"]) == (0.5, 10**7, -9)
    assert "server.cpu" not in measured(samples=busy()[:1])


def test_the_cpu_of_the_server_is_that_of_the_load() -> None:
    """Neither the time before it nor the time until the judgement counts; nor the wait for a CPU then."""
    spent = {-1.0: 0.0, 0.01: 0.6, 0.5: 0.9, 0.99: 1.1, 1.9: 1.1, 3.9: 1.1}
    rows = [sample(at, cpu_ns=round(cpu * 1e9), run_wait_ns=round(max(at, 0) * 1e8)) for at, cpu in spent.items()]
    numbers = measured(samples=rows, load_end_ns=ns(1.0), judged_ns=ns(4.0))
    assert numbers["server.cpu"] == pytest.approx(0.5 / 0.98)
    assert numbers["server.run_wait"] == pytest.approx(0.098)
    assert numbers["server.run_wait_max"] == pytest.approx(0.2)


def test_descriptors_come_from_every_source() -> None:
    """The baseline is that of the last sample before the load, the maximum that of samples, accepts and failures."""
    row = attempt(1)
    samples = [sample(-0.2, open_fds=9), sample(-0.1, open_fds=9)]
    numbers = measured([row], [accept(row, open_fds=30)], [failure(1.0, open_fds=33)], samples)
    assert (numbers["fds.baseline"], numbers["fds.max"], numbers["fds.end"]) == (9, 33, 8)
    assert measured()["fds.baseline"] == 8
    assert measured()["fds.max"] == 8


def test_the_baseline_is_read_before_the_first_client() -> None:
    """A sample is stamped before it is read: the last one before the start may already show clients."""
    samples = [sample(-0.03, open_fds=8), sample(-0.02, open_fds=12), sample(-0.01, open_fds=27)]
    assert measured(samples=samples)["fds.baseline"] == 12
    assert measured(samples=samples[2:], server_baseline_fds=10)["fds.baseline"] == 10


def test_the_end_is_read_once_it_has_settled() -> None:
    """After the drain if that was read, else when the run was judged; absent where it never came to that."""
    assert measured(end_fds_end=None, end_open_fds=12)["fds.end"] == 12
    assert "fds.end" not in measured(end=None)
    assert "fds.leaked" not in measured(end=None)


def test_the_limit_is_reached_at_the_accept_that_took_the_last() -> None:
    """First accept record at the limit, else the sample, else never."""
    row = attempt(1, 0.5)
    assert measured([row], [accept(row, 0.0, open_fds=64)])["fds.limit_at"] == pytest.approx(0.50003)
    assert measured(samples=busy())["fds.limit_at"] == 1.0
    assert "fds.limit_at" not in measured()


def test_the_earliest_evidence_of_the_limit_counts() -> None:
    """A sample, an accept record or an EMFILE, whichever was first; the start of the load if the baseline was there."""
    row = attempt(1, 0.5)
    at_limit = accept(row, 0.0, open_fds=64)
    assert measured([row], [at_limit], samples=[sample(0.2, open_fds=64)])["fds.limit_at"] == pytest.approx(0.2)
    assert measured([row], [at_limit], [failure(0.1, errno=24)])["fds.limit_at"] == pytest.approx(0.1)
    idle = failure(0.05, flags=FailureFlag.IDLE)
    assert measured([row], [at_limit], [idle, failure(0.01, errno=23)])["fds.limit_at"] == pytest.approx(0.05)
    handler = failure(0.3, where=Where.HANDLER, open_fds=60)
    assert measured([row], [at_limit], [handler])["fds.limit_at"] == pytest.approx(0.3)
    assert measured([row], [at_limit], server_baseline_fds=64)["fds.limit_at"] == 0.0
    assert measured([row], [at_limit], samples=[sample(-0.1, open_fds=64)])["fds.limit_at"] == 0.0


def test_the_limit_in_force_is_the_one_of_the_first_failure() -> None:
    """If the timeline changes the limit: that at the first EMFILE with a client waiting, or the lowest one."""
    fell = StepFacts(change="nofile", asked=12, done_ns=ns(0.8), before=64, after=12)
    assert measured(steps=[fell])["fds.limit"] == 12
    assert measured(steps=[fell], failures=[failure(0.5)])["fds.limit"] == 64
    assert measured(steps=[fell], failures=[failure(0.9)])["fds.limit"] == 12
    assert measured(steps=[fell], failures=[failure(0.5, flags=FailureFlag.IDLE)])["fds.limit"] == 12


def test_leaked_connections_are_those_nobody_holds() -> None:
    """The server chose to leak it, and its client has left: a server that stands still closes the others later."""
    left, held, fine = attempt(1), attempt(2, 0.1, ended=None, flags=AttemptFlag.PENDING), attempt(3, 0.2)
    later = attempt(4, 0.3)
    accepts = [
        accept(left, closed=None),
        accept(held, closed=None),
        accept(fine),
        accept(later, closed=None, flags=0),
        accept(attempt(77), closed=None),
        accept(attempt(78), closed=None, flags=0),
    ]
    assert measured([left, held, fine, later], accepts, end_fds_end=13)["fds.leaked"] == 2


def test_what_requests_leak_is_what_is_left_over() -> None:
    """End - baseline, without the connections that clients hold and the open half of what their requests opened."""
    held = attempt(1, ended=None, flags=AttemptFlag.PENDING)
    tables = settings(server={"leak": 0.5, "leak_of": "extra", "extra_fds": 2})
    numbers = measured([held], [accept(held, closed=None)], settings=tables, end_fds_end=20)
    assert numbers["fds.leaked"] == 20 - 8 - 2


def held_connection(requests: int, **changes: Any) -> list[Row]:  # noqa: ANN401 -- any field of a record
    """Return the requests of a held client on one connection, two a second."""
    same = {"connected": 0.00003, "port": 20_000, "source": HELD_SOURCE, "ended": None}
    return [attempt(n + 1, n / 2, **(same | {"replied": n / 2 + 0.001} | changes)) for n in range(requests)]


def accepted_of(row: Row, after: float = 0.0002, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return the accept record of a connection of the canary."""
    return accept(row, after, peer=packed(source_address(row["source"])), **changes)


def test_a_held_connection_has_not_leaked() -> None:
    """Its client has not left, although the server will never close it; a canary's has."""
    held = held_connection(3)
    canary = attempt(1, 1.0, port=21_000, source=CANARY_SOURCE)
    stays = attempt(2, 2.0, port=21_001, source=CANARY_SOURCE, ended=5.2, flags=AttemptFlag.PENDING)
    accepts = [accepted_of(row, closed=None) for row in (held[0], canary, stays)]
    assert measured([], accepts, canary=[canary, stays], held=held)["fds.leaked"] == 1


def test_what_the_requests_of_a_held_connection_open_has_not_leaked() -> None:
    """Each of its requests keeps descriptors until the connection is closed."""
    held = held_connection(10)
    accepts = [accepted_of(held[0], closed=None, flags=0)]
    end = 8 + 1 + 10 * 3
    for leak in (0.0, 0.1):
        tables = settings(server={"leak": leak, "leak_of": "extra", "extra_fds": 3})
        numbers = measured([], accepts, held=held, settings=tables, end_fds_end=end)
        assert numbers["fds.leaked"] == round(10 * 3 * leak)
    tables = settings(server={"extra_fds": 3})
    assert measured([], accepts, held=held, settings=tables, end_fds_end=end + 2)["fds.leaked"] == 0


def test_a_leaked_connection_keeps_at_most_what_its_request_opened() -> None:
    """Other descriptors that the server still has at the end are not part of the leak."""
    row = attempt(1)
    tables = settings(server={"leak": 1.0, "extra_fds": 2})
    for end, leaked in ((9, 1), (11, 3), (40, 3)):
        numbers = measured([row], [accept(row, closed=None)], settings=tables, end_fds_end=end)
        assert numbers["fds.leaked"] == leaked


def test_canaries_wait_from_their_own_stamps() -> None:
    """The age of their sockets is off by 4 ms; the queue and the pauses count them by the stamps of their clients."""
    canaries = [attempt(n, 1.0, port=21_000 + n, source=CANARY_SOURCE) for n in (1, 2)]
    held = held_connection(2, started=1.0, connected=1.00003)
    accepts = [accepted_of(row, 0.003, age_ms=0) for row in (*canaries, held[0])]
    numbers = measured([], accepts, canary=canaries, held=held)
    assert numbers["queue.max"] == 3
    assert numbers["accept.pause_max"] == pytest.approx(0.003, abs=1e-4)
    left = [accepted_of(row, 9.0, age_ms=9_004, flags=AcceptFlag.AFTER_END) for row in canaries]
    numbers = measured([], left, canary=canaries)
    assert (numbers["accept.waiting"], numbers["queue.max"]) == (2, 2)
    assert numbers["accept.waiting_max"] == pytest.approx(4.1, abs=1e-4)


def test_a_canary_that_its_stamps_do_not_fit_waits_by_the_age_of_its_socket() -> None:
    """The socket was made long before the only canary of its 4-tuple started."""
    canary = attempt(1, 1.0, port=21_001, source=CANARY_SOURCE)
    numbers = measured([], [accepted_of(canary, 0.5, age_ms=900)], canary=[canary])
    assert numbers["accept.pause_max"] == pytest.approx(0.9)


def test_failures_for_want_of_a_descriptor_are_counted_by_place() -> None:
    """Those on an empty queue are counted apart; other errors are none of them."""
    failures = [
        failure(1.0, 40),
        failure(1.5, 2, where=Where.HANDLER),
        failure(2.0, 7, flags=FailureFlag.IDLE),
        failure(2.5, 9, errno=103),
    ]
    numbers = measured(failures=failures, samples=[sample(at, open_fds=9) for at in (1.1, 1.6, 2.1)])
    names = ("emfile.count", "emfile.accept", "emfile.handler", "emfile.idle")
    assert [numbers[name] for name in names] == [42, 40, 2, 7]
    assert numbers["emfile.first_at"] == 1.0
    assert numbers["emfile.rate"] == pytest.approx(42 / 0.201)


def test_rates_at_the_limit_count_the_time_at_the_limit() -> None:
    """A sample holds until the next one: three seconds at the limit, two of them between samples that both saw it."""
    numbers = measured(failures=[failure(1.0, 600)], samples=busy())
    assert (numbers["emfile.rate"], numbers["server.cpu_at_limit"]) == (200, 0.5)
    assert "server.cpu_at_limit" not in measured(failures=[failure(1.0)])


def test_the_time_at_the_limit_is_that_of_the_stamps() -> None:
    """It lasts from the accept() that takes the last descriptor to the next close, not from first failure to last."""
    rows = [attempt(1, 1.0, ended=1.2), attempt(2, 2.0, ended=2.1)]
    accepts = [accept(row, 0.0, open_fds=64, closed=row["ended"]) for row in rows]
    failures = [failure(1.05, 200, last=1.06), failure(2.05, 100, last=2.06)]
    assert measured(rows, accepts, failures)["emfile.rate"] == pytest.approx(300 / 0.3, rel=1e-3)
    raised = StepFacts(change="nofile", asked=128, done_ns=ns(1.1), before=64, after=128)
    stays = [accept(rows[0], 0.0, open_fds=64, closed=None)]
    numbers = measured(rows[:1], stays, failures[:1], steps=[raised])
    assert numbers["emfile.rate"] == pytest.approx(200 / 0.1, rel=1e-3)


def test_a_shed_client_takes_no_descriptor_that_was_missing() -> None:
    """It lives on the reserved one: its close is not the end of the time at the limit."""
    row = attempt(1, 1.0, ended=1.0001)
    shed = accept(row, 0.0, open_fds=63, closed=1.0001, flags=AcceptFlag.SHED)
    seen = [sample(1.0, open_fds=64), sample(2.0, open_fds=9)]
    assert measured([row], [shed], [failure(1.0, 2, last=1.0)], seen)["emfile.rate"] == pytest.approx(2)


def test_a_single_failure_is_no_rate() -> None:
    """However short the server stood at its limit."""
    numbers = measured(failures=[failure(1.0, last=1.0)], samples=[sample(1.001, open_fds=9)])
    assert (numbers["emfile.count"], "emfile.rate" in numbers) == (1, False)


def late(count: int, lag_s: float) -> list[Row]:
    """Return attempts every 5 ms that started this late."""
    return [attempt(n, n * 0.005 + lag_s, intended=n * 0.005) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("rows", "limited"),
    [
        (late(200, 0.0005), 0),
        (late(200, 0.02), 1),
        (late(50, 0.02), 1),
        ([*late(9, 0.0), *late(1, 0.2)], 0),
        (late(1, 0.2), 0),
        ([*late(18, 0.0), *late(2, 0.2)], 0),
        ([*late(17, 0.0), *late(3, 0.2)], 1),
        ([unanswered(1, outcome=Outcome.LOCAL)], 1),
        ([attempt(1, outcome=Outcome.LOCAL)], 1),
    ],
)
def test_the_generator_accuses_itself(rows: list[Row], limited: int) -> None:
    """More than one attempt in ten (and more than one in all) is late, or one failed at the generator's own limits."""
    assert measured(rows)["generator.limited"] == limited


def test_a_slow_schedule_may_lag_more() -> None:
    """5 % of the interval between attempts would not matter either."""
    rows = [attempt(n, n + 0.03, intended=n) for n in range(1, 150)]
    assert measured(rows)["generator.limited"] == 0


def test_a_busy_driver_is_a_limit() -> None:
    """More than 0.9 core of any driver."""
    made = recording([attempt(1)])
    driver = replace(made.facts.drivers[0], cpu_ns=950_000_000, wall_ns=1_000_000_000)
    numbers = measured([attempt(1)], drivers=[driver, replace(driver, cpu_ns=5)])
    assert (numbers["generator.cpu"], numbers["generator.limited"]) == (0.95, 1)
    assert "generator.cpu" not in measured(drivers=[replace(driver, wall_ns=0)])


def test_a_load_of_an_instant_does_not_tell_how_busy_its_driver_was() -> None:
    """A driver that starts one attempt and ends is busy all the time, and is not the bottleneck."""
    driver = replace(recording().facts.drivers[0], cpu_ns=1_700_000, wall_ns=1_300_000)
    numbers = measured([attempt(1)], drivers=[driver])
    assert ("generator.cpu" in numbers, numbers["generator.limited"]) == (False, 0)


def test_a_closed_loop_has_no_schedule_to_lag_behind() -> None:
    """Its clients start when they are free."""
    numbers = measured(late(200, 0.5), settings=settings(client={"clients": 10, "rate": None}))
    assert numbers["generator.limited"] == 0
    assert "generator.lag.p50" not in numbers


def test_growth_stalls_are_measured() -> None:
    """The longest pause at a growth of the fd table."""
    rows = [attempt(n, 0.1 * n, ended=1.0) for n in (1, 2)]
    accepts = [accept(rows[0], 0.001, fd=63), accept(rows[1], 0.012, fd=64)]
    samples = [sample(0.0, fd_size=64), sample(1.0, fd_size=128)]
    assert measured(rows, accepts, samples=samples)["fds.growth_stall"] == pytest.approx(0.012)
