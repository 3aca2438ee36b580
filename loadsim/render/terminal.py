"""The end of a run on a terminal: status, one sentence, pictures, tables, findings, next steps.

The order is the message. Findings come last, because the last lines are what a terminal still shows.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any, cast

from loadsim.analysis.summary import Summary
from loadsim.render.drawing import (
    ALARM,
    BAD,
    GOOD,
    NAME,
    QUIET,
    STATUSES,
    STRONG,
    WARN,
    Line,
    Terminal,
    both_ends,
    joined,
    line,
    paint,
    paragraph,
)
from loadsim.render.picture import fd_table, picture
from loadsim.render.tables import growth, latencies, ledger
from loadsim.render.text import both, cell_len, flow, interruption, left, pieces, right, widest, wrap
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.summary import Compared, Finding, Judged
    from loadsim.render.drawing import Terminal

#: Where the text behind a label begins.
LABEL = 14
_GAP = 3
#: Finding -> the setting that removes its cause in the simulated server.
CURES = {
    "emfile-handler": "server.nofile=1024",
    "emfile-spin": "server.on_emfile=backoff",
    "fd-leak": "server.leak=0",
    "fd-limit": "server.nofile=1024",
    "fd-table-stall": "server.prewarm_fds=8192",
    "phantom-connections": "sysctl.net.ipv4.tcp_syncookies=0",
    "queue-overflow": "server.backlog=4096",
    "slow-accept": "server.accept_delay=0s",
    "nothing-found": "server.leak=1",
}


def render(
    summary: Summary,
    terminal: Terminal,
    *,
    saved: str | None = None,
    next_steps: Sequence[str] = (),
) -> str:
    """Return the summary of a run as text that ends in a newline; no line is wider than the terminal.

    `saved` is the result folder, None if nothing was written. `next_steps` are commands to try. Both, and every name
    in the summary, may hold any character: control characters are shown escaped.
    """
    shown = _harmless(summary, terminal)
    sections = [
        _head(shown, terminal),
        picture(shown, terminal),
        fd_table(shown, terminal),
        ledger(shown, terminal),
        latencies(shown, terminal),
        growth(shown, terminal),
        _what_happened(shown, terminal),
        [
            *_compared(shown.prediction, terminal),
            *_generator(shown, terminal),
            *_expected(shown.thresholds, terminal),
            *_saved(saved, terminal),
            *_next(next_steps, terminal),
        ],
    ]
    return paint(joined(sections), terminal)


def next_steps(summary: Summary) -> list[str]:
    """Return two commands: one explains the first finding, one runs again without the first cause that has a cure."""
    ids = [finding.id for finding in summary.findings]
    server = summary.settings.get("server", {})
    cures = [CURES[name] for name in ids if name in CURES]
    if server.get("pause"):  # the cause of waits in the queue, unlike accept_delay
        cures = ["server.pause=0s" if cure == CURES["slow-accept"] else cure for cure in cures]
    command = shlex.join(server.get("command") or ()).replace("'{port}'", "{port}")
    if command:  # of the server's settings, a command has only its limit
        cures = [cure for cure in cures if not cure.startswith("server.") or cure.startswith("server.nofile=")]
    elif server.get("pid") or server.get("address"):  # a running server is only observed
        cures = []
    steps = [f"loadsim explain {name}" for name in ids[:1]]
    # the command may have been given on the command line: without it the scenario's own server would run
    again = f" -- {command}" if command and "\n" not in command else ""
    return steps + [f"loadsim run {summary.scenario} --set {cure}{again}" for cure in cures[:1]]


def labelled(label: str, texts: Sequence[str], *, style: str = "") -> list[Line]:
    """Return the texts as lines; the label is on the first line only. No text gives no lines."""
    return [line((left(f"  {label if i == 0 else ''}", LABEL), QUIET), (text, style)) for i, text in enumerate(texts)]


def _harmless(summary: Summary, terminal: Terminal) -> Summary:
    r"""Return the summary with every string safe to show; a line break becomes a space, in the scenario's name "\n"."""

    def clean(value: object) -> object:
        if isinstance(value, str):
            return terminal.prose(value)
        if isinstance(value, dict):
            return {clean(key): clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list) else value

    named = dataclasses.replace(summary, scenario=terminal.printable(summary.scenario))
    return Summary.from_json(cast("dict[str, Any]", clean(named.to_json())))


def _head(summary: Summary, terminal: Terminal) -> list[Line]:
    facts = [format_duration(summary.duration_s), some(summary.clients, "client"), f"seed {summary.seed}"]
    name = terminal.clip(summary.scenario, terminal.edge)
    lines = both_ends(line((name, STRONG)), line((terminal.glyphs.dot.join(facts), QUIET)), terminal)
    first, *more = wrap(summary.sentence, terminal.edge - LABEL)
    status = summary.status.ljust(LABEL - 2) + "  "
    if len(status) > LABEL:
        first, *more = wrap(summary.sentence, terminal.edge - LABEL, first=terminal.edge - len(status))
    lines.append(line((status, STATUSES.get(summary.status, ALARM)), (first, STRONG)))
    lines += [line(" " * LABEL, (text, STRONG)) for text in more]
    for notice in (*interruption(summary), *summary.notices):
        lines += paragraph(notice, terminal, margin=" " * (LABEL - 2), mark="! ", mark_style=WARN)
    return lines


