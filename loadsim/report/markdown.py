r"""A run or a comparison as Markdown, for a job summary, a pull request or a chat: the answer first, below 50 kB.

Owns what foreign text may do there: nothing. GitHub reads HTML, links, mentions and references in Markdown as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadsim.analysis.comparison import Says
from loadsim.report.figures import both, median, medians
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadsim.analysis.comparison import Comparison
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
_MOST_ROWS = 40


def run_markdown(summary: Summary) -> str:
    """Return one run: verdict, findings, ledger, thresholds, growth."""
    facts = f"{format_duration(summary.duration_s)}, {some(summary.clients, 'client')}, seed {summary.seed}"
    sections = [
        [f"## {_safe(summary.scenario)}: {_safe(summary.verdict)}", "", f"**{_safe(summary.sentence)}** ({facts})"],
        _few([f"> {_opening(notice)}" for notice in summary.notices]),
        _findings(summary.findings),
        _ledger(summary),
        _thresholds(summary),
        _predicted(summary.prediction),
        _growth(summary),
    ]
    return _joined(sections)


def comparison_markdown(comparison: Comparison) -> str:
    """Return several groups of runs: the answer, the table, what it costs, what differs."""
    answer = comparison.answer
    head = [f"## {_safe(comparison.title)}"]
    if answer is not None:
        head += ["", f"**{_safe(answer.sentence)}**"]
    said = [*(answer.evidence if answer else []), *(answer.costs if answer else []), *(answer.advice if answer else [])]
    sections = [
        head,
        _few([f"> {_opening(notice)}" for notice in comparison.notices]),
        _fold(
            "Settings and hosts that differ",
            _table(
                ["", *(group.label for group in comparison.groups)],
                ([one.name, *one.values] for one in (*comparison.settings, *comparison.hosts)),
            ),
        ),
        _table_of_groups(comparison),
        _few([f"- {_opening(text)}" for text in said]),
        _few(
            [f"- {'✅' if gate.ok else '❌'} {_safe(gate.text)}: {_safe(gate.measured)}" for gate in comparison.gates]
        ),
        _fold("What differs", _differing(comparison)),
    ]
    return _joined(sections)


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for number, finding in enumerate(findings[:_MOST_ROWS], 1):
        lines.append(f"{number}. **{_safe(finding.title)}** {_safe(finding.evidence)}".rstrip())
        if finding.remedy:
            lines.append(f"   → {_safe(finding.remedy)}")
    return [*lines, *_more(len(findings))]


def _ledger(summary: Summary) -> list[str]:
    rows = [
        [fate.replace("_", " "), format_count(clients), outcome.replace("_", " ")]
        for fate, cells in summary.fate_by_outcome.items()
        for outcome, clients in cells.items()
    ]
    adds_up = "adds up" if summary.balanced else "DOES NOT ADD UP"
    return _table(
        ["where they ended", "clients", "what they saw"], [*rows, ["all", format_count(summary.clients), adds_up]]
    )


def _thresholds(summary: Summary) -> list[str]:
    return _few(
        [f"- {'✅' if one.ok else '❌'} {_safe(one.text)} ({_safe(one.measured)})" for one in summary.thresholds]
    )


def _predicted(prediction: Sequence[Compared]) -> list[str]:
    rows = [[one.name, *both(one)] for one in prediction if one.predicted is not None or one.measured is not None]
    return _fold("Predicted and measured", _table(["", "predicted", "measured"], rows))


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
    table = _table(heads, rows)
    return _fold("Against the growing fd table", [*table, *(line for note in notes for line in ("", note))])


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds)


def _table_of_groups(comparison: Comparison) -> list[str]:
    """Return the medians of the metrics that people read first, the answer's row in bold."""
    chosen = comparison.answer.group if comparison.answer else None
    columns = [medians(comparison, column) for column in comparison.columns]
    rows = []
    for index, group in enumerate(comparison.groups):
        cells = [_safe(group.label), *(texts[index] for texts in columns)]
        rows.append([f"**{cell}**" for cell in cells] if index == chosen else cells)
    if chosen is not None and chosen >= _MOST_ROWS:
        rows.insert(0, rows.pop(chosen))  # the answer is never among what is left out
    return _table(["", *(column.heading for column in comparison.columns)], rows, safe=True)


def _differing(comparison: Comparison) -> list[str]:
    """Return every pair that differs, with its medians: first what is better or worse."""
    labels = [group.label for group in comparison.groups]
    rows = [
        [
            row.metric,
            f"{labels[pair.a]} → {labels[pair.b]}",
            f"{median(row, pair.a)} → {median(row, pair.b)}",
            pair.says,
        ]
        for differ in ((Says.BETTER, Says.WORSE), (Says.HIGHER, Says.LOWER))
        for row in comparison.rows
        for pair in row.pairs
        if pair.says in differ
    ]
    return _table(["metric", "between", "medians", ""], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, safe: bool = False) -> list[str]:
    """Return a table, nothing without rows; `safe`: the cells are Markdown already."""
    lines = ["| " + " | ".join(row if safe else map(_safe, row)) + " |" for row in rows]
    if not lines:
        return []
    return ["| " + " | ".join(map(_safe, heads)) + " |", "|" + "---|" * len(heads), *_few(lines)]


def _few(lines: list[str]) -> list[str]:
    """Return so many lines as people read, and a sentence on the others."""
    return [*lines[:_MOST_ROWS], *_more(len(lines))]


def _more(count: int) -> list[str]:
    return ["", f"... and {count - _MOST_ROWS} more: see report.html."] if count > _MOST_ROWS else []


def _fold(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"] if lines else []


def _joined(sections: Sequence[Sequence[str]]) -> str:
    """Return the sections that are not empty; from the first one that does not fit, a sentence instead."""
    text, left_out = "", "\nThe rest is left out here: see report.html.\n"
    for section in sections:
        more = ("\n" if text else "") + "\n".join(section) + "\n" if section else ""
        if len((text + more + left_out).encode()) > LARGEST_BYTES:
            return text + left_out
        text += more
    return text


def _safe(text: str) -> str:
    """Return text on one line that is only text, to Markdown, to HTML, and to what GitHub links."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINKING.sub(_TEAR, _ACTIVE.sub(r"\\\1", escaped))


def _opening(text: str) -> str:
    """Return the same where it begins a line: no heading, list or ruler comes of it either."""
    return _OPENING.sub(r"\1\\\2", _safe(text))
