"""Findings about a server out of descriptors: the cost for its clients, its handlers and its CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.descriptors import stalls
from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, sentences, were
from loadsim.analysis.findings.descriptors import Headroom
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import column, emfile_records, has_flag, has_outcome
from loadsim.record.records import AcceptFlag, Where
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case

#: Retrying is spinning from this many failures per second, in all, and per client accepted meanwhile.
_SPIN_RATE, _SPIN_COUNT, _PER_CLIENT = 100, 100, 10
#: Retrying is cheap below this CPU, in cores. A server that sleeps for 1 ms after each failure uses 0.06 (Linux 6.18,
#: CPython 3.11), one that spins 0.79 or more, and asyncio with its multiplying retries 0.15.
_SPIN_CORES = 0.1
#: A longer pause is a stall. A growth of the fd table took less than 0.2 ms with one thread, and 7-18 ms with two
#: (Linux 6.18).
_STALL_S = 0.003


def false_connects(case: Case) -> Found | None:
    """Find clients that connected to a server that could not accept them for lack of a descriptor."""
    count = _never_taken(case) if case.starved else 0
    if not count:
        return None
    return Found(
        f"{some(count, 'client')} connected to a server that could not accept {'it' if count == 1 else 'them'} in "
        "time.",
        sentences(
            f"The kernel completes handshakes until the accept queue is full ({case.backlog}). A successful connect() "
            "is not a served client.",
            f"The longest wait so far was {case.time('accept.waiting_max')}."
            if "accept.waiting_max" in case.numbers
            else "",
        ),
        "make clients and health checks wait for a reply, with a time-out: connect() proves nothing.",
    )


def _never_taken(case: Case) -> int:
    """Return how many connected clients were never accepted, or only after they had given up."""
    attempts, accept_of = case.data.recording.attempts, case.data.ledger.join.accept_of
    if not case.data.recording.facts.server.is_simulated:
        return case.fates(Fate.QUEUED)
    late = case.data.ledger.having(Fate.ACCEPTED) & has_outcome(attempts, Outcome.REPLY_TIMEOUT)
    late[late] = column(attempts[late], "ended") < case.data.waits.accepted[accept_of[late]]
    return case.fates(Fate.QUEUED, Fate.ORPHANED) + int(late.sum())


def spin(case: Case) -> Found | None:
    """Find a server that retries accept() in a tight loop while it has no descriptor, and uses CPU for that.

    A high rate is not enough. If the server sheds, each failure turns clients away. If it sleeps for 5 ms after a
    failure, it fails 200 times a second and hardly uses the CPU.
    """
    rate, calls = case.numbers.get("emfile.rate", 0.0), case.number("emfile.accept")
    if rate <= _SPIN_RATE or calls < _SPIN_COUNT or calls < _PER_CLIENT * (taken := _taken_meanwhile(case)):
        return None
    cores = case.numbers.get("server.cpu_at_limit")
    if cores is not None and cores < _SPIN_CORES:
        return None
    return Found(
        f"Out of descriptors, the server retries accept() about {format_count(rate)} times a second.",
        sentences(
            f"{some(calls, 'call')} of accept() failed with EMFILE, and "
            + (f"{some(taken, 'client')} {were(taken)}" if taken else "no client was")
            + " accepted meanwhile. nginx retries twice a second, Go and trio 1 to 10 times.",
            f"At the limit it used {cores:.2f} cores." if cores is not None else "",
        ),
        "after EMFILE wait for 100 ms, or until a connection closes, before the next accept(). Or keep one descriptor "
        "in reserve and use it to shed clients (server.on_emfile).",
    )


def _taken_meanwhile(case: Case) -> int:
    """Return how many clients the server accepted from its first failure to its last, shed clients included.

    If the server writes no records, these are the clients that it answered or turned away.
    """
    failures = emfile_records(case.data.recording, Where.ACCEPT)
    first, last = int(failures["first"].min()), int(failures["last"].max())
    if case.data.recording.facts.server.is_simulated:
        moments = case.data.waits.accepted[case.data.waits.taken]
    else:
        attempts = case.data.recording.attempts
        served = has_outcome(attempts, Outcome.OK, Outcome.ERROR, Outcome.EOF, Outcome.RESET)
        moments = column(attempts, "ended")[served]
    return int(((moments >= first) & (moments <= last)).sum())


def failing_handlers(case: Case) -> Found | None:
    """Find requests that failed after accept() because their handler had no descriptor left."""
    calls = case.number("emfile.handler")
    if not calls:
        return None
    clients = int(has_flag(case.data.recording.accepts, AcceptFlag.FAILED).sum()) or calls
    headroom = Headroom.of(case)
    errors, cut = case.outcomes(Outcome.ERROR), case.outcomes(Outcome.EOF, Outcome.RESET)
    return Found(
        f"{some(clients, 'client')} {were(clients)} accepted and then failed: no descriptor was left for the request.",
        sentences(
            f"{some(calls, 'call')} failed with EMFILE after accept() had used the last descriptor: a request needs "
            f"{format_count(headroom.each - 1)} more.",
            f"{some(errors, 'client')} got an error reply." if errors else "",
            f"{some(cut, 'connection')} ended without a reply." if cut else "",
        ),
        (
            f"accept at most {some(headroom.clients, 'client')} at once: nofile = {headroom.limit} then has the "
            f"{some(headroom.each, 'descriptor')} that each of them needs. Or raise nofile."
        )
        if headroom.clients and not headroom.leaked
        else "close what a request opens, on every way out of its handler."
        if headroom.leaked
        else f"raise nofile: one client needs {some(headroom.each, 'descriptor')} beyond those of the server itself.",
        headline=f'"Too many open files" in the handler after {case.time("emfile.first_at")}: '
        f"{some(clients, 'client')} {were(clients)} accepted and then failed.",
    )


def shed(case: Case) -> Found | None:
    """Find clients that the server accepted and closed at once because it had no descriptor to serve them."""
    count = case.fates(Fate.SHED)
    if not count:
        return None
    return Found(
        f"{some(count, 'client')} {were(count)} accepted and closed at once, unserved.",
        "The server releases a reserved descriptor, accepts, closes, and reserves it again. Its queue stays empty, and "
        "clients learn at once that they are not served, not after a time-out.",
        "a consequence of running out of descriptors: fix that first. Let clients wait before they try again.",
    )


def growth_stalls(case: Case) -> Found | None:
    """Find pauses of accepting while the kernel enlarged an fd table that threads share."""
    threads = case.data.recording.facts.server.threads
    long = [stall for stall in stalls(case.data) if stall.length_s >= _STALL_S] if threads > 1 else []
    if not long:
        return None
    worst = format_duration(max(stall.length_s for stall in long))
    points = ", ".join(f"{format_duration(stall.length_s)} at fd {format_count(stall.fds)}" for stall in long)
    return Found(
        f"The server stopped accepting for up to {worst} while the kernel enlarged its fd table.",
        f"{points}. {threads} threads share the table, and each doubling waits for the other CPUs.",
        "grow the table before the load: dup2() to the highest number needed, then close it, best before any thread "
        "starts (server.prewarm_fds).",
    )


def limit_raised(case: Case) -> Found | None:
    """Find a server with a higher limit than the one that it was started with."""
    asked, limit = case.data.setting("server", "nofile"), case.data.fd_limit
    if asked is None or limit <= asked:
        return None
    return Found(
        f"The server raised its own limit: nofile is {format_count(limit)} instead of {format_count(asked)}.",
        "Go (since 1.19) and some other runtimes raise the soft limit to the hard limit at start.",
        "to enforce the lower limit, set the hard limit too (ulimit -Hn).",
    )


FINDINGS = (
    Definition(
        id="emfile-handler",
        rules=(Rule(kind=Kind.FAULT, order=50, find=failing_handlers),),
        means="accept() used the last descriptor for the connection, and the request then had none for the file, pipe "
        "or upstream connection that it needs. The client was accepted, and then its request failed.",
        look_at="emfile.handler and emfile.accept: in a server with headroom the first is 0. In production: HTTP 500 "
        'with "Too many open files" in the log while health checks still connect.',
        do="Stop accepting while fewer descriptors are free than one request needs: use a semaphore around accept(), a "
        "limit of connections in the server's settings, or a pool for upstream connections.",
    ),
    Definition(
        id="emfile-spin",
        rules=(Rule(kind=Kind.FAULT, order=60, find=spin),),
        means="The listening socket stays readable while connections wait in the queue, and accept() fails at once "
        "(0.2 us). A loop that polls, fails and polls again uses all the CPU that it gets, at the expense of the "
        "clients that are being served. Often it also writes a log line each time.",
        look_at="server.cpu_at_limit and emfile.rate. In production: one core at 100 %, and a log that grows by "
        "megabytes a second, in a server that serves no new clients.",
        do="After EMFILE stop polling the listener for 100 ms (trio), back off for up to a second (Go), wait until a "
        "connection closes (memcached), or keep one descriptor in reserve: release it, accept, close, and reopen it "
        "(libuv, Twisted). Try these policies with server.on_emfile.",
    ),
    Definition(
        id="false-connect",
        rules=(Rule(kind=Kind.FAULT, order=70, find=false_connects),),
        means="connect() succeeded, but the server never accepted the connection in time. The kernel completes the "
        "handshake and puts the connection into the accept queue. The server learns of it only by accept(), which "
        "needs a free descriptor. The client sees a slow server, until its time-out.",
        look_at="The fate `queued` and the outcome `reply_timeout`. In production: `ss -ltn` shows a long queue "
        "(Recv-Q, at most Send-Q + 1) while health checks that only connect stay green.",
        do="Make health checks and clients wait for a reply, with a time-out. Fix the missing descriptors (fd-leak or "
        "fd-limit). A smaller backlog makes such clients fail sooner, a larger one hides more of them.",
    ),
    Definition(
        id="fd-table-stall",
        rules=(Rule(kind=Kind.FAULT, order=110, find=growth_stalls),),
        means="The kernel keeps the descriptors of a process in a table, and doubles it when it is full: at 64, 128, "
        "256 ... In a process with several threads each doubling waits for an RCU grace period. With one thread it "
        "does not wait.",
        look_at="The growth table: bands that begin at a growth point, and their pause. Measured on Linux 6.18: "
        "7-18 ms each with one idle thread, below 0.2 ms without. Reports from production say 20-70 ms.",
        do="Grow the table once, before the load and before threads start: dup2(fd, n) to the highest number that will "
        "be needed, then close(n). Try it with server.prewarm_fds.",
    ),
    Definition(
        id="shed-clients",
        rules=(Rule(kind=Kind.FAULT, order=180, find=shed),),
        means="The server had no free descriptor. It released a reserved one, accepted a connection, and closed it at "
        "once. Its queue stays empty, and clients learn within a millisecond that they are not served.",
        look_at="The fate `shed`, and the outcomes `eof` and `reset`.",
        do="Among the reactions to a full server this one costs clients the least. Fix the missing descriptors, and "
        "let clients wait before they try again.",
    ),
    Definition(
        id="limit-raised",
        rules=(Rule(kind=Kind.INFORMATION, order=40, find=limit_raised),),
        means="The kernel reports a higher limit for the server than it was started with. The program raised its soft "
        "limit to the hard limit, as Go does since 1.19.",
        look_at="`cat /proc/PID/limits`.",
        do="To enforce a limit, set the hard limit too: `ulimit -Hn`, or both numbers of `LimitNOFILE=soft:hard`.",
    ),
)
