"""Every finding appears in the runs that show it, with their numbers, and in no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scenes
from recordings import accept, attempt, failure, ns, recording, sample, seen, settings, summarise, unanswered, unserved

from loadsim.analysis.findings.registry import FINDINGS
from loadsim.fates import Outcome
from loadsim.record.facts import StepFacts
from loadsim.record.records import AcceptFlag, AttemptFlag, SocketFlag, Where

if TYPE_CHECKING:
    from recordings import Row

    from loadsim.analysis.summary import Finding, Summary
    from loadsim.record.facts import DriverFacts
    from loadsim.record.recording import Recording


def ids(made: Recording) -> list[str]:
    """Return the ids of the findings of a run, in their order."""
    return [finding.id for finding in summarise(made).findings]


def finding(made: Recording, wanted: str) -> Finding:
    """Return one finding of a run."""
    return next(finding for finding in summarise(made).findings if finding.id == wanted)


SCENES: list[tuple[str, Recording, list[str]]] = [
    ("healthy", scenes.healthy(), ["nothing-found"]),
    ("no clients", recording(), ["nothing-found"]),
    ("leak", scenes.exhausted(), ["fd-leak", "false-connect", "queue-overflow"]),
    ("honest load", scenes.exhausted(leaks=False), ["fd-limit", "false-connect", "queue-overflow"]),
    ("handlers", scenes.failing_handlers(), ["fd-limit", "emfile-handler"]),
    ("pauses that the backlog holds", scenes.pausing(), ["slow-accept"]),
    ("pauses beyond the backlog", scenes.pausing(backlog=8), ["slow-accept", "queue-overflow", "syn-delay"]),
    ("slow", scenes.slow(), ["slow-accept"]),
    ("phantoms", scenes.phantoms(), ["phantom-connections"]),
    ("some phantoms", scenes.phantoms(count=10, accepted=8), ["phantom-connections"]),
    ("stalls", scenes.stalling(), ["fd-table-stall"]),
    ("stalls as long as pauses", scenes.stalling(stall_s=0.03), ["fd-table-stall"]),
    ("one thread", scenes.stalling(threads=1), ["nothing-found"]),
    ("no stalls", scenes.stalling(stall_s=30e-6), ["nothing-found"]),
    ("killed", scenes.dying(), ["target-ended"]),
    ("foreign", scenes.healthy(end_queue=0), ["nothing-found"]),
]


@pytest.mark.parametrize(("made", "expected"), [scene[1:] for scene in SCENES], ids=[scene[0] for scene in SCENES])
def test_a_run_has_the_findings_that_it_shows_and_no_others(made: Recording, expected: list[str]) -> None:
    """Causes come before their consequences."""
    assert ids(made) == expected


@pytest.mark.parametrize("made", [scene[1] for scene in SCENES], ids=[scene[0] for scene in SCENES])
def test_findings_are_sentences_with_numbers_and_remedies(made: Recording) -> None:
    """Each finding is explained, its title is a sentence, and a fault has a remedy; no text contains None or nan."""
    for one in summarise(made).findings:
        assert one.id in FINDINGS
        assert one.title.endswith(".")
        assert one.remedy or not one.fault
        assert not {"None", "nan", "inf"} & set(f"{one.title} {one.evidence} {one.remedy or ''}".split())
        assert "  " not in one.evidence


def test_a_leak_states_what_a_higher_limit_buys() -> None:
    """A higher limit buys time, at the rate of the leak."""
    leak = finding(scenes.exhausted(), "fd-leak")
    assert leak.title == "The server leaked every descriptor it was given."
    assert leak.evidence == "56 of 56 accepted connections are still open, although their clients have left."
    assert leak.remedy == (
        'close the socket when recv() returns b"". A higher limit buys time only: at this rate nofile = 65536 lasts '
        "5 min 22 s."
    )
    assert summarise(scenes.exhausted()).sentence == '"Too many open files" after 280 ms, because nothing is closed.'


def leaking_some(*, limit: int, **changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run that leaks every fourth of its 100 connections."""
    rows = [attempt(n, n * scenes.STEP_S) for n in range(1, 101)]
    accepts = [accept(row, 30e-6, closed=None if row["number"] % 4 == 0 else 1.0) for row in rows]
    return recording(rows, accepts, server_nofile_soft=limit, end_fds_end=33, **changes)


def test_a_leak_below_the_limit_states_how_long_the_limit_lasts() -> None:
    """25 leaked descriptors in half a second are 50 a second: the other 992 last 20 s."""
    leak = finding(leaking_some(limit=1000, settings=settings(server={"nofile": 1000})), "fd-leak")
    assert leak.title == "The server leaked 25 descriptors: 25 % of its connections are never closed."
    assert leak.remedy == 'close the socket when recv() returns b"". At this rate nofile = 1000 lasts 20 s.'


def test_a_small_leak_beside_honest_load_comes_second() -> None:
    """Load used up the limit if less than half of the headroom had leaked by then; the leak is reported after it."""
    made = leaking_some(limit=64, failures=[failure(0.4)])
    assert ids(made) == ["fd-limit", "fd-leak"]
    assert "Nothing leaked" not in finding(made, "fd-limit").evidence


def test_a_leak_of_requests_is_distinguished_from_one_of_connections() -> None:
    """Descriptors that are open at the end and are not connections were opened by requests."""
    rows = [attempt(n, n * scenes.STEP_S) for n in range(1, 101)]
    accepts = [accept(row, 30e-6, open_fds=min(8 + row["number"], 64)) for row in rows]
    tables = settings(server={"leak": 1.0, "leak_of": "extra", "extra_fds": 1})
    made = recording(rows, accepts, [failure(0.4, where=Where.HANDLER)], end_fds_end=64, settings=tables)
    leak = finding(made, "fd-leak")
    assert leak.title == "The server leaked 56 descriptors that its requests had opened."
    assert leak.remedy is not None
    assert leak.remedy.startswith(
        "close everything that a request opens, on every path out of its handler. A higher limit"
    )
    assert ids(made) == ["fd-leak", "emfile-handler"]
    unreached = recording(rows, [accept(row, 30e-6) for row in rows], end_fds_end=20, settings=tables)
    assert finding(unreached, "fd-leak").remedy == (
        "close everything that a request opens, on every path out of its handler. At this rate nofile = 64 lasts 2.3 s."
    )


