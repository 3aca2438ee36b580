"""What `loadsim check` prints: what a scenario needs, what it will do, and what to know before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.drawing import (
    ALARM,
    BAD,
    GOOD,
    QUIET,
    STRONG,
    STRONG_GOOD,
    WARN,
    Line,
    Terminal,
    bar,
    both_ends,
    joined,
    line,
    paint,
    paragraph,
)
from loadsim.report.ledger import style_and_words
from loadsim.report.text import left, right
from loadsim.units import format_bytes, format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.scenario.plan import Need, Plan

_LABEL = 26
_NUMBER = 11
_BAR = 32
#: From this width on there is room for what a fate means.
_ROOMY = 100
#: Event of a prediction -> how it is named, and what is said if it cannot happen.
_EVENTS = {"emfile": "first EMFILE", "queue_full": "accept queue full"}


def render(plan: Plan, terminal: Terminal) -> str:
    """Return the plan as text that ends in a newline and is nowhere wider than the terminal."""
    sections = [
        _head(plan, terminal),
        _needs(plan),
        _changes(plan),
        _prediction(plan, terminal),
        _warnings(plan, terminal),
    ]
    return paint(joined(sections), terminal)


def _head(plan: Plan, terminal: Terminal) -> list[Line]:
    scenario = plan.scenario
    about = "about " if plan.expected_is_mean else ""
    most = f"at most {plain_time(plan.length_s)}"
    facts = [
        "" if plan.expected_attempts is None else f"{about}{some(plan.expected_attempts, 'client')}",
        most if plan.expected_s >= plan.length_s else f"about {plain_time(plan.expected_s)}, {most}",
        f"seed {scenario.seed}",
    ]
    right_end = terminal.glyphs.dot.join(fact for fact in facts if fact)
    name = terminal.clip(scenario.name, terminal.edge)
    lines = both_ends(line((name, STRONG)), line((right_end, QUIET)), terminal)
    lines.append(line(("VALID", STRONG_GOOD), "  The scenario is well-formed; nothing was started."))
    return [*lines, *paragraph(scenario.description, terminal, margin=" " * 7, style=QUIET)]


def _needs(plan: Plan) -> list[Line]:
    """Return descriptors, ports, processes and space against what there is."""
    each = " each" if plan.scenario.client.processes > 1 else ""
    head = "".join(right(text, _NUMBER) for text in ("at most", "available"))
    return [
        line(left("  what it needs", _LABEL), (head, QUIET)),
        *_of_server(plan),
        _need(f"descriptors, driver{each}", plan.driver_fds, "NOT ENOUGH", ALARM),
        _need("source ports", plan.ports, "NOT ENOUGH", ALARM),
        line(left("  accept queue", _LABEL), right("", _NUMBER), right(format_count(plan.queue_capacity), _NUMBER)),
        line(left("  processes", _LABEL), right(format_count(plan.processes), _NUMBER)),
        line(left("  space for records", _LABEL), right(format_bytes(plan.reserved_bytes), _NUMBER)),
    ]


def _of_server(plan: Plan) -> list[Line]:
    """Return what the server needs; nothing of one that runs already, whose limits nobody has read yet."""
    if plan.scenario.server.is_running:
        return []
    return [_need("descriptors, server", plan.server_fds, "not enough: this is the test", WARN)]


def _need(label: str, need: Need, lack: str, style: str) -> Line:
    needed = "unbounded" if need.needed is None else format_count(need.needed)
    row = line(left(f"  {label}", _LABEL), right(needed, _NUMBER), right(format_count(need.available), _NUMBER))
    if need.is_met:
        return row
    return line(row, ("   may be too few", WARN) if need.needed is None else (f"   {lack}", style))


def _changes(plan: Plan) -> list[Line]:
    """Return what the timeline will change, and who watches; nothing where nobody does and nothing changes."""
    scenario = plan.scenario
    rows = [(f"after {plain_time(step.at)}", _change(*step.change)) for step in scenario.timeline.ordered]
    if (canary := scenario.canary) is not None:
        held = f", and on {some(canary.held, 'held connection')}" if canary.held else ""
        rows.append(("canary", f"asks every {plain_time(canary.every)}{held}"))
    lines = [line(left(f"  {when}", _LABEL), "   ", what) for when, what in rows]
    return [line("  what changes meanwhile"), *lines] if lines else []


def _change(name: str, value: float) -> str:
    if name == "release":
        return "all clients leave" if value == 1 else f"{value:.0%} of the clients leave".replace("%", " %")
    return f"{name} = {format_count(value)}"


def _prediction(plan: Plan, terminal: Terminal) -> list[Line]:
    """Return when limits are reached and where the clients will end; what arithmetic cannot say, it says."""
    prediction = plan.prediction
    at = {"emfile": prediction.emfile_at_s, "queue_full": prediction.queue_full_at_s}
    lines = [line("  what it will do")]
    for event, name in _EVENTS.items():
        when = at[event]
        if when is not None:
            lines.append(line(left(f"  {name}", _LABEL), (right(plain_time(when), _NUMBER), BAD)))
        elif event in prediction.never:
            lines.append(line(left(f"  {name}", _LABEL), (right("never", _NUMBER), GOOD)))
    top = max(prediction.fates.values(), default=0.0)
    for fate, count in prediction.fates.items():
        style, meaning = style_and_words(fate)
        drawn = left(bar(count / top if top else 0.0, _BAR, terminal.glyphs), _BAR + 2)
        meant = meaning if terminal.edge >= _ROOMY else ""
        name = left(f"  {fate.replace('_', ' ')}", _LABEL)
        lines.append(line(name, right(format_count(count), _NUMBER), "   ", (drawn, style), (meant, QUIET)))
    for open_question in prediction.unpredicted:
        lines += paragraph(f"not predicted: {open_question}", terminal, margin=" " * 2, style=QUIET)
    return lines if len(lines) > 1 else [*lines, line(("  nothing is predicted", QUIET))]


def _warnings(plan: Plan, terminal: Terminal) -> list[Line]:
    if not plan.warnings:
        return [line(("no warnings", GOOD))]
    lines = [line((f"WARNINGS ({len(plan.warnings)})", STRONG))]
    for warning in plan.warnings:
        lines += paragraph(warning.sentence, terminal, mark="! ", mark_style=WARN)
        lines += paragraph(warning.remedy, terminal, margin="  ", mark="-> ", mark_style=GOOD)
    return lines


def plain_time(seconds: float) -> str:
    """Return a time of a plan, which is round more often than not: "2 s", not "2.0 s"."""
    return format_duration(seconds).replace(".0 ", " ")
