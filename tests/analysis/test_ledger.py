"""Every attempt has one outcome and one fate, and the ledger balances or says why not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import World
from recordings import Row, accept, attempt, recording, sample, unanswered, unserved

from loadsim.analysis.ledger import Ledger, settle
from loadsim.fates import Fate, Outcome
from loadsim.record.records import AcceptFlag, AttemptFlag

ABORTS = {"net.ipv4.tcp_abort_on_overflow": "1"}


def fates_of(ledger: Ledger) -> list[str]:
    """Return the fate of each attempt by name."""
    return [Fate(fate).name for fate in ledger.fate]


@given(
    seed=st.integers(0, 2**32),
    phantom=st.sampled_from([0.0, 0.4]),
    dropped=st.sampled_from([0.0, 0.3]),
    foreign=st.sampled_from([0.0, 0.2]),
    outcomes=st.lists(st.sampled_from(list(Outcome)), min_size=1, max_size=20),
    died=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_the_margins_always_add_up(
    *, seed: int, phantom: float, dropped: float, foreign: float, outcomes: list[Outcome], died: bool
) -> None:
    """Fates and outcomes both sum to the attempts in any recording."""
    history = World(seed=seed, length=80, phantom=phantom, dropped=dropped, foreign=foreign).run()
    for index, row in enumerate(history.attempts):
        row["outcome"] = outcomes[index % len(outcomes)]
    made = recording(history.attempts, history.accepts, server_exited_ns=made_up_death(died=died))
    ledger = settle(made)
    count = len(history.attempts)
    assert sum(ledger.fates().values()) == count
    assert sum(ledger.outcomes().values()) == count
    assert sum(sum(row.values()) for row in ledger.cells().values()) == count
    joined = int((ledger.join.attempt_of >= 0).sum())
    assert ledger.having(Fate.ACCEPTED, Fate.SHED, Fate.QUEUED).sum() == joined
    assert joined + ledger.join.foreign == len(history.accepts)


def made_up_death(*, died: bool) -> int:
    """Return when the server ended: a second after the start, or never."""
    return 5_001_000_000_000 if died else 0


NEVER_CONNECTED: list[tuple[Row, str]] = [
    (unanswered(1), "DROPPED"),
    (unanswered(1, outcome=Outcome.UNFINISHED, ended=None), "DROPPED"),
    (unanswered(1, outcome=Outcome.REFUSED), "REFUSED"),
    (unanswered(1, outcome=Outcome.LOCAL, started=None), "LOCAL"),
    (unanswered(1, outcome=Outcome.NOT_STARTED, started=None), "NOT_STARTED"),
    (unanswered(1, outcome=Outcome.UNFINISHED, started=None, ended=None), "NOT_STARTED"),
]


@pytest.mark.parametrize(("row", "fate"), NEVER_CONNECTED)
def test_who_was_never_connected_met_what_its_outcome_says(row: Row, fate: str) -> None:
    """Without a connection the client's own view decides: dropped, refused, local or not started."""
    assert fates_of(settle(recording([row]))) == [fate]


@pytest.mark.parametrize(
    ("flags", "fate"), [(0, "ACCEPTED"), (AcceptFlag.SHED, "SHED"), (AcceptFlag.AFTER_END, "QUEUED")]
)
def test_what_was_accepted_is_accepted_shed_or_queued(flags: int, fate: str) -> None:
    """An accept record decides, by its flags."""
    row = attempt(1)
    assert fates_of(settle(recording([row], [accept(row, flags=flags)], end_queue=int(fate == "QUEUED")))) == [fate]


def test_who_had_left_before_was_accepted_all_the_same() -> None:
    """The fate of a client that gave up in the queue and was accepted later is accepted; its outcome tells the rest."""
    row = unserved(1)
    ledger = settle(recording([row], [accept(row, 3.0)]))
    assert ledger.cells() == {"accepted": {"reply_timeout": 1}}


def test_who_was_connected_and_never_accepted_is_a_phantom() -> None:
    """A connected client without an accept record is a phantom if the queue was drained."""
    assert fates_of(settle(recording([unserved(1)]))) == ["PHANTOM"]


def test_a_reset_at_a_full_queue_is_an_abort() -> None:
    """Under tcp_abort_on_overflow a reset without an accept is the kernel's; silence is still a phantom."""
    rows = [unserved(1, outcome=Outcome.RESET), unanswered(2, outcome=Outcome.RESET), unserved(3)]
    assert fates_of(settle(recording(rows, sysctls=ABORTS))) == ["ABORTED", "ABORTED", "PHANTOM"]
    assert fates_of(settle(recording(rows))) == ["PHANTOM", "PHANTOM", "PHANTOM"]


def test_the_end_of_the_listener_orphans_its_queue() -> None:
    """Clients that the server's end reset were in its queue; of the others the oldest, up to its length."""
    reset_by_it = [unserved(n, 0.1 * n, ended=1.0, outcome=Outcome.RESET) for n in (1, 2)]
    left_before = unserved(3, 0.05, ended=0.5)
    too_many = unserved(4, 0.4, ended=2.0)
    after_it = unserved(5, 1.5)
    made = recording(
        [*reset_by_it, left_before, too_many, after_it],
        samples=[sample(0.9, queue=3), sample(0.95)],
        server_exited_ns=5_001_000_000_000,
        server_exit_status=-9,
        end=None,
    )
    assert fates_of(settle(made)) == ["ORPHANED", "ORPHANED", "ORPHANED", "PHANTOM", "PHANTOM"]


