"""Each fate at a server that writes no records has a proof; without one it is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from recordings import attempt, ns, recording, sample, seen, summarise, unanswered, unserved

from loadsim.analysis.ledger import settle
from loadsim.fates import Outcome
from loadsim.record.records import SocketFlag

if TYPE_CHECKING:
    from recordings import Row

END = SocketFlag.AT_END
CLIENT = SocketFlag.AT_END | SocketFlag.AT_CLIENT
JUDGED_S = 5.05
ESTABLISHED, SYN_RECV, FIN_WAIT1, TIME_WAIT, CLOSE_WAIT, LAST_ACK = 1, 3, 4, 6, 8, 9


def fate_of(of: Row, *sockets: Row, **changes: Any) -> str:  # noqa: ANN401 -- any fact
    """Return the fate of one attempt, given the sockets that were seen."""
    made = recording([of], sockets=sockets, server_command=["./server"], end_queue=10, **changes)
    return next(fate for fate, count in settle(made).fates().items() if count)


@pytest.mark.parametrize(
    ("socket", "fate"),
    [
        ({"at": 0.1, "inode": 7}, "accepted"),  # owned while the load lasted
        ({"at": JUDGED_S, "inode": 7, "state": CLOSE_WAIT, "flags": END}, "accepted"),
        ({"at": JUDGED_S, "state": LAST_ACK, "flags": END}, "accepted"),  # its process has closed it
        ({"at": JUDGED_S, "state": TIME_WAIT, "flags": END}, "accepted"),
        ({"at": JUDGED_S, "state": ESTABLISHED, "flags": END}, "queued"),
        ({"at": JUDGED_S, "state": CLOSE_WAIT, "flags": END}, "queued"),
        ({"at": JUDGED_S, "state": SYN_RECV, "flags": END}, "phantom"),
        ({"at": JUDGED_S, "state": FIN_WAIT1, "flags": CLIENT}, "phantom"),  # its FIN gets no answer
        ({"at": JUDGED_S, "state": TIME_WAIT, "flags": CLIENT}, "unknown"),
    ],
)
def test_a_socket_proves_a_fate(socket: dict[str, Any], fate: str) -> None:
    """The owner and the state of a socket prove the fate of its client."""
    one = unserved(1)
    assert fate_of(one, seen(one, **socket)) == fate


def test_a_client_that_has_a_socket_at_the_server_is_no_phantom() -> None:
    """The server's end of a connection decides before the client's."""
    one = unserved(1)
    ends = (seen(one, JUDGED_S, state=FIN_WAIT1, flags=CLIENT), seen(one, JUDGED_S, inode=7, flags=END))
    assert fate_of(one, *ends) == "accepted"


@pytest.mark.parametrize(
    ("of", "fate"),
    [
        (attempt(1), "accepted"),
        (attempt(1, outcome=Outcome.ERROR), "accepted"),
        (attempt(1, replied=None, outcome=Outcome.EOF), "accepted"),  # the kernel sends no FIN for a queued connection
        (attempt(1, replied=None, outcome=Outcome.RESET), "unknown"),
        (attempt(1, replied=None, outcome=Outcome.CONNECTED), "unknown"),
        (unserved(1), "unknown"),
        (unanswered(1), "dropped"),
        (attempt(1, connected=None, replied=None, outcome=Outcome.REFUSED), "refused"),
        (attempt(1, connected=None, replied=None, outcome=Outcome.LOCAL), "local"),
    ],
)
def test_what_a_client_saw_proves_a_fate(of: Row, fate: str) -> None:
    """An answer, or the end of the stream, comes from a server that has accepted; a reset may come from anywhere."""
    assert fate_of(of) == fate


def test_a_port_that_came_back_belongs_to_its_last_attempt() -> None:
    """A socket belongs to the last attempt that had started on its port."""
    early, late = unserved(1, 0.0, port=7), unserved(2, 3.0, port=7)
    made = recording(
        [early, late],
        sockets=[seen(early, 0.5, inode=7), seen(late, JUDGED_S, flags=END)],
        server_command=["./server"],
        end_queue=1,
    )
    assert settle(made).cells() == {"accepted": {"reply_timeout": 1}, "queued": {"reply_timeout": 1}}


def test_who_still_waits_has_waited_since_it_was_connected() -> None:
    """The client's own stamp is exact; the longest wait of those in the queue is known without the server."""
    rows = [unserved(1, 1.0), unserved(2, 2.0), attempt(3, 0.5)]
    sockets = [seen(one, JUDGED_S, state=ESTABLISHED, flags=END) for one in rows[:2]]
    metrics = summarise(recording(rows, sockets=sockets, server_command=["./server"], end_queue=2)).metrics

    assert metrics["accept.waiting"] == 2
    assert metrics["accept.waiting_max_s"] == pytest.approx(5.1 - 1.0, abs=0.001)