def _what_happened(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return the numbered findings: title with the id at the right edge, evidence, remedy."""
    title, hint = line(("WHAT HAPPENED", STRONG)), line(("[loadsim explain ID]", QUIET))
    if not summary.findings:
        return [title, line("  No findings: no rule was applied to this run.")]
    lines = both_ends(title, hint, terminal)
    digits = len(str(len(summary.findings)))
    for number, finding in enumerate(summary.findings, 1):
        lines += _finding(f"{number:>{digits}} ", finding, terminal)
    return lines


def _finding(number: str, finding: Finding, terminal: Terminal) -> list[Line]:
    style = ALARM if finding.fault else STRONG
    margin = " " * len(number)
    room = terminal.edge - len(number)
    first, *more = wrap(finding.title, room, first=max(room - widest([finding.id]) - 2, 20))
    lines = both_ends(line((number, style), (first, STRONG)), line((finding.id, NAME)), terminal)
    lines += [line(margin, (text, STRONG)) for text in more]
    if finding.evidence:
        lines += [line(margin, text) for text in wrap(finding.evidence, room)]
    if finding.remedy:
        lines += paragraph(finding.remedy, terminal, margin=margin, mark="-> ", mark_style=GOOD)
    return lines


def _compared(prediction: Sequence[Compared], terminal: Terminal) -> list[Line]:
    """Return predicted above measured numbers, one column per number."""
    columns = [(one.name, *both(one)) for one in prediction if one.predicted is not None or one.measured is not None]
    blocks: list[list[str]] = []
    for column in columns:
        width = widest(column)
        if blocks and LABEL + cell_len(blocks[-1][0]) + _GAP + width <= terminal.edge:
            width += _GAP
        else:
            blocks.append(["", "", ""])
        blocks[-1] = [row + right(text, width) for row, text in zip(blocks[-1], column, strict=True)]
    lines = []
    for names, predicted, measured in blocks:
        lines += [
            line(" " * LABEL, (names, QUIET)),
            *labelled("predicted", [predicted]),
            *labelled("measured", [measured]),
        ]
    return lines


def _generator(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return how the load generator did: lag, CPU, its own failures. Shown for every run."""
    metrics = summary.metrics
    lag, cpu, failures = (metrics.get(f"generator.{name}") for name in ("lag.p99_s", "cpu", "local_failures"))
    limited = bool(metrics.get("generator.limited"))
    canary_failures = int(metrics.get("canary.local", 0))
    facts = [
        "COULD NOT KEEP UP" if limited else "",
        f"lag p99 {format_duration(lag)}" if lag is not None else "",
        f"{cpu:.2f} cores" if cpu is not None else "",
        f"{format_count(failures)} own failures" if failures is not None else "",
        f"{some(canary_failures, 'own failure')} of the canary" if canary_failures else "",
    ]
    texts = flow([fact for fact in facts if fact], terminal.edge - LABEL)
    return labelled("generator", texts, style=WARN if limited else "")


def _expected(thresholds: Sequence[Judged], terminal: Terminal) -> list[Line]:
    """Return the thresholds with the measured values; missed ones are on separate lines."""
    glyphs = terminal.glyphs
    met = [f"{glyphs.met} {one.text} ({one.measured})" for one in thresholds if one.ok]
    missed = [f"{glyphs.missed} {one.text} (measured: {one.measured})" for one in thresholds if not one.ok]
    room = terminal.edge - LABEL
    return [
        *labelled("expected", flow(met, room), style=GOOD),
        *labelled("NOT MET", flow(missed, room), style=BAD),
    ]


def _saved(saved: str | None, terminal: Terminal) -> list[Line]:
    """Return where the result is; a long path is broken at any character, and never clipped."""
    return labelled("saved in", pieces(terminal.printable(saved), terminal.edge - LABEL)) if saved else []


def _next(steps: Sequence[str], terminal: Terminal) -> list[Line]:
    """Return commands to try."""
    width = terminal.edge - LABEL
    return labelled("next", [text for step in steps for text in in_shell(terminal.printable(step), width)])


def in_shell(command: str, width: int) -> list[str]:
    """Return a command in lines that a backslash continues; one with a very long word is broken at any character."""
    room = width - 4
    if cell_len(command) <= width:
        return [command]
    if max(map(cell_len, command.split()), default=0) > room:
        return pieces(command, width)
    *parts, last = wrap(command, room)
    return [*(text + " \\" for text in parts), last]
