"""What happened, in sentences; and below it how it compares with what was predicted and expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.drawing import ALARM, BAD, GOOD, NAME, QUIET, STRONG, WARN, Line, both_ends, line, paragraph
from loadsim.report.figures import both
from loadsim.report.text import cell_len, flow, left, right, widest, wrap
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.summary import Compared, Finding, Judged, Summary
    from loadsim.report.drawing import Terminal

#: Where the text behind a label begins.
LABEL = 14
_GAP = 3


def what_happened(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return the findings, numbered: sentence with its id at the right edge, evidence, remedy."""
    title, hint = line(("WHAT HAPPENED", STRONG)), line(("[loadsim explain ID]", QUIET))
    if not summary.findings:
        return [title, line("  Nothing was found, and nothing was judged.")]
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


def compared(prediction: Sequence[Compared], terminal: Terminal) -> list[Line]:
    """Return predicted above measured numbers, a column each; nothing where nothing was predicted."""
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


def expected(thresholds: Sequence[Judged], terminal: Terminal) -> list[Line]:
    """Return the thresholds with what was measured; those that were not met have a line of their own, in words."""
    glyphs = terminal.glyphs
    met = [f"{glyphs.met} {one.text} ({one.measured})" for one in thresholds if one.ok]
    missed = [f"{glyphs.missed} {one.text} (measured: {one.measured})" for one in thresholds if not one.ok]
    room = terminal.edge - LABEL
    return [
        *labelled("expected", flow(met, room), style=GOOD),
        *labelled("NOT MET", flow(missed, room), style=BAD),
    ]


def generator(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return what the generator says of itself, in every run: lag, CPU, its own failures."""
    metrics = summary.metrics
    lag, cpu, failures = (metrics.get(f"generator.{name}") for name in ("lag.p99_s", "cpu", "local_failures"))
    limited = bool(metrics.get("generator.limited"))
    of_canary = int(metrics.get("canary.local", 0))
    facts = [
        "IT SET THE PACE" if limited else "",
        f"lag p99 {format_duration(lag)}" if lag is not None else "",
        f"{cpu:.2f} cores" if cpu is not None else "",
        f"{format_count(failures)} own failures" if failures is not None else "",
        f"{some(of_canary, 'own failure')} of the canary" if of_canary else "",
    ]
    texts = flow([fact for fact in facts if fact], terminal.edge - LABEL)
    return labelled("generator", texts, style=WARN if limited else "")


def labelled(label: str, texts: Sequence[str], *, style: str = "") -> list[Line]:
    """Return lines behind a label that stands on the first one alone; nothing where there is no text."""
    return [line((left(f"  {label if i == 0 else ''}", LABEL), QUIET), (text, style)) for i, text in enumerate(texts)]
