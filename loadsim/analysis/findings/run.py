"""Findings about the run itself: whether it is complete, whether its ledger balances, and what else to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, ending, sentence, sentences, were
from loadsim.analysis.metrics import GAP, is_gap
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
    """Find a run that was stopped before its end."""
    facts = case.data.recording.facts
    if facts.complete:
        return None
    return Found(
        f"The run was interrupted ({facts.interrupted or 'its loadsim process was killed'}).",
        f"All results cover only its first {format_duration(max(case.data.clock.load_s, 0.0))}.",
        "run it again. If it takes too long, shorten it with --set client.duration=...",
    )


def unbalanced(case: Case) -> Found | None:
    """Find a ledger that does not balance."""
    imbalance = case.data.ledger.imbalance
    if not imbalance:
        return None
    return Found(
        "The ledger does not balance: not every attempt can be accounted for.",
        sentences(*imbalance),
        "do not trust the fates of this run. Run it again, and report a bug of loadsim if it happens again.",
    )


def degraded(case: Case) -> Found | None:
    """Find settings of the scenario that were not in force."""
    notices = case.data.recording.facts.degraded
    if not notices:
        return None
    return Found(
        f"{some(len(notices), 'setting')} of the scenario {were(len(notices))} not in force.",
        sentences(*map(sentence, notices)),
        "fix the causes listed above, or remove these settings from the scenario.",
    )


def watcher_lost(case: Case) -> Found | None:
    """Find a process of the canary or of the held clients that ended before the run did."""
    lost = case.data.recording.facts.watchers_lost
    if not lost:
        return None
    return Found(
        "The process of the canary or of the held clients ended before the run did.",
        sentences(*map(sentence, lost)),
        "run it again: outages and recovery after that moment are unknown.",
    )


def target_ended(case: Case) -> Found | None:
    """Find a server that ended before the run did."""
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
            f"{some(refused, 'later client')} {were(refused)} refused." if refused else "",
            _steps_after_the_end(case),
        ),
        f"read {'target.stderr of the result' if server.started else 'its own log'}, and after a SIGKILL also dmesg "
        "(out of memory?).",
    )


def _steps_after_the_end(case: Case) -> str:
    """Return a sentence about the steps of the timeline that came after the end of the server."""
    count = sum(step.target_ended for step in case.data.recording.facts.steps)
    return f"{some(count, 'step')} of the timeline came later and had no effect." if count else ""


def _how(server: ServerFacts) -> str:
    """Return how it ended; "" if this run did not start it, since only its parent gets the exit status."""
    return "" if server.exit_status is None else f": {ending(server.exit_status)}"


def prediction_gap(case: Case) -> Found | None:
    """Find predictions that differ from the measurement by more than 10 %."""
    gaps = [row for row in case.prediction if is_gap(row)]
    if not gaps or not case.data.recording.facts.complete:  # the prediction holds for a complete run
        return None
    return Found(
        f"{some(len(gaps), 'number')} differ{'s' if len(gaps) == 1 else ''} by more than {_GAP} from the prediction.",
        f"Predicted and measured: {'; '.join(_gap(row) for row in gaps)}.",
        "find out what else used descriptors or time: the prediction uses only rates, limits and the baseline.",
    )


def _gap(row: Compared) -> str:
    shown = [_value(value, row.unit) for value in (row.predicted, row.measured)]
    return f"{row.name} {shown[0]} and {shown[1]}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "never"
    return format_duration(value) if unit == "s" else format_count(value)


def unknown_fates(case: Case) -> Found | None:
    """Find clients without proof of any fate, of a server that writes no records."""
    count = case.fates(Fate.UNKNOWN)
    if not count or case.data.recording.facts.server.is_simulated:
        return None
    return Found(
        f"For {some(count, 'client')} there is no proof that the server accepted {'it' if count == 1 else 'them'}.",
        *_missing_proof(case.data.recording.facts.server),
    )


def _missing_proof(server: ServerFacts) -> tuple[str, str]:
    """Return why proof is missing, and the remedy."""
    if not server.sockets_seen:
        return (
            "They got no reply, and the server's TCP table cannot be read from here.",
            "run loadsim on the host of the server: its TCP table shows which process owns a connection.",
        )
    why = (
        "They got no reply, and no sample of the TCP table showed a process that owned their connection. Your server "
        f"writes no records, and connections shorter than {format_duration(1 / TABLE_HZ)} can fall between two samples."
    )
    return why, 'client.exchange = "http" proves acceptance by a reply, a longer client.hold by the TCP table.'


def foreign_clients(case: Case) -> Found | None:
    """Find connections from outside the run."""
    count = case.number("join.foreign")
    if not count:
        return None
    return Found(
        f"{some(count, 'accepted connection')} came from outside the run.",
        "No attempt of this run matches them. They used descriptors and places in the queue, and are not in the "
        "ledger.",
        "keep other clients away from the port during a run.",
    )


def ambiguous_joins(case: Case) -> Found | None:
    """Find connections with the same 4-tuple that could not be distinguished."""
    count = case.number("join.ambiguous")
    if not count:
        return None
    return Found(
        f"{some(count, 'accepted connection')} could belong to several attempts; each was matched to the oldest.",
        "A close by RST frees the port at once. A new connection can then have the 4-tuple of an earlier one that "
        "still waits in the accept queue. The totals are correct; single rows may be swapped.",
        "use more client.sources or a wider net.ipv4.ip_local_port_range: ports are then reused later.",
    )


def unexplained_failures(case: Case) -> Found | None:
    """Find clients that failed in a run without any other fault."""
    count = case.outcomes(*_FAILED)
    if not count:
        return None
    seen = ", ".join(
        f"{outcome.name.lower()} {format_count(case.outcomes(outcome))}"
        for outcome in _FAILED
        if case.outcomes(outcome)
    )
    return Found(
        f"{some(count, 'client')} failed, and no measurement explains why.",
        f"They saw: {seen}.",
        "read target.stderr, and check the scenario: its time-outs may be shorter than the server needs for a request.",
    )


def nothing(case: Case) -> Found:
    """Report that no fault was found, and the headroom that the server had."""
    good = case.outcomes(Outcome.OK, Outcome.CONNECTED)
    queue, holds = case.number("queue.max"), case.number("queue.capacity")
    return Found(
        "Every client was served, and nothing went wrong."
        if good == case.number("attempts.count")
        else "No fault was found, but not every client was served.",
        sentences(
            f"{format_count(good)} of {some(case.number('attempts.count'), 'client')} {were(good)} served.",
            f"At most {format_count(case.number('fds.max'))} of {format_count(case.data.fd_limit)} descriptors were "
            "seen open."
            if "fds.max" in case.numbers
            else "",
            f"Its accept queue held at most {format_count(queue)} of {format_count(holds)}." if holds else "",
        ),
    )


FINDINGS = (
    Definition(
        id="interrupted",
        rules=(Rule(kind=Kind.DOUBT, order=10, find=interrupted),),
        means="The run was stopped before its end (Ctrl-C, a signal, an abort threshold), or its loadsim process was "
        "killed. The records are exact up to that moment. Connections still in progress have no reliable fate.",
        look_at="The cause, in the finding.",
        do="Run it again.",
    ),
    Definition(
        id="settings-degraded",
        rules=(Rule(kind=Kind.DOUBT, order=20, find=degraded),),
        means="A setting of the scenario was not in force: a sysctl, a limit, a private namespace. The measurements "
        "are correct, but they do not describe the scenario as written.",
        look_at="The sentences of the finding: each names a setting, and why it was refused.",
        do="Run it where the setting is allowed, or remove the setting from the scenario.",
    ),
    Definition(
        id="watcher-lost",
        rules=(Rule(kind=Kind.DOUBT, order=30, find=watcher_lost),),
        means="The canary and the clients that are held open are separate processes, and one of them ended before the "
        "run did. Attempts, fates and descriptors are not affected. Outages and recovery after that are unknown.",
        look_at="The sentences of the finding: which process, and how it ended. Its .stderr file is in the result.",
        do="Run it again, and look for the reason (out of memory, a signal).",
    ),
    Definition(
        id="ledger-unbalanced",
        rules=(Rule(kind=Kind.DOUBT, order=40, find=unbalanced),),
        means="Every attempt has one outcome and one fate, and both must add up. Here they do not: records are "
        "missing, or the kernel's queue does not have the length that follows from the records.",
        look_at="The sentences of the finding.",
        do="Run it again. If it happens again, keep the result folder: it is a bug of loadsim, or of the kernel.",
    ),
    Definition(
        id="target-ended",
        rules=(Rule(kind=Kind.FAULT, order=10, find=target_ended),),
        means="The server ended before the run was over. Connections in its accept queue were reset, and later ones "
        "were refused.",
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
        means="Before a run loadsim uses rates, limits and the baseline to predict when the limit is reached, when "
        "the queue is full, or that neither happens, and the number of clients with each fate. Here a measurement "
        f"differs by more than {_GAP}, or an event happened that was predicted never to happen.",
        look_at="The two columns predicted and measured.",
        do="Find out what else used descriptors or time: other threads, log files, a slow machine, a raised limit.",
    ),
    Definition(
        id="fates-unknown",
        rules=(Rule(kind=Kind.INFORMATION, order=60, find=unknown_fates),),
        means="A server that loadsim does not simulate writes no records. Acceptance is proved by a reply, or by a "
        f"process that owns the socket in the TCP table (sampled up to {TABLE_HZ} times a second, and once at the "
        "end). Here neither was seen.",
        look_at="The outcomes of these clients, and the fates of the others.",
        do='Make clients wait for a reply (client.exchange = "http") or stay longer (client.hold).',
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
        "were never accepted, the age of the socket does not always show which ones.",
        look_at="join.ambiguous.",
        do='The totals need no action. For exact rows use more client.sources, or client.close = "fin".',
    ),
)
