"""Findings about a full accept queue: dropped, delayed, reset and phantom clients, and the backlog to hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, percent, sentences, were
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import Bools, column, lost_a_syn, was_connected
from loadsim.units import NANOSECONDS, backlog_for, format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadsim.analysis.findings.case import Case
    from loadsim.record.recording import Ints

LINEAR = "net.ipv4.tcp_syn_linear_timeouts"
RETRIES = "net.ipv4.tcp_syn_retries"
_SOMAXCONN = "net.core.somaxconn"
_SYNCOOKIES = "net.ipv4.tcp_syncookies"
#: The first time-out (RFC 6298), in seconds; it doubles after the linear time-outs.
_FIRST_S = 1.0
#: A connect() that took this share of a SYN time-out or more was completed by the SYN of that time-out.
_ABOUT = 0.95


def retransmit_times(sysctls: Mapping[str, str]) -> list[float]:
    """Return the seconds after which each further SYN is sent: about 1, 2, 3, 4, 5, 7, 11 ... since Linux 6.5.

    Kernels before 6.5 have neither linear time-outs nor this sysctl: 1, 3, 7, 15 ... Linux 6.18 sends the late SYNs up
    to 3 % later than that (measured).
    """
    linear, retries = int(sysctls.get(LINEAR) or 0), int(sysctls.get(RETRIES) or 6)
    times, now, timeout = [], 0.0, _FIRST_S
    for sent in range(linear + retries):
        now += timeout
        times.append(now)
        if sent >= linear:
            timeout *= 2
    return times


def overflow(case: Case) -> Found | None:
    """Find an accept queue that was full while more clients arrived."""
    lost = case.number("listen.overflows")
    if not _overflowed(case):
        return None
    return Found(_overflow_title(case, lost), _overflow_evidence(case), _overflow_remedy(case))


def _overflowed(case: Case) -> bool:
    """Whether a full queue dropped packets, by the kernel's counter or by clients that repeated their SYN."""
    was_full = case.data.queue_full_at_s is not None
    return case.number("listen.overflows") > 0 or (was_full and case.number("attempts.delayed") > 0)


def _overflow_title(case: Case, lost: int) -> str:
    dropped = case.fates(Fate.DROPPED)
    entered = case.data.ledger.having(Fate.ACCEPTED, Fate.SHED, Fate.QUEUED)
    late = int((_delayed(case) & entered).sum())
    acks = case.number("listen.ack_drops") or case.fates(Fate.PHANTOM)
    packets = "SYNs and ACKs" if acks else "SYNs"
    counted = f"{format_count(lost)} {packets}" if acks else some(lost, "SYN")
    met = f"{counted if lost else f'their {packets}'} met a full queue"
    if dropped:
        return f"{some(dropped, 'client')} got no answer: {met}."
    if late:
        return f"{some(late, 'client')} entered the queue late: {met}."
    return f"The accept queue was full: {met}."


def _overflow_evidence(case: Case) -> str:
    share, full_at = case.numbers.get("queue.full_share", 0.0), case.data.queue_full_at_s
    return sentences(
        f"The accept queue ({case.backlog}) was full for {percent(share)} of the load"
        + (f", first after {format_duration(full_at)}." if full_at is not None else "."),
        "A full queue drops packets, the client's kernel sends them again, and each drop is counted.",
    )


def _overflow_remedy(case: Case) -> str:
    if case.starved:
        return "a consequence of running out of descriptors: fix that first. A larger backlog only hides more clients."
    overflowed, last = _backlogs(case)
    backlog = max(needed_backlog(case), overflowed + 1)  # the backlog that overflowed was too small
    if backlog <= last:
        return f"a backlog of {format_count(last)}, which was in force at the end, would have held all of them."
    somaxconn = case.data.recording.facts.sysctls.get(_SOMAXCONN)
    here = f" (here {somaxconn})" if somaxconn else ""
    knobs = f"listen(fd, {backlog}) and {_SOMAXCONN} >= {backlog}{here}"
    if _kept_up(case):
        return f"a backlog of about {backlog} would have held all of them: {knobs}."
    return (
        f"accept faster: the server never caught up while clients arrived. {knobs} would have held this load, but not "
        "a longer one."
    )


