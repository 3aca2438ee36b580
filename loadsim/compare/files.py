"""The derived files of a sweep's folder: the page, Markdown for job summaries, JUnit for CI, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.compare.comparison import Comparison, RunGroup, Says, median, medians
from loadsim.compare.page import comparison_page
from loadsim.render.junit import Cell, junit
from loadsim.render.markdown import MOST_ROWS, escape, first_rows, fold, joined, line_start, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.compare.folder import SweepFolder


def write_comparison(folder: SweepFolder, comparison: Comparison, run_groups: Sequence[RunGroup]) -> None:
    """Write the derived files of a sweep; comparison.json is the last one."""
    folder.write_text("report.html", comparison_page(comparison))
    folder.write_text("summary.md", comparison_markdown(comparison))
    cells = [
        Cell(name=run_group.label, runs=run_group.summaries, refused=run_group.refused) for run_group in run_groups
    ]
    folder.write_text("junit.xml", junit(comparison.title, cells))
    folder.write_comparison(comparison.to_json())


def comparison_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown: the answer, the table, the reasons, the differences."""
    answer = comparison.answer
    head = [f"## {escape(comparison.title)}"]
    if answer is not None:
        head += ["", f"**{escape(answer.sentence)}**"]
    reasons = [*answer.evidence, *answer.costs, *answer.advice] if answer else []
    sections = [
        head,
        first_rows([f"> {line_start(notice)}" for notice in comparison.notices]),
        fold(
            "Settings and hosts that differ",
            table(
                ["", *(group.label for group in comparison.groups)],
                ([one.name, *one.values] for one in (*comparison.settings, *comparison.hosts)),
            ),
        ),
        _table_of_groups(comparison),
        first_rows([f"- {line_start(text)}" for text in reasons]),
        first_rows(
            [f"- {'✅' if gate.ok else '❌'} {escape(gate.text)}: {escape(gate.measured)}" for gate in comparison.gates]
        ),
        fold("What differs", _differing(comparison)),
    ]
    return joined(sections)


def _table_of_groups(comparison: Comparison) -> list[str]:
    """Return the medians of the columns, with the row of the answer in bold."""
    chosen = comparison.answer.group if comparison.answer else None
    columns = [medians(comparison, column) for column in comparison.columns]
    rows = []
    for index, group in enumerate(comparison.groups):
        cells = [escape(group.label), *(texts[index] for texts in columns)]
        rows.append([f"**{cell}**" for cell in cells] if index == chosen else cells)
    if chosen is not None and chosen >= MOST_ROWS:
        rows.insert(0, rows.pop(chosen))  # the row of the answer is never left out
    return table(["", *(column.heading for column in comparison.columns)], rows, safe=True)


def _differing(comparison: Comparison) -> list[str]:
    """Return every pair that differs, with its medians; better and worse come first."""
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
    return table(["metric", "between", "medians", ""], rows)
