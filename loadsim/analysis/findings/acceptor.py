"""Findings about the acceptor: it is slow, pauses, or has a shorter queue than it asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.descriptors import stall_rows
from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, percent
from loadsim.analysis.host import busy_sentence
from loadsim.analysis.latency import own_accepts
from loadsim.record.recording import nearest_rank
from loadsim.units import NANOSECONDS, backlog_for, format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case
    from loadsim.record.recording import Bools

#: A shorter pause can come from the scheduler.
_PAUSE_NS = NANOSECONDS // 50
_PAUSE = format_duration(_PAUSE_NS / NANOSECONDS)
#: Pauses are a finding if they take at least this share of the time in which clients arrive.
_SHARE = 0.02
#: More clients than any closed loop has.
_UNLIMITED = 2**31

_ACCEPT_FASTER = (
    "accept until EAGAIN before serving any client, do nothing slow between two calls of accept(), or share the port "
    "among several acceptors (SO_REUSEPORT). No backlog makes a slow acceptor faster."
)
_CAP = "net.core.somaxconn caps the backlog of listen(), without an error."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standstill:
    """The pauses that the acceptor itself caused."""

    count: int
    total_s: float  # within the load
    longest_s: float
    of_load: float  # total_s, as a share of the load
    of_arrivals: float  # the part within the time in which clients arrived, as a share of that time
    mostly: bool  # most accepts followed such a pause: the server is slow rather than pausing

    @classmethod
    def of(cls, case: Case) -> _Standstill:
        clock, pauses, own = case.data.clock, case.data.pauses, _own_pauses(case)
        lengths, ends = pauses.own[own], pauses.ends[own]

        def within(seconds: float) -> float:
            """Return the paused time in the first seconds of the load."""
            stop = clock.start + round(seconds * NANOSECONDS)
            inside = ends.clip(clock.start, stop) - (ends - lengths).clip(clock.start, stop)
            return float(inside.sum()) / NANOSECONDS

        return cls(
            count=len(lengths),
            total_s=within(clock.load_s),
            longest_s=int(lengths.max(initial=0)) / NANOSECONDS,
            of_load=within(clock.load_s) / clock.load_s if clock.load_s > 0 else 0.0,
            of_arrivals=within(case.arrivals_s) / case.arrivals_s if case.arrivals_s > 0 else 0.0,
            mostly=2 * len(lengths) > len(pauses.lengths),
        )


def _own_pauses(case: Case) -> Bools:
    """Return which pauses of 20 ms or more have no other cause than the server.

    This excludes pauses for lack of a descriptor, pauses at a growth of the fd table, and the last pause of a server
    that died. Time for which the server waited for a CPU does not count.
    """
    pauses = case.data.pauses
    own: Bools = (pauses.own >= _PAUSE_NS) & ~pauses.starved
    own[stall_rows(case.data)] = False
    if pauses.final and case.data.recording.facts.server.died:
        own[-1] = False
    return own


def standstills(case: Case) -> Found | None:
    """Find a server that repeatedly keeps clients waiting for 20 ms or more although it has descriptors."""
    still = _Standstill.of(case)
    if still.of_arrivals < _SHARE:
        return None
    outlasted = case.numbers.get(f"{_certain(case)}.p50", 0.0) > still.longest_s  # such waits are longer than any pause
    return _slow(case) if still.mostly or outlasted else _pausing(case, still)


def long_waits(case: Case) -> Found | None:
    """Find a server that never pauses but still falls behind: many short delays also build a long queue."""
    waited_ns = _waited_p50_ns(case)
    if case.starved or waited_ns < _PAUSE_NS or _Standstill.of(case).of_arrivals >= _SHARE:
        return None
    return _slow(case)


def _waited_p50_ns(case: Case) -> float:
    """Return the median wait of clients, without the time for which the server waited for a CPU."""
    ours, waits = own_accepts(case.data), case.data.waits
    if case.data.bounds is not None or not ours.any():
        return case.numbers.get(f"{_certain(case)}.p50", 0.0) * NANOSECONDS
    by_host = case.data.run_waits.within(waits.entered[ours], waits.accepted[ours])
    return nearest_rank(np.sort(waits.waited[ours] - by_host), 0.5)


def _certain(case: Case) -> str:
    """Return the metrics family of waits that are certain: the lower bound if waits are known only as intervals."""
    return "accept_least" if "accept_least.p50" in case.numbers else "accept"


def _slow(case: Case) -> Found:
    if f"{_certain(case)}.p50" not in case.numbers:
        return _never_accepting(case)
    waiting = case.number("accept.waiting")
    return Found(
        f"The server accepts about {_rate(_accept_rate(case))} clients a second; half of them waited "
        f"{case.time(f'{_certain(case)}.p50')} or more.",
        f"{_arrivals(case)}. The longest wait was {case.time(f'{_certain(case)}.max')}; "
        f"{format_count(waiting) if waiting else 'none'} still waited at the end{_canaries_among_them(case)}.",
        _ACCEPT_FASTER,
    )


def _never_accepting(case: Case) -> Found:
    """Return the finding of a server that accepted no client although it had descriptors: it has no accept rate."""
    waiting = case.number("accept.waiting")
    return Found(
        f"The server accepted no client in {format_duration(case.data.clock.load_s)}.",
        f"{_arrivals(case)}. {some(waiting, 'client')} still waited in its accept queue at the end"
        f"{_canaries_among_them(case)}, the longest for {case.time('accept.waiting_max')}.",
        _ACCEPT_FASTER,
    )


def _canaries_among_them(case: Case) -> str:
    """Return how many of the connections that still waited were not of the load, in words; "" for none."""
    count = int((case.data.waits.left & case.data.ledger.join.watching).sum())
    return f" ({format_count(count)} of them from the canary)" if count else ""


def _arrivals(case: Case) -> str:
    """Return how clients arrived, in words: in a closed loop, within a second, or at a rate."""
    clients = case.data.setting("client", "clients")
    if clients:
        return f"The load is a closed loop of {some(clients, 'client')}"
    if case.arrivals_s < 1:
        return f"{some(case.number('attempts.count'), 'client')} arrived within {format_duration(case.arrivals_s)}"
    return f"About {_rate(_arrival_rate(case))} clients a second arrive on average"


def _pausing(case: Case, still: _Standstill) -> Found:
    rate, capacity = _arrival_rate(case), case.data.capacity
    is_busy = busy_sentence(case.numbers) is not None
    arrivals = min(int(np.ceil(rate * still.longest_s)), case.data.setting("client", "clients") or _UNLIMITED)
    return Found(
        f"The server stopped accepting for up to {format_duration(still.longest_s)} while clients waited.",
        f"{some(still.count, 'pause')} of {_PAUSE} or more took {format_duration(still.total_s)} of the load, "
        f"which is {percent(still.of_load)}. About {_rate(rate)} clients a second arrive, so about "
        f"{format_count(arrivals)} arrive during the longest pause; {case.backlog}."
        + _left_out(case, still)
        + (" The host was busy: time for which the server waited for a CPU is not counted." if is_busy else ""),
        "keep blocking work (garbage collection, files, DNS) off the thread that accepts; until then "
        + ("keep" if capacity is not None and arrivals <= backlog_for(int(capacity.holds.min())) else "choose")
        + f" backlog >= rate x longest pause, here about {arrivals}.",
    )


def _left_out(case: Case, still: _Standstill) -> str:
    """Say why the longest pause of all is not one of these, where it is not."""
    pauses = case.data.pauses
    longest = int(pauses.lengths.argmax())
    if pauses.longest / NANOSECONDS <= still.longest_s or _own_pauses(case)[longest]:
        return ""
    if pauses.starved[longest]:
        cause = "a descriptor was missing"
    elif longest in stall_rows(case.data):
        cause = "the kernel enlarged the fd table"
    elif pauses.final and longest == len(pauses.lengths) - 1 and case.data.recording.facts.server.died:
        cause = "the server ended"
    else:
        cause = "the server waited for a CPU"
    length = format_duration(pauses.longest / NANOSECONDS)
    return f" The longest pause of all ({length}) is not among them: {cause} in it."


def _accept_rate(case: Case) -> float:
    """Return the accepted clients per second, from the start of the load to the last accept."""
    bounds, waits = case.data.bounds, case.data.waits
    accepted = waits.accepted[waits.taken] if bounds is None else bounds.known
    span = case.data.clock.at(int(accepted.max(initial=0)))
    return len(accepted) / span if span > 0 else 0.0


def _rate(per_second: float) -> str:
    """Return a rate as text; a rate above 0 never reads as 0."""
    if per_second >= 10:
        return format_count(per_second)
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"


def _arrival_rate(case: Case) -> float:
    return case.numbers.get("attempts.rate", 0.0)


def short_backlog(case: Case) -> Found | None:
    """Find a backlog that the kernel capped in a run that filled the queue."""
    cap = _Cap.of(case)
    if cap is None or not cap.was_full:
        return None
    return Found(cap.title, f"{_CAP} The queue was full in this run.", cap.remedy)


def capped_backlog(case: Case) -> Found | None:
    """Find a backlog that the kernel capped in a run that never filled the queue."""
    cap = _Cap.of(case)
    if cap is None or cap.was_full:
        return None
    return Found(cap.title, f"{_CAP} The queue was never full in this run.", cap.remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cap:
    """A backlog that was requested, at the start or by a step, and capped by the kernel."""

    asked: int
    got: int
    was_full: bool

    @classmethod
    def of(cls, case: Case) -> _Cap | None:
        """Return the largest backlog that was capped; None without one."""
        facts = case.data.recording.facts
        asked: list[tuple[int | None, float | None]] = [(facts.server.backlog_asked, facts.server.backlog)]
        asked += [(int(one.asked), one.after) for one in facts.steps if one.change == "backlog"]
        cut = [(want, int(got)) for want, got in asked if want is not None and got is not None and got < want]
        if not cut:
            return None
        want, got = max(cut)
        longest = case.number("queue.max")
        return cls(asked=want, got=got, was_full=case.data.queue_full_at_s is not None and longest > got)

    @property
    def title(self) -> str:
        return f"The server asked for a backlog of {format_count(self.asked)} and got {format_count(self.got)}."

    @property
    def remedy(self) -> str:
        return f"sysctl -w net.core.somaxconn={self.asked}, then restart the server: listen() applies the cap."


FINDINGS = (
    Definition(
        id="slow-accept",
        rules=(
            Rule(kind=Kind.FAULT, order=100, find=standstills),
            Rule(kind=Kind.FAULT, order=140, find=long_waits),
        ),
        means="Clients waited in the accept queue although the server had free descriptors: it calls accept() too "
        "rarely, all the time or at times. Typical causes are a garbage collection, a blocking call in an event loop, "
        "and one accept per turn of the loop.",
        look_at="accept.p50 (always slow) and accept.pause_max (slow at times). In the chart the queue is a ramp or a "
        "comb.",
        do="Accept until EAGAIN, keep blocking work off the thread that accepts, add acceptors (SO_REUSEPORT). A "
        "backlog of arrivals per second x longest pause covers pauses. No backlog helps an acceptor that is "
        "slower than the arrivals.",
    ),
    Definition(
        id="somaxconn-cap",
        rules=(
            Rule(kind=Kind.FAULT, order=120, find=short_backlog),
            Rule(kind=Kind.INFORMATION, order=30, find=capped_backlog),
        ),
        means="listen(fd, n) uses the smaller of n and net.core.somaxconn, without an error. In a private network "
        "namespace, as in most containers, somaxconn starts from the kernel's default and not from the host's value.",
        look_at="`ss -ltn`: Send-Q of a listening socket is the backlog in force.",
        do="Raise net.core.somaxconn (in a container: --sysctl net.core.somaxconn=...), then call listen() again.",
    ),
)
