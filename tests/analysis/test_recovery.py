"""What the canary saw, what held clients saw, how long it took to come back: from recordings made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import Row, accept, attempt, ns, packed, recording, summarise

from loadsim.fates import Outcome
from loadsim.record.facts import StepFacts

CANARY, HELD = "127.0.1.1", "127.0.1.2"


def canary(number: int, at: float, outcome: Outcome = Outcome.OK, **changes: Any) -> Row:  # noqa: ANN401 -- any field
    """Return a canary; one that is not answered gives up after a second."""
    took = {} if outcome is Outcome.OK else {"replied": None, "ended": at + 1.0}
    return attempt(number, at, **{"source": 254, "outcome": outcome, **took, **changes})


def step(change: str, at: float, asked: float, before: float | None = None) -> StepFacts:
    """Return a step that was made as asked."""
    after = None if change == "release" else asked
    return StepFacts(change=change, asked=asked, done_ns=ns(at), before=before, after=after)


def metrics_of(**parts: Any) -> dict[str, float]:  # noqa: ANN401 -- parts of a recording
    """Return the metrics of a recording with these parts."""
    return summarise(recording(attempts=[attempt(1)], accepts=[accept(attempt(1))], **parts)).metrics


def test_availability_and_outage() -> None:
    """The outage lasts from the start of the first bad one to the answer of the next good one."""
    rows = [canary(1, 0.0), canary(2, 0.5, Outcome.REPLY_TIMEOUT), canary(3, 1.0, Outcome.CONNECT_TIMEOUT)]
    rows += [canary(4, 1.5, replied=2.4, ended=2.5)]
    numbers = metrics_of(canary=[*rows, canary(5, 2.6, Outcome.EOF), canary(6, 2.8, Outcome.LOCAL)])

    assert numbers["canary.availability"] == pytest.approx(2 / 5)
    assert numbers["canary.longest_outage_s"] == pytest.approx(2.4 - 0.5)
    assert [numbers[f"canary.{name}"] for name in ("silent", "unreachable", "turned_away")] == [1, 1, 1]
    assert "recovery.time_s" not in numbers


def test_an_outage_that_never_ends_lasts_to_the_last_canary() -> None:
    """Nobody answered again: it is at least as long as the last one waited."""
    numbers = metrics_of(canary=[canary(1, 0.0), canary(2, 1.0, Outcome.REPLY_TIMEOUT), canary(3, 2.0, Outcome.RESET)])

    assert numbers["canary.longest_outage_s"] == pytest.approx(2.0)


def test_recovery_counts_from_the_last_relief() -> None:
    """A step that takes room away is none; the answer counts, not the start of the canary that got it."""
    steps = [step("nofile", 0.5, 32, before=64), step("release", 1.0, 0.5), step("nofile", 2.0, 128, before=32)]
    rows = [canary(1, 0.4), canary(2, 1.5, Outcome.REPLY_TIMEOUT), canary(3, 1.9, replied=2.3, ended=2.4)]
    rows += [canary(4, 2.1, Outcome.EOF), canary(5, 2.5)]
    failures = [{"first": at, "last": at, "count": 2, "errno": 24} for at in (1.9, 2.05)]
    numbers = metrics_of(canary=rows, steps=steps, failures=failures)

    assert numbers["recovery.time_s"] == pytest.approx(0.3)
    assert numbers["recovery.last_bad_s"] == pytest.approx(0.1)
    assert numbers["recovery.emfile"] == 2
    assert numbers["fds.limit"] == 32


def test_a_server_that_never_comes_back() -> None:
    """Room was made, and no canary was answered: a fault, and no time."""
    rows = [canary(1, 0.8, Outcome.REPLY_TIMEOUT), canary(2, 1.5, Outcome.REPLY_TIMEOUT)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=[step("release", 1.0, 1.0)]))

    assert "recovery.time_s" not in summary.metrics
    [found] = [one for one in summary.findings if one.id == "no-recovery"]
    assert (
        found.title
        == "The server never came back: all clients left, and no canary was answered in the 4.0 s after that."
    )
    assert [mark.label for mark in summary.timeline.marks] == ["all clients left"]


def test_who_answered_all_the_while_has_nothing_to_come_back_from() -> None:
    """Room was made for a server that was up: no recovery, neither long nor short, also where it fails later."""
    rows = [canary(1, 0.9), canary(2, 1.5), canary(3, 3.0, Outcome.EOF)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=[step("release", 1.0, 1.0)]))

    assert not [metric for metric in summary.metrics if metric.startswith("recovery.")]
    assert not {"recovery", "no-recovery"} & {found.id for found in summary.findings}


def test_a_canary_that_waits_long_is_no_sign_of_life() -> None:
    """It is answered in the end, and was the only one that could have told."""
    rows = [canary(1, 0.5, replied=1.25, ended=1.3)]

    assert metrics_of(canary=rows, steps=[step("release", 1.0, 1.0)])["recovery.time_s"] == pytest.approx(0.25)


def test_the_step_that_helped_counts() -> None:
    """More room did not help, clients that left did; a later outage that was shorter does not hide it."""
    steps = [step("nofile", 1.0, 128, before=64), step("release", 2.0, 1.0), step("nofile", 4.0, 256, before=128)]
    rows = [canary(1, 0.5, Outcome.EOF), canary(2, 1.5, Outcome.EOF), canary(3, 2.4), canary(4, 2.6, Outcome.EOF)]
    rows += [canary(5, 3.5, Outcome.EOF, ended=3.6), canary(6, 4.1)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=steps))
    [found] = [one for one in summary.findings if one.id == "recovery"]

    assert summary.metrics["recovery.time_s"] == pytest.approx(0.4, abs=0.001)
    assert summary.metrics["recovery.last_bad_s"] == pytest.approx(1.5)
    assert found.title == "The server answered again 400 ms after all clients left."
    assert found.evidence.startswith("One step before that had made room and not helped.")


def test_what_follows_the_recovery_is_not_part_of_it() -> None:
    """Canaries and failures count until the first step after the answer, also across a step before it."""
    steps = [step("release", 1.0, 0.5), step("nofile", 1.5, 32, before=64), step("nofile", 3.0, 16, before=32)]
    rows = [canary(1, 0.5, Outcome.EOF), canary(2, 1.6, Outcome.EOF), canary(3, 2.0), canary(4, 2.5, Outcome.EOF)]
    failures = [{"first": at, "last": at, "count": 2, "errno": 24} for at in (0.9, 1.7, 2.6, 3.5)]
    numbers = metrics_of(canary=[*rows, canary(5, 3.5, Outcome.EOF)], steps=steps, failures=failures)

    assert numbers["recovery.last_bad_s"] == pytest.approx(1.5)
    assert numbers["recovery.emfile"] == 4


def test_canaries_are_nobodys_attempt_and_no_strangers() -> None:
    """Their accept records stand outside the ledger, are not foreign, and are no client's payload."""
    first = attempt(1)
    watching = [accept(canary(1, 0.1), peer=packed(CANARY), payload=1), accept(canary(2, 0.2), peer=packed(HELD))]
    rows = {"canary": [canary(1, 0.1)], "held": [canary(1, 0.1, source=255)]}
    summary = summarise(recording(attempts=[first], accepts=[accept(first, payload=1), *watching], **rows))

    assert (summary.balanced, summary.foreign, summary.ledger["accepted"]) == (True, 0, 1)
    assert sum(band.accepted for band in summary.growth) == 1


