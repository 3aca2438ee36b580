"""A run as Markdown for a job summary, a pull request or a chat: the status first, below 50 kB.

Owns escaping: foreign text stays text. GitHub also interprets HTML, links, mentions and references in Markdown.
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
#: Longer lists and tables are cut.
MOST_ROWS = 40
#: Characters with a meaning in Markdown anywhere in a line.
_ACTIVE = re.compile(r"([\\`*_\[\]|~$!])")
#: Characters that make a heading, a list, an underline or a table ruler at the start of a line.
_OPENING = re.compile(r"^(\d{0,9})([-+=:#.)])")
#: Where a word joiner stops GitHub from making a link: in mentions, references, addresses. GitHub links them after
#: Markdown is parsed, therefore a backslash does not help.
_LINKING = re.compile(r"(?<=[@#])(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)|(?<=\bGH-)(?=\d)", re.IGNORECASE)
_JOINER = "\N{WORD JOINER}"


def run_markdown(summary: Summary) -> str:
    """Return one run: status, findings, ledger, thresholds, prediction, growth."""
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


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, safe: bool = False) -> list[str]:
    """Return a table, no lines without rows; with `safe` the cells are already Markdown."""
    lines = ["| " + " | ".join(row if safe else map(escape, row)) + " |" for row in rows]
    if not lines:
        return []
    return ["| " + " | ".join(map(escape, heads)) + " |", "|" + "---|" * len(heads), *first_rows(lines)]


def first_rows(lines: list[str]) -> list[str]:
    """Return the first `MOST_ROWS` lines, and how many are left out."""
    return [*lines[:MOST_ROWS], *_more(len(lines))]


def fold(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that are folded at first; no lines stay no lines."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"] if lines else []


def joined(sections: Sequence[Sequence[str]]) -> str:
    """Return the sections as text; a sentence replaces the first one that exceeds the limit, and all after it."""
    text, left_out = "", "\nThe rest is left out here: see report.html.\n"
    for section in sections:
        more = ("\n" if text else "") + "\n".join(section) + "\n" if section else ""
        if len((text + more + left_out).encode()) > LARGEST_BYTES:
            return text + left_out
        text += more
    return text


def escape(text: str) -> str:
    """Return text on one line, without a meaning in Markdown, in HTML or for GitHub's links."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKING.sub(_JOINER, _ACTIVE.sub(r"\\\1", escaped))


def line_start(text: str) -> str:
    """Return escaped text for the start of a line: it makes no heading, list or ruler either."""
    return _OPENING.sub(r"\1\\\2", escape(text))


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
        notes.append("\\* this listener's drops only, an ACK counts twice: the namespace is shared")
    rows_of_growth = table(heads, rows)
    return fold("Against the growing fd table", [*rows_of_growth, *(line for note in notes for line in ("", note))])


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds)


def _more(count: int) -> list[str]:
    return ["", f"... and {count - MOST_ROWS} more: see report.html."] if count > MOST_ROWS else []
