"""Accept latencies of a server that writes no records lie between two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from recordings import attempt, recording, seen, summarise, unserved

from loadsim.analysis.dataset import Dataset
from loadsim.fates import Outcome
from loadsim.record.records import AttemptFlag, SocketFlag

if TYPE_CHECKING:
    from recordings import Row

WAITED, ENTERED, TRACED = SocketFlag.WAITED, SocketFlag.ENTERED, SocketFlag.TRACED


def bounds_of(of: Row, *sockets: Row, **changes: Any) -> tuple[float, float]:  # noqa: ANN401 -- any fact
    """Return the bounds of one attempt's wait, in seconds."""
    made = Dataset.of(recording([of], sockets=sockets, server_command=["./server"], **changes)).bounds
    assert made is not None
    [least], [most] = made.least / 1e9, made.most / 1e9
    return least, most


def waited(of: Row, until: float, since: float, flags: int = 0) -> tuple[Row, Row]:
    """Return the two records of a connection that was seen to wait."""
    return seen(of, until, flags=WAITED | flags), seen(of, since, flags=ENTERED | flags)


def test_a_wait_ends_between_the_last_look_that_saw_it_and_the_first_that_did_not() -> None:
    """The wait lies between connect() and the moment at which a process was seen to own the connection."""
    one = unserved(1, 1.0, started=1.0, connected=1.01)

    assert bounds_of(one, *waited(one, 1.5, 1.01), seen(one, 1.6, inode=7)) == pytest.approx((0.49, 0.6))


def test_who_was_never_seen_to_wait_may_have_waited_not_at_all() -> None:
    """The wait ends with the answer at the latest, if that is before a process was seen to own the connection."""
    one = attempt(1, 1.0, started=1.0, connected=1.01, replied=1.2, ended=1.3)

    assert bounds_of(one, seen(one, 1.25, inode=7)) == pytest.approx((0.0, 0.2))


def test_an_end_of_stream_is_a_sign_of_accept() -> None:
    """The kernel sends no FIN for a connection that waits."""
    one = attempt(1, 1.0, started=1.0, connected=1.01, replied=None, ended=1.4, outcome=Outcome.EOF)

    assert bounds_of(one) == pytest.approx((0.0, 0.4))


def test_a_handshake_that_was_completed_late_begins_the_wait_late() -> None:
    """By the age of its socket, the client was connected two seconds before the socket existed."""
    one = unserved(1, 1.0, started=1.0, connected=1.01)

    assert bounds_of(one, *waited(one, 3.5, 3.0), seen(one, 3.6, inode=7)) == pytest.approx((0.492, 0.608))


def test_a_connection_that_took_several_syns_was_complete_shortly_before_that_was_noticed() -> None:
    """The wait does not begin when the first SYN leaves."""
    one = unserved(1, 1.0, started=1.0, connected=2.05, syn_retransmits=1, flags=AttemptFlag.WOKEN)

    assert bounds_of(one, seen(one, 2.25, inode=7)) == pytest.approx((0.0, 0.21))


def test_what_the_kernel_told_is_exact() -> None:
    """The kernel's stamps replace the readings of the table; accepts that were not traced are left out."""
    one = unserved(1, 1.0, started=1.0, connected=1.01)
    traced = waited(one, 1.31, 1.005, TRACED)
    made = recording([one], sockets=[*waited(one, 1.2, 1.01), *traced], server_command=["./server"])
    summary = summarise(made)

    assert summary.metrics["accept.max_s"] == pytest.approx(0.305)
    assert summary.metrics["accept.samples"] == 1
    assert "accept_least.max_s" not in summary.metrics


@pytest.mark.parametrize("flags", [0, TRACED])
def test_a_journal_that_was_full_in_between_says_nothing_of_that_wait(flags: int) -> None:
    """The record of a wait without the record of its beginning is not paired with the next one."""
    one, other = unserved(1, 1.0, started=1.0, connected=1.01), unserved(2, 0.1, started=0.1, connected=0.11, port=9)
    half, _ = waited(one, 1.5, 1.01, flags)
    made = recording([one, other], sockets=[half, seen(one, 1.6, inode=7), half], server_command=["./server"])
    bounds = Dataset.of(made).bounds

    assert bounds is not None
    assert (bounds.least.tolist(), bounds.most.tolist()) == ([0], [600_000_000])


def test_both_bounds_are_told() -> None:
    """accept.* is the upper bound, accept_least.* the lower one."""
    one = unserved(1, 1.0, started=1.0, connected=1.01)
    sockets = [*waited(one, 1.5, 1.01), seen(one, 1.6, inode=7)]
    metrics = summarise(recording([one], sockets=sockets, server_command=["./server"])).metrics

    assert metrics["accept.p50_s"] == pytest.approx(0.6)
    assert metrics["accept_least.p50_s"] == pytest.approx(0.49)


def test_a_server_of_which_nothing_is_seen_has_no_latency() -> None:
    """A server on another host has no accept latencies."""
    made = recording([attempt(1)], server_command=[], server_sockets_seen=False)

    assert Dataset.of(made).bounds is None
    assert "accept.samples" not in summarise(made).metrics
