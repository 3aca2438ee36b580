"""Accept records are joined to their attempts, also where a 4-tuple is used again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import History, World
from recordings import Row, accept, attempt, packed, recording, unanswered, unserved

from loadsim.analysis.join import join
from loadsim.fates import Outcome
from loadsim.record.records import AcceptFlag, AttemptFlag


def joined_numbers(history: History) -> list[int]:
    """Return the attempt number that the join gives to each accept record, 0 where it gives none."""
    made = recording(history.attempts, history.accepts)
    numbers = made.attempts["number"]
    return [int(numbers[i]) if i >= 0 else 0 for i in join(made).attempt_of]


@given(seed=st.integers(0, 2**32), ports=st.integers(1, 6), rst=st.sampled_from([0.0, 0.3, 1.0]))
@settings(deadline=None, max_examples=60)
def test_every_connection_is_found_where_none_is_missing(seed: int, ports: int, rst: float) -> None:
    """Without phantoms the join is the truth, however fast 4-tuples come back."""
    history = World(seed=seed, ports=ports, rst=rst, dropped=0.2, sources=2, step_s=0.0005).run()
    assert history.truth == joined_numbers(history)


@given(seed=st.integers(0, 2**32), ports=st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_holes_are_told_by_the_age_of_the_socket(seed: int, ports: int) -> None:
    """With phantoms that were reset, every wrong join is one that was counted as ambiguous."""
    history = World(seed=seed, ports=ports, rst=0.8, phantom=0.3, dropped=0.1).run()
    made = recording(history.attempts, history.accepts)
    wrong = sum(a != b for a, b in zip(history.truth, joined_numbers(history), strict=True))
    assert wrong <= join(made).ambiguous


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_slow_reuse_leaves_no_doubt(seed: int) -> None:
    """Where a 4-tuple comes back later than a socket's age is uncertain, phantoms cannot confuse the join."""
    history = World(seed=seed, ports=3, rst=0.8, phantom=0.3, dropped=0.1, step_s=0.1).run()
    doubts = join(recording(history.attempts, history.accepts)).ambiguous
    wrong = sum(a != b for a, b in zip(history.truth, joined_numbers(history), strict=True))
    assert wrong <= doubts <= len(history.truth) // 4


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_foreign_clients_are_told_apart(seed: int) -> None:
    """A client beside the run that takes turns with ours on the same ports is joined to none of them."""
    history = World(seed=seed, ports=3, rst=0.0, foreign=0.3, step_s=0.1).run()
    assert history.truth == joined_numbers(history)


def test_a_foreign_client_is_joined_to_nobody() -> None:
    """An address or port that no attempt had, or that was free again, belongs to no attempt."""
    ours = attempt(1, 0.0)
    elsewhere = accept(ours, peer=packed("127.0.0.9"))
    never_used = accept(attempt(2, 0.0))
    given_up = unanswered(3, 0.0)
    later = accept(given_up, 7.0, age_ms=0)
    made = recording([ours, given_up], [elsewhere, never_used, later])
    assert list(join(made).attempt_of) == [-1, -1, -1]
    assert join(made).foreign == 3


def test_the_second_record_of_a_living_connection_is_foreign() -> None:
    """Two accept records cannot be one attempt: the first gets it."""
    ours = attempt(1, 0.0, ended=4.0)
    made = recording([ours], [accept(ours, 0.1), accept(ours, 0.2)])
    assert list(join(made).attempt_of) == [0, -1]


def test_a_client_that_gave_up_as_it_was_let_in_is_found() -> None:
    """A connect that timed out in the microsecond of its handshake still explains its accept record."""
    late = unanswered(1, 0.0, flags=AttemptFlag.RESET_BY_CLIENT)
    left = accept(late, 2.1, age_ms=100, state=7)
    assert list(join(recording([late], [left])).attempt_of) == [0]


def test_what_the_drivers_reset_after_the_end_is_found() -> None:
    """A connection that was pending when the run was judged is reset before it is taken from the queue."""
    pending = unserved(1, 0.0, ended=None, outcome=Outcome.UNFINISHED, flags=AttemptFlag.PENDING)
    taken = accept(pending, 5.2, state=7, flags=AcceptFlag.AFTER_END)
    assert list(join(recording([pending], [taken])).attempt_of) == [0]


def test_a_reset_that_nobody_booked_is_believed_of_a_killed_driver_alone() -> None:
    """Order joins a record that was reset to an attempt without an end, unless its socket is known to be open."""
    killed = unserved(1, 0.0, ended=None, outcome=Outcome.UNFINISHED)
    taken = accept(killed, 1.0, state=7)
    assert list(join(recording([killed], [taken])).attempt_of) == [0]


@pytest.mark.parametrize("payload", [0, 1])
def test_a_client_that_was_admitted_after_its_fin_is_found(payload: int) -> None:
    """A client that closed by FIN keeps its 4-tuple: a later accept in ESTABLISHED is its own, the next one foreign."""
    left = unserved(1, 0.0, connected=1.0, ended=1.8)
    admitted = accept(left, 1.5, state=1, age_ms=450, synack_retransmits=1, payload=payload)
    stranger = accept(left, 5.0, state=1, age_ms=0)
    result = join(recording([left], [admitted, stranger]))
    assert (list(result.attempt_of), result.mismatched) == ([0, -1], 0)