def test_a_leaked_connection_keeps_what_its_request_opened() -> None:
    """Ten leaked connections with two more descriptors each use up 30 of 30: this is a leak, not an honest load."""
    rows = [attempt(n, n * scenes.STEP_S) for n in range(1, 21)]
    accepts = [
        accept(row, 30e-6, open_fds=8 + 3 * n, closed=None if row["number"] % 2 else 1.0)
        for n, row in enumerate(rows, start=1)
    ]
    tables = settings(server={"extra_fds": 2, "nofile": 38})
    made = recording(
        rows, accepts, [failure(0.4)], server_nofile_soft=38, end_fds_end=38, end_open_fds=38, settings=tables
    )
    leak = finding(made, "fd-leak")
    assert summarise(made).metrics["fds.leaked"] == 30
    assert leak.title == "The server leaked 30 descriptors: 50 % of its connections are never closed."
    assert leak.evidence.startswith("10 of 20 accepted connections are still open, ")
    assert leak.evidence.endswith(" Each keeps 3 descriptors.")
    assert ids(made) == ["fd-leak"]


def test_a_leak_that_takes_all_in_the_end_comes_first() -> None:
    """A leak that used up all descriptors by the end is the cause, even if load had reached the limit before."""
    early = [attempt(n, n * 1e-3, ended=0.3) for n in range(1, 57)]
    late = [attempt(n, 0.4 + n * 1e-3) for n in range(57, 113)]
    accepts = [accept(row, 30e-6, open_fds=8 + row["number"], closed=0.35) for row in early]
    accepts += [accept(row, 30e-6, open_fds=row["number"] - 48, closed=None) for row in late]
    made = recording([*early, *late], accepts, [failure(0.1), failure(0.6)], end_fds_end=64)
    assert ids(made) == ["fd-leak"]


def dying_at_the_limit(*, leaks: bool) -> Recording:
    """Return a run in which the server dies of its first EMFILE; its clients had left, or its end cuts them off."""
    left: Row = {"ended": 0.5} if leaks else {"ended": 1.0, "flags": AttemptFlag.CUT}
    rows = [attempt(n, n * scenes.STEP_S, **left) for n in range(1, 57)]
    accepts = [accept(row, 30e-6, open_fds=8 + row["number"], closed=None) for row in rows]
    made: Row = {"server_exit_status": 1, "server_exited_ns": ns(1.005), "end": None}
    return recording(rows, accepts, [failure(0.99)], **made)


def test_a_server_that_dies_of_its_limit_had_a_reason() -> None:
    """It was a leak if the clients had left before the server ended, otherwise an honest load."""
    leak = dying_at_the_limit(leaks=True)
    assert ids(leak) == ["target-ended", "fd-leak"]
    assert finding(leak, "fd-leak").evidence == (
        "56 of 56 accepted connections were still open when it ended, although their clients had left."
    )
    assert ids(dying_at_the_limit(leaks=False)) == ["target-ended", "fd-limit"]


def test_a_leak_without_a_rate_predicts_no_time() -> None:
    """Descriptors that all leak at the start give no rate."""
    row = attempt(1, 0.0, connected=-0.1)
    leak = finding(recording([row], [accept(row, 0.1, closed=None)]), "fd-leak")
    assert leak.remedy == 'close the socket when recv() returns b"".'


def test_honest_load_names_the_limit_that_would_have_sufficed() -> None:
    """It is about the clients at once plus the server's own descriptors."""
    limit = finding(scenes.exhausted(leaks=False, count=150), "fd-limit")
    assert limit.title == "The server ran out of descriptors: 64 descriptors are too few for 150 clients at once."
    assert "nofile = 64 serves 56 at once." in limit.evidence
    assert "If no client had waited for a descriptor, about 150 would have been connected at once." in limit.evidence
    assert "Nothing leaked: this is load." in limit.evidence
    assert limit.remedy is not None
    assert limit.remedy.startswith("raise nofile to about 158 (ulimit -n, LimitNOFILE= in systemd)")
    assert limit.remedy.endswith("accept at most 56 at once.")  # without a leak that limit is enough


def test_the_advised_limit_counts_shed_clients() -> None:
    """A shed client counts for as long as the served clients stay."""
    served = [attempt(n, n * scenes.STEP_S, ended=n * scenes.STEP_S + 0.5) for n in range(1, 57)]
    shed = [
        unserved(n, n * scenes.STEP_S, ended=n * scenes.STEP_S + 0.001, outcome=Outcome.EOF) for n in range(57, 157)
    ]
    accepts = [accept(row, 30e-6, open_fds=8 + row["number"], closed=row["ended"]) for row in served]
    accepts += [accept(row, 30e-6, open_fds=64, flags=AcceptFlag.SHED) for row in shed]
    made = recording([*served, *shed], accepts, [failure(0.29)])
    assert "are too few for 102 clients at once" in finding(made, "fd-limit").title
    assert "about 102 would have been connected at once" in finding(made, "fd-limit").evidence
    closed = settings(client={"clients": 70, "rate": None})
    assert (
        "too few for 70 clients" in finding(replace(made, facts=replace(made.facts, settings=closed)), "fd-limit").title
    )


def kept_waiting(**changes: Any) -> Recording:  # noqa: ANN401 -- as for `recording`
    """Return a run at 200 clients a second that each need 1 ms; one in twenty is served, the others wait for 2 s."""
    rows = [
        attempt(n, n * scenes.STEP_S) if n % 20 == 0 else unserved(n, n * scenes.STEP_S, syn_retransmits=0)
        for n in range(1, 401)
    ]
    accepts = [accept(row, 30e-6, closed=row["ended"]) for row in rows if row["number"] % 20 == 0]
    return recording(rows, accepts, [failure(0.1)], **{"server_nofile_soft": 12, **changes})


