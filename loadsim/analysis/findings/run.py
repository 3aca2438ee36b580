"""Findings about the run itself: did it come to its end, do the books balance, and what else is there to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, ending, sentence, sentences, were
from loadsim.analysis.measure import GAP, is_gap
from loadsim.fates import Fate, Outcome
from loadsim.record.records import TABLE_HZ
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case
    from loadsim.analysis.summary import Compared
    from loadsim.record.facts import ServerFacts

_GAP = f"{GAP * 100:.0f} %"
_FAILED = (
    Outcome.ERROR,
    Outcome.EOF,
    Outcome.RESET,
    Outcome.REFUSED,
    Outcome.CONNECT_TIMEOUT,
    Outcome.REPLY_TIMEOUT,
)


def interrupted(case: Case) -> Found | None:
    """Find a run that did not come to its end."""
    facts = case.data.recording.facts
    if facts.complete:
        return None
    return Found(
        f"The run did not come to its end ({facts.interrupted or 'its conductor was killed'}).",
        f"What follows is what was recorded in {format_duration(max(case.data.clock.load_s, 0.0))}.",
        "run it again; shorten it with --set client.duration=... if it takes too long.",
    )


def unbalanced(case: Case) -> Found | None:
    """Find books that do not balance."""
    imbalance = case.data.ledger.imbalance
    if not imbalance:
        return None
    return Found(
        "The books do not balance: not every attempt can be accounted for.",
        sentences(*imbalance),
        "trust no fate of this run; run it again, and report it as a bug of loadsim if it comes back.",
    )


def degraded(case: Case) -> Found | None:
    """Find settings that were asked for and not in force."""
    sentences_ = case.data.recording.facts.degraded
    if not sentences_:
        return None
    return Found(
        f"{some(len(sentences_), 'setting')} of the scenario {were(len(sentences_))} not in force.",
        sentences(*map(sentence, sentences_)),
        "see to what they name, or take the settings out of the scenario.",
    )


def watcher_lost(case: Case) -> Found | None:
    """Find a canary, or clients that it held, that died before the run was over."""
    lost = case.data.recording.facts.watchers_lost
    if not lost:
        return None
    return Found(
        "Who watched from outside did not live to the end of the run.",
        sentences(*map(sentence, lost)),
        "run it again: whether the server was up is not known from then on.",
    )


def target_ended(case: Case) -> Found | None:
    """Find a server that ended by itself."""
    server = case.data.recording.facts.server
    if not server.died:
        return None
    after = f" after {format_duration(case.data.clock.at(server.exited_ns))}" if server.exited_ns else ""
    orphaned, refused = case.fates(Fate.ORPHANED), case.fates(Fate.REFUSED)
    return Found(
        f"The server ended{after}{_how(server)}.",
        sentences(
            "It had just run out of descriptors." if case.exhausted else "",
            f"{some(orphaned, 'client')} {were(orphaned)} still in its accept queue." if orphaned else "",
            f"{some(refused, 'client')} after that found nobody listening." if refused else "",
            _steps_after_the_end(case),
        ),
        f"{'target.stderr of the result' if server.started else 'its own log'} has its last words; for SIGKILL look at "
        "dmesg (out of memory?).",
    )


def _steps_after_the_end(case: Case) -> str:
    """Return which steps of the timeline came too late: the server had ended before them."""
    count = sum(step.target_ended for step in case.data.recording.facts.steps)
    return f"{some(count, 'step')} of the timeline came after that and changed nothing." if count else ""


def _how(server: ServerFacts) -> str:
    """Return how it ended; of one that was not started here only its parent knows."""
    return "" if server.exit_status is None else f": {ending(server.exit_status)}"


def prediction_gap(case: Case) -> Found | None:
    """Find predictions that arithmetic got wrong by more than 10 %."""
    gaps = [row for row in case.prediction if is_gap(row)]
    if not gaps or not case.data.recording.facts.complete:  # the prediction is of a whole run
        return None
    return Found(
        f"{some(len(gaps), 'number')} differ{'s' if len(gaps) == 1 else ''} by more than {_GAP} from what arithmetic "
        "predicts.",
        f"Predicted and measured: {'; '.join(_gap(row) for row in gaps)}.",
        "the plan knows rates, limits and baseline alone: look for what else took descriptors, or time.",
    )


def _gap(row: Compared) -> str:
    shown = [_value(value, row.unit) for value in (row.predicted, row.measured)]
    return f"{row.name} {shown[0]} and {shown[1]}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "never"
    return format_duration(value) if unit == "s" else format_count(value)


def unknown_fates(case: Case) -> Found | None:
    """Find clients of a server that writes no records of whom nothing proves where they ended."""
    count = case.fates(Fate.UNKNOWN)
    if not count or case.data.recording.facts.server.is_simulated:
        return None
    return Found(
        f"Of {some(count, 'client')} nothing proves whether the server ever took them.",
        *_nothing_proves(case.data.recording.facts.server),
    )


def _nothing_proves(server: ServerFacts) -> tuple[str, str]:
    """Return why that is so, and what would prove it."""
    if not server.sockets_seen:
        return (
            "They got no answer, and its ends of the connections are in no table that can be read from here.",
            "run loadsim where the server is: there the table shows who owns a connection.",
        )
    why = (
        "They got no reply, and no sample of the TCP table showed a process that owned their connection. Your server "
        f"writes no records, and connections shorter than {format_duration(1 / TABLE_HZ)} can fall between two samples."
    )
    return why, 'client.exchange = "http" proves it by an answer, a longer client.hold by the table.'


def foreign_clients(case: Case) -> Found | None:
    """Find connections from outside the run."""
    count = case.number("join.foreign")
    if not count:
        return None
    return Found(
        f"{some(count, 'accepted connection')} came from elsewhere: no attempt explains that.",
        "They took descriptors and places in the queue, and stand outside the ledger.",
        "let nobody else connect to the port while a run lasts.",
    )


def ambiguous_joins(case: Case) -> Found | None:
    """Find connections of one 4-tuple that could not be told apart."""
    count = case.number("join.ambiguous")
    if not count:
        return None
    return Found(
        f"{some(count, 'accepted connection')} fitted several attempts equally well; the oldest got each.",
        "A close by RST frees its port at once, so that a 4-tuple comes back while an earlier connection of it still "
        "waits in the accept queue. The totals hold; single rows may be swapped.",
        "more client.sources, or a wider net.ipv4.ip_local_port_range, let ports come back later.",
    )


def unexplained_failures(case: Case) -> Found | None:
    """Find clients that failed although nothing else was found."""
    count = case.outcomes(*_FAILED)
    if not count:
        return None
    seen = ", ".join(
        f"{outcome.name.lower()} {format_count(case.outcomes(outcome))}"
        for outcome in _FAILED
        if case.outcomes(outcome)
    )
    return Found(
        f"{some(count, 'client')} failed, and nothing that was measured says why.",
        f"They saw: {seen}.",
        "look at target.stderr, and at the scenario: perhaps its time-outs are shorter than its service.",
    )


def nothing(case: Case) -> Found:
    """Say that nothing was found, and how far from it the server was."""
    good = case.outcomes(Outcome.OK, Outcome.CONNECTED)
    queue, holds = case.number("queue.max"), case.number("queue.capacity")
    return Found(
        "Every client was served, and nothing went wrong."
        if good == case.number("attempts.count")
        else "Nothing went wrong that can be seen from here.",
        sentences(
            f"{format_count(good)} of {some(case.number('attempts.count'), 'client')} got what they came for.",
            f"The server used at most {format_count(case.number('fds.max'))} of {format_count(case.data.fd_limit)} "
            "descriptors."
            if "fds.max" in case.numbers
            else "",
            f"Its accept queue held at most {format_count(queue)} of {format_count(holds)}." if holds else "",
        ),
    )


FINDINGS = (
    Definition(
        id="interrupted",
        rules=(Rule(kind=Kind.DOUBT, order=10, find=interrupted),),
        means="The run was stopped before its end (Ctrl-C, a signal, an abort threshold), or its conductor was killed. "
        "The records are exact up to that moment. Connections still in progress have no reliable fate.",
        look_at="The cause, in the finding.",
        do="Run it again.",
    ),
    Definition(
        id="settings-degraded",
        rules=(Rule(kind=Kind.DOUBT, order=20, find=degraded),),
        means="A setting of the scenario was not in force: a sysctl, a limit, a private namespace. The measurements "
        "are correct, but they are not of the scenario as written.",
        look_at="The sentences of the finding: each names what was refused, and by what.",
        do="Run it where the setting is allowed, or remove the setting from the scenario.",
    ),
    Definition(
        id="watcher-lost",
        rules=(Rule(kind=Kind.DOUBT, order=30, find=watcher_lost),),
        means="The canary and the clients that are held open are separate processes, and one of them ended before the "
        "run did. Attempts, fates and descriptors are not affected. Outages and recovery after that are not known.",
        look_at="The sentences of the finding: which process, and how it ended. Its .stderr file is in the result.",
        do="Run it again, and look for the reason (out of memory, a signal).",
    ),
    Definition(
        id="ledger-unbalanced",
        rules=(Rule(kind=Kind.DOUBT, order=40, find=unbalanced),),
        means="Every attempt has one outcome and one fate, and both must add up. Here they do not: records are "
        "missing, or the kernel's queue differs from the number of connections that were taken from it.",
        look_at="The sentences of the finding.",
        do="Run it again. If it happens again, keep the result folder: it is a bug of loadsim, or of the kernel.",
    ),
    Definition(
        id="target-ended",
        rules=(Rule(kind=Kind.FAULT, order=10, find=target_ended),),
        means="The server ended before the run was over. Connections in its accept queue were reset, later ones were "
        "refused.",
        look_at="target.stderr in the result, and the fates `orphaned` and `refused`. For signal 9: `dmesg` (the OOM "
        "killer).",
        do="Catch EMFILE around accept(): many servers die of it because their authors did not expect accept() to "
        "fail.",
    ),
    Definition(
        id="clients-failed",
        rules=(Rule(kind=Kind.FAULT, order=210, find=unexplained_failures, unless=frozenset({Kind.FAULT})),),
        means="Clients failed, and no measurement at the server explains it.",
        look_at="The table of outcomes, target.stderr, and the time-outs of the scenario.",
        do="Compare client.reply_timeout with the time that the server takes for a request. Try a longer time-out.",
    ),
    Definition(
        id="nothing-found",
        rules=(Rule(kind=Kind.INFORMATION, order=10, find=nothing, unless=frozenset({Kind.DOUBT, Kind.FAULT})),),
        means="No rule of loadsim found a fault: no limit was reached, no queue overflowed, no client waited long.",
        look_at="The headroom: fds.max and fds.limit, queue.max and queue.capacity.",
        do="Raise the load until something fails: that load is the number to know.",
    ),
    Definition(
        id="prediction-gap",
        rules=(Rule(kind=Kind.INFORMATION, order=50, find=prediction_gap),),
        means="Before a run loadsim calculates from rates, limits and the baseline when the limit is reached, when the "
        "queue is full, or that neither happens, and how many clients have which fate. Here a measurement differs by "
        f"more than {_GAP}, or an event came that was predicted never to come.",
        look_at="The two columns predicted and measured.",
        do="Ask what else used descriptors or time: other threads, log files, a slow machine, a raised limit.",
    ),
    Definition(
        id="fates-unknown",
        rules=(Rule(kind=Kind.INFORMATION, order=60, find=unknown_fates),),
        means="A server that loadsim does not simulate writes no records. Acceptance is proved by a reply, or by a "
        f"process that owns the socket in the TCP table (sampled up to {TABLE_HZ} times a second, and once at the "
        "end). Here neither was seen.",
        look_at="The outcome of these clients, and the fates of the others.",
        do='Let clients ask for an answer (client.exchange = "http") or stay longer (client.hold).',
    ),
    Definition(
        id="foreign-accepts",
        rules=(Rule(kind=Kind.INFORMATION, order=70, find=foreign_clients),),
        means="The server accepted connections from an address and port that no attempt of this run had.",
        look_at="`ss -tnp` during the run: a curl, a health check, a port scanner.",
        do="Keep other clients away from the port: they use descriptors and places in the queue.",
    ),
    Definition(
        id="join-ambiguous",
        rules=(Rule(kind=Kind.INFORMATION, order=80, find=ambiguous_joins),),
        means="loadsim matches both ends of a connection by address, port, order, and the state that accept() found. A "
        "close by RST frees its port at once. If several connections of one 4-tuple waited together and some of them "
        "were never accepted, the age of the socket cannot always tell which ones.",
        look_at="join.ambiguous.",
        do='Nothing, for the totals. For exact rows: more client.sources, or client.close = "fin".',
    ),
)
