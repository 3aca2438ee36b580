"""`loadsim explain`: explain a finding, fate, outcome or metric, or list all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from loadsim.commands import options, output
from loadsim.errors import ScenarioError
from loadsim.render.drawing import NAME, QUIET, STRONG, Line, Terminal, both_ends, line, paint
from loadsim.render.text import flow, left, widest, wrap

if TYPE_CHECKING:
    from loadsim.analysis.findings.registry import Explanation

_LABEL = 9
_COMMAND = re.compile(r"(`[^`]+`)")
#: Prefixes of metrics that count a fate or an outcome; the index already lists those.
_COUNTS = ("fate.", "outcome.")
#: Kind of explanation -> the heading of its ids, in the order in which a newcomer meets them.
_HEADINGS = {
    "finding": "findings: statements about a run",
    "fate": "fates: the end of an attempt at the server (as a metric: fate.NAME)",
    "outcome": "outcomes: the result at the client (as a metric: outcome.NAME)",
    "fate and outcome": "both a fate and an outcome",
    "metric": "metrics: thresholds and summary.json use these names",
}


@click.command("explain", cls=options.Command, short_help="Explain a finding, fate, outcome or metric.")
@click.argument("asked", metavar="[ID]", type=options.ExplainedName(), required=False)
def command(*, asked: str | None) -> None:
    """Explain a finding, fate, outcome or metric by its ID. Without ID, list all of them.

    \b
    Exit status:
      0  it was explained
      2  nothing has this ID, or the command line is wrong

    \b
    Examples:
      loadsim explain
      loadsim explain fd-leak
      loadsim explain phantom
      loadsim explain accept.p99
    """
    with output.explained():
        from loadsim.analysis.findings.registry import explain

        if asked is None:
            output.put(render_index(output.terminal()))
            return
        explanation = explain(asked)
        if explanation is None:
            raise ScenarioError(_unknown(asked))
        output.put(render(explanation, output.terminal()))


def _unknown(asked: str) -> str:
    import difflib

    from loadsim.analysis.findings.registry import ids

    near = difflib.get_close_matches(asked, ids(), n=1, cutoff=0.5)
    remedy = f'did you mean "{near[0]}"?' if near else "loadsim explain lists all ids"
    return f'"{asked}" is not a finding, fate, outcome or metric; {remedy}'


def render(explanation: Explanation, terminal: Terminal) -> str:
    """Return one explanation: its meaning, the place to look at, and the remedy."""
    name, kind = terminal.printable(explanation.id), f"[{explanation.kind}]"
    lines = both_ends(line((name, STRONG)), line((kind, QUIET)), terminal)
    lines += _part("MEANS", explanation.means, terminal)
    lines += _part("LOOK AT", explanation.look_at, terminal)
    lines += _part("DO", explanation.do, terminal)
    return paint(lines, terminal)


def render_index(terminal: Terminal) -> str:
    """Return all ids by kind, in columns."""
    from loadsim.analysis.findings.registry import explain, ids

    by_kind: dict[str, list[str]] = {kind: [] for kind in _HEADINGS}
    for name in ids():
        known = explain(name)
        if known is not None and not name.startswith(_COUNTS):
            by_kind.setdefault(known.kind, []).append(name)
    lines = both_ends(line(("EXPLAINED IDS", STRONG)), line(("[loadsim explain ID]", QUIET)), terminal)
    for kind, names in by_kind.items():
        if names:
            lines += [line(), line(_HEADINGS.get(kind, kind))]
            lines += [line("  ", (text, NAME)) for text in _columns(names, terminal)]
    return paint(lines, terminal)


def _part(label: str, text: str, terminal: Terminal) -> list[Line]:
    """Return an empty line and a paragraph beside its label; nothing for an empty text."""
    if not text:
        return []
    shown = terminal.prose(text)
    lines = [line()]
    for i, part in enumerate(wrap(shown, terminal.edge - _LABEL)):
        words = [(piece, NAME if piece.startswith("`") else "") for piece in _COMMAND.split(part)]
        lines.append(line((left(label if i == 0 else "", _LABEL), STRONG), *words))
    return lines


def _columns(names: list[str], terminal: Terminal) -> list[str]:
    """Return names in columns of equal width, read from left to right."""
    width = widest(names)
    return flow([left(name, width) for name in names], terminal.edge - 2, gap=2)