def test_the_advised_limit_ignores_waits_that_the_exhaustion_caused() -> None:
    """400 clients were in progress at once only because they waited; without that wait there are five."""
    limit = finding(kept_waiting(), "fd-limit")
    assert limit.title == "The server ran out of descriptors: 12 descriptors are too few for 5 clients at once."
    assert limit.remedy is not None
    assert limit.remedy.startswith("raise nofile to about 13 ")


def test_the_advised_limit_holds_the_clients_of_the_longest_pause() -> None:
    """Clients that arrive in a pause of the server are accepted together at its end."""
    made = kept_waiting()
    rows = [attempt(n, n * 0.001, replied=2.7, ended=2.7) for n in range(2500, 2550)]
    accepts = [accept(row, 2.7 + n * 1e-6 - row["connected"], closed=2.701) for n, row in enumerate(rows)]
    pausing = recording(rows, accepts)
    both = replace(
        made,
        attempts=np.concatenate([made.attempts, pausing.attempts]),
        accepts=np.sort(np.concatenate([made.accepts, pausing.accepts]), order="accepted"),
    )
    needed = int(str(finding(both, "fd-limit").remedy).split("about ")[1].split(" ")[0])
    assert 8 + 50 <= needed <= 8 + 60


def test_the_advised_limit_of_a_command_comes_from_its_clients() -> None:
    """A reply takes 0.5 ms, and a client that waited a second for it does not count for longer than the others."""
    slow = [attempt(n, 0.01 * n, replied=0.01 * n + 1.0, ended=0.01 * n + 1.0005) for n in range(1, 100)]
    quick = [attempt(n, 2.0 + 0.01 * n) for n in range(100, 150)]
    made = recording(
        [*slow, *quick], failures=[failure(0.1)], server_nofile_soft=12, server_command=["./server"],
        sockets=[seen(row, row["replied"], inode=9) for row in slow],
    )  # fmt: skip
    assert "too few for 5 clients at once" in finding(made, "fd-limit").title


def test_the_advised_limit_counts_connections_that_are_still_closing() -> None:
    """40 clients of a closed loop connect again before the server has closed their last connection."""
    turns = settings(client={"clients": 40, "rate": None, "hold": 0.05})
    limit = finding(kept_waiting(settings=turns), "fd-limit")
    assert limit.title.endswith("too few for 40 clients at once.")
    assert limit.remedy is not None
    assert limit.remedy.startswith("raise nofile to about 52 ")


def test_the_advised_limit_counts_canaries_and_held_clients() -> None:
    """They are not part of the load, but use descriptors of the same server."""
    held = [attempt(n, 0.1 * n, port=500 + n % 3) for n in range(9)]
    canary = [attempt(n, 0.1 * n) for n in range(9)]
    assert "too few for 7 clients" in finding(kept_waiting(held=held, canary=canary), "fd-limit").title


def test_a_leak_beside_honest_load_will_use_up_any_limit() -> None:
    """A higher limit buys time only if something leaks."""
    limit = finding(leaking_some(limit=64, failures=[failure(0.4)], samples=[sample(0.4, open_fds=64)]), "fd-limit")
    assert "A higher limit buys time only" in str(limit.remedy)


def test_false_connects_are_clients_that_were_not_accepted_in_time() -> None:
    """They are still queued at the end, or gave up before accept() returned them."""
    gave_up = unserved(999, 1.0)
    made = scenes.exhausted()
    late = recording([gave_up], [accept(gave_up, 3.0)], [failure(1.5)])
    assert (
        finding(made, "false-connect").title == "129 clients connected to a server that could not accept them in time."
    )
    assert "backlog 128 holds 129" in finding(made, "false-connect").evidence
    assert finding(late, "false-connect").title == "1 client connected to a server that could not accept it in time."
    assert "The longest wait so far" not in finding(late, "false-connect").evidence


def spinning(count: int, cores: float | None = 0.9) -> Recording:
    """Return a run with two seconds at the limit and this number of failed calls."""
    cpu = {} if cores is None else {"cpu_ns": 0}
    samples = [sample(1.0 + n, open_fds=64, **{key: round((cores or 0) * n * 1e9) for key in cpu}) for n in range(3)]
    samples.append(sample(3.001, open_fds=9))
    return recording([attempt(1)], [accept(attempt(1))], [failure(1.0, count, last=3.0)], samples)


@pytest.mark.parametrize(("count", "spins"), [(40, False), (150, False), (250, True), (100_000, True)])
def test_a_spin_is_more_than_a_hundred_failures_a_second(*, count: int, spins: bool) -> None:
    """Nginx retries 2 times a second, Go and trio 1 to 10 times."""
    assert ("emfile-spin" in ids(spinning(count))) == spins


def test_cheap_retries_are_not_a_spin() -> None:
    """A server that sleeps for 5 ms after each failure retries 200 times a second and uses little CPU."""
    assert "emfile-spin" not in ids(spinning(400, 0.04))
    assert "emfile-spin" in ids(spinning(400, 0.15))


@pytest.mark.parametrize("flags", [0, AcceptFlag.SHED])
def test_failures_that_each_serve_a_client_are_not_a_spin(flags: int) -> None:
    """There is one failure for each shed batch, or for each client that takes the last descriptor."""
    rows = [attempt(n, 1.0 + n * scenes.STEP_S) for n in range(400)]
    accepts = [accept(row, 30e-6, open_fds=64, flags=flags) for row in rows]
    failures = [failure(row["connected"] + 25e-6, last=row["connected"] + 25e-6) for row in rows]
    samples = [sample(1.0 + 0.01 * n, open_fds=64, cpu_ns=round(9e6 * n)) for n in range(200)]
    assert "emfile-spin" not in ids(recording(rows, accepts, failures, samples))


def test_a_spin_states_its_cost() -> None:
    """It names the accepted clients, and the CPU at the limit if that was measured."""
    assert "100,000 calls of accept() failed with EMFILE, and no client was accepted meanwhile." in (
        finding(spinning(100_000), "emfile-spin").evidence
    )
    assert finding(spinning(100_000), "emfile-spin").evidence.endswith("At the limit it used 0.90 cores.")
    assert "cores" not in finding(spinning(100_000, None), "emfile-spin").evidence


