"""The end of a run on a terminal: verdict, one sentence, pictures, tables, findings, what to do next.

The order is the message: the first word is the verdict, and findings come last, because the last lines are what a
terminal still shows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from loadsim.analysis.summary import Summary
from loadsim.report.drawing import (
    ALARM,
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
from loadsim.report.findings import LABEL, compared, expected, generator, labelled, what_happened
from loadsim.report.growth import growth, latencies
from loadsim.report.ledger import ledger
from loadsim.report.picture import fd_table, picture
from loadsim.report.text import pieces, wrap
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from collections.abc import Sequence


def render(
    summary: Summary,
    terminal: Terminal,
    *,
    saved: str | None = None,
    next_steps: Sequence[str] = (),
) -> str:
    """Return the summary of a run as text that ends in a newline and is nowhere wider than the terminal.

    `saved` is the result folder, None where nothing was written; `next_steps` are commands to try. Both, and every
    name in the summary, may hold any character: what could act on a terminal is shown escaped.
    """
    shown = _harmless(summary, terminal)
    sections = [
        _head(shown, terminal),
        picture(shown, terminal),
        fd_table(shown, terminal),
        ledger(shown, terminal),
        latencies(shown, terminal),
        growth(shown, terminal),
        what_happened(shown, terminal),
        [
            *compared(shown.prediction, terminal),
            *generator(shown, terminal),
            *expected(shown.thresholds, terminal),
            *_saved(saved, terminal),
            *_next(next_steps, terminal),
        ],
    ]
    return paint(joined(sections), terminal)


def _harmless(summary: Summary, terminal: Terminal) -> Summary:
    """Return the summary with every string safe to show; line breaks in prose become spaces, in a name they show."""

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
    verdict = summary.verdict.ljust(LABEL - 2) + "  "
    if len(verdict) > LABEL:
        first, *more = wrap(summary.sentence, terminal.edge - LABEL, first=terminal.edge - len(verdict))
    lines.append(line((verdict, STATUSES.get(summary.verdict, ALARM)), (first, STRONG)))
    lines += [line(" " * LABEL, (text, STRONG)) for text in more]
    for notice in (*_interruption(summary), *summary.notices):
        lines += paragraph(notice, terminal, margin=" " * (LABEL - 2), mark="! ", mark_style=WARN)
    return lines


def _interruption(summary: Summary) -> list[str]:
    if summary.complete:
        return []
    cause = f"Interrupted ({summary.interrupted})" if summary.interrupted else "This run never came to its end"
    return [f"{cause}: this is what happened until then."]


def _saved(saved: str | None, terminal: Terminal) -> list[Line]:
    """Return where the result is; a path that is too long is cut between any two characters, and stays whole."""
    return labelled("saved in", pieces(terminal.printable(saved), terminal.edge - LABEL)) if saved else []


def _next(steps: Sequence[str], terminal: Terminal) -> list[Line]:
    """Return commands to try; one that needs more than a line is continued as a shell would read it."""
    texts = []
    for step in steps:
        *parts, last = wrap(terminal.printable(step), terminal.edge - LABEL - 4)
        texts += [text + " \\" for text in parts] + [last]
    return labelled("next", texts)