def _backlogs(case: Case) -> tuple[int, int]:
    """Return the backlogs in force when the queue was first full, and at the end; -1 where they were not read."""
    capacity, full_at_s = case.data.capacity, case.data.queue_full_at_s
    if capacity is None:
        return -1, -1
    full = case.data.clock.start + round((full_at_s or 0.0) * NANOSECONDS)
    return backlog_for(int(capacity.at(np.array([full]))[0])), backlog_for(int(capacity.holds[-1]))


def needed_backlog(case: Case) -> int:
    """Return approximately the backlog that would have held every client.

    At each moment the measured length of the queue and the clients that it had no place for are added. Such a client
    counts from its first SYN until it entered the queue, or until the queue ran empty: a longer queue would have been
    empty then, too.
    """
    data = case.data
    outside = _turned_back(case)
    since = column(data.recording.attempts, "started")[outside]
    until = np.minimum(_entered(case)[outside], _ran_empty(data.queue.times[data.queue.levels == 0], since))
    times = np.concatenate([data.queue.times, since, until])
    steps = np.concatenate([np.diff(data.queue.levels, prepend=0), np.ones_like(since), -np.ones_like(until)])
    order = np.argsort(times, kind="stable")
    return backlog_for(int(np.cumsum(steps[order]).max(initial=1)))


def _turned_back(case: Case) -> Bools:
    """Return which attempts met a full queue at first or for good."""
    dropped = case.data.ledger.having(Fate.DROPPED, Fate.PHANTOM, Fate.ABORTED)
    return dropped | _delayed(case)


def _delayed(case: Case) -> Bools:
    """Return which attempts connected with a SYN that the kernel's timer sent again."""
    attempts = case.data.recording.attempts
    return was_connected(attempts) & lost_a_syn(attempts)


def _entered(case: Case) -> Ints:
    """Return when each attempt entered the queue; the end of the run if it never did.

    A client that gives up would still occupy its place in a longer queue until the server accepts it. In a closed loop
    it returns as another attempt, and its two attempts must not count twice.
    """
    data = case.data
    ended = column(data.recording.attempts, "ended")
    gave_up = (ended > 0) & bool(data.setting("client", "clients"))
    until = np.where(gave_up, ended, max(data.clock.judged, data.clock.load_end))
    accept_of = data.ledger.join.accept_of
    joined = accept_of >= 0
    until[joined] = data.waits.entered[accept_of[joined]]
    return until


def _ran_empty(empty: Ints, since: Ints) -> Ints:
    """Return when the queue was first empty after each moment."""
    never = np.iinfo(np.int64).max
    return np.append(empty, never)[np.searchsorted(empty, since, "right")]


def _kept_up(case: Case) -> bool:
    """Return whether the queue, once full, ran empty before the last client arrived."""
    data = case.data
    full_at = data.queue.first_full(data.capacity) if data.capacity else None
    if full_at is None:
        return True
    last = int(column(data.recording.attempts, "started").max())
    empty = data.queue.times[data.queue.levels == 0]
    return bool(((empty > full_at) & (empty < last)).any())


def syn_delays(case: Case) -> Found | None:
    """Find clients that waited for their kernel's SYN timer, by the time that connect() took."""
    attempts, delayed = case.data.recording.attempts, _delayed(case)
    took = (column(attempts, "connected") - column(attempts, "started"))[delayed] / NANOSECONDS
    if not len(took):
        return None
    sysctls = case.data.recording.facts.sysctls
    times = np.array(retransmit_times(sysctls))
    sent_again = np.bincount((np.searchsorted(times * _ABOUT, took, "right") - 1).clip(min=0)).tolist()
    groups = [
        f"{format_count(count)} after about {format_duration(at)}"
        for count, at in zip(sent_again, times, strict=False)
        if count
    ]
    return Found(
        f"{some(len(took), 'client')} connected at least {format_duration(float(took.min()))} late: a SYN was lost.",
        sentences(
            f"They connected with a repeated SYN: {', '.join(groups)}.",
            f"The client's kernel sets these times ({LINEAR} = {sysctls.get(LINEAR, '0')}), not the server.",
        ),
        f'{_cause_of_delays(case)} Read such latencies as "SYN sent again", not as "slow".',
    )


