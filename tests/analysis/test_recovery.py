"""Metrics and findings of canaries, held clients and recoveries, computed from recordings made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import Row, accept, attempt, ns, packed, recording, summarise

from loadsim.fates import Outcome
from loadsim.record.facts import StepFacts

CANARY, HELD = "127.0.1.1", "127.0.1.2"


def canary(number: int, at: float, outcome: Outcome = Outcome.OK, **changes: Any) -> Row:  # noqa: ANN401 -- any field
    """Return a canary; without an answer it gives up after a second."""
    took = {} if outcome is Outcome.OK else {"replied": None, "ended": at + 1.0}
    return attempt(number, at, **{"source": 254, "outcome": outcome, **took, **changes})


def step(change: str, at: float, asked: float, before: float | None = None) -> StepFacts:
    """Return a step that took effect as requested."""
    after = None if change == "release" else asked
    return StepFacts(change=change, asked=asked, done_ns=ns(at), before=before, after=after)


def metrics_of(**parts: Any) -> dict[str, float]:  # noqa: ANN401 -- parts of a recording
    """Return the metrics of a recording with these parts."""
    return summarise(recording(attempts=[attempt(1)], accepts=[accept(attempt(1))], **parts)).metrics


def test_availability_and_outage() -> None:
    """The outage lasts from the start of the first unanswered canary to the next answer."""
    rows = [canary(1, 0.0), canary(2, 0.5, Outcome.REPLY_TIMEOUT), canary(3, 1.0, Outcome.CONNECT_TIMEOUT)]
    rows += [canary(4, 1.5, replied=2.4, ended=2.5)]
    numbers = metrics_of(canary=[*rows, canary(5, 2.6, Outcome.EOF), canary(6, 2.8, Outcome.LOCAL)])

    assert numbers["canary.availability"] == pytest.approx(2 / 5)
    assert numbers["canary.longest_outage_s"] == pytest.approx(2.4 - 0.5)
    assert [numbers[f"canary.{name}"] for name in ("silent", "unreachable", "turned_away")] == [1, 1, 1]
    assert "recovery.time_s" not in numbers


def test_an_outage_that_never_ends_lasts_to_the_last_canary() -> None:
    """Without another answer the outage lasts at least as long as the last canary waited."""
    numbers = metrics_of(canary=[canary(1, 0.0), canary(2, 1.0, Outcome.REPLY_TIMEOUT), canary(3, 2.0, Outcome.RESET)])

    assert numbers["canary.longest_outage_s"] == pytest.approx(2.0)


def test_recovery_counts_from_the_last_step_that_freed_descriptors() -> None:
    """A lower limit is not such a step; recovery ends at the answer, not at the start of the canary that got it."""
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
    """If descriptors were freed and no canary was answered, there is a fault and no recovery time."""
    rows = [canary(1, 0.8, Outcome.REPLY_TIMEOUT), canary(2, 1.5, Outcome.REPLY_TIMEOUT)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=[step("release", 1.0, 1.0)]))

    assert "recovery.time_s" not in summary.metrics
    [found] = [one for one in summary.findings if one.id == "no-recovery"]
    assert (
        found.title
        == "The server never came back: all clients left, and no canary was answered in the 4.0 s after that."
    )
    assert [mark.label for mark in summary.timeline.marks] == ["all clients left"]


def test_a_server_that_was_never_down_has_no_recovery() -> None:
    """Freed descriptors of a server that was up give no recovery time, even if the server fails later."""
    rows = [canary(1, 0.9), canary(2, 1.5), canary(3, 3.0, Outcome.EOF)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=[step("release", 1.0, 1.0)]))

    assert not [metric for metric in summary.metrics if metric.startswith("recovery.")]
    assert not {"recovery", "no-recovery"} & {found.id for found in summary.findings}


def test_a_canary_that_is_answered_late_marks_an_outage() -> None:
    """It waits across the step, and its answer is the first after it."""
    rows = [canary(1, 0.5, replied=1.25, ended=1.3)]

    assert metrics_of(canary=rows, steps=[step("release", 1.0, 1.0)])["recovery.time_s"] == pytest.approx(0.25)


def test_recovery_counts_from_the_step_that_helped() -> None:
    """A higher limit did not help, but leaving clients did; a later, shorter outage does not replace it."""
    steps = [step("nofile", 1.0, 128, before=64), step("release", 2.0, 1.0), step("nofile", 4.0, 256, before=128)]
    rows = [canary(1, 0.5, Outcome.EOF), canary(2, 1.5, Outcome.EOF), canary(3, 2.4), canary(4, 2.6, Outcome.EOF)]
    rows += [canary(5, 3.5, Outcome.EOF, ended=3.6), canary(6, 4.1)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=steps))
    [found] = [one for one in summary.findings if one.id == "recovery"]

    assert summary.metrics["recovery.time_s"] == pytest.approx(0.4, abs=0.001)
    assert summary.metrics["recovery.last_bad_s"] == pytest.approx(1.5)
    assert found.title == "The server answered again 400 ms after all clients left."
    assert found.evidence.startswith("One earlier step freed descriptors and did not help.")


def test_a_recovery_ends_at_the_first_step_after_it() -> None:
    """Canaries and failures count until the first step after the answer, even across a step before the answer."""
    steps = [step("release", 1.0, 0.5), step("nofile", 1.5, 32, before=64), step("nofile", 3.0, 16, before=32)]
    rows = [canary(1, 0.5, Outcome.EOF), canary(2, 1.6, Outcome.EOF), canary(3, 2.0), canary(4, 2.5, Outcome.EOF)]
    failures = [{"first": at, "last": at, "count": 2, "errno": 24} for at in (0.9, 1.7, 2.6, 3.5)]
    numbers = metrics_of(canary=[*rows, canary(5, 3.5, Outcome.EOF)], steps=steps, failures=failures)

    assert numbers["recovery.last_bad_s"] == pytest.approx(1.5)
    assert numbers["recovery.emfile"] == 4


def test_canaries_are_not_attempts_and_not_foreign() -> None:
    """Their accept records are not in the ledger, are not foreign, and do not match the payload of a client."""
    first = attempt(1)
    watching = [accept(canary(1, 0.1), peer=packed(CANARY), payload=1), accept(canary(2, 0.2), peer=packed(HELD))]
    rows = {"canary": [canary(1, 0.1)], "held": [canary(1, 0.1, source=255)]}
    summary = summarise(recording(attempts=[first], accepts=[accept(first, payload=1), *watching], **rows))

    assert (summary.balanced, summary.foreign, summary.ledger["accepted"]) == (True, 0, 1)
    assert sum(band.accepted for band in summary.growth) == 1


def test_held_connections_are_counted_with_and_without_a_port() -> None:
    """A connection that was never established has no port, and two connections can use a port one after the other."""
    held = [canary(number, 0.0, Outcome.CONNECT_TIMEOUT, source=255, port=0, connected=None) for number in range(1, 5)]
    held += [canary(5, 0.0, source=255, port=9, connected=0.1), canary(6, 0.5, source=255, port=9, connected=0.1)]
    held += [canary(7, 1.0, Outcome.EOF, source=255, port=9, connected=0.9)]
    numbers = metrics_of(held=held)

    assert (numbers["held.count"], numbers["held.cut"]) == (6, 5)


def test_a_held_client_that_its_own_process_stopped_was_not_cut_by_the_server() -> None:
    """It is not a held connection if it never left its host, and it is never a failure of the server."""
    held = [
        canary(1, 0.0, Outcome.LOCAL, source=255, port=0, connected=None),
        canary(2, 0.0, source=255, connected=0.1),
    ]
    held += [canary(3, 0.5, Outcome.LOCAL, source=255, port=10_002, connected=0.1)]
    numbers = metrics_of(held=held)

    assert (numbers["held.count"], numbers["held.cut"], numbers["canary.local"]) == (1, 0, 2)


def test_canaries_that_failed_at_their_own_limits_make_the_run_inconclusive() -> None:
    """They have a count, and are not part of the availability."""
    own = [canary(n, 0.1 * n, Outcome.LOCAL, connected=None, started=None, errno=99) for n in range(1, 4)]
    late = canary(4, 0.5, Outcome.NOT_STARTED, connected=None, started=None)
    rows = [*own, late, canary(5, 0.6), canary(6, 0.7, Outcome.REPLY_TIMEOUT)]
    summary = summarise(recording(attempts=[attempt(1)], accepts=[accept(attempt(1))], canary=rows))

    assert (summary.metrics["canary.local"], summary.metrics["canary.count"]) == (4, 2)
    assert summary.metrics["canary.availability"] == 0.5
    assert summary.status == "INCONCLUSIVE"
    found = {finding.id: finding for finding in summary.findings}["canary-limited"]
    assert "3 requests failed at a local limit (errno 99). 1 request did not start." in found.evidence
    assert "ip_local_port_range" in (found.remedy or "")
    assert "canary-limited" not in {finding.id for finding in summarise(recording(canary=[canary(1, 0.1)])).findings}


def test_held_clients() -> None:
    """Late answers count from their due time; cut connections and unanswered requests have their own counts."""
    held = [canary(number, 0.1 * number, source=255, connected=0.05, port=9) for number in range(1, 4)]
    held += [canary(4, 0.4, source=255, connected=0.05, port=9, replied=1.4, ended=1.5)]
    held += [canary(5, 0.5, Outcome.UNFINISHED, source=255, connected=0.05, port=9)]
    held += [canary(6, 0.5, Outcome.RESET, source=255, port=8)]
    numbers = metrics_of(held=held)

    assert [numbers[f"held.{name}"] for name in ("count", "cut", "unanswered")] == [2, 1, 1]
    assert numbers["held.reply.max_s"] == pytest.approx(1.0)
    assert numbers["held.reply.p50_s"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("made", "label"),
    [
        (step("release", 1.0, 0.25), "25 % of the clients left"),
        (step("nofile", 1.0, 1024, before=64), "the limit rose to 1,024"),
        (step("nofile", 1.0, 64, before=1024), "the limit fell to 64"),
        (step("backlog", 1.0, 8, before=8), "the backlog was set to 8"),
    ],
)
def test_steps_are_marked_in_words(made: StepFacts, label: str) -> None:
    """The label of a mark describes the change."""
    assert [mark.label for mark in summarise(recording(attempts=[attempt(1)], steps=[made])).timeline.marks] == [label]


def test_a_step_that_was_refused_frees_nothing() -> None:
    """It has no mark, and no recovery counts from it."""
    refused = StepFacts(change="nofile", asked=99, done_ns=ns(1), before=64, after=64, refused="not permitted")
    summary = summarise(recording(attempts=[attempt(1)], canary=[canary(1, 2.0)], steps=[refused]))

    assert "recovery.time_s" not in summary.metrics
    assert summary.timeline.marks == []


def test_the_timeline_shows_the_answers_of_canaries() -> None:
    """A bucket is bad as soon as one canary that started in it was not answered."""
    rows = [canary(1, 0.1), canary(2, 0.1, Outcome.EOF), canary(3, 4.9)]
    answered = summarise(recording(attempts=[attempt(1)], canary=rows)).timeline.canary

    assert [one for one in answered if one is not None] == [False, True]


def test_outage_and_recovery_are_findings() -> None:
    """Their sentences have the length of the outage, the kinds of failed canaries, and the recovery time."""
    rows = [canary(1, 0.5, Outcome.REPLY_TIMEOUT), canary(2, 2.0)]
    summary = summarise(recording(attempts=[attempt(1)], canary=rows, steps=[step("nofile", 1.0, 128, before=64)]))
    texts = {one.id: f"{one.title} {one.evidence}" for one in summary.findings}

    assert "For 1.5 s no new client was served: 50.0 % of the canaries were answered." in texts["outage"]
    assert "Canaries without a good answer: 1 connected and got no reply." in texts["outage"]
    assert "The server answered again 1.0 s after the limit rose to 128." in texts["recovery"]
