"""`loadsim check`: the needs, the prediction and the warnings of a scenario or a sweep, without a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loadsim.commands import options, output
from loadsim.render.drawing import (
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
from loadsim.render.tables import style_and_words
from loadsim.render.text import left, right, widest
from loadsim.units import format_bytes, format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.compare.text import SweepPreview
    from loadsim.scenario.layers import Override
    from loadsim.scenario.plan import Need, Plan
    from loadsim.scenario.sweep import Matrix

_LABEL = 26
_NUMBER = 11
_BAR = 32
#: From this width on the meaning of a fate is shown.
_ROOMY = 100
#: Event of a prediction -> its name.
_EVENTS = {"emfile": "first EMFILE", "queue_full": "accept queue full"}


@click.command("check", cls=options.Command, short_help="Validate a scenario and predict its run; start nothing.")
@click.argument("scenario", type=options.ScenarioName())
@options.SET
@options.REPEAT
@options.ALLOW_OUTSIDE
@options.JSON
def command(
    *, scenario: str, overrides: tuple[str, ...], repeat: int | None, allow_outside: bool, as_json: bool
) -> None:
    """Validate SCENARIO, show what it needs and predict what it will do. Nothing is started.

    For a sweep it shows the cells, the time that all runs take, and whether the repeats can tell the cells apart.

    \b
    Exit status:
      0  the scenario is valid, with or without warnings
      2  the command line or the scenario is wrong

    \b
    Examples:
      loadsim check too-many-open-files --set server.nofile=1024
      loadsim check backlog-sweep
      loadsim check my.toml --json | jq .prediction
    """
    with output.explained():
        from loadsim.run.host import observe_host
        from loadsim.scenario.layers import OptionValue
        from loadsim.scenario.plan import make_plans
        from loadsim.scenario.toml import load_matrix

        settings: list[Override] = [*overrides]
        if repeat is not None:
            settings.append(OptionValue.repeat(repeat))
        matrix = load_matrix(scenario, settings, allow_outside=allow_outside)
        plans = make_plans([cell.scenario for cell in matrix.cells], observe_host)
        if matrix.is_single:
            _show_plan(plans[0], as_json=as_json)
        else:
            _show_matrix(matrix, plans, as_json=as_json)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    import dataclasses

    if as_json:
        output.print_json(dataclasses.asdict(plan) | {"scenario": plan.scenario.settings()})
    else:
        output.put(render_plan(plan, output.terminal()))


def _show_matrix(matrix: Matrix, plans: list[Plan], *, as_json: bool) -> None:
    import dataclasses

    from loadsim.compare.text import preview_of

    outlook = preview_of(matrix, plans)
    if as_json:
        output.print_json(dataclasses.asdict(outlook))
    else:
        output.put(render_preview(outlook, output.terminal()))


def render_plan(plan: Plan, terminal: Terminal) -> str:
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
    most = f"at most {_plain_time(plan.length_s)}"
    facts = [
        "" if plan.expected_attempts is None else f"{about}{some(plan.expected_attempts, 'client')}",
        most if plan.expected_s >= plan.length_s else f"about {_plain_time(plan.expected_s)}, {most}",
        f"seed {scenario.seed}",
    ]
    right_end = terminal.glyphs.dot.join(fact for fact in facts if fact)
    name = terminal.clip(scenario.name, terminal.edge)
    lines = both_ends(line((name, STRONG)), line((right_end, QUIET)), terminal)
    lines.append(line(("VALID", STRONG_GOOD), "  The scenario is well-formed; nothing was started."))
    return [*lines, *paragraph(scenario.description, terminal, margin=" " * 7, style=QUIET)]


def _needs(plan: Plan) -> list[Line]:
    """Return the needed and available descriptors, ports, processes and disk space."""
    each = " each" if plan.scenario.client.processes > 1 else ""
    head = "".join(right(text, _NUMBER) for text in ("at most", "available"))
    return [
        line(left("  what it needs", _LABEL), (head, QUIET)),
        *_server_need(plan),
        _need(f"descriptors, driver{each}", plan.driver_fds, "NOT ENOUGH", ALARM),
        _need("source ports", plan.ports, "NOT ENOUGH", ALARM),
        line(left("  accept queue", _LABEL), right("", _NUMBER), right(format_count(plan.queue_capacity), _NUMBER)),
        line(left("  processes", _LABEL), right(format_count(plan.processes), _NUMBER)),
        line(left("  space for records", _LABEL), right(format_bytes(plan.reserved_bytes), _NUMBER)),
    ]


def _server_need(plan: Plan) -> list[Line]:
    """Return the needs of the server; nothing for a running server, because its limits are unknown before the run."""
    if plan.scenario.server.is_running:
        return []
    return [_need("descriptors, server", plan.server_fds, "not enough: this is the test", WARN, about="about ")]


def _need(label: str, need: Need, lack: str, style: str, *, about: str = "") -> Line:
    """Return one row; `about` marks a number that is not an upper bound, unlike the head of its column."""
    needed = "unbounded" if need.needed is None else about + format_count(need.needed)
    name = f"  {label}"
    row = line(name, right(needed, _LABEL + _NUMBER - len(name)), right(f"  {format_count(need.available)}", _NUMBER))
    if need.is_met:
        return row
    return line(row, (f"   {lack}", style) if need.is_lacking else ("   may be too few", WARN))


def _changes(plan: Plan) -> list[Line]:
    """Return the steps of the timeline and the canary; nothing without them."""
    scenario = plan.scenario
    rows = [(f"after {_plain_time(step.at)}", _change(*step.change)) for step in scenario.timeline.ordered]
    if (canary := scenario.canary) is not None:
        held = f", and on {some(canary.held, 'held connection')}" if canary.held else ""
        rows.append(("canary", f"asks every {_plain_time(canary.every)}{held}"))
    lines = [line(left(f"  {when}", _LABEL), "   ", what) for when, what in rows]
    return [line("  what changes during the run"), *lines] if lines else []


def _change(name: str, value: float) -> str:
    if name == "release":
        return "all clients leave" if value == 1 else f"{value:.0%} of the clients leave".replace("%", " %")
    return f"{name} = {format_count(value)}"


def _prediction(plan: Plan, terminal: Terminal) -> list[Line]:
    """Return the times at which limits are reached, the fates, and the open questions."""
    prediction = plan.prediction
    at = {"emfile": prediction.emfile_at_s, "queue_full": prediction.queue_full_at_s}
    lines = [line("  what it will do")]
    for event, name in _EVENTS.items():
        when = at[event]
        if when is not None:
            lines.append(line(left(f"  {name}", _LABEL), (right(_plain_time(when), _NUMBER), BAD)))
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


def _plain_time(seconds: float) -> str:
    """Return a planned time without a zero after the point: "2 s", not "2.0 s"."""
    return format_duration(seconds).replace(".0 ", " ")


def render_preview(outlook: SweepPreview, terminal: Terminal) -> str:
    """Return the outlook of a sweep as text that ends in a newline."""
    facts = f"{some(outlook.runs, 'run')}, about {format_duration(outlook.expected_s)}"
    lines = both_ends(line((terminal.printable(outlook.scenario), STRONG)), line((facts, QUIET)), terminal)
    lines += [*paragraph(outlook.description, terminal, style=QUIET), line()]
    name = widest([cell.label for cell in outlook.cells])
    lines.append(line((f"  {left('cells', name)}   one run   EMFILE at   queue full at", QUIET)))
    for cell in outlook.cells:
        times = (cell.expected_s, cell.emfile_at_s, cell.queue_full_at_s)
        run, emfile, full = ("-" if time is None else _plain_time(time) for time in times)
        label = left(terminal.printable(cell.label), name)
        lines.append(line(f"  {label}{right(run, 10)}{right(emfile, 12)}{right(full, 16)}"))
    lines.append(
        line((f"  {outlook.repeat} runs of each cell, shuffled; the times are predicted, - is unknown", QUIET))
    )
    lines += [line(), *_power(outlook, terminal)]
    for cell in outlook.cells:
        for warning in cell.warnings:
            lines += paragraph(f"{cell.label}: {warning.sentence}", terminal, mark="! ", mark_style=WARN)
            lines += paragraph(warning.remedy, terminal, margin="  ", mark="-> ", mark_style=GOOD)
    return paint(lines, terminal)


def _power(outlook: SweepPreview, terminal: Terminal) -> list[Line]:
    """Return whether the planned repeats can tell the cells apart."""
    if len(outlook.cells) == 1:
        return [line(("one cell: its runs show the variation by chance; nothing is compared", QUIET))]
    if outlook.can_tell:
        return [line((f"{outlook.repeat} runs of each can tell any two cells apart", GOOD))]
    sentence = (
        f"cannot tell: {outlook.repeats_needed} repeats needed, {outlook.repeat} planned. With fewer repeats, any "
        f"difference between {len(outlook.cells)} cells may be chance."
    )
    remedy = f"--repeat {outlook.repeats_needed}, or fewer cells"
    return [
        *paragraph(sentence, terminal, mark="! ", mark_style=WARN),
        *paragraph(remedy, terminal, margin="  ", mark="-> ", mark_style=GOOD),
    ]