def test_more_waiting_than_the_queue_capacity_unbalances_the_books() -> None:
    """The table and the queue of a server that was stopped must agree."""
    one = unserved(1)
    made = recording([one], sockets=[seen(one, JUDGED_S, flags=END)], server_command=["./server"], end_queue=0)
    assert settle(made).imbalance != []


def test_what_cannot_be_known_is_absent() -> None:
    """There are no joins, and no EMFILE metrics if it may not be counted."""
    made = summarise(recording([attempt(1)], server_command=["./server"], server_emfile_seen=False))
    unknown = {"join.foreign", "emfile.count", "emfile.accept", "emfile.handler"}
    assert unknown & set(made.metrics) == set()
    assert made.growth == []


def test_nothing_is_said_of_what_nobody_can_look_into() -> None:
    """A server on another host has no descriptors and no queue; a SYN without an answer proves nothing there."""
    nowhere: Row = {"server_process_seen": False, "server_sockets_seen": False, "server_emfile_seen": False}
    rows = [attempt(1), unserved(2), unanswered(3), attempt(4, connected=None, replied=None, outcome=Outcome.REFUSED)]
    blind = {"open_fds": -1, "fd_limit": -1, "queue": -1, "queue_capacity": -1, "cpu_ns": -1, "rss": -1, "drops": -1}
    samples = [sample(at, **blind) for at in (-0.1, 1.0)]
    facts: Row = {"server_command": [], "server_started": False, "server_backlog": None, "namespace": "shared"}
    made = summarise(recording(rows, samples=samples, end_queue=None, **facts, **nowhere))
    prefixes = ("fds.", "server.", "emfile.", "queue.", "listen.", "accept.")
    assert [name for name in made.metrics if name.startswith(prefixes)] == []
    assert {fate: count for fate, count in made.ledger.items() if count} == {"accepted": 1, "refused": 1, "unknown": 2}


def test_two_looks_at_a_server_that_goes_on_need_not_agree() -> None:
    """A server that goes on may accept between two readings, which is not an imbalance."""
    one = unserved(1)
    going_on: Row = {"server_command": [], "server_started": False}
    assert settle(recording([one], sockets=[seen(one, JUDGED_S, flags=END)], end_queue=0, **going_on)).imbalance == []


def test_a_server_that_nobody_here_started_ends_for_reasons_of_its_own() -> None:
    """The moment of its end is known, and no exit status is invented."""
    facts: Row = {"server_command": ["nginx"], "server_started": False, "server_exited_ns": ns(1.0), "end": None}
    made = summarise(recording([attempt(1), unserved(2, 0.9)], **facts))
    ended = next(finding for finding in made.findings if finding.id == "target-ended")
    assert ended.title == "The server ended after 1.0 s."
    assert "its own log" in (ended.remedy or "")


def test_a_server_at_its_limit_is_out_of_descriptors_also_where_emfile_cannot_be_seen() -> None:
    """All descriptors that it may have are open; failures are not claimed."""
    full = [sample(at, open_fds=64, fd_limit=64) for at in (1.0, 1.5)]
    made = summarise(recording([attempt(1)], samples=full, server_command=["./server"], server_emfile_seen=False))
    first = made.findings[0]
    assert (first.id, made.status) == ("fd-limit", "REPRODUCED")
    assert "could not be observed" in first.evidence


def test_the_log_is_counted_until_the_judgement() -> None:
    """The log rate is in bytes per second from the start of the load."""
    made = summarise(recording([attempt(1)], server_command=["./server"], server_log_bytes=5_100_000))
    assert made.metrics["server.log_rate"] == pytest.approx(1e6)
