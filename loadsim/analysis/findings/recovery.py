"""Findings about what a server does once there is room again, as the canary saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, sentences
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case
    from loadsim.record.facts import StepFacts


def told(step: StepFacts) -> str:
    """Return what a step changed, in words: "the limit rose to 1,024", "all clients left"."""
    after = step.asked if step.after is None else step.after
    if step.change == "release":
        return "all clients left" if step.asked == 1 else f"{step.asked:.0%} of the clients left".replace("%", " %")
    what = "the limit" if step.change == "nofile" else "the backlog"
    if step.before is None or step.before == after:
        return f"{what} was set to {format_count(after)}"
    return f"{what} {'rose' if after > step.before else 'fell'} to {format_count(after)}"


def no_recovery(case: Case) -> Found | None:
    """Find a server that never came back although there was room."""
    recovery = case.data.recovery
    if recovery is None or recovery.answered_ns is not None:
        return None
    relief = recovery.helped
    watched = format_duration(max(case.data.clock.load_end - relief.done_ns, 0) / 1e9)
    return Found(
        f"The server never came back: {told(relief)}, and no canary was answered in the {watched} after that.",
        sentences(_last_canaries(case), "Room alone does not help it: what it waits for does not come."),
        "restart it, today; then let its accept loop try again by itself after EMFILE, with a pause.",
    )


def recovery(case: Case) -> Found | None:
    """Tell how long a server took to come back."""
    recovery = case.data.recovery
    if recovery is None or recovery.answered_ns is None:
        return None
    last_bad, again = case.numbers["recovery.last_bad"], case.number("recovery.emfile")
    return Found(
        f"The server answered again {case.time('recovery.time')} after {told(recovery.helped)}.",
        sentences(
            "" if recovery.tried == 1 else f"{_counted(recovery.tried - 1)} before that had made room and not helped.",
            "Every canary after that was answered."
            if not last_bad
            else f"The last canary without an answer set out {format_duration(last_bad)} after it.",
            f"It ran out of descriptors {some(again, 'time')} more: dead clients are accepted first." if again else "",
        ),
    )


def _counted(steps: int) -> str:
    return "One step" if steps == 1 else f"{steps} steps"


def outage(case: Case) -> Found | None:
    """Find a time in which nobody new was served."""
    availability = case.numbers.get("canary.availability", 1.0)
    if availability == 1:
        return None
    return Found(
        f"For {case.time('canary.longest_outage')} no new client was served: "
        f"{f'{availability:.1%}'.replace('%', ' %')} of the canaries were answered.",
        _last_canaries(case),
        "a health check that only connects sees nothing of this: let it ask for an answer.",
    )


def _last_canaries(case: Case) -> str:
    parts = [
        f"{format_count(case.number(metric))} {what}"
        for metric, what in (
            ("canary.silent", 'were "connected" and never answered'),
            ("canary.unreachable", "got no answer to their SYN"),
            ("canary.turned_away", "were turned away"),
        )
        if case.number(metric)
    ]
    return f"Of the canaries {', '.join(parts)}." if parts else ""


FINDINGS = (
    Definition(
        id="no-recovery",
        rules=(Rule(kind=Kind.FAULT, order=20, find=no_recovery),),
        means="Descriptors were free again (clients had left, or the limit was raised), and the server still answered "
        "no new client. It waits for an event that never happens: a close on a connection that no longer exists, a "
        "thread that has ended, a listener that it no longer polls.",
        look_at="The canaries after the last mark of the timeline. In production: a process that is alive, listens, "
        "completes handshakes, and has logged nothing since.",
        do="Restart it now. Then let the accept loop retry without an outside event, some time after EMFILE.",
    ),
    Definition(
        id="outage",
        rules=(Rule(kind=Kind.FAULT, order=200, find=outage),),
        means="The canary is a separate client that connects, sends one request and leaves, again and again, "
        "independent of the load. Here some canaries got no answer in time.",
        look_at="canary.silent (connected, never answered), canary.unreachable (no answer to the SYN), "
        "canary.turned_away.",
        do="Let health checks ask for an answer: a connect succeeds as long as the accept queue is not full.",
    ),
    Definition(
        id="recovery",
        rules=(Rule(kind=Kind.INFORMATION, order=20, find=recovery),),
        means="The time from the step that freed descriptors to the first new client with an answer. It is longer than "
        "one delay of the server: connections of clients that gave up are still in the queue, are accepted first, and "
        "can use up the descriptors again.",
        look_at="recovery.time, recovery.last_bad, and recovery.emfile: how often the server failed again.",
        do="A pause of 10 to 100 ms after EMFILE recovers as fast as a spinning loop and costs no CPU.",
    ),
)
