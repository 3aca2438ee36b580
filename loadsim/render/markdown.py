r"""A run or a comparison as Markdown, for a job summary, a pull request or a chat: the answer first, below 50 kB.

Owns what foreign text may do there: nothing. GitHub reads HTML, links, mentions and references in Markdown as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadsim.render.text import both
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadsim.analysis.summary import Compared, Finding, Summary

#: GitHub takes 1 MiB for all steps of a job, and cuts a comment at 65,536 characters.
LARGEST_BYTES = 50_000
#: What Markdown is made of, apart from what only begins a line.
_ACTIVE = re.compile(r"([\\`*_\[\]|~$!])")
#: What begins a heading, a list, an underline or a table's ruler where a line of a quote or of a list begins with it.
_OPENING = re.compile(r"^(\d{0,9})([-+=:#.)])")
#: What GitHub makes links of after Markdown is done: mentions, references, addresses. They are torn apart.
_LINKING = re.compile(r"(?<=[@#])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)|(?<=\bGH-)(?=\d)", re.IGNORECASE)
_TEAR = "\N{WORD JOINER}"
MOST_ROWS = 40


def run_markdown(summary: Summary) -> str:
    """Return one run: verdict, findings, ledger, thresholds, growth."""
    facts = f"{format_duration(summary.duration_s)}, {some(summary.clients, 'client')}, seed {summary.seed}"
    sections = [
        [f"## {escape(summary.scenario)}: {escape(summary.status)}", "", f"**{escape(summary.sentence)}** ({facts})"],
        first_rows([f"> {line_start(notice)}" for notice in summary.notices]),
        _findings(summary.findings),
        _ledger(summary),
        _thresholds(summary),
        _predicted(summary.prediction),
        _growth(summary),
    ]
    return joined(sections)


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for number, finding in enumerate(findings[:MOST_ROWS], 1):
        lines.append(f"{number}. **{escape(finding.title)}** {escape(finding.evidence)}".rstrip())
        if finding.remedy:
            lines.append(f"   → {escape(finding.remedy)}")
    return [*lines, *_more(len(findings))]


def _ledger(summary: Summary) -> list[str]:
    rows = [
        [fate.replace("_", " "), format_count(clients), outcome.replace("_", " ")]
        for fate, cells in summary.fate_by_outcome.items()
        for outcome, clients in cells.items()
    ]
    adds_up = "adds up" if summary.balanced else "DOES NOT ADD UP"
    return table(
        ["where they ended", "clients", "what they saw"], [*rows, ["all", format_count(summary.clients), adds_up]]
    )


def _thresholds(summary: Summary) -> list[str]:
    return first_rows(
        [f"- {'✅' if one.ok else '❌'} {escape(one.text)} ({escape(one.measured)})" for one in summary.thresholds]
    )


def _predicted(prediction: Sequence[Compared]) -> list[str]:
    rows = [[one.name, *both(one)] for one in prediction if one.predicted is not None or one.measured is not None]
    return fold("Predicted and measured", table(["", "predicted", "measured"], rows))


def _growth(summary: Summary) -> list[str]:
    rows = (
        [
            band.label + (" ↑" if band.growth_point else ""),
            format_count(band.accepted),
            *(_duration(one) for one in (band.accept_p50_s, band.accept_max_s, band.pause_max_s)),
            format_count(band.emfile),
            "-" if band.overflows is None else format_count(band.overflows),
        ]
        for band in summary.growth
    )
    shared = summary.namespace == "shared"
    heads = [
        "as the table grew",
        "accepted",
        "wait p50",
        "max",
        "pause",
        "EMFILE",
        "SYNs lost" + ("*" if shared else ""),
    ]
    notes = []
    if any(band.growth_point for band in summary.growth):
        notes.append("↑ the kernel enlarged the fd table on entering this band")
    if shared:
        notes.append("\\* this listener's own drops, an ACK counted twice: the namespace is shared")
    rows_of_growth = table(heads, rows)
    return fold("Against the growing fd table", [*rows_of_growth, *(line for note in notes for line in ("", note))])


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, safe: bool = False) -> list[str]:
    """Return a table, nothing without rows; `safe`: the cells are Markdown already."""
    lines = ["| " + " | ".join(row if safe else map(escape, row)) + " |" for row in rows]
    if not lines:
        return []
    return ["| " + " | ".join(map(escape, heads)) + " |", "|" + "---|" * len(heads), *first_rows(lines)]


def first_rows(lines: list[str]) -> list[str]:
    """Return so many lines as people read, and a sentence on the others."""
    return [*lines[:MOST_ROWS], *_more(len(lines))]


def _more(count: int) -> list[str]:
    return ["", f"... and {count - MOST_ROWS} more: see report.html."] if count > MOST_ROWS else []


def fold(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that a reader unfolds; nothing without lines."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"] if lines else []


def joined(sections: Sequence[Sequence[str]]) -> str:
    """Return the sections that are not empty; from the first one that does not fit, a sentence instead."""
    text, left_out = "", "\nThe rest is left out here: see report.html.\n"
    for section in sections:
        more = ("\n" if text else "") + "\n".join(section) + "\n" if section else ""
        if len((text + more + left_out).encode()) > LARGEST_BYTES:
            return text + left_out
        text += more
    return text


def escape(text: str) -> str:
    """Return text on one line that is only text, to Markdown, to HTML, and to what GitHub links."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKING.sub(_TEAR, _ACTIVE.sub(r"\\\1", escaped))


def line_start(text: str) -> str:
    """Return the same where it begins a line: no heading, list or ruler comes of it either."""
    return _OPENING.sub(r"\1\\\2", escape(text))
