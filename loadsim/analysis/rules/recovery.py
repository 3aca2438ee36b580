"""Findings about what a server does once there is room again, as the canary saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.rules.case import fault, information, sentences
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.rules.case import Case, Found
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
    recovery = case.view.recovery
    if recovery is None or recovery.answered_ns is not None:
        return None
    relief = recovery.helped
    watched = format_duration(max(case.view.clock.load_end - relief.done_ns, 0) / 1e9)
    return fault(
        "no-recovery",
        f"The server never came back: {told(relief)}, and no canary was answered in the {watched} after that.",
        sentences(_last_canaries(case), "Room alone does not help it: what it waits for does not come."),
        "restart it, today; then let its accept loop try again by itself after EMFILE, with a pause.",
    )


def recovery(case: Case) -> Found | None:
    """Tell how long a server took to come back."""
    recovery = case.view.recovery
    if recovery is None or recovery.answered_ns is None:
        return None
    last_bad, again = case.numbers["recovery.last_bad"], case.number("recovery.emfile")
    return information(
        "recovery",
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
    return fault(
        "outage",
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
