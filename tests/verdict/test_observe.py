"""From a recording to the numbers of a verdict: the window, the pauses, and which clients count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from recordings import attempt, failure, ns, recording, sample

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.metrics import measure
from loadsim.fates import Outcome
from loadsim.record.facts import StepFacts
from loadsim.record.records import FailureFlag
from loadsim.verdict.observe import observe

if TYPE_CHECKING:
    from loadsim.verdict.classify import Observed

#: All clients leave after 3 s; the two seconds before are the window.
RELIEF_S, WINDOW_S = 3.0, 2.0
STEP = StepFacts(change="release", asked=1.0, done_ns=ns(RELIEF_S), before=None, after=None)


def seen(**parts: Any) -> Observed:  # noqa: ANN401 -- parts of a recording
    """Return the numbers of a recording with these parts."""
    made = recording([attempt(1)], steps=[STEP], server_command=["./server"], **parts)
    data = Dataset.of(made)
    return observe(data, measure(data), trial="limit at start", exhausted_s=WINDOW_S)


def failures(*times: float, **changes: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- any field
    """Return one failure at each of these times."""
    return [failure(at, first=at, last=at, **changes) for at in times]


def canary(at: float, outcome: Outcome, ended: float) -> dict[str, Any]:
    """Return a canary with this outcome."""
    replied = ended if outcome is Outcome.OK else None
    return attempt(1, at, source=254, outcome=outcome, replied=replied, ended=ended)


def test_a_fixed_pause_and_one_that_grows() -> None:
    """The median of the first and of the last pauses counts; a failure with an empty queue starts no pause."""
    steady = [*failures(0.57, flags=FailureFlag.IDLE), *failures(*(0.6 + 0.1 * i for i in range(24)))]
    growing = failures(0.6, 0.61, 0.63, 0.67, 0.75, 0.91, 1.23, 1.87, 2.87)

    assert seen(failures=steady).first_pause_s == pytest.approx(0.1)
    assert seen(failures=steady).last_pause_s == pytest.approx(0.1)
    assert seen(failures=growing).first_pause_s == pytest.approx(0.02)
    assert seen(failures=growing).last_pause_s == pytest.approx(0.32)


def test_failures_after_the_relief_do_not_count() -> None:
    """The count starts at the first failure, the rate covers the window; both end at the relief."""
    one = seen(failures=failures(0.5, 1.5, 2.5, 3.1, 3.2, count=10))

    assert one.emfile == 30
    assert one.emfile_per_s == pytest.approx(10.0)


def test_failures_that_are_not_visible_are_unknown() -> None:
    """Their number is None, not 0."""
    assert seen(server_emfile_seen=False).emfile is None


def test_canaries_count_by_their_outcome_before_the_relief() -> None:
    """A canary before the window, or with an answer after it, does not show a server at its limit."""
    rows = [
        canary(0.2, Outcome.OK, 0.3),
        canary(1.1, Outcome.REPLY_TIMEOUT, 2.1),
        canary(1.2, Outcome.EOF, 1.3),
        canary(1.3, Outcome.ERROR, 1.4),
        canary(2.9, Outcome.OK, 3.2),
    ]
    one = seen(canary=rows)

    assert (one.new_ok, one.new_silent, one.new_turned_away, one.new_failed, one.new) == (0, 1, 1, 1, 3)
    assert one.recovery_s == pytest.approx(0.2)
    assert one.talks


def test_cpu_is_that_of_the_window() -> None:
    """CPU time of the start, and after the relief, does not count."""
    cpu = {0.5: 0, 1.0: 10, 2.0: 510, 3.0: 1_010, 4.0: 5_000}
    samples = [sample(at, cpu_ns=used * 1_000_000) for at, used in cpu.items()]

    assert seen(samples=samples).cpu_cores == pytest.approx(0.5)


def test_a_server_that_keeps_no_connection_has_no_held_clients() -> None:
    """A connection that was closed before the window was not closed because of exhaustion."""
    before = [attempt(1, 0.1, source=255, outcome=Outcome.EOF, replied=None, ended=0.2, port=7)]
    during = [attempt(2, 1.5, source=255, outcome=Outcome.RESET, replied=None, ended=1.6, port=8)]

    assert seen(held=before).held == 0
    assert (seen(held=before + during).held, seen(held=before + during).held_cut) == (1, 1)
