"""The host causes the part of a pause in which a server was ready to run and got no CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scenes
from recordings import Row, accept, attempt, ns, recording, sample, settings, summarise

from loadsim.analysis.accept_queue import RunWaits
from loadsim.compare.compare import Question, compare_groups
from loadsim.compare.comparison import RunGroup

if TYPE_CHECKING:
    from loadsim.analysis.summary import Summary
    from loadsim.record.recording import Recording

MS = 1_000_000


def sampled(waits: dict[float, float], *, until: float = 4.0) -> list[Row]:
    """Return a hundred samples a second; at each of these moments the server has waited this many seconds more."""
    rows, waited = [], 0.0
    for n in range(-1, round(until * 100)):
        waited += sum(length for at, length in waits.items() if (n - 1) / 100 < at <= n / 100)
        rows.append(sample(n / 100, queue=0, run_wait_ns=round(waited * 1e9), **scenes.counters()))
    return rows


def pausing(*, by_host_s: float, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run with a pause of 100 ms in each half second, in which the server waits this long for a CPU."""
    waits = {begin + 0.1: by_host_s for begin in (0.0, 0.5, 1.0, 1.5)}
    return scenes.pausing(samples=sampled(waits), **changes)


def found(summary: Summary) -> list[str]:
    """Return the ids of all findings, in order."""
    return [one.id for one in summary.findings]


def test_waits_within_a_time_are_those_between_the_samples_around_it() -> None:
    """A wait counts in the sample after it, and never for more than the time itself."""
    waits = RunWaits.of(recording(samples=sampled({0.1: 0.05, 0.3: 0.02})))
    times = [(0.05, 0.1), (0.08, 0.1), (0.12, 0.28), (0.05, 0.4), (0.31, 9.0)]
    begins, ends = (np.array([ns(pair[run_group]) for pair in times]) for run_group in (0, 1))

    assert (waits.within(begins, ends) / MS).tolist() == [50.0, 20.0, 0.0, 70.0, 0.0]


def test_a_worker_that_ends_takes_no_wait_back() -> None:
    """The sum over processes falls then; the waits do not."""
    rows = [sample(n / 10, run_wait_ns=waited * MS) for n, waited in enumerate((5, 9, 2, 3))]

    assert (RunWaits.of(recording(samples=rows)).waited / MS).tolist() == [0, 4, 4, 5]


def test_without_readings_nothing_is_the_hosts() -> None:
    """Recordings of an older version, and kernels without CONFIG_SCHED_INFO, show no wait."""
    made = scenes.pausing()

    assert RunWaits.of(made).within(np.array([ns(0.0)]), np.array([ns(1.0)])).tolist() == [0]
    assert found(summarise(made))[0] == "slow-accept"
    assert "host.run_wait" not in summarise(made).metrics


@pytest.mark.parametrize(("by_host_s", "findings"), [(0.0, ["slow-accept"]), (0.095, ["nothing-found"])])
def test_a_pause_without_a_cpu_is_no_slow_accept(by_host_s: float, findings: list[str]) -> None:
    """The same pause is the server's where it had a CPU, and the host's where it waited for one."""
    assert found(summarise(pausing(by_host_s=by_host_s))) == findings


def test_a_pause_that_is_partly_the_hosts_counts_without_that() -> None:
    """60 of 100 ms are the server's own, and the finding says that others are not counted."""
    slow = summarise(pausing(by_host_s=0.04)).findings[0]

    assert slow.title == "The server stopped accepting for up to 60 ms while clients waited."
    assert "The host was busy: time for which the server waited for a CPU is not counted." in slow.evidence


def test_long_waits_for_a_cpu_are_no_slow_accept() -> None:
    """One client every 5 ms is accepted after 25: without a CPU for 4.9 of every 5 ms the host causes that."""
    rows = [attempt(n + 1, n * 0.005) for n in range(300)]
    accepts = [accept(row, 0.025) for row in rows]
    starved = sampled({n * 0.01: 0.0098 for n in range(1, 200)})

    assert found(summarise(recording(rows, accepts)))[0] == "slow-accept"
    assert "slow-accept" not in found(summarise(recording(rows, accepts, samples=starved)))


def test_a_busy_host_is_the_first_notice() -> None:
    """The notice is in every run in which a process waited for a twentieth of the load, or the server for 20 ms."""
    busy, quiet = summarise(pausing(by_host_s=0.095)), summarise(pausing(by_host_s=0.0))

    assert busy.notices[0].startswith(
        "The host was busy: a process of this run waited for a CPU during 8 % of the load"
    )
    assert "(the server 8 %, up to 95 ms at once)" in busy.notices[0]
    assert quiet.notices == []
    assert busy.status == quiet.status.replace("REPRODUCED", "HEALTHY") == "HEALTHY"