def _cause_of_delays(case: Case) -> str:
    """Return where the SYNs were lost. A full queue is named as the cause only if it was measured."""
    if _overflowed(case):
        return "a consequence of the full queue: see queue-overflow."
    return (
        "look for packet loss on the way, since no full accept queue was seen (`nstat -az TcpExtTCPSynRetrans`; on "
        "loopback net.core.netdev_max_backlog)."
    )


def most_are_phantoms(case: Case) -> Found | None:
    """Find phantoms if they are at least half of the connected clients: they are then the main result."""
    return _phantoms(case) if _phantom_share(case) >= 0.5 else None


def some_are_phantoms(case: Case) -> Found | None:
    """Find phantoms if they are less than half of the connected clients."""
    return _phantoms(case) if 0 < _phantom_share(case) < 0.5 else None


def _phantom_share(case: Case) -> float:
    connected = int(was_connected(case.data.recording.attempts).sum())
    return case.fates(Fate.PHANTOM) / connected if connected else 0.0


def _phantoms(case: Case) -> Found:
    count, facts = case.fates(Fate.PHANTOM), case.data.recording.facts
    cookies, ack_drops = case.number("listen.cookies"), case.number("listen.ack_drops")
    syn_recv = facts.end.server_states.get("SYN_RECV", 0) if facts.end else 0
    setting, unheard = facts.sysctls.get(_SYNCOOKIES), case.outcomes(Outcome.REPLY_TIMEOUT)
    return Found(
        f"{some(count, 'client')} connected, but the server has no socket for {'it' if count == 1 else 'them'}.",
        sentences(
            "The handshake was answered, but its last ACK met a full queue and was dropped.",
            f"{some(cookies, 'SYN cookie')} {were(cookies)} sent: the server keeps no state for such a client."
            if cookies
            else "",
            f"{some(ack_drops, 'final ACK')} {were(ack_drops)} dropped, of handshakes in the SYN queue."
            if ack_drops
            else "",
            f"{some(syn_recv, 'handshake')} {were(syn_recv)} still half open at the end (SYN_RECV)."
            if syn_recv
            else "",
            f"In this run {some(unheard, 'client')} connected and got no reply in time." if unheard else "",
        ),
        f"raise the backlog, and {_SOMAXCONN} with it, to keep the queue from filling. Give clients a time-out for the "
        f"reply. With {_SYNCOOKIES} = 0 such clients try again instead"
        + (f" (here {setting})." if setting is not None else "."),
    )


def late_admissions(case: Case) -> Found | None:
    """Find clients that the server accepted only after they had given up; until then they were phantoms."""
    data = case.data
    late = data.waits.late & data.waits.taken & (data.ledger.join.attempt_of >= 0)
    outcomes = column(data.recording.attempts, "outcome")[data.ledger.join.attempt_of[late]]
    count = int((outcomes == Outcome.REPLY_TIMEOUT).sum())
    if not count:
        return None
    return Found(
        f"{some(count, 'client')} {were(count)} accepted only after giving up.",
        "The last ACK of the handshake met a full queue and was dropped: the client was connected, but the server had "
        "no socket. The FIN of the client completed the handshake, too late for a reply.",
        f"raise the backlog, and {_SOMAXCONN} with it, to keep the queue from filling. The server's own log shows such "
        "clients as short, healthy connections.",
    )


def aborts(case: Case) -> Found | None:
    """Find clients that the kernel reset because the queue was full."""
    count = case.fates(Fate.ABORTED)
    if not count:
        return None
    return Found(
        f"{some(count, 'client')} {were(count)} reset by the kernel at a full accept queue.",
        "With net.ipv4.tcp_abort_on_overflow = 1 the kernel answers the last ACK of a handshake with a RST if the "
        "queue is full. The client sees ECONNRESET, as if the server had crashed.",
        "set net.ipv4.tcp_abort_on_overflow = 0 to let such clients try again for some seconds, or raise the backlog.",
    )