def test_held_connections_are_counted_whether_they_have_a_port_or_not() -> None:
    """A connection that was never made has no port, and a port may serve two connections after each other."""
    held = [canary(number, 0.0, Outcome.CONNECT_TIMEOUT, source=255, port=0, connected=None) for number in range(1, 5)]
    held += [canary(5, 0.0, source=255, port=9, connected=0.1), canary(6, 0.5, source=255, port=9, connected=0.1)]
    held += [canary(7, 1.0, Outcome.EOF, source=255, port=9, connected=0.9)]
    numbers = metrics_of(held=held)

    assert (numbers["held.count"], numbers["held.cut"]) == (6, 5)


def test_a_held_client_that_its_own_process_stopped_was_not_cut_by_the_server() -> None:
    """It is no connection if it never left, and no failure of the server in any case."""
    held = [
        canary(1, 0.0, Outcome.LOCAL, source=255, port=0, connected=None),
        canary(2, 0.0, source=255, connected=0.1),
    ]
    held += [canary(3, 0.5, Outcome.LOCAL, source=255, port=10_002, connected=0.1)]
    numbers = metrics_of(held=held)

    assert (numbers["held.count"], numbers["held.cut"], numbers["canary.local"]) == (1, 0, 2)


def test_the_canary_accuses_itself() -> None:
    """Canaries at their own limits are counted, are in no share, and make the run inconclusive."""
    own = [canary(n, 0.1 * n, Outcome.LOCAL, connected=None, started=None, errno=99) for n in range(1, 4)]
    late = canary(4, 0.5, Outcome.NOT_STARTED, connected=None, started=None)
    rows = [*own, late, canary(5, 0.6), canary(6, 0.7, Outcome.REPLY_TIMEOUT)]
    summary = summarise(recording(attempts=[attempt(1)], accepts=[accept(attempt(1))], canary=rows))

    assert (summary.metrics["canary.local"], summary.metrics["canary.count"]) == (4, 2)
    assert summary.metrics["canary.availability"] == 0.5
    assert summary.status == "INCONCLUSIVE"
    found = {finding.id: finding for finding in summary.findings}["canary-limited"]
    assert "3 requests failed at its own limits (errno 99). 1 request did not start." in found.evidence
    assert "ip_local_port_range" in (found.remedy or "")
    assert "canary-limited" not in {finding.id for finding in summarise(recording(canary=[canary(1, 0.1)])).findings}