def test_a_queue_that_no_sample_saw_orphans_those_alone_who_were_reset() -> None:
    """Without a sample of the queue only resets show which clients were in it."""
    rows = [unserved(1, 0.1, ended=1.0, outcome=Outcome.RESET), unserved(2, 0.2)]
    assert fates_of(settle(recording(rows, server_exited_ns=5_001_000_000_000))) == ["ORPHANED", "PHANTOM"]


@pytest.mark.parametrize(("overflows", "fate"), [([0, 0], "ORPHANED"), ([0, 3], "PHANTOM"), ([], "PHANTOM")])
def test_without_a_drop_the_end_of_the_listener_orphans_all_that_were_connected(
    *, overflows: list[int], fate: str
) -> None:
    """Only a full queue makes phantoms: a client that left unserved before the server's end was still in its queue."""
    left = attempt(1, 0.5, replied=None, ended=0.5001, outcome=Outcome.CONNECTED)
    seen = [sample(0.1 + 0.3 * n, queue=0, listen_overflows=count) for n, count in enumerate(overflows)]
    made = recording([left], samples=seen, server_exited_ns=5_000_512_000_000, server_exit_status=1, end=None)
    assert fates_of(settle(made)) == [fate]


def test_without_the_end_of_the_run_nobody_can_tell_queued_from_phantom() -> None:
    """A killed conductor drains no queue, and a full journal hides accepts: unknown."""
    assert fates_of(settle(recording([unserved(1)], end=None))) == ["UNKNOWN"]
    assert fates_of(settle(recording([unserved(1)], lost_records={"accepts": 1}))) == ["UNKNOWN"]


def test_a_reserved_code_is_not_a_fate() -> None:
    """The ledger counts every fate under its name, also those behind the reserved code."""
    rows = [unanswered(1), unanswered(2, outcome=Outcome.REFUSED), unserved(3)]
    fates = settle(recording(rows, end=None)).fates()
    assert list(fates) == [fate.id for fate in Fate]
    assert (fates["dropped"], fates["refused"], fates["unknown"]) == (1, 1, 1)


def test_a_balanced_run_has_nothing_to_say() -> None:
    """If the kernel's queue and the connections taken from it agree, the ledger balances."""
    row = unserved(1, flags=AttemptFlag.PENDING, ended=None)
    taken = accept(row, 6.0, flags=AcceptFlag.AFTER_END, state=7)
    assert settle(recording([row], [taken], end_queue=1)).imbalance == []


def test_phantoms_that_got_in_after_the_end_stay_phantoms() -> None:
    """A FIN that is sent again can make a connection between the last look at the queue and its emptying.

    Such a socket stands behind those that the kernel had shown, and is younger than the judgement at 5.1 s.
    """
    waits, phantom = unserved(1, 2.0), unserved(2, 2.0)
    queued = accept(waits, 3.2, flags=AcceptFlag.AFTER_END)
    late = accept(phantom, 3.201, flags=AcceptFlag.AFTER_END, age_ms=15)
    ledger = settle(recording([waits, phantom], [queued, late], end_queue=1))
    assert (fates_of(ledger), ledger.imbalance) == (["QUEUED", "PHANTOM"], [])
    first = settle(recording([waits, phantom], [{**queued, "age_ms": 15}, late], end_queue=1))
    assert (fates_of(first), first.imbalance) == (["QUEUED", "PHANTOM"], [])


UNBALANCED: list[tuple[Row, str]] = [
    ({"end_queue": 3}, "The kernel showed 3 connections"),
    ({"lost_records": {"attempts": 5}}, "5 attempt records found no space"),
]


@pytest.mark.parametrize(("changes", "sentence"), UNBALANCED)
def test_what_does_not_add_up_is_a_sentence(changes: Row, sentence: str) -> None:
    """Each check that fails says so, with its numbers."""
    imbalance = settle(recording([attempt(1)], **changes)).imbalance
    assert [line[: len(sentence)] for line in imbalance] == [sentence]


def test_more_taken_than_the_kernel_showed_is_an_imbalance_too() -> None:
    """The two numbers must be equal, not only cover each other."""
    row = unserved(1)
    taken = accept(row, 6.0, flags=AcceptFlag.AFTER_END)
    imbalance = settle(recording([row], [taken], end_queue=0)).imbalance
    assert [line[:34] for line in imbalance] == ["The kernel showed 0 connections in"]


def test_a_queue_that_could_not_be_compared_is_no_imbalance() -> None:
    """If the queue was not read, or the listener had died, nothing is compared."""
    assert settle(recording([attempt(1)], end_queue=None)).imbalance == []
    assert settle(recording([attempt(1)], end_queue=3, server_exited_ns=1)).imbalance == []


def test_numbers_and_joins_are_checked() -> None:
    """Two attempts with one number, or a payload that contradicts the join, unbalance the ledger."""
    first, second = attempt(1), attempt(1, 0.1, port=7)
    third = attempt(3, 0.2)
    imbalance = settle(recording([first, second, third], [accept(third, payload=1)])).imbalance
    assert imbalance[0] == "1 attempts have a number that another attempt has, too."
    assert imbalance[1].startswith("1 accepted connections name another attempt")


def test_records_that_only_a_curve_needs_do_not_unbalance_the_books() -> None:
    """Samples and failures that found no space are missing from no row of the ledger."""
    assert settle(recording([attempt(1)], lost_records={"samples": 9, "accepts": 0})).imbalance == []
