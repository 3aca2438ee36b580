"""The table that people read first: a row for each group, the answer's marked; and the runs behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from loadsim.analysis.comparison import Says
from loadsim.report.page.markup import Markup, joined, tag
from loadsim.report.page.pairs import class_of, evidence, legend, pair_of, sign
from loadsim.report.page.parts import NOTHING, badge, count_of, notices, number, span

if TYPE_CHECKING:
    from loadsim.analysis.comparison import Column, Comparison, Estimate, Group, Pair, Row

#: What is worth a sentence, the worst first.
_DIFFERENT = (Says.WORSE, Says.BETTER, Says.HIGHER, Says.LOWER)
_CHOSEN = "\u25b6"


def reference(comparison: Comparison) -> int:
    """Return the group that others are held against: the answer's, else the first."""
    answer = comparison.answer
    return answer.group if answer is not None and answer.group is not None else 0


def groups_table(comparison: Comparison) -> Markup:
    """Return the groups by the columns that people read first, with legends."""
    chosen = comparison.answer.group if comparison.answer else None
    heads = [tag("th", "", scope="col"), *(_head(column) for column in comparison.columns)]
    rows = [_row(comparison, index, chosen=index == chosen) for index in range(len(comparison.groups))]
    whole = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="groups")
    beside = comparison.groups[reference(comparison)].label
    told = _told(comparison)
    meanings = [
        tag("li", tag("b", column.heading), f" {column.legend}") for column in comparison.columns if column.legend
    ]
    return joined(
        [
            tag("div", whole, class_="scroll"),
            legend(told, beside) if told else None,
            tag("ul", *meanings, class_="legend") if meanings else None,
        ]
    )


def in_words(comparison: Comparison) -> list[str]:
    """Return a sentence for each group but the one that others are held against: where it is better, where worse."""
    beside = reference(comparison)
    return [
        f"Beside {comparison.groups[beside].label}, {group.label} {_differs(comparison, index)}."
        for index, group in enumerate(comparison.groups)
        if index != beside and comparison.columns
    ]


def _differs(comparison: Comparison, index: int) -> str:
    """Return in which of the columns that people read first a group differs: "is better in served and worse in CPU"."""
    said: dict[Says, list[str]] = {}
    for column in comparison.columns:
        row = comparison.row(column.metric)
        pair = _pair(comparison, row, column, index) if row else None
        if pair:
            said.setdefault(pair[1], []).append(column.heading)
    parts = [f"{says.value} in {', '.join(said[says])}" for says in _DIFFERENT if says in said]
    if parts:
        return "is " + " and ".join(parts)
    return "may differ: these runs cannot tell" if Says.CANNOT_TELL in said else "makes no difference that matters"


def runs(comparison: Comparison) -> Markup:
    """Return the runs of each group, each a link to its own page, and those that could not take place."""
    items = [
        tag(
            "li",
            tag("h3", group.label),
            tag("ul", *(_run(run, verdict) for run, verdict in zip(group.runs, group.verdicts, strict=False)))
            if group.runs
            else tag("p", "No run of it took place.", class_="note"),
            notices(group.refused),
        )
        for group in comparison.groups
    ]
    return tag("ul", *items, class_="runs columns")


def _run(run: str, verdict: str) -> Markup:
    link = tag("a", run, href=f"{quote(run)}/report.html")
    return tag("li", badge(verdict, small=True), " ", link)


def _head(column: Column) -> Markup:
    return tag("th", column.heading, scope="col", class_="number", title=column.legend)


def _row(comparison: Comparison, index: int, *, chosen: bool) -> Markup:
    group = comparison.groups[index]
    mark = tag("span", _CHOSEN, class_="chosen-sign", title="the answer", role="img", aria_label="the answer")
    name = tag("th", mark if chosen else None, group.label, " ", tag("small", _runs(group)), scope="row")
    cells = [_cell(comparison, index, column) for column in comparison.columns]
    return tag("tr", name, *cells, class_="chosen" if chosen else None)


def _runs(group: Group) -> str:
    return count_of(len(group.runs), "run")


def _told(comparison: Comparison) -> list[Says]:
    """Return what is said anywhere in the table."""
    found = [
        _pair(comparison, row, column, index)
        for column in comparison.columns
        if (row := comparison.row(column.metric))
        for index in range(len(comparison.groups))
    ]
    return [pair[1] for pair in found if pair]


def _cell(comparison: Comparison, index: int, column: Column) -> Markup:
    """Return the median with its range, and what it is beside the group that others are held against."""
    row = comparison.row(column.metric)
    one = row.estimates[index] if row else None
    if row is None or one is None:
        return tag("td", NOTHING, class_="number none")
    pair = _pair(comparison, row, column, index)
    around = span(one.low, one.high, row.unit)
    shown = [
        sign(pair[1], evidence(*pair)) if pair else None,
        tag("b", number(one.median, row.unit)),
        _of(comparison, one, column, index),
        tag("small", around, class_="range") if around else None,
    ]
    return tag("td", *shown, class_=f"number {class_of(pair[1])}" if pair else "number")


def _pair(comparison: Comparison, row: Row, column: Column, index: int) -> tuple[Pair, Says] | None:
    """Return what a group's cell is beside the group that others are held against; None where nothing is to be said.

    A peak under a limit of its own is neither better nor worse than one under another: a queue of 2 that is full is
    not better than one of 257 that holds 212.
    """
    beside = reference(comparison)
    if index == beside or _limit(comparison, column, index) != _limit(comparison, column, beside):
        return None
    return pair_of(row, index, beside)


def _limit(comparison: Comparison, column: Column, index: int) -> float | None:
    row = comparison.row(column.of) if column.of else None
    one = row.estimates[index] if row else None
    return one.median if one else None


def _of(comparison: Comparison, one: Estimate, column: Column, index: int) -> Markup | None:
    """Return the limit beside a peak, and whether it was reached."""
    limit = _limit(comparison, column, index)
    if limit is None:
        return None
    full = tag("b", " FULL", class_="full") if one.median >= limit else None
    return joined([f" of {number(limit, '')}", full])