def test_failing_handlers_name_the_headroom() -> None:
    """A connection and the descriptors of its request must fit below the limit together."""
    found = finding(scenes.failing_handlers(), "emfile-handler")
    assert found.title == "25 clients were accepted and then failed: no descriptor was left for the request."
    assert "25 clients got an error reply." in found.evidence
    assert found.remedy is not None
    assert found.remedy.startswith("accept at most 18 clients at once")


def test_shed_clients_are_a_finding() -> None:
    """The server accepted them and closed them at once."""
    row = attempt(1, outcome=Outcome.EOF, replied=None)
    made = recording([row], [accept(row, flags=AcceptFlag.SHED)], [failure(0.0)])
    assert ids(made) == ["fd-limit", "shed-clients"]


def test_a_server_that_raised_its_own_limit_is_information() -> None:
    """The finding needs a limit in the scenario."""
    assert ids(scenes.healthy(server_nofile_soft=20_000)) == ["nothing-found", "limit-raised"]
    unasked = settings(server={"nofile": None})
    assert ids(scenes.healthy(server_nofile_soft=20_000, settings=unasked)) == ["nothing-found"]


def test_an_overflow_names_the_backlog_that_would_have_held() -> None:
    """100 clients arrive in each pause, so a backlog of about 100 is needed."""
    found = finding(scenes.pausing(backlog=8), "queue-overflow")
    assert found.remedy is not None
    backlog = int(found.remedy.split("about ")[1].split(" ")[0])
    assert 95 <= backlog <= 105
    assert "would have held all of them: listen(fd," in found.remedy
    here = finding(scenes.pausing(backlog=8, sysctls={"net.core.somaxconn": "4096"}), "queue-overflow")
    assert here.remedy is not None
    assert here.remedy.endswith("(here 4096).")


def stepping(before: int, after: int, *, at: float = 0.5) -> Recording:
    """Return a run at 40 clients a second with a server that accepts 10 a second; a step changes its backlog.

    Clients that meet a full queue give up after 300 ms.
    """
    rows, accepts, free = [], [], 0.0
    queue: list[float] = []
    for n in range(80):
        now = n / 40
        queue = [taken for taken in queue if taken > now]
        if len(queue) > (before if now < at else after):
            rows.append(unanswered(n + 1, now, ended=now + 0.3, syn_retransmits=0))
            continue
        free = max(free, now) + 0.1
        queue.append(free)
        rows.append(attempt(n + 1, now, replied=free, ended=free))
        accepts.append(accept(rows[-1], free - rows[-1]["connected"]))
    step = StepFacts(change="backlog", asked=after, done_ns=ns(at), before=before, after=after)
    lost = sum(row["connected"] is None for row in rows)
    samples = [sample(0.0, **scenes.counters()), sample(2.0, **scenes.counters(listen_overflows=lost))]
    made: Row = {"server_backlog_asked": before, "server_backlog": before, "steps": [step]}
    return recording(rows, accepts, samples=samples, load_end_ns=ns(6.0), judged_ns=ns(6.2), **made)


def test_an_overflow_ends_when_a_step_raises_the_backlog() -> None:
    """The queue is full until the step, not for the rest of the load; both backlogs are named."""
    summary = summarise(stepping(4, 200))
    found = finding(stepping(4, 200), "queue-overflow")
    full = summary.metrics["queue.full_share"]
    assert 0.04 < full < 0.07
    assert f"was full for {full * 100:.0f} % of the load" in found.evidence
    assert "(backlog 4 holds 5, after 500 ms backlog 200 holds 201)" in found.evidence
    assert (summary.metrics["queue.capacity"], summary.timeline.queue_capacity) == (201, None)


def test_the_advised_backlog_is_near_one_that_held_the_load() -> None:
    """With backlog 200 about 55 clients wait at the end; the advice for a backlog that fell to 4 is near that."""
    kept = summarise(stepping(200, 200)).metrics["queue.max"]
    lowered = finding(stepping(200, 4), "queue-overflow")
    assert "after 500 ms backlog 4 holds 5" in lowered.evidence
    assert lowered.remedy is not None
    advised = int(lowered.remedy.split("listen(fd, ")[1].split(")")[0])
    assert kept - 5 <= advised <= kept + 5


def test_a_capped_backlog_of_a_step_is_reported() -> None:
    """The kernel applies the cap at each listen(), not only at the first."""
    step = StepFacts(change="backlog", asked=4096, done_ns=ns(0.5), before=4, after=128)
    made = scenes.healthy(server_backlog_asked=4, server_backlog=4, samples=scenes.quiet(4), steps=[step])
    assert finding(made, "somaxconn-cap").title == "The server asked for a backlog of 4,096 and got 128."


def test_an_overflow_without_descriptors_is_a_consequence() -> None:
    """A larger backlog would only hide more clients."""
    found = finding(scenes.exhausted(), "queue-overflow")
    assert found.title.startswith("115 clients got no answer: 780 SYNs met a full queue.")
    assert found.remedy is not None
    assert found.remedy.startswith("a consequence of running out of descriptors: fix that first.")


def test_an_overflow_that_lasts_needs_a_faster_acceptor() -> None:
    """The queue never ran empty again while clients arrived."""
    queued = [unserved(n, 0.01 * n, ended=9.0) for n in range(1, 6)]
    dropped = [unanswered(n, 0.01 * n) for n in range(6, 50)]
    accepts = [accept(row, 1.0 * n) for n, row in enumerate(queued)]
    samples = [sample(0.0, **scenes.counters()), sample(1.0, **scenes.counters(listen_overflows=50, drops=51))]
    made = recording([*queued, *dropped], accepts, samples=samples, server_backlog=3)
    found = finding(made, "queue-overflow")
    assert found.title == "44 clients got no answer: 50 SYNs and ACKs met a full queue."
    assert found.remedy is not None
    assert found.remedy.startswith("accept faster: the server never caught up while clients arrived.")