#: Retransmission times since Linux 6.5 and before it, in seconds, for the text below.
_LINEAR_TIMES = ", ".join(f"{time:.0f}" for time in retransmit_times({LINEAR: "4"})[:7])
_DOUBLING_TIMES = ", ".join(f"{time:.0f}" for time in retransmit_times({})[:4])

FINDINGS = (
    Definition(
        id="queue-overflow",
        rules=(Rule(kind=Kind.FAULT, order=130, find=overflow),),
        means="The accept queue was full. It holds min(backlog, net.core.somaxconn) + 1 connections. When it is full, "
        "the kernel drops SYNs, and the final ACKs of handshakes that had begun. The client is not notified: its "
        f"kernel sends the SYN again, first after about {retransmit_times({})[0]:.0f} s.",
        look_at="queue.max and queue.capacity, listen.overflows (packets, not clients), the fates `dropped` and "
        "`phantom`. In production: `nstat -az TcpExtListenOverflows`, `ss -ltn`.",
        do="First ask why the queue is not emptied: no free descriptors, or an acceptor that is slow or pauses. A "
        "backlog covers a pause if backlog >= arrivals per second x longest pause. Set both listen(fd, n) and "
        "net.core.somaxconn.",
    ),
    Definition(
        id="phantom-connections",
        rules=(
            Rule(kind=Kind.FAULT, order=90, find=most_are_phantoms),
            Rule(kind=Kind.FAULT, order=150, find=some_are_phantoms),
        ),
        means="The client believes that it is connected, but the server has no connection. The final ACK of the client "
        "met a full accept queue and was dropped, and the client cannot know that. With SYN cookies the server keeps "
        "no state at all, and none of its tables shows a socket.",
        look_at="The fate `phantom`, listen.cookies and listen.ack_drops. `ss -tan` shows ESTABLISHED at the client, "
        "and SYN-RECV or nothing at the server. No counter shows their number: only a comparison of both ends does.",
        do="Use a larger backlog (which also sizes the SYN queue) and a faster acceptor. Clients need a time-out for "
        "the reply. With net.ipv4.tcp_syncookies = 0 such clients stay in SYN-SENT and try again.",
    ),
    Definition(
        id="late-admission",
        rules=(Rule(kind=Kind.FAULT, order=160, find=late_admissions),),
        means="The client believed that it was connected, as in phantom-connections, until it gave up. Its FIN "
        "completed the handshake, and the server then accepted the connection of a client that had left.",
        look_at="accept.late, and the outcome `reply_timeout` with the fate `accepted`. At the server: recv() returns "
        'b"" at once.',
        do="As for phantom-connections: a larger backlog and a faster acceptor.",
    ),
    Definition(
        id="queue-abort",
        rules=(Rule(kind=Kind.FAULT, order=170, find=aborts),),
        means="With net.ipv4.tcp_abort_on_overflow = 1 the kernel answers the last ACK of a handshake with a RST when "
        "the accept queue is full, instead of dropping it.",
        look_at="The fate `aborted`, and EmbryonicRsts in `nstat`. Clients see ECONNRESET right after connecting.",
        do="Set it to 0 unless clients can use another server at once. Clients send a dropped packet again, and most "
        "of them then succeed.",
    ),
    Definition(
        id="syn-delay",
        rules=(Rule(kind=Kind.FAULT, order=190, find=syn_delays),),
        means="A SYN of each of these clients was dropped, and the client's kernel sent it again on a timer, at least "
        f"a second later. The times are about {_LINEAR_TIMES} s with net.ipv4.tcp_syn_linear_timeouts = 4 (the default "
        f"since Linux 6.5), and {_DOUBLING_TIMES} s before.",
        look_at="connect.max and attempts.delayed: latencies that sit on whole seconds are timers, not work. In "
        "production: `nstat -az TcpExtTCPSynRetrans` on the clients.",
        do="Fix the full queue if there is one (queue-overflow), otherwise the packet loss. Do not look for a slow "
        "server, and do not average these latencies into a mean.",
    ),
)
