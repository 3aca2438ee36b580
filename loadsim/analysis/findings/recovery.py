"""Findings of the canary: outages, and whether the server recovers once descriptors are free again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, sentences, were
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case
    from loadsim.record.facts import StepFacts


def describe_step(step: StepFacts) -> str:
    """Return the change of a step in words: "the limit rose to 1,024", "all clients left"."""
    after = step.asked if step.after is None else step.after
    if step.change == "release":
        return "all clients left" if step.asked == 1 else f"{step.asked:.0%} of the clients left".replace("%", " %")
    what = "the limit" if step.change == "nofile" else "the backlog"
    if step.before is None or step.before == after:
        return f"{what} was set to {format_count(after)}"
    return f"{what} {'rose' if after > step.before else 'fell'} to {format_count(after)}"


def no_recovery(case: Case) -> Found | None:
    """Find a server that never recovered although descriptors were free again."""
    recovery = case.data.recovery
    if recovery is None or recovery.answered_ns is not None:
        return None
    relief = recovery.helped
    watched = format_duration(max(case.data.clock.load_end - relief.done_ns, 0) / 1e9)
    return Found(
        f"The server never came back: {describe_step(relief)}, and no canary was answered in the {watched} after that.",
        sentences(
            _last_canaries(case), "Free descriptors do not wake it: it is waiting for an event that never happens."
        ),
        "restart it now. Then make its accept loop retry on a timer after EMFILE.",
    )


def recovery(case: Case) -> Found | None:
    """Report how long a server took to recover."""
    recovery = case.data.recovery
    if recovery is None or recovery.answered_ns is None:
        return None
    last_bad, again = case.numbers["recovery.last_bad"], case.number("recovery.emfile")
    return Found(
        f"The server answered again {case.time('recovery.time')} after {describe_step(recovery.helped)}.",
        sentences(
            "" if recovery.tried == 1 else f"{_counted(recovery.tried - 1)} freed descriptors and did not help.",
            "Every canary after that step was answered."
            if not last_bad
            else f"The last canary without an answer started {format_duration(last_bad)} after that step.",
            f"It ran out of descriptors {some(again, 'more time')}: clients that have given up are accepted first."
            if again
            else "",
        ),
    )


def _counted(steps: int) -> str:
    return "One earlier step" if steps == 1 else f"{steps} earlier steps"


def outage(case: Case) -> Found | None:
    """Find a time in which no new client was served."""
    availability = case.numbers.get("canary.availability", 1.0)
    if availability == 1:
        return None
    return Found(
        f"For {case.time('canary.longest_outage')} no new client was served: "
        f"{f'{availability:.1%}'.replace('%', ' %')} of the canaries were answered.",
        _last_canaries(case),
        "a health check that only connects does not see this: make it wait for a reply."
        if case.number("canary.silent") > case.number("canary.unreachable")
        else None,
    )


def _last_canaries(case: Case) -> str:
    parts = [
        f"{format_count(case.number(metric))} {what}"
        for metric, what in (
            ("canary.silent", "connected and got no reply"),
            ("canary.unreachable", "got no answer to the SYN"),
            ("canary.turned_away", f"{were(case.number('canary.turned_away'))} turned away"),
        )
        if case.number(metric)
    ]
    return f"Canaries without a good answer: {', '.join(parts)}." if parts else ""


FINDINGS = (
    Definition(
        id="no-recovery",
        rules=(Rule(kind=Kind.FAULT, order=20, find=no_recovery),),
        means="Descriptors were free again (clients had left, or the limit was raised), but the server still answered "
        "no new client. It waits for an event that never happens: a close on a connection that no longer exists, a "
        "thread that has ended, a listener that it no longer polls.",
        look_at="The canaries after the last mark of the timeline. In production: a process that is alive, listens, "
        "completes handshakes, and logs nothing.",
        do="Restart it now. Then let the accept loop retry without an outside event, some time after EMFILE.",
    ),
    Definition(
        id="outage",
        rules=(Rule(kind=Kind.FAULT, order=200, find=outage),),
        means="The canary is a separate client that connects, sends one request and leaves, again and again, "
        "independent of the load. Here some canaries got no answer in time.",
        look_at="canary.silent (connected, never answered), canary.unreachable (no answer to the SYN), "
        "canary.turned_away.",
        do="Make health checks wait for a reply: connect() succeeds as long as the accept queue is not full.",
    ),
    Definition(
        id="recovery",
        rules=(Rule(kind=Kind.INFORMATION, order=20, find=recovery),),
        means="The time from the step that freed descriptors to the first new client with an answer. It can be "
        "longer than one retry delay of the server: connections of clients that gave up are still in the queue, are "
        "accepted first, and can use up the descriptors again.",
        look_at="recovery.time, recovery.last_bad, and recovery.emfile (how often the server failed again).",
        do="A pause of 10 to 100 ms after EMFILE recovers as fast as a spinning loop and costs no CPU.",
    ),
)
