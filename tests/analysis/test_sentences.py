"""Sentences of findings agree with the metrics of their run, and advise nothing that is already in force."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scenes
from recordings import Row, accept, attempt, failure, ns, packed, recording, sample, settings, summarise, unanswered

from loadsim.fates import Outcome
from loadsim.record.facts import StepFacts
from loadsim.record.records import AcceptFlag
from loadsim.scenario.specs import CANARY_SOURCE, source_address

if TYPE_CHECKING:
    from loadsim.analysis.summary import Finding
    from loadsim.record.recording import Recording


def finding(made: Recording, name: str) -> Finding:
    """Return the finding of this name."""
    return next(one for one in summarise(made).findings if one.id == name)


def waiting_with_a_canary() -> Recording:
    """Return a run in which a slow server takes one of two clients, and the other waits with a canary."""
    rows = [attempt(1, ended=9.0), attempt(2, replied=None, ended=9.0, outcome=Outcome.UNFINISHED)]
    canary = attempt(1, 0.1, port=21_001, source=CANARY_SOURCE, replied=None, outcome=Outcome.REPLY_TIMEOUT)
    left = [accept(rows[1], 6.0, flags=AcceptFlag.AFTER_END)]
    left.append(accept(canary, 6.0, peer=packed(source_address(CANARY_SOURCE)), flags=AcceptFlag.AFTER_END))
    return recording(rows, [accept(rows[0], 2.0), *left], canary=[canary], end_queue=2)


def test_a_slow_server_has_no_more_clients_waiting_than_came() -> None:
    """Connections of the canary are in accept.waiting, and the sentence names them."""
    made = waiting_with_a_canary()

    assert summarise(made).metrics["accept.waiting"] == 2
    assert "2 still waited at the end (1 of them from the canary)." in finding(made, "slow-accept").evidence


def test_a_pause_that_is_not_blamed_on_the_acceptor_is_named() -> None:
    """The longest pause came from a missing descriptor: the sentence about the others says so."""
    made = scenes.pausing(failures=[failure(0.5)], pause_s=0.1)
    pauses = summarise(made).metrics["accept.pause_max_s"]
    rows = [attempt(9_000, 4.0, ended=9.0)]
    late = [accept(rows[0], 0.5)]
    evidence = finding(with_more(made, rows, late, [failure(4.2)]), "slow-accept").evidence

    assert pauses == pytest.approx(0.1, abs=0.01)
    assert "The longest pause of all (500 ms) is not among them: a descriptor was missing in it." in evidence
    assert "longest pause of all" not in finding(scenes.pausing(), "slow-accept").evidence


def with_more(made: Recording, attempts: list[Row], accepts: list[Row], failures: list[Row]) -> Recording:
    """Return a recording with further records at its end."""
    more = recording(attempts, accepts, failures)
    return dataclasses.replace(
        made,
        attempts=np.concatenate([made.attempts, more.attempts]),
        accepts=np.concatenate([made.accepts, more.accepts]),
        failures=np.concatenate([made.failures, more.failures]),
    )


def test_a_backlog_that_holds_a_pause_is_not_advised_again() -> None:
    """About as many clients gather as the pause lasts; 128 are more than that, and 8 are less."""
    assert "keep backlog >= rate x longest pause" in (finding(scenes.pausing(), "slow-accept").remedy or "")
    assert "choose backlog >= rate x longest pause" in (finding(scenes.pausing(backlog=8), "slow-accept").remedy or "")


def limit_step(after: int) -> StepFacts:
    """Return a step that sets the limit after 2.5 s."""
    return StepFacts(change="nofile", asked=after, done_ns=ns(2.5), before=64, after=after)


@pytest.mark.parametrize(("after", "advice"), [(400, "start it with nofile = 400"), (70, "raise nofile to about")])
def test_a_limit_that_a_step_has_set_is_not_advised_again(after: int, advice: str) -> None:
    """Where the timeline raises the limit to what is needed, that limit is named; else a higher one."""
    remedy = finding(scenes.exhausted(leaks=False, steps=[limit_step(after)]), "fd-limit").remedy

    assert remedy is not None
    assert remedy.startswith(advice)


def test_a_server_that_serves_nobody_is_not_told_to_serve_nobody() -> None:
    """Its own descriptors are all that its limit allows."""
    made = recording([unanswered(1)], failures=[failure(0.1, 50, open_fds=8)], server_nofile_soft=8)

    assert "at most 0" not in (finding(made, "fd-limit").remedy or "")


def overflowing(steps: list[StepFacts], **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run in which a queue of one overflows once."""
    rows = [attempt(n, 0.2 + 0.001 * n, ended=3.0) for n in (1, 2)]
    rows.append(unanswered(3, 0.2025))
    read = [sample(at, listen_overflows=2 * (at > 0.2), listen_drops=0, drops=0, cookies=0) for at in (-0.1, 0.3)]
    return recording(rows, [accept(row, 0.1) for row in rows[:2]], samples=read, steps=steps, **changes)