def test_a_client_that_the_server_has_reset_left_its_4_tuple() -> None:
    """The end by the server's RST frees a 4-tuple at once: a later accept is foreign."""
    gone = unserved(1, 0.0, ended=0.1, outcome=Outcome.RESET)
    assert list(join(recording([gone], [accept(gone, 5.0, state=1, age_ms=0)])).attempt_of) == [-1]


def test_an_attempt_owns_no_4_tuple_before_it_is_connected() -> None:
    """What was accepted during connect() is the attempt before, which the server's RST has freed without its client."""
    first = attempt(1, 0.0, ended=0.100_3, replied=None, outcome=Outcome.RESET, port=7)
    second = attempt(2, 0.1, connected=0.100_2, ended=0.2, port=7)
    mine = accept(first, state=1, accepted=0.100_05, payload=1)
    other = accept(second, state=1, accepted=0.100_15, payload=2)
    last = accept(second, state=1, accepted=0.100_25, payload=2)
    assert list(join(recording([first, second], [mine, other])).attempt_of) == [0, 1]
    assert list(join(recording([first, second], [mine, last])).attempt_of) == [0, 1]
    early = accept(first, state=1, payload=1)
    assert list(join(recording([first, second], [early, other])).attempt_of) == [0, 1]
    assert join(recording([first, second], [early, other])).mismatched == 0


def test_a_living_connection_is_not_one_that_was_reset() -> None:
    """An attempt that was closed by RST no longer holds the 4-tuple."""
    gone = unserved(1, 0.0, ended=0.1, flags=AttemptFlag.RESET_BY_CLIENT)
    assert list(join(recording([gone], [accept(gone, 5.0, state=8, age_ms=0)])).attempt_of) == [-1]


def resets(*spans: tuple[float, float]) -> list[Row]:
    """Return attempts of one 4-tuple that were reset, from start to end each."""
    flag = AttemptFlag.RESET_BY_CLIENT
    return [unserved(n, start, ended=end, flags=flag, port=7) for n, (start, end) in enumerate(spans, 1)]


def test_two_records_are_never_one_attempt() -> None:
    """Two records with ages that fit the same three attempts are joined to the first two, in order."""
    rows = resets((0.0, 0.001), (0.002, 0.003), (0.004, 0.005))
    accepts = [accept(rows[1], 1.0, state=7, age_ms=1000), accept(rows[1], 1.1, state=7, age_ms=1100)]
    result = join(recording(rows, accepts))
    assert (list(result.attempt_of), result.ambiguous) == ([0, 1], 2)


def test_nothing_is_joined_to_what_came_before_its_predecessor() -> None:
    """The queue keeps the order: a later connection was started later, even if its age contradicts that."""
    before, living, after, beyond = resets((0.0, 0.1), (0.2, 1.0), (1.2, 1.3), (1.35, 1.36))
    accepts = [accept(living, 0.3, state=1), accept(after, 0.8, state=7, age_ms=0)]
    assert list(join(recording([before, living, after, beyond], accepts)).attempt_of) == [1, 2]


def test_an_age_that_fits_nobody_is_ambiguous() -> None:
    """If no attempt fits the age of the socket, the oldest one is joined and counted as ambiguous."""
    first = unserved(1, 0.0, ended=0.1, flags=AttemptFlag.RESET_BY_CLIENT, port=7)
    second = unserved(2, 0.5, ended=0.6, flags=AttemptFlag.RESET_BY_CLIENT, port=7)
    result = join(recording([first, second], [accept(second, 1.0, state=7, age_ms=9000)]))
    assert (list(result.attempt_of), result.ambiguous) == ([0], 1)


@pytest.mark.parametrize(("server", "peer"), [("::1", "::1"), ("::", "::1"), ("0.0.0.0", "127.0.0.1")])  # noqa: S104 -- a record, no socket
def test_clients_connect_from_the_address_that_the_server_has(server: str, peer: str) -> None:
    """Outside 127.0.0.0/8 a client's own address is the server's."""
    ours = attempt(1, 0.0)
    made = recording([ours], [accept(ours, peer=packed(peer))], server_address=server)
    assert list(join(made).attempt_of) == [0]


def test_payloads_that_name_another_attempt_are_counted() -> None:
    """Under echo the payload is the truth: joined to another attempt, or to none, is a mismatch; noise is not."""
    first, second, third = attempt(1, 0.0), attempt(2, 0.1), attempt(3, 0.2)
    accepts = [
        accept(first, payload=1),
        accept(second, payload=3),
        accept(third, payload=3, port=60_000),
        accept(third, payload=2**63),
    ]
    assert join(recording([first, second, third], accepts)).mismatched == 2


def test_nothing_joins_nothing() -> None:
    """A recording without attempts or accept records has an empty join."""
    ours = attempt(1, 0.0)
    assert list(join(recording()).attempt_of) == []
    assert list(join(recording([ours])).accept_of) == [-1]
    assert list(join(recording([], [accept(ours)])).attempt_of) == [-1]
