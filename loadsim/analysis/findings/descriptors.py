"""Findings about the descriptor limit: whether a leak or an honest load used it up, and what a higher one buys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.descriptors import leaked_connections, limit_reached
from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, sentences, were
from loadsim.analysis.join import kept_at_end
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import Bools, Ints, column, has_flag, has_outcome
from loadsim.record.records import AcceptFlag
from loadsim.units import NANOSECONDS, format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case
    from loadsim.record.recording import Records

#: Limits that people set. The first one above the measured limit shows how much time a higher limit buys.
_USUAL_LIMITS = (65_536, 1_048_576, 2**30)
#: The server's thread may be off the CPU for this long. A close, or the next accept, can be this late.
_SLACK_NS = NANOSECONDS // 100
#: The first client that waits in a pause started at most this long before it.
_HANDSHAKE_NS = NANOSECONDS // 1000
#: A client of a closed loop connects again before the server has closed its last connection. This share of the clients
#: does so at once.
_TURNING = 0.1
#: A shorter pause can come from the scheduler.
_PAUSE_NS = NANOSECONDS // 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """The descriptors that a server has for clients: from its own descriptors up to its limit."""

    limit: int
    baseline: int
    each: int  # descriptors per client
    leaked: int
    leak_rate: float  # leaked descriptors per second; 0 if not known
    fill_rate: float  # descriptors per second until the limit was reached; 0 if it was not reached
    leaked_away: bool  # a leak took at least half of them before the limit was reached, or all of them by the end

    @classmethod
    def of(cls, case: Case) -> Headroom:
        """Return the headroom of the server in this run."""
        limit, baseline = case.number("fds.limit"), case.number("fds.baseline")
        reached_s = case.numbers.get("fds.limit_at", 0.0)
        each = 1 + int(case.data.setting("server", "extra_fds") or 0)
        early, in_all, leak_rate = _leak_of_requests(case) if leaks_extras(case) else _leak_of_connections(case, each)
        if case.data.recording.facts.server.is_simulated:
            leaked = int(case.numbers.get("fds.leaked", in_all))  # fds.leaked is missing if the server died
        else:
            leaked = kept_at_end(case.data.recording)
        all_gone = leaked > 0 and leaked + each > limit - baseline
        return cls(
            limit=limit,
            baseline=baseline,
            each=each,
            leaked=leaked,
            leak_rate=leak_rate,
            fill_rate=(limit - baseline) / reached_s if reached_s > 0 else 0.0,
            leaked_away=case.exhausted and (all_gone or 0 < limit - baseline <= early * 2),
        )

    @property
    def clients(self) -> int:
        """The number of clients that can be served at once."""
        return max((self.limit - self.baseline) // self.each, 0)

    @property
    def usual_limit(self) -> int:
        """The next higher limit that people set."""
        return next(limit for limit in _USUAL_LIMITS if limit > self.limit or limit == _USUAL_LIMITS[-1])

    def lasts_s(self, limit: int, rate: float) -> float | None:
        """Return how long a limit lasts at a rate of descriptors per second; None if the rate is not known."""
        return (limit - self.baseline) / rate if rate > 0 else None


def leaks_extras(case: Case) -> bool:
    """Return whether the server leaks descriptors that a request opens besides its connection."""
    return bool(case.data.setting("server", "leak_of") == "extra")


def _leak_of_connections(case: Case, each: int) -> tuple[int, int, float]:
    """Return the descriptors leaked until the limit was reached, in all, and per second.

    A connection that is never closed also keeps the descriptors that its request opened.
    """
    times = case.data.waits.accepted[leaked_connections(case.data)]
    reached = limit_reached(case.data)
    span = (int(times.max()) - case.data.clock.start) / NANOSECONDS if len(times) else 0.0
    early = len(times) if reached is None else int((times <= reached).sum())
    in_all = each * len(times)
    return each * early, in_all, in_all / span if span > 0 else 0.0


def _leak_of_requests(case: Case) -> tuple[int, int, float]:
    """Return the same for descriptors that requests open: at the limit no request can open, and leak, another one."""
    leaked, span = case.number("fds.leaked"), case.numbers.get("fds.limit_at", case.arrivals_s)
    return leaked, leaked, leaked / span if span > 0 else 0.0


def clients_at_once(case: Case) -> int:
    """Return the most clients that would have been connected at once without a wait for descriptors.

    Every client counts from its start, and stays as long as the clients that were served.
    """
    clients = case.data.setting("client", "clients")
    watching = _watching(case)
    if clients:
        return int(min(clients, len(case.data.recording.attempts))) + watching
    attempts = case.data.recording.attempts
    begun = column(attempts, "started") > 0
    begins, stays = _begins(case)[begun], _stays(case)[begun]
    return _most_at_once(begins, begins + stays) + watching


def turning_over(case: Case) -> int:
    """Return how many connections are still closing while their clients already have the next one."""
    return int(np.ceil(_TURNING * clients_at_once(case))) if case.data.setting("client", "clients") else 0


def _most_at_once(begins: Ints, ends: Ints) -> int:
    times = np.concatenate([ends + _SLACK_NS, begins])
    order = np.argsort(times, kind="stable")
    return int(np.cumsum(np.where(order < len(ends), -1, 1)).max(initial=0))


def _begins(case: Case) -> Ints:
    """Return when each attempt would have been accepted: at its start, or after the server's own pause."""
    data = case.data
    begins = column(data.recording.attempts, "started")
    own = (data.pauses.lengths >= _SLACK_NS) & ~data.pauses.starved
    ends = data.pauses.ends[own]
    since = np.append(ends - data.pauses.lengths[own] - _HANDSHAKE_NS, np.iinfo(np.int64).max)
    place = np.searchsorted(since, begins, "right") - 1
    inside = place >= 0
    begins[inside] = np.maximum(begins[inside], ends[place[inside]])
    each = round((data.setting("server", "accept_delay") or 0.0) * NANOSECONDS)
    turns = each * np.arange(len(begins))
    order = np.argsort(begins, kind="stable")
    begins[order] = np.maximum.accumulate(begins[order] - turns) + turns
    return begins


