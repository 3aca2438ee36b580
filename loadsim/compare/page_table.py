"""The first table of a comparison's page, how two groups compare, and one metric drawn by group."""

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


SIGNS = {
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


def pair_of(row: Row, group: int, beside: int) -> tuple[Pair, Says] | None:
    """Return the pair of two groups and what `group` is beside the other; None where they were not compared."""
    for pair in row.pairs:
        if (pair.a, pair.b) == (beside, group):
            return pair, Says(pair.says)
        if (pair.a, pair.b) == (group, beside):
            return pair, _TURNED.get(Says(pair.says), Says(pair.says))
    return None


def sign(says: Says, title: str | None = None) -> Markup:
    """Return what is said as a sign that a reader of the page hears as a word."""
    return tag("span", SIGNS[says], class_=class_of(says), title=title or says.value, role="img", aria_label=says.value)


def class_of(says: Says) -> str:
    """Return the style of what is said."""
    return "says says-" + says.value.replace(" ", "-")


def legend(told: Sequence[Says], beside: str) -> Markup:
    """Return what the signs mean, those that occur."""
    items = [tag("li", sign(says), f" {says.value}") for says in Says if says in told]
    return tag("ul", tag("li", f"beside {beside}:"), *items, class_="legend")


def evidence(pair: Pair, says: Says) -> str:
    """Return what is said with what it stands on: "worse: +34 %, p = 0.008 (corrected 0.03)"."""
    parts = [f"p = {pair.p:.2g} (corrected {pair.p_holm:.2g})"]
    if pair.effect is not None:
        parts.insert(0, f"{100 * pair.effect:+,.{1 if abs(pair.effect) < 1 else 0}f} %")
    if pair.repeats_needed is not None:
        parts.append(f"{pair.repeats_needed} runs of each could tell")
    return f"{says.value}: {', '.join(parts)}"


def matrix(row: Row, groups: Sequence[Group]) -> Markup:
    """Return what each group is beside each other in one metric; of many groups a line for each pair."""
    if len(groups) > EACH_WITH_EACH:
        lines = [[groups[pair.b].label, groups[pair.a].label, _pair_words(pair, Says(pair.says))] for pair in row.pairs]
        return table(["this", "beside that", ""], lines, class_="matrix")
    heads = [tag("small", "this beside that"), *(group.label for group in groups)]
    rows = [[group.label, *(_pair_cell(row, b, a) for a in range(len(groups)))] for b, group in enumerate(groups)]
    return table(heads, rows, class_="matrix")


def medians(rows: Sequence[Row], groups: Sequence[Group]) -> Markup:
    """Return all metrics, a column for each group: median and range."""
    heads = ["metric", *(group.label for group in groups)]
    lines = [[tag("code", row.metric), *(_median(row, i) for i in range(len(groups)))] for row in rows]
    return table(heads, lines, numbers=range(1, len(heads)))


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
    if (pair.a, pair.b) == (beside, group):  # the effect is that of b beside a: told on that side alone
        return _pair_words(pair, says)
    return tag("td", sign(says), " ", says.value)


def _pair_words(pair: Pair, says: Says) -> str:
    """Return a cell with all that is known of a pair."""
    return tag("td", sign(says), " ", says.value, tag("small", evidence(pair, says).removeprefix(says.value + ": ")))


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
            tag("ul", *(_run(run, status) for run, status in zip(group.runs, group.statuses, strict=False)))
            if group.runs
            else tag("p", "No run of it took place.", class_="note"),
            notices(group.refused),
        )
        for group in comparison.groups
    ]
    return tag("ul", *items, class_="runs columns")


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


#: More labels than this under one axis would run into each other.
_MOST_LABELS = 6
_WIDTH, _RIGHT, _TOP, _ROW, _BOTTOM = 520, 26, 10, 25, 26
#: Narrower than this a drawing cannot be read.
_LEAST = 330
#: Room for the labels of groups: so much a character, within these bounds.
_CHARACTER, _NARROWEST, _WIDEST = 7.2, 54, 190
#: From this ratio on between largest and smallest a logarithmic axis shows more.
_WIDE_APART = 60


def intervals(comparison: Comparison) -> Markup:
    """Return a drawing for each column."""
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
    """Return an axis from 0 to the largest value; a logarithmic one where they are far apart."""
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
    told = (
        f"median {number(one.median, row.unit)}, interval {number(one.ci_low, row.unit)} to "
        f"{number(one.ci_high, row.unit)}, {len(one.values)} runs from {number(one.low, row.unit)} to "
        f"{number(one.high, row.unit)}"
    )
    yield dot(scale.at(one.median), middle, radius=4.5, class_="median", title=told)
