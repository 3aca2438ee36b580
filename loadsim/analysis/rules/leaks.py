"""Findings about the limit itself: whether a leak or an honest load used it up, and what a higher one would buy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.columns import has_flag
from loadsim.analysis.descriptors import leaked_connections
from loadsim.analysis.rules.case import Found, sentences
from loadsim.analysis.rules.definition import Definition, Kind, Rule
from loadsim.analysis.rules.need import clients_at_once, turning_over
from loadsim.analysis.rules.room import Room, leaks_extras
from loadsim.record.events import AcceptFlag
from loadsim.units import NANOSECONDS, format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.rules.case import Case

#: A shorter pause is the scheduler's.
_PAUSE_NS = NANOSECONDS // 50


def leak_at_limit(case: Case) -> Found | None:
    """Find a leak that used up the limit."""
    room = Room.of(case)
    return _leak(case, room) if room.leaked and room.leaked_away else None


def leak_below_limit(case: Case) -> Found | None:
    """Find a leak that has not used up the limit, or not alone."""
    room = Room.of(case)
    return _leak(case, room) if room.leaked and not room.leaked_away else None


def honest_load(case: Case) -> Found | None:
    """Find a limit that was used up by clients who were let go again."""
    room = Room.of(case)
    if room.leaked_away or not case.exhausted:
        return None
    clients = max(clients_at_once(case), room.clients + 1)  # it ran out with as many as it serves, and one more came
    needed = room.baseline + (clients + turning_over(case)) * room.each
    too_few = f"{some(room.limit, 'descriptor')} are too few for {some(clients, 'client')} at once."
    return Found(
        f"The server ran out of descriptors: {too_few}",
        sentences(
            f"It keeps {format_count(room.baseline)} for itself and needs {room.each} per client: nofile = "
            f"{room.limit} serves {format_count(room.clients)} at once. Without a wait for descriptors about "
            f"{format_count(clients)} would have been there at once. {_failures(case)}",
            "" if room.leaked else "Nothing leaked: this is load.",
        ),
        f"raise nofile to about {needed} (ulimit -n, LimitNOFILE= in systemd), hold connections for less long, or "
        f"accept at most {format_count(room.clients)} at once."
        + (f" {_higher_limit(room, room.fill_rate)}".rstrip() if room.leaked else ""),
        headline=f'"Too many open files" after {case.exhausted_after}: {too_few}',
    )


def _failures(case: Case) -> str:
    if "emfile.count" not in case.numbers:
        return "What failed with EMFILE then could not be seen."
    pauses = case.view.pauses
    still = int(pauses.lengths[pauses.starved].max(initial=0))
    return sentences(
        f"{some(case.number('emfile.count'), 'call')} failed with EMFILE.",
        f"After such a failure no client was accepted for up to {format_duration(still / NANOSECONDS)}."
        if still >= _PAUSE_NS
        else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What is said of one kind of leak."""

    title: str
    evidence: str
    cure: str
    because: str


def _leak(case: Case, room: Room) -> Found:
    words = _words(case, room)
    exhausted = case.exhausted and room.leaked_away
    return Found(
        words.title,
        words.evidence,
        f"{words.cure} {_higher_limit(room, room.leak_rate) if exhausted else _time_left(room)}".strip(),
        headline=f'"Too many open files" after {case.exhausted_after}, {words.because}.' if exhausted else None,
    )


def _words(case: Case, room: Room) -> _Words:
    if not case.view.recording.facts.server.is_simulated:
        return _of_a_command(case, room)
    return _of_requests(case, room) if leaks_extras(case) else _of_connections(case, room)


def _of_a_command(case: Case, room: Room) -> _Words:
    clock = case.view.clock
    after = format_duration(max(clock.judged - clock.load_end, 0) / NANOSECONDS)
    return _Words(
        title=f"The server kept {some(room.leaked, 'connection')} whose client had left: open {after} after the load.",
        evidence=f"{format_count(room.leaked)} of its sockets were in CLOSE_WAIT when the run was judged: the client "
        "has closed, the server has not. It may still close them: a longer canary.linger shows it.",
        cure='close the socket when recv() returns b"".',
        because="because connections are not closed when their clients leave",
    )


def _of_connections(case: Case, room: Room) -> _Words:
    accepted, kept = _served(case), int(leaked_connections(case.view).sum())
    every = kept == accepted
    share = f"{kept / max(accepted, 1):.0%}".replace("%", " %")
    part = f"The server leaked {some(room.leaked, 'descriptor')}: {share} of its connections are never closed."
    died = case.view.recording.facts.server.died
    still_open = (
        "were still open when it ended, and their clients had" if died else "are still open, and their clients have"
    )
    each = f" Each keeps {room.each} descriptors." if room.each > 1 else ""
    return _Words(
        title="The server leaked every descriptor it was given." if every else part,
        evidence=f"{format_count(kept)} of {some(accepted, 'accepted connection')} {still_open} left.{each}",
        cure='close the socket when recv() returns b"".',
        because="because nothing is closed" if every else f"because {share} of the connections are never closed",
    )


def _of_requests(case: Case, room: Room) -> _Words:
    return _Words(
        title=f"The server leaked {some(room.leaked, 'descriptor')} that its requests had opened.",
        evidence=f"{format_count(room.leaked)} more than before the load are open at the end and belong to no "
        f"connection; {some(_served(case), 'request')} had been let in.",
        cure="close what a request opens on every way out of its handler.",
        because="because requests do not close what they open",
    )


def _served(case: Case) -> int:
    """Return how many connections the running server accepted to keep them."""
    return int((case.view.waits.taken & ~has_flag(case.view.recording.accepts, AcceptFlag.SHED)).sum())


def _higher_limit(room: Room, rate: float) -> str:
    """Say what the next usual limit buys: time, and nothing else."""
    lasts = room.lasts_s(room.usual_limit, rate)
    if lasts is None:
        return ""
    return f"A higher limit buys time only: at this rate nofile = {room.usual_limit} lasts {format_duration(lasts)}."


def _time_left(room: Room) -> str:
    """Say when a leak will have used up the limit."""
    lasts = room.lasts_s(room.limit, room.leak_rate)
    return "" if lasts is None else f"At this rate nofile = {room.limit} lasts {format_duration(lasts)}."


FINDINGS = (
    Definition(
        id="fd-leak",
        rules=(
            Rule(kind=Kind.FAULT, order=30, find=leak_at_limit),
            Rule(kind=Kind.FAULT, order=80, find=leak_below_limit),
        ),
        means="The server opens descriptors and never closes them: connections whose client has left, or files, pipes "
        "and sockets that a request opened. Every process has a limit of open descriptors (RLIMIT_NOFILE), and a leak "
        'reaches any limit in time. Then accept(), open() and socket() fail with EMFILE, "Too many open files".',
        look_at="The chart of open fds: a leak is a line that does not come down, even after the load. In production: "
        "`loadsim inspect NAME --watch` names the kind of descriptor that grows and estimates when the limit is "
        "reached. By hand: `ls /proc/PID/fd | wc -l` twice, a minute apart, and `ss -tanp state close-wait`. "
        "CLOSE_WAIT means that the other side has closed the connection and this program has not.",
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
        "others then wait in the accept queue on purpose.",
    ),
)
