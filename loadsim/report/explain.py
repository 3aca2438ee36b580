"""`loadsim explain`: one finding, fate, outcome or metric in full, and the list of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis import explain as explanations
from loadsim.report.look import NAME, QUIET, STRONG, Look, both_ends, line, paint
from loadsim.report.text import flow, left, printable, widest, wrap

if TYPE_CHECKING:
    from rich.text import Text

    from loadsim.analysis.explain import Explanation

_LABEL = 9
_COMMAND = r"`[^`]+`"
#: Metrics that count a fate or an outcome: known by its name already.
_COUNTS = ("fate.", "outcome.")
#: Kind of explanation -> the heading of its names; the order in which a newcomer meets them.
_HEADINGS = {
    "finding": "findings: what happened",
    "fate": "fates: where an attempt ended at the server (as a metric: fate.NAME)",
    "outcome": "outcomes: what its client saw (as a metric: outcome.NAME)",
    "fate and outcome": "both a fate and an outcome",
    "metric": "metrics: thresholds and summary.json use these names",
}


def render(explanation: Explanation, *, width: int, color: bool, unicode: bool) -> str:
    """Return one explanation: what it means, where to look, what to do."""
    look = Look(width=width, color=color, unicode=unicode)
    name, kind = printable(explanation.id, unicode=unicode), f"[{explanation.kind}]"
    lines = both_ends(line((name, STRONG)), line((kind, QUIET)), look)
    lines += _part("MEANS", explanation.means, look)
    lines += _part("LOOK AT", explanation.look_at, look)
    lines += _part("DO", explanation.do, look)
    return paint(lines, look)


def render_index(*, width: int, color: bool, unicode: bool) -> str:
    """Return every name that can be explained, by kind, in columns."""
    look = Look(width=width, color=color, unicode=unicode)
    by_kind: dict[str, list[str]] = {kind: [] for kind in _HEADINGS}
    for name in explanations.ids():
        known = explanations.explain(name)
        if known is not None and not name.startswith(_COUNTS):
            by_kind.setdefault(known.kind, []).append(name)
    lines = both_ends(line(("WHAT CAN BE EXPLAINED", STRONG)), line(("[loadsim explain ID]", QUIET)), look)
    for kind, names in by_kind.items():
        if names:
            lines += [line(), line(_HEADINGS.get(kind, kind))]
            lines += [line("  ", (text, NAME)) for text in _columns(names, look)]
    return paint(lines, look)


def _part(label: str, text: str, look: Look) -> list[Text]:
    """Return a paragraph beside its label, after an empty line; nothing where there is no text."""
    if not text:
        return []
    shown = printable(text.replace("\n", " "), unicode=look.unicode)
    lines = [line()]
    for i, part in enumerate(wrap(shown, look.edge - _LABEL)):
        paragraph = line(part)
        paragraph.highlight_regex(_COMMAND, NAME)
        lines.append(line((left(label if i == 0 else "", _LABEL), STRONG), paragraph))
    return lines


def _columns(names: list[str], look: Look) -> list[str]:
    """Return names in columns of equal width, read from left to right."""
    width = widest(names)
    return flow([left(name, width) for name in names], look.edge - 2, gap=2)
