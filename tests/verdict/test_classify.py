"""The verdict on recorded numbers: a measured server for each class, its grade, and the borders between classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadsim.verdict.classify import Class, Observed, classify, judge

#: A trio server, which pauses 0.1 s after each failure: 10 s at its limit, 100 canaries.
TRIO = Observed(
    trial="limit at start",
    exhausted_s=10.0,
    fds_max=64,
    fd_limit=64,
    cpu_cores=0.01,
    emfile=116,
    emfile_per_s=10.0,
    busy_share=1.0,
    first_pause_s=0.1,
    last_pause_s=0.1,
    log_bytes_per_s=7_700.0,
    new_silent=90,
    held=3,
    held_late_s=0.004,
    recovery_s=0.3,
    leftover_fds=0,
)
#: Other servers by their differences from it; measured at nofile = 64 with 200 held clients.
GO = replace(TRIO, emfile=18, emfile_per_s=1.0, busy_share=0.7, first_pause_s=0.01, last_pause_s=1.0, recovery_s=0.9)
BUN = replace(TRIO, cpu_cores=1.0, emfile=10_500_000, emfile_per_s=1_050_000.0, recovery_s=0.01)
UVICORN = replace(
    TRIO, cpu_cores=0.99, emfile=90_000, emfile_per_s=9_000.0, busy_share=0.2, log_bytes_per_s=3.9e6, recovery_s=1.9
)
ASYNCIO = replace(UVICORN, cpu_cores=0.15, emfile_per_s=2_300.0, log_bytes_per_s=600_000.0)
NODE = replace(TRIO, emfile=290, emfile_per_s=10.0, new_silent=0, new_turned_away=99, log_bytes_per_s=0.0)
MEMCACHED = replace(TRIO, emfile=2, emfile_per_s=0.0, busy_share=0.1, first_pause_s=None, last_pause_s=None)
REDIS = replace(NODE, emfile=0, emfile_per_s=0.0, fds_max=40)
DENO = replace(TRIO, exit_status=1, emfile=1, new_silent=0, recovery_s=None, exhausted_s=0.0)
APACHE = replace(TRIO, restarts=4)
GTHREAD = replace(TRIO, recovery_s=None)


@pytest.mark.parametrize(
    ("seen", "class_", "grade"),
    [
        (TRIO, Class.SLEEPS, "A"),
        (replace(TRIO, first_pause_s=0.98, last_pause_s=1.0, emfile_per_s=1.0, recovery_s=1.4), Class.SLEEPS, "B"),
        (GO, Class.BACKS_OFF, "A"),
        (BUN, Class.SPINS, "C"),
        (replace(BUN, log_bytes_per_s=5.4e6), Class.SPINS, "D"),
        (UVICORN, Class.RUNAWAY, "D"),
        (ASYNCIO, Class.RUNAWAY, "D"),
        (NODE, Class.SHEDS, "A"),
        (replace(TRIO, new_silent=0, new_failed=90), Class.FAILS, "A"),
        (MEMCACHED, Class.WAITS_FOR_A_CLOSE, "A"),
        (REDIS, Class.OWN_LIMIT, "A"),
        (DENO, Class.DIES, "F"),
        (APACHE, Class.RESPAWNS, "E"),
        (GTHREAD, Class.WEDGES, "F"),
        (Observed(trial="limit at start", refusal="ended with status 1"), Class.REFUSES_TO_START, "F"),
        (replace(TRIO, emfile=0, fds_max=40, new_silent=0, new_ok=95), Class.NOT_EXHAUSTED, "-"),
        (replace(TRIO, emfile=0, fds_max=9), Class.NOT_EXHAUSTED, "-"),
        (replace(TRIO, held_unanswered=3), Class.SLEEPS, "E"),
        (replace(TRIO, held_cut=1), Class.SLEEPS, "E"),
        (replace(TRIO, held_late_s=2.5), Class.SLEEPS, "C"),
        (replace(TRIO, leftover_fds=20), Class.SLEEPS, "C"),
        (replace(TRIO, leftover_fds=20, leaks=True), Class.SLEEPS, "A"),
        (replace(BUN, cpu_cores=0.4), Class.SPINS, "C"),
        (replace(GTHREAD, talks=False), Class.UNCLEAR, "-"),
    ],
)
def test_known_servers(seen: Observed, class_: Class, grade: str) -> None:
    """Each server gets its known class, and a grade by the costs of its behaviour."""
    verdict = judge([seen])

    assert (verdict.class_, verdict.grade) == (class_, grade)
    assert verdict.because
    assert verdict.rule


def test_without_the_counter_cpu_and_canaries_decide() -> None:
    """Where EMFILE cannot be counted, an uncertain class is unclear."""
    blind = [replace(one, emfile=None, emfile_per_s=None, busy_share=None) for one in (TRIO, BUN, NODE)]

    assert [classify(one)[0] for one in blind] == [Class.UNCLEAR, Class.SPINS, Class.SHEDS]


def test_a_server_of_another_protocol_is_not_called_wedged() -> None:
    """Canaries that were never answered do not show that it is exhausted."""
    seen = replace(GTHREAD, talks=False)

    assert classify(seen) == (
        Class.UNCLEAR,
        "no canary was answered, not even before: tell loadsim how to talk to it (--path, --send or --echo)",
    )


def test_the_first_trial_decides_the_class_and_the_worst_the_grade() -> None:
    """A server that waits for a close recovers when clients leave, and not when its limit is raised."""
    lowered = replace(MEMCACHED, trial="lowered live", needs_close=True)
    verdict = judge([MEMCACHED, lowered, replace(TRIO, trial="leak in handler", emfile=0, fds_max=9, new_ok=100)])

    assert (verdict.class_, verdict.grade) == (Class.WAITS_FOR_A_CLOSE, "C")
    assert verdict.rule == "survives, but recovers only when a client leaves: a higher limit does not help"


def test_a_trial_that_did_not_exhaust_it_decides_nothing() -> None:
    """A server of one client at a time runs out of descriptors only where its handler leaks them."""
    idle = replace(TRIO, emfile=0, fds_max=9, new_silent=0, new_ok=100)
    leaking = replace(APACHE, trial="leak in handler", leaks=True)

    assert judge([idle, leaking]).class_ is Class.RESPAWNS
    assert judge([idle]).class_ is Class.NOT_EXHAUSTED


@pytest.mark.parametrize("ended", [{"exit_status": 0}, {"restarts": 2}])
def test_an_exit_with_free_descriptors_has_another_reason(ended: dict[str, Any]) -> None:
    """Programs that stop after some time, and workers that are replaced after N requests, do not die of exhaustion."""
    spare = replace(TRIO, emfile=0, fds_max=30, new_silent=0, new_ok=90, **ended)
    unseen = replace(spare, fds_max=None, emfile=None)

    assert classify(spare)[0] in {Class.UNCLEAR, Class.NOT_EXHAUSTED}
    assert judge([spare]).grade == "-"
    assert classify(unseen)[0] in {Class.DIES, Class.RESPAWNS}


def test_one_exhausted_worker_of_several_decides_no_class() -> None:
    """The other workers serve all clients. The rate of failures is judged per worker."""
    others_serve = replace(TRIO, workers=4, emfile=1, emfile_per_s=0.0, new_silent=2, new_ok=90)

    assert classify(others_serve) == (
        Class.NOT_EXHAUSTED,
        "it used 64 of 64 descriptors in the fullest of its 4 processes, and answered 90 of 92 new clients",
    )
    assert classify(replace(others_serve, emfile=300, emfile_per_s=30.0))[0] is Class.SLEEPS
    assert classify(replace(TRIO, workers=16, emfile_per_s=160.0))[0] is Class.SLEEPS


def test_two_costs_are_worse_than_one() -> None:
    """Every cost is listed."""
    assert judge([replace(UVICORN, held_late_s=2.0)]).rule == (
        "survives, but burns a core, fills the disk and keeps connected clients waiting for 2.0 s"
    )


def test_of_several_runs_the_usual_class_counts() -> None:
    """One odd run of three does not change the class, only the grade."""
    odd = replace(TRIO, exit_status=-9, recovery_s=None)

    assert judge([TRIO, odd, TRIO]).class_ is Class.SLEEPS
    assert judge([TRIO, odd, TRIO]).grade == "F"


@pytest.mark.parametrize(("rate", "class_"), [(100.0, Class.SLEEPS), (200.0, Class.SPINS)])
def test_a_loop_without_a_pause_fails_more_often_than_pauses_allow(rate: float, class_: Class) -> None:
    """A server that pauses for 10 ms after each failure fails 100 times a second."""
    assert classify(replace(TRIO, emfile_per_s=rate))[0] is class_


def test_a_class_comes_with_the_numbers_that_decided() -> None:
    """They stand in one clause, with their units."""
    assert classify(UVICORN)[1] == (
        "it retried accept() 9,000 times a second at 99 % CPU, after few retries in the first second"
    )
    assert classify(GO)[1] == "accept() failed 18 times, and the pauses between grew from 10 ms to 1.0 s"
    assert classify(DENO)[1] == "it exited with status 1"
    assert classify(APACHE)[1] == "4 workers exited and were replaced"
    assert classify(REDIS)[1] == "it stayed at 40 of 64 descriptors, and accept() never failed"