def _stays(case: Case) -> Ints:
    """Return how long each attempt keeps its descriptors: as measured, or the median of the served clients."""
    attempts = case.data.recording.attempts
    served = has_outcome(attempts, Outcome.OK, Outcome.CONNECTED) & case.data.ledger.having(Fate.ACCEPTED)
    if case.data.recording.facts.server.is_simulated:
        own, ends = _stays_at_server(case, served)
    else:
        own, ends = _stays_at_client(attempts, served), served
    usual = int(np.median(own[ends])) if ends.any() else _planned(case)
    kept_share = float((served & ~ends).sum() / served.sum()) if served.any() else 0.0
    stays = np.where(served, own, usual)
    # The server would never have closed the same share of the clients that were not served.
    others = np.flatnonzero(~served)
    stays[others[: round(kept_share * len(others))]] = _to_the_end(case)
    return stays


def _stays_at_server(case: Case, served: Bools) -> tuple[Ints, Bools]:
    """Return the time from accept() to close of each attempt, and which attempts have a close."""
    accept_of = case.data.ledger.join.accept_of.clip(min=0)
    if not served.any():
        return np.zeros(len(served), dtype=np.int64), served
    accepted, closed = (column(case.data.recording.accepts, name)[accept_of] for name in ("accepted", "closed"))
    ends: Bools = served & (closed > 0)
    return np.where(ends, (closed - accepted).clip(min=0), _to_the_end(case)), ends


def _stays_at_client(attempts: Records, served: Bools) -> Ints:
    """Return how long each served client stayed, without its wait. A reply takes as long as the quickest tenth took."""
    started, connected, replied, ended = (
        column(attempts, name) for name in ("started", "connected", "replied", "ended")
    )
    answered = served & (replied > 0)
    reply = int(np.percentile((replied - started)[answered], 10)) if answered.any() else 0
    stays: Ints = np.where(answered, ended - replied + reply, ended - connected).clip(min=0)
    return stays


def _to_the_end(case: Case) -> int:
    return case.data.clock.judged - case.data.clock.start


def _planned(case: Case) -> int:
    """Return how long a client stays by the scenario; used if no client was served."""
    return round((case.data.setting("client", "hold") or 0.0) * NANOSECONDS)


def _watching(case: Case) -> int:
    """Return how many connections of the canary and of held clients were open at once.

    A canary without an answer counts for the median time of the answered ones.
    """
    canary, held = case.data.recording.canary, case.data.recording.held
    begun = canary[column(canary, "started") > 0]
    answered = has_outcome(begun, Outcome.OK)
    stays = column(begun, "ended") - column(begun, "started")
    usual = int(np.median(stays[answered])) if answered.any() else 0
    begins = column(begun, "started")
    at_once = _most_at_once(begins, begins + np.where(answered, stays, usual))
    return at_once + len(np.unique(column(held, "port")))