def test_the_metrics_of_the_host() -> None:
    """Shares are of the load's time; the largest of server and drivers is the host's."""
    driver = replace(recording().facts.drivers[0], run_wait_ns=600 * MS, wall_ns=3_000 * MS)
    made = scenes.healthy(samples=sampled({0.1: 0.05, 0.3: 0.02}), drivers=[driver])
    metrics = summarise(made).metrics

    assert metrics["server.run_wait"] == pytest.approx(0.07 / 5.0)
    assert metrics["server.run_wait_max_s"] == pytest.approx(0.05)
    assert metrics["host.run_wait"] == pytest.approx(0.2)


def overflowing(*, by_host_s: float, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run with a queue of 33 that overflows once, in the first 100 ms."""
    samples = [row | {"listen_overflows": 60 * (row["time"] > 0.05)} for row in sampled({0.1: by_host_s})]
    return scenes.pausing(backlog=32, seconds=1, samples=samples, **changes)


def test_a_queue_that_overflows_while_the_server_has_no_cpu_is_a_doubt() -> None:
    """A late server explains all of it, so the run cannot be judged; without the wait it is a fault of the server."""
    samples = [row | {"listen_overflows": 60} for row in sampled({0.1: 0.095, 0.6: 0.095})]
    doubtful = summarise(scenes.pausing(backlog=32, seconds=1, samples=samples))
    own = summarise(overflowing(by_host_s=0.0))

    assert (doubtful.status, doubtful.findings[0].id) == ("INCONCLUSIVE", "host-busy")
    assert doubtful.sentence == doubtful.findings[0].title
    assert (own.status, "host-busy" in found(own)) == ("REPRODUCED", False)


def test_a_queue_that_was_full_at_another_time_is_judged_on_a_busy_host() -> None:
    """It filled up in a pause of 19 ms with a CPU, and the server waited for one later, while no client came."""
    samples = [row | {"listen_overflows": 60 * (row["time"] > 0.01)} for row in sampled({0.3: 0.095})]
    summary = summarise(scenes.pausing(pause_s=0.019, backlog=8, seconds=1, samples=samples))

    assert summary.notices[0].startswith("The host was busy")
    assert (summary.status, summary.findings[0].id) == ("REPRODUCED", "queue-overflow")


def test_a_fault_that_no_cpu_explains_is_judged_on_a_busy_host() -> None:
    """A leak does not depend on how late the server is."""
    made = scenes.exhausted()
    samples = made.samples.copy()
    samples["run_wait_ns"] = np.arange(len(samples)) * 80 * MS
    summary = summarise(replace(made, samples=samples))

    assert summary.notices[0].startswith("The host was busy")
    assert (summary.status, summary.findings[0].id) == ("REPRODUCED", "fd-leak")


@pytest.mark.parametrize(
    ("by_host_s", "expect", "verdict"),
    [
        (0.095, "accept.max < 50ms", "INCONCLUSIVE"),
        (0.0, "accept.max < 50ms", "FAILED"),
        (0.095, "fds.max < 5", "FAILED"),
        (0.095, "accept.max < 1s", "HEALTHY"),
    ],
)
def test_a_missed_time_on_a_busy_host_is_no_failure(by_host_s: float, expect: str, verdict: str) -> None:
    """A busy host excuses a missed expectation only if a late server explains it."""
    made = pausing(by_host_s=by_host_s, settings=settings(thresholds={"expect": [expect]}))
    samples = made.samples.copy()
    samples["open_fds"] = 9

    assert summarise(replace(made, samples=samples)).status == verdict


def test_a_sweep_says_how_many_of_its_runs_had_a_busy_host() -> None:
    """One notice, before the numbers, names every cell with such runs."""
    summaries = [summarise(pausing(by_host_s=wait)) for wait in (0.095, 0.0, 0.095)]
    run_groups = [
        RunGroup(label=name, values={}, runs=["r"] * 3, summaries=summaries) for name in ("backlog 8", "backlog 9")
    ]
    notices = compare_groups(run_groups, Question(kind="sweep", title="made-up", repeat=3)).notices

    [busy] = [one for one in notices if "busy" in one]
    assert busy == (
        "The host was busy in 2 of 3 runs of backlog 8, 2 of 3 runs of backlog 9: the times include waits for a CPU. "
        "Stop other processes, and run them again."
    )
