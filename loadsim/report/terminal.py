"""The end of a run on a terminal: verdict, one sentence, pictures, tables, findings, what to do next.

The order is the message: the first word is the verdict, and findings come last, because the last lines are what a
terminal still shows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from rich.cells import chop_cells

from loadsim.analysis.summary import Summary
from loadsim.report.findings import LABEL, compared, expected, generator, labelled, what_happened
from loadsim.report.growth import growth, latencies
from loadsim.report.ledger import ledger
from loadsim.report.look import ALARM, QUIET, STRONG, WARN, Look, both_ends, line, paint
from loadsim.report.picture import fd_table, picture
from loadsim.report.text import clip, printable, wrap
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

#: Verdict -> its style. What it means is in the word.
VERDICTS = {"REPRODUCED": "bold magenta", "HEALTHY": "bold green", "FAILED": "bold red", "INCONCLUSIVE": "bold yellow"}


def render(
    summary: Summary,
    *,
    width: int,
    color: bool,
    unicode: bool,
    saved: str | None = None,
    next_steps: Sequence[str] = (),
) -> str:
    """Return the summary of a run as text that ends in a newline and is nowhere wider than `width`.

    `saved` is the result folder, None where nothing was written; `next_steps` are commands to try. Both, and every
    name in the summary, may hold any character: what could act on a terminal is shown escaped.
    """
    look = Look(width=width, color=color, unicode=unicode)
    shown = _harmless(summary, look)
    sections = [
        _head(shown, look),
        picture(shown, look),
        fd_table(shown, look),
        ledger(shown, look),
        latencies(shown, look),
        growth(shown, look),
        what_happened(shown, look),
        [
            *compared(shown.prediction, look),
            *generator(shown, look),
            *expected(shown.thresholds, look),
            *_saved(saved, look),
            *_next(next_steps, look),
        ],
    ]
    lines: list[Text] = []
    for section in sections:
        if section:
            lines += [line(), *section] if lines else section
    return paint(lines, look)


def _harmless(summary: Summary, look: Look) -> Summary:
    """Return the summary with every string safe to show; line breaks in prose become spaces, in a name they show."""

    def clean(value: object) -> object:
        if isinstance(value, str):
            return printable(value.replace("\n", " "), unicode=look.unicode)
        if isinstance(value, dict):
            return {clean(key): clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list) else value

    named = dataclasses.replace(summary, scenario=printable(summary.scenario, unicode=look.unicode))
    return Summary.from_json(cast("dict[str, Any]", clean(named.to_json())))


def _head(summary: Summary, look: Look) -> list[Text]:
    facts = [format_duration(summary.duration_s), some(summary.clients, "client"), f"seed {summary.seed}"]
    name = clip(summary.scenario, look.edge, ellipsis=look.glyphs.ellipsis)
    lines = both_ends(line((name, STRONG)), line((look.glyphs.dot.join(facts), QUIET)), look)
    first, *more = wrap(summary.sentence, look.edge - LABEL)
    verdict = summary.verdict.ljust(LABEL - 2) + "  "
    if len(verdict) > LABEL:
        first, *more = wrap(summary.sentence, look.edge - LABEL, first=look.edge - len(verdict))
    lines.append(line((verdict, VERDICTS.get(summary.verdict, ALARM)), (first, STRONG)))
    lines += [line(" " * LABEL, (text, STRONG)) for text in more]
    return lines + [text for notice in (*_interruption(summary), *summary.notices) for text in _notice(notice, look)]


def _interruption(summary: Summary) -> list[str]:
    if summary.complete:
        return []
    cause = f"Interrupted ({summary.interrupted})" if summary.interrupted else "This run never came to its end"
    return [f"{cause}: this is what happened until then."]


def _notice(text: str, look: Look) -> list[Text]:
    first, *more = wrap(text, look.edge - LABEL)
    mark = " " * (LABEL - 2)
    return [line(mark, ("! ", WARN), first), *(line(" " * LABEL, rest) for rest in more)]


def _saved(saved: str | None, look: Look) -> list[Text]:
    """Return where the result is; a path that is too long is cut between any two characters, and stays whole."""
    return labelled("saved in", chop_cells(printable(saved, unicode=look.unicode), look.edge - LABEL)) if saved else []


def _next(steps: Sequence[str], look: Look) -> list[Text]:
    """Return commands to try; one that needs more than a line is continued as a shell would read it."""
    texts = []
    for step in steps:
        *parts, last = wrap(printable(step, unicode=look.unicode), look.edge - LABEL - 4)
        texts += [text + " \\" for text in parts] + [last]
    return labelled("next", texts)