def leak_at_limit(case: Case) -> Found | None:
    """Find a leak that used up the limit."""
    headroom = Headroom.of(case)
    return _leak(case, headroom) if headroom.leaked and headroom.leaked_away else None


def leak_below_limit(case: Case) -> Found | None:
    """Find a leak that did not use up the limit, or only with the help of the load."""
    headroom = Headroom.of(case)
    return _leak(case, headroom) if headroom.leaked and not headroom.leaked_away else None


def honest_load(case: Case) -> Found | None:
    """Find a limit that clients used up although the server closes their connections."""
    headroom = Headroom.of(case)
    if headroom.leaked_away or not case.exhausted:
        return None
    clients = max(clients_at_once(case), headroom.clients + 1)  # it ran out: there was at least one too many
    needed = headroom.baseline + (clients + turning_over(case)) * headroom.each
    too_few = f"{some(headroom.limit, 'descriptor')} are too few for {some(clients, 'client')} at once."
    return Found(
        f"The server ran out of descriptors: {too_few}",
        sentences(
            f"The server itself uses {format_count(headroom.baseline)} and each client {headroom.each}: nofile = "
            f"{headroom.limit} serves {format_count(headroom.clients)} at once. If no client had waited for a "
            f"descriptor, about {format_count(clients)} would have been connected at once. {_failures(case)}",
            "" if headroom.leaked else "Nothing leaked: this is load.",
        ),
        _limit_remedy(case, headroom, needed)
        + (f" {_higher_limit(headroom, headroom.fill_rate)}".rstrip() if headroom.leaked else ""),
        headline=f'"Too many open files" after {case.exhausted_after}: {too_few}',
    )


def _limit_remedy(case: Case, headroom: Headroom, needed: int) -> str:
    """Return which limit serves this load: where a step has set one that does, that one."""
    highest = max([headroom.limit, *case.data.limit_changes.values()])
    if needed <= highest:
        return f"start it with nofile = {highest}, which a step of the timeline set: about {needed} are needed."
    at_most = f", or accept at most {format_count(headroom.clients)} at once" if headroom.clients else ""
    less = ("" if at_most else "or ") + "hold connections for a shorter time"
    return f"raise nofile to about {needed} (ulimit -n, LimitNOFILE= in systemd), {less}{at_most}."