def test_held_clients() -> None:
    """Late answers count from when they were due; connections that were cut or never answered have their own counts."""
    held = [canary(number, 0.1 * number, source=255, connected=0.05, port=9) for number in range(1, 4)]
    held += [canary(4, 0.4, source=255, connected=0.05, port=9, replied=1.4, ended=1.5)]
    held += [canary(5, 0.5, Outcome.UNFINISHED, source=255, connected=0.05, port=9)]
    held += [canary(6, 0.5, Outcome.RESET, source=255, port=8)]
    numbers = metrics_of(held=held)

    assert [numbers[f"held.{name}"] for name in ("count", "cut", "unanswered")] == [2, 1, 1]
    assert numbers["held.reply.max_s"] == pytest.approx(1.0)
    assert numbers["held.reply.p50_s"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (step("release", 1.0, 0.25), "25 % of the clients left"),
        (step("nofile", 1.0, 1024, before=64), "the limit rose to 1,024"),
        (step("nofile", 1.0, 64, before=1024), "the limit fell to 64"),
        (step("backlog", 1.0, 8, before=8), "the backlog was set to 8"),
    ],
)
def test_steps_are_marked_in_words(made: StepFacts, says: str) -> None:
    """The picture and the page say what changed."""
    assert [mark.label for mark in summarise(recording(attempts=[attempt(1)], steps=[made])).timeline.marks] == [says]


def test_a_step_that_was_refused_is_no_relief() -> None:
    """It changed nothing, and the run says so."""
    refused = StepFacts(change="nofile", asked=99, done_ns=ns(1), before=64, after=64, refused="not permitted")
    summary = summarise(recording(attempts=[attempt(1)], canary=[canary(1, 2.0)], steps=[refused]))

    assert "recovery.time_s" not in summary.metrics
    assert summary.timeline.marks == []


def test_answers_over_time_stand_in_the_picture() -> None:
    """A step of the timeline is bad as soon as one canary that set out in it was not answered."""
    rows = [canary(1, 0.1), canary(2, 0.1, Outcome.EOF), canary(3, 4.9)]
    answered = summarise(recording(attempts=[attempt(1)], canary=rows)).timeline.canary

    assert [one for one in answered if one is not None] == [False, True]


def test_outage_and_recovery_are_told() -> None:
    """What nobody new could do, and when it was over."""
    rows = [canary(1, 0.5, Outcome.REPLY_TIMEOUT), canary(2, 2.0)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=[step("nofile", 1.0, 128, before=64)]))
    told = {one.id: f"{one.title} {one.evidence}" for one in summary.findings}

    assert "For 1.5 s no new client was served: 50.0 % of the canaries were answered." in told["outage"]
    assert 'Of the canaries 1 were "connected" and never answered.' in told["outage"]
    assert "The server answered again 1.0 s after the limit rose to 128." in told["recovery"]
