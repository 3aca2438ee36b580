"""Artificial runs, one for each kind of failure, for tests of findings and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recordings import Row, accept, attempt, failure, ns, recording, sample, settings, unanswered, unserved

from loadsim.fates import Outcome
from loadsim.record.records import AcceptFlag, AttemptFlag, Where

if TYPE_CHECKING:
    from loadsim.record.recording import Recording

#: 200 clients a second.
STEP_S = 0.005


def healthy(count: int = 400, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run in which every client is accepted within 30 us and served."""
    rows = [attempt(n, n * STEP_S) for n in range(1, count + 1)]
    return recording(rows, [accept(row, 30e-6) for row in rows], **{"samples": quiet(), **changes})


def quiet(backlog: int = 128) -> list[Row]:
    """Return samples of an idle server."""
    read: Row = {"open_fds": 9, "queue": 0, "queue_capacity": backlog + 1, "fd_limit": 64, **counters()}
    return [sample(0.1 * n, **read) for n in range(-1, 50)]


def counters(**changes: int) -> Row:
    """Return the counters of a namespace without losses."""
    zero = dict.fromkeys(("listen_overflows", "listen_drops", "drops", "cookies"), 0)
    return {**zero, "fd_size": 64, "cpu_ns": 0, **changes}


def exhausted(count: int = 300, *, room: int = 56, queue: int = 129, leaks: bool = True, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run in which the first clients take all descriptors, then the queue fills, then SYNs are dropped."""
    rows, accepts = [], []
    for n in range(count):
        at = n * STEP_S
        if n < room:
            rows.append(attempt(n + 1, at, ended=at + 0.001 if leaks else at + 4.0))
            closed = None if leaks else at + 4.0
            accepts.append(accept(rows[-1], 30e-6, fd=8 + n, open_fds=9 + n, closed=closed))
        elif n < room + queue:
            rows.append(unserved(n + 1, at))
            accepts.append(accept(rows[-1], 6.0 - at + n * 1e-5, state=8, flags=AcceptFlag.AFTER_END))
        else:
            rows.append(unanswered(n + 1, at, syn_retransmits=2))
    failures = [failure(room * STEP_S + 0.1 * n) for n in range(40)]
    full = [sample(0.1 * n, open_fds=64, **counters(listen_overflows=20 * n)) for n in range(10, 40)]
    samples = [sample(-0.1, open_fds=8, **counters()), *full]
    made: Row = {"end_queue": min(queue, max(count - room, 0)), "end_fds_end": 64 if leaks else 8, **changes}
    return recording(rows, accepts, failures, samples, **made)


def pausing(*, pause_s: float = 0.1, backlog: int = 128, seconds: int = 2, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run at 1,000 clients per second; its server pauses at the beginning of each half second.

    Clients that meet a full queue connect a second later.
    """
    rows, accepts = [], []
    for n in range(seconds * 1000):
        at = n / 1000
        into = n % 500 / 1000
        if into >= pause_s:
            rows.append(attempt(n + 1, at))
            accepts.append(accept(rows[-1], 30e-6))
        elif into * 1000 < backlog + 1:
            rows.append(attempt(n + 1, at, ended=at + 0.5))
            accepts.append(accept(rows[-1], pause_s - into))
        else:
            late = at + 1.0 + pause_s
            rows.append(attempt(n + 1, at, connected=late, replied=late, ended=late + 0.001, syn_retransmits=1))
            accepts.append(accept(rows[-1], 30e-6))
    made: Row = {"server_backlog": backlog, "server_backlog_asked": backlog, "samples": quiet(backlog)}
    return recording(rows, accepts, **{**made, **changes})


def slow(*, each_s: float = 0.05, count: int = 200, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run at 200 clients per second; its server needs 50 ms for each, and all fit into the queue."""
    rows = [attempt(n + 1, n * STEP_S, replied=None, ended=30.0) for n in range(count)]
    accepts = [accept(row, each_s * (n + 1) - n * STEP_S) for n, row in enumerate(rows)]
    return recording(rows, accepts, **{"server_backlog": 1000, "load_end_ns": ns(30), "judged_ns": ns(31), **changes})


def phantoms(*, count: int = 100, accepted: int = 4, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run in which all clients connect at once, few are accepted and the others get no reply."""
    rows = [attempt(n + 1, n * 1e-4) if n < accepted else unserved(n + 1, n * 1e-4) for n in range(count)]
    seen = [sample(0.0, **counters()), sample(1.0, **counters(cookies=80, drops=9, listen_drops=6))]
    made: Row = {"samples": seen, "end_server_states": {"SYN_RECV": 2}, "sysctls": {"net.ipv4.tcp_syncookies": "1"}}
    return recording(rows, [accept(row, 30e-6) for row in rows[:accepted]], **{**made, **changes})


def stalling(*, threads: int = 2, stall_s: float = 0.012, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run with a server that keeps 300 connections; its table grows at fd 64, 128 and 256."""
    rows = [attempt(n, n * STEP_S, ended=None, flags=AttemptFlag.PENDING) for n in range(300)]
    accepts, free = [], 0.0
    for n, row in enumerate(rows):
        free = max(row["connected"], free) + (stall_s if 8 + n in (64, 128, 256) else 1e-5)
        accepts.append(accept(row, free - row["connected"], fd=8 + n, open_fds=9 + n, closed=None))
    samples = [sample(0.0, fd_size=64), sample(1.0, fd_size=256), sample(2.0, fd_size=512)]
    made: Row = {"server_threads": threads, "server_nofile_soft": 1000, "settings": settings(server={"nofile": 1000})}
    return recording(rows, accepts, samples=samples, **{**made, **changes})


def dying(status: int = -9, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run with a server that ends after a second: two clients are queued, later ones are refused."""
    served = [attempt(n, n * STEP_S) for n in range(1, 100)]
    queued = [unserved(n, 0.9, ended=1.0, outcome=Outcome.RESET) for n in (101, 102)]
    later = [unanswered(n, 1.0 + n * STEP_S, outcome=Outcome.REFUSED, syn_retransmits=0) for n in range(103, 110)]
    made: Row = {"server_exit_status": status, "server_exited_ns": ns(1.0), "end": None}
    accepts = [accept(row, 30e-6) for row in served]
    return recording([*served, *queued, *later], accepts, **{**made, **changes})


def failing_handlers(**changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run in which a quarter of the requests finds no free descriptor."""
    rows = [attempt(n, n * STEP_S, outcome=Outcome.ERROR if n % 4 == 0 else Outcome.OK) for n in range(1, 101)]
    accepts = [accept(row, 30e-6, flags=AcceptFlag.FAILED if row["number"] % 4 == 0 else 0) for row in rows]
    failures = [failure(0.5, 25, where=Where.HANDLER)]
    return recording(rows, accepts, failures, **{"settings": settings(server={"extra_fds": 2}), **changes})