def test_a_backlog_that_was_in_force_is_not_advised_again() -> None:
    """A step has raised it to what is needed after the queue had overflowed; one that lowers it changes nothing."""
    raised = StepFacts(change="backlog", asked=64, done_ns=ns(1.0), before=0, after=64)
    lowered = StepFacts(change="backlog", asked=0, done_ns=ns(0.1), before=64, after=0)

    assert finding(overflowing([raised], server_backlog=0), "queue-overflow").remedy == (
        "a backlog of 64, which was in force at the end, would have held all of them."
    )
    assert "listen(fd, 2)" in (finding(overflowing([lowered], server_backlog=64), "queue-overflow").remedy or "")


def test_an_advised_backlog_is_above_the_one_that_overflowed() -> None:
    """The kernel dropped packets at a queue that no journal shows as full."""
    remedy = finding(overflowing([], server_backlog=7), "queue-overflow").remedy or ""

    assert "listen(fd, 8)" in remedy


def test_an_outage_lasts_as_long_as_the_server_is_dead() -> None:
    """The last canary was refused at once, and the run went on without a server."""
    canary = {"port": 21_001, "source": CANARY_SOURCE}
    good = attempt(1, 0.0, **canary)
    refused = attempt(2, 1.0, **canary, connected=None, replied=None, ended=1.0003, outcome=Outcome.REFUSED)
    dead = summarise(recording(canary=[good, refused], server_exited_ns=ns(0.9), end=None, server_exit_status=1))
    alive = summarise(recording(canary=[good, refused]))

    assert dead.metrics["canary.longest_outage_s"] == pytest.approx(4.1)
    assert alive.metrics["canary.longest_outage_s"] == pytest.approx(0.0003)


def test_an_outage_ends_with_the_next_answer() -> None:
    """A canary that waits longer than the next one does not extend it."""
    canary = {"port": 21_001, "source": CANARY_SOURCE}
    bad = unanswered(1, 0.35, **canary, ended=0.75)
    good = attempt(2, 0.4, **(canary | {"port": 21_002}), replied=0.455)

    assert summarise(recording(canary=[bad, good])).metrics["canary.longest_outage_s"] == pytest.approx(0.105)


def test_a_server_that_leaks_nothing_is_not_blamed_for_a_leak() -> None:
    """It died, and clients had closed connections that it still had, with what their requests had opened."""
    rows = [attempt(n, 0.1 * n) for n in range(1, 6)]
    accepts = [accept(row, closed=None, flags=0) for row in rows]
    tables = settings(server={"extra_fds": 2})
    for end in ({"end": None}, {"end_fds_end": 29}):
        made = recording(rows, accepts, server_exited_ns=ns(2.0), server_exit_status=-9, settings=tables, **end)
        assert "fd-leak" not in [one.id for one in summarise(made).findings]


def test_a_generator_that_was_late_in_a_short_run_says_how_many_started_late() -> None:
    """Below 100 attempts the finding counts late starts: there is no 90th percentile."""
    rows = [attempt(n, n * 0.005 + 0.19, intended=n * 0.005) for n in range(1, 21)]
    evidence = finding(recording(rows, [accept(row) for row in rows]), "generator-limited").evidence

    assert "20 of 20 attempts started more than 10 ms late, the worst 190 ms." in evidence