def _failures(case: Case) -> str:
    if "emfile.count" not in case.numbers:
        return "Its calls that failed with EMFILE could not be observed."
    pauses = case.data.pauses
    still = int(pauses.lengths[pauses.starved].max(initial=0))
    return sentences(
        f"{some(case.number('emfile.count'), 'call')} failed with EMFILE.",
        f"After such a failure no client was accepted for up to {format_duration(still / NANOSECONDS)}."
        if still >= _PAUSE_NS
        else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """The texts for one kind of leak."""

    title: str
    evidence: str
    cure: str
    because: str


def _leak(case: Case, headroom: Headroom) -> Found:
    words = _words(case, headroom)
    exhausted = case.exhausted and headroom.leaked_away
    return Found(
        words.title,
        words.evidence,
        f"{words.cure} {_higher_limit(headroom, headroom.leak_rate) if exhausted else _time_left(headroom)}".strip(),
        headline=f'"Too many open files" after {case.exhausted_after}, {words.because}.' if exhausted else None,
    )


def _words(case: Case, headroom: Headroom) -> _Words:
    if not case.data.recording.facts.server.is_simulated:
        return _of_a_command(case, headroom)
    return _of_requests(case, headroom) if leaks_extras(case) else _of_connections(case, headroom)


def _of_a_command(case: Case, headroom: Headroom) -> _Words:
    clock = case.data.clock
    after = format_duration(max(clock.judged - clock.load_end, 0) / NANOSECONDS)
    return _Words(
        title=f"The server kept {some(headroom.leaked, 'connection')} open for {after} after the load, although their "
        "clients had left.",
        evidence=f"{some(headroom.leaked, 'socket')} of the server {were(headroom.leaked)} in CLOSE_WAIT when the run "
        "was judged: the client has closed the connection, the server has not. It may still close it: a longer "
        "canary.linger shows whether it does.",
        cure='close the socket when recv() returns b"".',
        because="because connections are not closed when their clients leave",
    )


def _of_connections(case: Case, headroom: Headroom) -> _Words:
    accepted, kept = _served(case), int(leaked_connections(case.data).sum())
    every = kept == accepted
    share = f"{kept / max(accepted, 1):.0%}".replace("%", " %")
    title = f"The server leaked {some(headroom.leaked, 'descriptor')}: {share} of its connections are never closed."
    died = case.data.recording.facts.server.died
    still_open = (
        "were still open when it ended, although their clients had left"
        if died
        else "are still open, although their clients have left"
    )
    each = f" Each keeps {headroom.each} descriptors." if headroom.each > 1 else ""
    return _Words(
        title="The server leaked every descriptor it was given." if every else title,
        evidence=f"{format_count(kept)} of {some(accepted, 'accepted connection')} {still_open}.{each}",
        cure='close the socket when recv() returns b"".',
        because="because nothing is closed" if every else f"because {share} of the connections are never closed",
    )


def _of_requests(case: Case, headroom: Headroom) -> _Words:
    return _Words(
        title=f"The server leaked {some(headroom.leaked, 'descriptor')} that its requests had opened.",
        evidence=f"It ended with {some(headroom.leaked, 'more open descriptor')} than before the load, not counting "
        f"connections. It accepted {some(_served(case), 'request')}.",
        cure="close everything that a request opens, on every path out of its handler.",
        because="because requests do not close the descriptors that they open",
    )


def _served(case: Case) -> int:
    """Return how many connections the running server accepted to serve them."""
    return int((case.data.waits.taken & ~has_flag(case.data.recording.accepts, AcceptFlag.SHED)).sum())


def _higher_limit(headroom: Headroom, rate: float) -> str:
    """Return a sentence: how much time the next usual limit buys."""
    lasts = headroom.lasts_s(headroom.usual_limit, rate)
    if lasts is None:
        return ""
    return (
        f"A higher limit buys time only: at this rate nofile = {headroom.usual_limit} lasts {format_duration(lasts)}."
    )


def _time_left(headroom: Headroom) -> str:
    """Return a sentence: how long the limit lasts at the rate of the leak."""
    lasts = headroom.lasts_s(headroom.limit, headroom.leak_rate)
    return "" if lasts is None else f"At this rate nofile = {headroom.limit} lasts {format_duration(lasts)}."


FINDINGS = (
    Definition(
        id="fd-leak",
        rules=(
            Rule(kind=Kind.FAULT, order=30, find=leak_at_limit),
            Rule(kind=Kind.FAULT, order=80, find=leak_below_limit),
        ),
        means="The server opens descriptors and never closes them: connections of clients that have left, or files, "
        "pipes and sockets that a request opened. Every process has a limit of open descriptors (RLIMIT_NOFILE), and a "
        'leak reaches any limit in time. Then accept(), open() and socket() fail with EMFILE, "Too many open files".',
        look_at="The chart of open fds: a leak is a line that does not fall, even after the load. In production: "
        "`loadsim inspect NAME --watch` names the kind of descriptor that grows and estimates when the limit is "
        "reached. By hand: `ls /proc/PID/fd | wc -l` twice, a minute apart, and `ss -tanp state close-wait`. "
        "CLOSE_WAIT means that the peer has closed the connection and this program has not.",
        do='Close the socket when recv() returns b"", and on every error path (a with block, finally, defer). A higher '
        "limit buys time only. The finding states how much: use it to deploy the fix.",
    ),
    Definition(
        id="fd-limit",
        rules=(Rule(kind=Kind.FAULT, order=40, find=honest_load),),
        means="The server closes its descriptors, but more clients were connected at once than its limit allows. This "
        "is load, not a leak: the number of open descriptors falls again when the clients leave.",
        look_at="fds.limit and fds.baseline, and how long each client holds its connection. In production: "
        "`cat /proc/PID/limits` (a limit set in a shell does not apply to a service).",
        do="Raise nofile above baseline + clients at once x descriptors per client (`LimitNOFILE=` in a systemd unit, "
        "`ulimits:` in compose). Close idle connections sooner. Or limit how many clients are served at once: the "
        "others then wait in the accept queue, as intended.",
    ),
)