def test_phantoms_are_not_late_clients() -> None:
    """A client that connected with a repeated SYN and has no socket at the server is a phantom, not late."""
    rows = [unserved(n, 0.0, connected=1.0, ended=3.0, syn_retransmits=1) for n in (1, 2)]
    lost = [sample(0.0, **scenes.counters()), sample(1.0, **scenes.counters(listen_overflows=4))]
    found = finding(recording(rows, samples=lost), "queue-overflow")
    assert found.title == "The accept queue was full: 4 SYNs and ACKs met a full queue."


def test_an_overflow_without_affected_clients_is_reported() -> None:
    """The kernel counted lost packets, although no client and no full queue was seen."""
    lost = [sample(0.0, **scenes.counters()), sample(1.0, **scenes.counters(listen_overflows=4))]
    found = finding(scenes.healthy(samples=lost), "queue-overflow")
    assert found.title == "The accept queue was full: 4 SYNs met a full queue."
    assert "first after" not in found.evidence
    assert found.remedy is not None
    assert found.remedy.startswith("a backlog of about")


def test_clients_that_an_overflow_delayed_are_counted() -> None:
    """The clients' retransmits are enough if no counter was read."""
    found = finding(scenes.pausing(backlog=8), "queue-overflow")
    assert found.title == "364 clients entered the queue late: their SYNs met a full queue."


@pytest.mark.parametrize(
    ("sysctls", "says"),
    [
        ({"net.ipv4.tcp_syn_linear_timeouts": "4"}, "3 after about 1.0 s, 1 after about 3.0 s"),
        ({}, "3 after about 1.0 s, 1 after about 3.0 s"),
        ({"net.ipv4.tcp_syn_retries": "1"}, "4 after about 1.0 s"),
    ],
)
def test_repeated_syns_are_timed_by_this_kernels_sysctls(sysctls: dict[str, str], says: str) -> None:
    """The delay of each client is matched to the retransmission timer of its kernel."""
    rows = [delayed(n, took) for n, took in enumerate([1.001, 1.01, 1.03, 3.02], start=1)]
    made = recording(rows, [accept(row) for row in rows], sysctls=sysctls)
    found = finding(made, "syn-delay")
    assert found.title == "4 clients connected at least 1.0 s late: a SYN was lost."
    assert says in found.evidence


