"""The verdict on recorded numbers: each class by a server that was measured, its grade, and the borders between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadsim.verdict.classify import Class, Observed, classify, judge

#: A server that pauses 0.1 s after each failure, as trio's does: 10 s at its limit, 100 canaries.
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
#: Others, as what differs; measured at nofile = 64 with 200 clients held.
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
    """Each is what it was found to be, and is graded by what that costs."""
    verdict = judge([seen])

    assert (verdict.class_, verdict.grade) == (class_, grade)
    assert verdict.because
    assert verdict.rule


def test_without_the_counter_only_cpu_and_canaries_tell() -> None:
    """Where EMFILE cannot be counted, what is not certain is called unclear."""
    blind = [replace(one, emfile=None, emfile_per_s=None, busy_share=None) for one in (TRIO, BUN, NODE)]

    assert [classify(one)[0] for one in blind] == [Class.UNCLEAR, Class.SPINS, Class.SHEDS]


def test_a_server_that_speaks_another_language_is_no_wedge() -> None:
    """Whoever was never answered cannot tell whether it is exhausted."""
    seen = replace(GTHREAD, talks=False)

    assert classify(seen) == (
        Class.UNCLEAR,
        "no canary was answered, not even before: say how one talks to it",
    )


def test_the_first_way_names_the_class_and_the_worst_the_grade() -> None:
    """Who waits for a close is helped by clients that leave, and by no limit that is raised."""
    lowered = replace(MEMCACHED, trial="lowered live", needs_close=True)
    verdict = judge([MEMCACHED, lowered, replace(TRIO, trial="leak in handler", emfile=0, fds_max=9, new_ok=100)])

    assert (verdict.class_, verdict.grade) == (Class.WAITS_FOR_A_CLOSE, "C")
    assert verdict.rule == "survives, but comes back only when a client leaves: a higher limit does not help"


def test_a_way_that_did_not_exhaust_it_names_no_class() -> None:
    """A server that takes one client at a time is only out of descriptors where its handler leaks them."""
    idle = replace(TRIO, emfile=0, fds_max=9, new_silent=0, new_ok=100)
    leaking = replace(APACHE, trial="leak in handler", leaks=True)

    assert judge([idle, leaking]).class_ is Class.RESPAWNS
    assert judge([idle]).class_ is Class.NOT_EXHAUSTED


@pytest.mark.parametrize("ended", [{"exit_status": 0}, {"restarts": 2}])
def test_who_ends_with_descriptors_to_spare_ends_for_another_reason(ended: dict[str, Any]) -> None:
    """A program that stops after some time, or workers that are replaced after so many requests, do not die of it."""
    spare = replace(TRIO, emfile=0, fds_max=30, new_silent=0, new_ok=90, **ended)
    unseen = replace(spare, fds_max=None, emfile=None)

    assert classify(spare)[0] in {Class.UNCLEAR, Class.NOT_EXHAUSTED}
    assert judge([spare]).grade == "-"
    assert classify(unseen)[0] in {Class.DIES, Class.RESPAWNS}


def test_of_several_workers_one_that_misses_a_descriptor_is_no_class() -> None:
    """The others took all clients; sixteen of them that pause fail sixteen times as often."""
    others_serve = replace(TRIO, workers=4, emfile=1, emfile_per_s=0.0, new_silent=2, new_ok=90)

    assert classify(others_serve) == (
        Class.NOT_EXHAUSTED,
        "it had 64 of 64 descriptors in the fullest of its 4 processes, and 90 of 92 new clients were answered",
    )
    assert classify(replace(others_serve, emfile=300, emfile_per_s=30.0))[0] is Class.SLEEPS
    assert classify(replace(TRIO, workers=16, emfile_per_s=160.0))[0] is Class.SLEEPS


def test_two_costs_are_worse_than_one() -> None:
    """All that it costs is listed."""
    assert judge([replace(UVICORN, held_late_s=2.0)]).rule == (
        "survives, but burns a core, fills the disk and keeps who is in waiting for 2.0 s"
    )


def test_of_several_runs_the_usual_class_counts() -> None:
    """One odd run of three does not change what a server is, but how it is graded."""
    odd = replace(TRIO, exit_status=-9, recovery_s=None)

    assert judge([TRIO, odd, TRIO]).class_ is Class.SLEEPS
    assert judge([TRIO, odd, TRIO]).grade == "F"


@pytest.mark.parametrize(("rate", "class_"), [(100.0, Class.SLEEPS), (200.0, Class.SPINS)])
def test_a_loop_without_a_pause_begins_above_what_pauses_need(rate: float, class_: Class) -> None:
    """Servers that pause 10 ms fail 100 times a second."""
    assert classify(replace(TRIO, emfile_per_s=rate))[0] is class_


def test_the_numbers_that_decided_are_told() -> None:
    """In one sentence, with their units."""
    assert classify(UVICORN)[1] == ("accept() failed 9,000 times a second, at 99 % CPU, after a second with hardly any")
    assert classify(GO)[1] == "accept() failed 18 times: after 10 ms at first, 1.0 s at last"
    assert classify(REDIS)[1] == "it stayed at 40 of 64 descriptors, and accept() never failed"
