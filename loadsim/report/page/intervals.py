"""One metric by group, drawn: the median as a dot, its confidence interval as a line, every run as a small dot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.page import svg
from loadsim.report.page.markup import Markup, tag
from loadsim.report.page.parts import number
from loadsim.report.page.svg import Scale, dot, label, line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.analysis.comparison import Column, Comparison, Estimate, Row

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
