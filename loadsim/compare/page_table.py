"""Tables and drawings of a comparison's page: groups by columns, pairs of groups, one metric by group."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from loadsim.compare.comparison import Says
from loadsim.compare.statistics import EACH_WITH_EACH
from loadsim.render.html import svg
from loadsim.render.html.markup import Markup, joined, tag
from loadsim.render.html.parts import NOTHING, badge, count_of, notices, number, span, table
from loadsim.render.html.svg import Scale, dot, label, line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.compare.comparison import Column, Comparison, Estimate, Group, Pair, Row

_SIGNS = {
    Says.BETTER: "\u2713",
    Says.WORSE: "\u2717",
    Says.HIGHER: "\u2191",
    Says.LOWER: "\u2193",
    Says.SAME: "=",
    Says.CANNOT_TELL: "?",
    Says.NOT_JUDGED: "\N{MIDDLE DOT}",
}
_TURNED = {
    Says.BETTER: Says.WORSE,
    Says.WORSE: Says.BETTER,
    Says.HIGHER: Says.LOWER,
    Says.LOWER: Says.HIGHER,
}
#: Results that are named in sentences, the worst first.
_DIFFERENT = (Says.WORSE, Says.BETTER, Says.HIGHER, Says.LOWER)
_CHOSEN = "\u25b6"
#: More labels under one axis would overlap.
_MOST_LABELS = 6
_WIDTH, _RIGHT, _TOP, _ROW, _BOTTOM = 520, 26, 10, 25, 26
#: The narrowest readable drawing.
_LEAST = 330
#: Width of the labels of groups: pixels per character, and bounds.
_CHARACTER, _NARROWEST, _WIDEST = 7.2, 54, 190
#: From this ratio of largest to smallest value on, the axis is logarithmic.
_WIDE_APART = 60


def reference(comparison: Comparison) -> int:
    """Return the group with which the others are compared: the group of the answer, else the first."""
    answer = comparison.answer
    return answer.group if answer is not None and answer.group is not None else 0


def groups_table(comparison: Comparison) -> Markup:
    """Return the table of groups by columns, with legends."""
    chosen = comparison.answer.group if comparison.answer else None
    heads = [tag("th", "", scope="col"), *(_head(column) for column in comparison.columns)]
    rows = [_row(comparison, index, chosen=index == chosen) for index in range(len(comparison.groups))]
    groups = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="groups")
    shown = _shown(comparison)
    meanings = [
        tag("li", tag("b", column.heading), f" {column.legend}") for column in comparison.columns if column.legend
    ]
    return joined(
        [
            tag("div", groups, class_="scroll"),
            _legend(shown, comparison.groups[reference(comparison)].label) if shown else None,
            tag("ul", *meanings, class_="legend") if meanings else None,
        ]
    )


def in_words(comparison: Comparison) -> list[str]:
    """Return a sentence for each group except the reference: where it is better, where worse."""
    base = reference(comparison)
    return [
        f"Compared with {comparison.groups[base].label}, {group.label} {_differs(comparison, index)}."
        for index, group in enumerate(comparison.groups)
        if index != base and comparison.columns
    ]


def intervals(comparison: Comparison) -> Markup:
    """Return a drawing of medians and intervals for each column."""
    drawings = [
        tag(
            "figure",
            tag("figcaption", tag("h3", column.heading), _about(column, row)),
            _drawing(comparison, column, row),
        )
        for column in comparison.columns
        for row in [comparison.row(column.metric)]
        if row and any(row.estimates)
    ]
    return tag("div", *drawings, class_="columns intervals")


def medians(rows: Sequence[Row], groups: Sequence[Group]) -> Markup:
    """Return all metrics with a column for each group: median and range."""
    heads = ["metric", *(group.label for group in groups)]
    lines = [[tag("code", row.metric), *(_median(row, i) for i in range(len(groups)))] for row in rows]
    return table(heads, lines, numbers=range(1, len(heads)))


def matrix(row: Row, groups: Sequence[Group]) -> Markup:
    """Return how the groups compare in one metric: a matrix, or a line for each pair if there are many groups."""
    if len(groups) > EACH_WITH_EACH:
        lines = [[groups[pair.b].label, groups[pair.a].label, _pair_words(pair, Says(pair.says))] for pair in row.pairs]
        return table(["group", "compared with", ""], lines, class_="matrix")
    heads = [tag("small", "row compared with column"), *(group.label for group in groups)]
    rows = [[group.label, *(_pair_cell(row, b, a) for a in range(len(groups)))] for b, group in enumerate(groups)]
    return table(heads, rows, class_="matrix")


def runs(comparison: Comparison) -> Markup:
    """Return the runs of each group as links to their pages, and the reasons for runs that could not start."""
    items = [
        tag(
            "li",
            tag("h3", group.label),
            tag("ul", *(_run(run, status) for run, status in zip(group.runs, group.statuses, strict=False)))
            if group.runs
            else tag("p", "This group has no complete run.", class_="note"),
            notices(group.refused),
        )
        for group in comparison.groups
    ]
    return tag("ul", *items, class_="runs columns")


def _sign(says: Says, title: str | None = None) -> Markup:
    """Return a result as a sign; screen readers read it as a word."""
    return tag(
        "span", _SIGNS[says], class_=_class_of(says), title=title or says.value, role="img", aria_label=says.value
    )


def _class_of(says: Says) -> str:
    return "says says-" + says.value.replace(" ", "-")


def _legend(shown: Sequence[Says], reference_label: str) -> Markup:
    """Return the meanings of the signs in the table."""
    items = [tag("li", _sign(says), f" {says.value}") for says in Says if says in shown]
    return tag("ul", tag("li", f"compared with {reference_label}:"), *items, class_="legend")


def _evidence(pair: Pair, says: Says) -> str:
    """Return a result with its evidence: "worse: +34 %, p = 0.008 (corrected 0.03)"."""
    parts = [f"p = {pair.p:.2g} (corrected {pair.p_holm:.2g})"]
    if pair.effect is not None:
        parts.insert(0, f"{100 * pair.effect:+,.{1 if abs(pair.effect) < 1 else 0}f} %")
    if pair.repeats_needed is not None:
        parts.append(f"{pair.repeats_needed} runs of each needed")
    return f"{says.value}: {', '.join(parts)}"


def pair_of(row: Row, group: int, beside: int) -> tuple[Pair, Says] | None:
    """Return the pair of two groups and how `group` compares with `beside`; None if they were not compared."""
    for pair in row.pairs:
        if (pair.a, pair.b) == (beside, group):
            return pair, Says(pair.says)
        if (pair.a, pair.b) == (group, beside):
            return pair, _TURNED.get(Says(pair.says), Says(pair.says))
    return None


def _median(row: Row, index: int) -> str:
    one = row.estimates[index]
    if one is None:
        return NOTHING
    around = span(one.low, one.high, row.unit)
    return joined([number(one.median, row.unit), tag("small", around, class_="range") if around else None])


def _pair_cell(row: Row, group: int, beside: int) -> str:
    found = pair_of(row, group, beside)
    if found is None:
        return ""
    pair, says = found
    if (pair.a, pair.b) == (beside, group):  # the effect has the direction from a to b
        return _pair_words(pair, says)
    return tag("td", _sign(says), " ", says.value)


def _pair_words(pair: Pair, says: Says) -> str:
    """Return a cell with a result and its evidence."""
    return tag("td", _sign(says), " ", says.value, tag("small", _evidence(pair, says).removeprefix(says.value + ": ")))


def _differs(comparison: Comparison, index: int) -> str:
    """Return how a group differs from the reference in the columns: "is better in served and worse in CPU"."""
    columns: dict[Says, list[str]] = {}
    for column in comparison.columns:
        row = comparison.row(column.metric)
        pair = _pair(comparison, row, column, index) if row else None
        if pair:
            columns.setdefault(pair[1], []).append(column.heading)
    parts = [f"{says.value} in {', '.join(columns[says])}" for says in _DIFFERENT if says in columns]
    if parts:
        return "is " + " and ".join(parts)
    if Says.CANNOT_TELL in columns:
        return "may differ: there are too few runs to tell"
    return "makes no difference that matters"


def _run(run: str, status: str) -> Markup:
    link = tag("a", run, href=f"{quote(run)}/report.html")
    return tag("li", badge(status, small=True), " ", link)


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


def _shown(comparison: Comparison) -> list[Says]:
    """Return all results in the table of groups."""
    found = [
        _pair(comparison, row, column, index)
        for column in comparison.columns
        if (row := comparison.row(column.metric))
        for index in range(len(comparison.groups))
    ]
    return [pair[1] for pair in found if pair]


def _cell(comparison: Comparison, index: int, column: Column) -> Markup:
    """Return the median with its range, and the sign that compares it with the reference."""
    row = comparison.row(column.metric)
    one = row.estimates[index] if row else None
    if row is None or one is None:
        return tag("td", NOTHING, class_="number none")
    pair = _pair(comparison, row, column, index)
    around = span(one.low, one.high, row.unit)
    shown = [
        _sign(pair[1], _evidence(*pair)) if pair else None,
        tag("b", number(one.median, row.unit)),
        _of(comparison, one, column, index),
        tag("small", around, class_="range") if around else None,
    ]
    return tag("td", *shown, class_=f"number {_class_of(pair[1])}" if pair else "number")


def _pair(comparison: Comparison, row: Row, column: Column, index: int) -> tuple[Pair, Says] | None:
    """Return how a group's cell compares with the reference; None if they cannot be compared.

    Peaks under different limits are not compared: a full queue of 2 is not better than a queue of 257 that holds 212.
    """
    base = reference(comparison)
    if index == base or _limit(comparison, column, index) != _limit(comparison, column, base):
        return None
    return pair_of(row, index, base)


def _limit(comparison: Comparison, column: Column, index: int) -> float | None:
    row = comparison.row(column.of) if column.of else None
    one = row.estimates[index] if row else None
    return one.median if one else None


def _of(comparison: Comparison, one: Estimate, column: Column, index: int) -> Markup | None:
    """Return the limit of a peak, and whether it was reached."""
    limit = _limit(comparison, column, index)
    if limit is None:
        return None
    full = tag("b", " FULL", class_="full") if one.median >= limit else None
    return joined([f" of {number(limit, '')}", full])


def _about(column: Column, row: Row) -> Markup:
    better = "" if row.better == "neither" else f", {row.better} is better"
    return tag("small", tag("code", column.metric), better)


def _drawing(comparison: Comparison, column: Column, row: Row) -> Markup:
    labels = [group.label for group in comparison.groups]
    left = min(max(_CHARACTER * max(map(len, labels)) + 12, _NARROWEST), _WIDEST)
    scale = _scale([one for one in row.estimates if one], left)
    bottom = _TOP + len(labels) * _ROW
    chosen = comparison.answer.group if comparison.answer else None
    shapes = [*_axis(scale, row, bottom)]
    for index, (name, one) in enumerate(zip(labels, row.estimates, strict=True)):
        middle = _TOP + (index + 0.5) * _ROW
        shapes.append(
            label(left - 10, middle + 4, _clipped(name), class_="strong" if index == chosen else "tick", anchor="end")
        )
        shapes += _estimate(one, scale, middle, row) if one else ()
    title = f"{column.heading} by group"
    return svg.picture(shapes, width=_WIDTH, height=bottom + _BOTTOM, title=title, least=_LEAST)


def _clipped(name: str) -> str:
    most = int((_WIDEST - 12) / _CHARACTER)
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _scale(estimates: Sequence[Estimate], left: float) -> Scale:
    """Return an axis from 0 to the largest value, or a logarithmic one if the values are far apart."""
    low, high = min(one.low for one in estimates), max(one.high for one in estimates)
    start, end = left, _WIDTH - _RIGHT
    if low > 0 and high / low > _WIDE_APART:
        ticks = svg.log_ticks([low, high])
        return Scale(low=ticks[0], high=ticks[-1], start=start, end=end, log=True)
    return Scale(low=min(low, 0), high=high if high > 0 else 1, start=start, end=end)


def _axis(scale: Scale, row: Row, bottom: float) -> Iterator[Markup]:
    ticks = svg.log_ticks([scale.low, scale.high]) if scale.log else svg.steps(scale.low, scale.high)
    for place, tick in enumerate(ticks):
        yield line(scale.at(tick), _TOP, scale.at(tick), bottom, "grid")
        if place % (1 + len(ticks) // _MOST_LABELS) == 0:
            yield label(scale.at(tick), bottom + 17, number(tick, row.unit))


def _estimate(one: Estimate, scale: Scale, middle: float, row: Row) -> Iterator[Markup]:
    yield line(scale.at(one.ci_low), middle, scale.at(one.ci_high), middle, "whisker")
    for value in one.values:
        yield dot(scale.at(value), middle + 6, radius=2, class_="run")
    tooltip = (
        f"median {number(one.median, row.unit)}, interval {number(one.ci_low, row.unit)} to "
        f"{number(one.ci_high, row.unit)}, {len(one.values)} runs from {number(one.low, row.unit)} to "
        f"{number(one.high, row.unit)}"
    )
    yield dot(scale.at(one.median), middle, radius=4.5, class_="median", title=tooltip)