def delayed(number: int, took: float, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return an attempt with a connect() of this duration and a SYN that was sent again."""
    at = 0.1 * number
    times = {"connected": at + took, "replied": at + took, "ended": at + took + 0.001}
    return attempt(number, at, syn_retransmits=1, flags=AttemptFlag.WOKEN, **times, **changes)


def test_a_syn_sent_again_within_milliseconds_was_not_lost() -> None:
    """It met an old connection with its 4-tuple and was answered with a challenge ACK: nothing went wrong."""
    rows = [delayed(n, 0.010 + 0.001 * n) for n in range(1, 5)]
    summary = summarise(recording(rows, [accept(row) for row in rows], samples=scenes.quiet()))
    assert (summary.status, [one.id for one in summary.findings]) == ("HEALTHY", ["nothing-found"])
    assert [summary.metrics[name] for name in ("attempts.delayed", "attempts.late", "syn.retransmits")] == [0, 0, 4]


def test_a_full_queue_is_named_as_the_cause_of_a_delay_only_if_it_was_seen() -> None:
    """Packets are also lost elsewhere, on the way or at the backlog of a device."""
    rows = [delayed(n, 1.02) for n in range(1, 5)]
    lost = finding(recording(rows, [accept(row) for row in rows], samples=scenes.quiet()), "syn-delay")
    assert lost.remedy is not None
    assert lost.remedy.startswith("look for packet loss on the way, since no full accept queue was seen")
    followed = finding(scenes.pausing(backlog=8), "syn-delay")
    assert followed.remedy is not None
    assert followed.remedy.startswith("a consequence of the full queue")


def test_phantoms_state_the_counts_of_the_kernel() -> None:
    """They are cookies, dropped ACKs and half-open handshakes; a count that was not read is left out."""
    found = finding(scenes.phantoms(), "phantom-connections")
    assert found.title == "96 clients connected, but the server has no socket for them."
    for sentence in (
        "80 SYN cookies were sent",
        "3 final ACKs",
        "2 handshakes were still half open",
        "In this run 96 clients connected and got no reply in time.",
    ):
        assert sentence in found.evidence
    assert found.remedy is not None
    assert found.remedy.endswith("(here 1).")
    bare = finding(scenes.phantoms(samples=[], sysctls={}, end_server_states={}), "phantom-connections")
    assert not [word for word in ("cookie", "SYN_RECV", "final ACK") if word in bare.evidence]
    assert bare.remedy is not None
    assert "(here" not in bare.remedy


def test_phantoms_among_many_others_come_after_their_cause() -> None:
    """They open the result only if they are most of the clients."""
    made = scenes.pausing()
    extra = recording([unserved(5000 + n, 0.3) for n in range(9)])
    both = replace(made, attempts=np.concatenate([made.attempts, extra.attempts]))
    assert ids(both) == ["slow-accept", "phantom-connections"]


def test_resets_at_a_full_queue_are_a_finding() -> None:
    """The kernel resets clients there if tcp_abort_on_overflow is 1."""
    rows = [unserved(n, outcome=Outcome.RESET) for n in (1, 2)]
    assert ids(recording(rows, sysctls={"net.ipv4.tcp_abort_on_overflow": "1"})) == ["queue-abort"]


def test_a_pausing_server_gets_the_rule_for_its_backlog() -> None:
    """The backlog must hold the arrival rate times the longest pause."""
    found = finding(scenes.pausing(), "slow-accept")
    assert found.title == "The server stopped accepting for up to 100 ms while clients waited."
    assert found.remedy is not None
    assert found.remedy.endswith("rate x longest pause, here about 101.")


def test_a_slow_server_gets_its_accept_rate() -> None:
    """It accepts 20 of 200 clients a second."""
    found = finding(scenes.slow(), "slow-accept")
    assert found.title == "The server accepts about 20 clients a second; half of them waited 4.5 s or more."
    assert (
        found.evidence == "200 clients arrived within 995 ms. The longest wait was 9.0 s; none still waited at the end."
    )


def test_many_short_delays_are_slow_too() -> None:
    """No pause is long, but the queue grows; a low rate keeps its decimal."""
    found = finding(scenes.slow(each_s=0.0101, count=600), "slow-accept")
    assert found.title == "The server accepts about 99 clients a second; half of them waited 1.5 s or more."
    assert found.evidence.startswith("About 200 clients a second arrive on average.")
    crawling = finding(scenes.slow(each_s=0.15, count=20), "slow-accept")
    assert crawling.title.startswith("The server accepts about 6.7 clients a second")
    assert crawling.evidence.startswith("20 clients arrived within 95 ms.")
    loop = settings(client={"clients": 40, "rate": None})
    evidence = finding(scenes.slow(settings=loop), "slow-accept").evidence
    assert evidence.startswith("The load is a closed loop of 40 clients.")


def test_waits_longer_than_every_pause_show_a_slow_server() -> None:
    """It paused too, but most clients waited for the clients before them, not for the end of a pause."""
    rows = [attempt(n, n * scenes.STEP_S, replied=None, ended=30.0) for n in range(600)]
    turns = [0.0101 * n + 0.06 * (n // 100) for n in range(1, 601)]
    accepts = [accept(row, turn - n * scenes.STEP_S) for n, (row, turn) in enumerate(zip(rows, turns, strict=True))]
    found = finding(recording(rows, accepts, load_end_ns=ns(30), judged_ns=ns(31)), "slow-accept")
    assert found.title.startswith("The server accepts about 93 clients a second; half of them waited 1.7 s")


def test_no_more_clients_arrive_in_a_pause_than_a_closed_loop_has() -> None:
    """The advised backlog is at most the number of its clients."""
    found = finding(scenes.pausing(settings=settings(client={"clients": 40, "rate": None})), "slow-accept")
    assert found.remedy is not None
    assert found.remedy.endswith("here about 40.")


def waiting_for_a_close() -> Recording:
    """Return a run in which the server failed once and then waits for a close, although no connection is open."""
    waiting = unserved(1, 0.1)
    dropped = [unanswered(n, 0.1 * n) for n in range(2, 10)]
    taken = accept(waiting, 6.0, state=8, flags=AcceptFlag.AFTER_END)
    failed = failure(0.10001, last=0.10001)  # 20 us before the client's own stamp
    return recording([waiting, *dropped], [taken], [failed], end_queue=1, server_backlog=0)


def test_one_failure_begins_the_wait_of_a_server_that_waits_for_a_close() -> None:
    """The server lacks descriptors and is not slow; the finding names the failure as the start of the pause."""
    made = waiting_for_a_close()
    assert "slow-accept" not in ids(made)
    assert "1 call failed with EMFILE. After such a failure no client was accepted for up to 5.0 s." in (
        finding(made, "fd-limit").evidence
    )


def test_a_server_that_accepts_no_client_has_no_rate_and_no_median() -> None:
    """If no client is accepted although descriptors are free, the finding states only measured numbers."""
    rows = [unserved(n, 0.1 * n) for n in range(1, 4)]
    taken = [accept(row, 6.0, state=8, flags=AcceptFlag.AFTER_END) for row in rows]
    found = finding(recording(rows, taken, end_queue=3), "slow-accept")
    assert found.title == "The server accepted no client in 5.0 s."
    assert found.evidence == (
        "3 clients arrived within 300 ms. 3 clients still waited in its accept queue at the end, the longest for 5.0 s."
    )


@pytest.mark.parametrize("made", [scene[1] for scene in SCENES], ids=[scene[0] for scene in SCENES])
def test_no_sentence_contains_an_unknown_number(made: Recording) -> None:
    """An unknown time and a rate of 0.0 are not printed."""
    for one in summarise(made).findings:
        assert not [words for words in ("unknown time", " 0.0 ") if words in f"{one.title} {one.evidence}"]


def test_pauses_are_a_share_of_the_whole_load() -> None:
    """A pause of 40 ms is a tenth of the time in which clients arrive, and 0.8 % of a load that lasts 5 s."""
    rows = [attempt(1, ended=9.0), *(attempt(n, 0.001 * n) for n in range(100, 400))]
    made = recording(rows, [accept(row, 30e-6 if n else 0.04) for n, row in enumerate(rows)])
    assert "1 pause of 20 ms or more took 40 ms of the load, which is 0.8 %." in finding(made, "slow-accept").evidence


def test_a_pause_counts_as_far_as_it_lies_within_the_load() -> None:
    """A client that is still queued when the load ends waits until the run is judged; only the load counts."""
    rows = [attempt(n, 0.01 * n) for n in range(1, 381)]
    left, dropped = unserved(381, 3.81), unanswered(382, 3.95)
    accepts = [*(accept(row, 30e-6) for row in rows), accept(left, 2.0, flags=AcceptFlag.AFTER_END)]
    found = finding(recording([*rows, left, dropped], accepts, end_queue=1, load_end_ns=ns(4.0)), "slow-accept")
    assert found.title.startswith("The server stopped accepting for up to 1.3 s")
    assert "1 pause of 20 ms or more took 190 ms of the load, which is 5 %." in found.evidence


def test_pauses_below_two_percent_are_not_a_finding() -> None:
    """They can come from the scheduler."""
    rows = [attempt(n, n * scenes.STEP_S) for n in range(1, 1001)]
    accepts = [accept(row, 0.05 if row["number"] == 500 else 30e-6) for row in rows]
    assert ids(recording(rows, accepts)) == ["nothing-found"]


@pytest.mark.parametrize(
    ("asked", "got", "found"),
    [
        (4096, 128, ["nothing-found", "somaxconn-cap"]),
        (128, 128, ["nothing-found"]),
        (4096, None, ["nothing-found"]),
    ],
)
def test_a_capped_backlog_is_information(asked: int, got: int | None, found: list[str]) -> None:
    """It is not a fault if the queue was never full."""
    assert ids(scenes.healthy(server_backlog_asked=asked, server_backlog=got)) == found


def test_a_capped_backlog_that_was_full_is_a_fault() -> None:
    """The queue was too short, and the server had asked for more."""
    made = scenes.healthy(samples=[sample(0.0, queue=129)], server_backlog_asked=4096)
    assert finding(made, "somaxconn-cap").fault
    assert finding(made, "somaxconn-cap").remedy == (
        "sysctl -w net.core.somaxconn=4096, then restart the server: listen() applies the cap."
    )


@pytest.mark.parametrize(
    ("status", "how"),
    [(-9, "killed by SIGKILL (signal 9)"), (3, "exit status 3"), (-40, "killed by a signal (signal 40)")],
)
def test_the_end_of_a_server_is_described(status: int, how: str) -> None:
    """The finding has its exit status or signal, and the effect on its clients."""
    found = finding(scenes.dying(status), "target-ended")
    assert found.title == f"The server ended after 1.0 s: {how}."
    assert found.evidence == "2 clients were still in its accept queue. 7 later clients were refused."


def test_a_server_that_ran_out_of_descriptors_before_its_end_is_reported() -> None:
    """The finding names EMFILE, and leaves out the time of the end if it is unknown."""
    row = attempt(1)
    made = recording([row], [accept(row)], [failure(0.5)], server_exit_status=1)
    found = finding(made, "target-ended")
    assert found.title == "The server ended: exit status 1."
    assert found.evidence == "It had just run out of descriptors."


def test_unexplained_failures_are_a_fault() -> None:
    """Clients failed although no other fault was found."""
    rows = [attempt(1, outcome=Outcome.ERROR), attempt(2, 0.1, outcome=Outcome.EOF)]
    made = recording(rows, [accept(row) for row in rows])
    assert ids(made) == ["clients-failed"]
    assert finding(made, "clients-failed").evidence == "They saw: error 1, eof 1."


def test_a_client_in_progress_at_the_end_was_not_served() -> None:
    """Without a fault the title states that not every client was served."""
    rows = [attempt(1), unserved(2, 0.1, outcome=Outcome.UNFINISHED, ended=None, flags=AttemptFlag.PENDING)]
    made = recording(rows, [accept(row) for row in rows], server_backlog=None)
    assert finding(made, "nothing-found").title == "No fault was found, but not every client was served."
    assert "queue held" not in finding(made, "nothing-found").evidence


LATE = [attempt(n, n * 0.01 + 0.05, intended=n * 0.01) for n in range(1, 200)]
DOUBTS: list[tuple[Recording, str, str]] = [
    (scenes.healthy(complete=False, interrupted="SIGINT"), "interrupted", "The run was interrupted (SIGINT)."),
    (scenes.healthy(complete=False), "interrupted", "(its loadsim process was killed)"),
    (scenes.healthy(degraded=["x is not set."]), "settings-degraded", "1 setting of the scenario was not in force."),
    (
        scenes.healthy(watchers_lost=["the canary ended."]),
        "watcher-lost",
        "The process of the canary or of the held clients",
    ),
    (scenes.healthy(end_queue=9), "ledger-unbalanced", "The ledger does not balance"),
    (
        recording(
            late := [attempt(n, n * 0.01 + 0.05, intended=n * 0.01) for n in range(1, 200)], [accept(r) for r in late]
        ),
        "generator-limited",
        "The load generator could not keep up, so the run does not show what the server can do.",
    ),
]


@pytest.mark.parametrize(("made", "expected", "title"), DOUBTS)
def test_reasons_to_doubt_come_first_and_make_it_inconclusive(made: Recording, expected: str, title: str) -> None:
    """The run cannot be judged, even if other findings exist."""
    summary: Summary = summarise(made)
    assert (summary.findings[0].id, summary.status) == (expected, "INCONCLUSIVE")
    assert title in summary.findings[0].title
    assert summary.sentence == summary.findings[0].title
    assert "nothing-found" not in [finding.id for finding in summary.findings]


def driver(**changes: Any) -> DriverFacts:  # noqa: ANN401 -- any field
    """Return a driver that used a tenth of a core, with changes."""
    return replace(scenes.healthy().facts.drivers[0], **changes)


def test_a_generator_names_each_of_its_limits_and_the_knob() -> None:
    """The limits are lag, CPU, attempts that were not started, each errno of its own, and clamped settings."""
    rows = [
        *LATE,
        *[unanswered(n, 2.0, started=None, outcome=Outcome.LOCAL, errno=24) for n in (201, 202)],
        unanswered(203, 2.0, started=None, outcome=Outcome.LOCAL, errno=71),
        unanswered(204, 2.0, started=None, outcome=Outcome.NOT_STARTED, errno=0),
    ]
    busy = driver(
        cpu_ns=990_000_000, wall_ns=1_000_000_000, clamped="Its limit holds 9 clients, not 10; raise ulimit -Hn."
    )
    found = finding(recording(rows, [accept(row) for row in rows[:199]], drivers=[busy]), "generator-limited")
    for sentence in (
        "199 of 199 attempts started more than 10 ms late, the worst 50 ms",
        "used 0.99 cores", "1 planned attempt was not started",
        "2 attempts failed at a local limit (errno 24)",
        "1 attempt failed at a local limit (errno 71)", "Its limit holds 9 clients",
    ):  # fmt: skip
        assert sentence in found.evidence
    assert found.remedy is not None
    for knob in ("client.processes", "client.max_in_flight (now 20000)", "ulimit -Hn", "see errno 71"):
        assert knob in found.remedy


def test_a_clamped_generator_is_described_in_a_sentence() -> None:
    """The driver's notice gets a capital letter and a full stop."""
    found = finding(
        recording(LATE, drivers=[driver(clamped="driver 1 of 1 opens 9; raise ulimit -Hn")]), "generator-limited"
    )
    assert found.evidence.endswith(" Driver 1 of 1 opens 9; raise ulimit -Hn.")


def test_one_dropped_syn_is_one() -> None:
    """The title uses the singular."""
    seen = [sample(0.0, **scenes.counters()), sample(1.0, **scenes.counters(listen_overflows=1))]
    assert finding(recording([unanswered(1)], samples=seen), "queue-overflow").title == (
        "1 client got no answer: 1 SYN met a full queue."
    )


def test_a_generator_that_was_only_busy_has_one_reason() -> None:
    """Reasons that do not apply are left out."""
    found = finding(scenes.healthy(drivers=[driver(cpu_ns=950_000_000, wall_ns=1_000_000_000)]), "generator-limited")
    assert found.evidence == "Its busiest driver used 0.95 cores."


def test_clients_that_were_accepted_after_they_gave_up_are_a_finding() -> None:
    """Accepted 3 s after they were connected, by a socket 2 ms old: their own FIN had completed the handshake."""
    gone = [unserved(n, 0.001 * n) for n in (1, 2)]
    made = recording(gone, [accept(row, 3.0, age_ms=2) for row in gone])
    assert finding(made, "late-admission").title == "2 clients were accepted only after giving up."
    served = attempt(3, 0.0, ended=5.0)
    assert "late-admission" not in ids(recording([served], [accept(served, 3.0, age_ms=2)]))


def test_a_generator_that_was_late_at_times_is_information() -> None:
    """Three late attempts of two hundred do not make the run doubtful."""
    rows = [attempt(n, n * 0.01 + (0.04 if n % 66 == 0 else 0.0), intended=n * 0.01) for n in range(1, 200)]
    made = recording(rows, [accept(row) for row in rows])
    found = finding(made, "generator-late")
    assert found.title == "One client in a hundred started at least 40 ms late: the load generator delayed it."
    assert summarise(made).status == "HEALTHY"
    assert "generator-late" not in ids(recording(LATE, [accept(row) for row in LATE]))


def test_a_driver_that_ended_early_is_a_doubt() -> None:
    """Its share of the load is missing."""
    made = scenes.healthy(drivers=[driver(exit_status=-9), driver(share=1)])
    assert ids(made)[0] == "generator-ended"
    assert finding(made, "generator-ended").evidence == "Driver 1: killed by SIGKILL (signal 9)."


def test_wrong_predictions_are_information() -> None:
    """The finding has both numbers of each."""
    predicted = {"emfile_at_s": 2.0, "fates": {"accepted": 100.0, "queued": 50.0}}
    made = scenes.healthy(prediction=predicted)
    assert ids(made) == ["nothing-found", "prediction-gap"]
    assert finding(made, "prediction-gap").evidence == (
        "Predicted and measured: EMFILE 2.0 s and never; accepted 100 and 400; queued 50 and 0."
    )
    one = finding(scenes.healthy(prediction={"fates": {"accepted": 100.0}}), "prediction-gap")
    assert one.title.startswith("1 number differs")
    assert ids(scenes.healthy(prediction={"fates": {"accepted": 400.0}})) == ["nothing-found"]


def test_an_event_that_was_predicted_never_to_happen_is_a_wrong_prediction() -> None:
    """The finding states when it happened; without the event the finding does not appear."""
    never = {"never": ["emfile", "queue_full"]}
    made = scenes.exhausted(prediction=never)
    assert finding(made, "prediction-gap").evidence.startswith("Predicted and measured: EMFILE never and ")
    assert ids(scenes.healthy(prediction=never)) == ["nothing-found"]


def test_an_interrupted_run_is_not_compared_with_its_prediction() -> None:
    """The prediction holds for a complete run."""
    predicted = {"fates": {"accepted": 100.0}}
    made = scenes.healthy(prediction=predicted, complete=False, interrupted="SIGINT")
    assert "prediction-gap" not in ids(made)


def test_foreign_and_ambiguous_accepts_are_information() -> None:
    """They are not faults of the server, and are reported if there are any."""
    ours = attempt(1)
    foreign = recording([ours], [accept(ours), accept(attempt(2))])
    assert ids(foreign) == ["nothing-found", "foreign-accepts"]
    twins = [
        unserved(n, 0.001 * n, ended=0.001 * n + 0.0005, port=7, flags=AttemptFlag.RESET_BY_CLIENT) for n in (1, 2)
    ]
    assert "join-ambiguous" in ids(recording(twins, [accept(twins[1], 0.5, state=7, age_ms=500)]))


def test_clients_without_proof_of_acceptance_are_unknown() -> None:
    """Neither a reply nor a socket shows that the command accepted them."""
    silent = recording([unserved(1)], server_command=["./server"])
    assert finding(silent, "fates-unknown").title == ("For 1 client there is no proof that the server accepted it.")
    assert "fates-unknown" not in ids(recording([attempt(1)], server_command=["./server"]))


def test_every_finding_has_a_test() -> None:
    """The id of each one is quoted in a test module of findings."""
    others = [Path(__file__).with_name(f"test_{name}.py") for name in ("recovery", "host")]
    source = "".join(path.read_text(encoding="utf-8") for path in (Path(__file__), *others))
    assert [name for name in FINDINGS if f'"{name}"' not in source] == []


def test_the_end_of_a_server_is_marked() -> None:
    """The timeline has a mark at that moment, and the metrics its exit status."""
    assert [mark.label for mark in summarise(scenes.dying()).timeline.marks] == ["the server ended"]
    assert summarise(scenes.dying()).metrics["server.exit"] == -9
    assert ns(1.0) == scenes.dying().facts.server.exited_ns


def test_every_notice_ends_with_a_full_stop() -> None:
    """A notice without one gets one before the next notice."""
    [found, *_] = summarise(scenes.healthy(degraded=["x is not set", "y is not set."])).findings
    assert found.evidence == "x is not set. y is not set."


def test_connections_that_a_command_keeps_are_reported_with_their_time() -> None:
    """Connections in CLOSE_WAIT may still be closed, so the finding states how long after the load they were open."""
    rows = [attempt(number, 0.1 * number) for number in range(1, 4)]
    sockets = [seen(row, 5.1, state=8, inode=7, flags=SocketFlag.AT_END) for row in rows]
    made = recording(rows, sockets=sockets, server_command=["x"], end_fds_end=11)
    leak = finding(made, "fd-leak")
    assert (
        leak.title == "The server kept 3 connections open for 100 ms after the load, although their clients had left."
    )
    assert "It may still close it" in leak.evidence
