"""Numbers as text, where several reports show the same ones: terminal, page and Markdown.

Owns what stands where there is no number, and in which unit two numbers compare at a glance. Must not compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.metrics import METRICS
from loadsim.scenario.thresholds import show
from loadsim.units import format_count

if TYPE_CHECKING:
    from loadsim.analysis.comparison import Column, Comparison, Row
    from loadsim.analysis.summary import Compared

NOTHING = "-"


def both(one: Compared, *, nothing: str = NOTHING) -> tuple[str, str]:
    """Return the predicted and the measured number, both in one unit; a moment that never came is "never"."""
    pair = (one.predicted, one.measured)
    if one.unit != "s":
        predicted, measured = (nothing if value is None else format_count(value) for value in pair)
        return predicted, measured
    largest = max(abs(value) for value in pair if value is not None)
    digits = 3 if largest < 10 else 2 if largest < 100 else 0
    predicted, measured = ("never" if value is None else f"{value:,.{digits}f} s" for value in pair)
    return predicted, measured


def median(row: Row | None, group: int) -> str:
    """Return the median of a metric in one group with its unit."""
    estimate = row.estimates[group] if row is not None else None
    return NOTHING if row is None or estimate is None else show(METRICS[row.metric], estimate.median)


def medians(comparison: Comparison, column: Column) -> list[str]:
    """Return a column's text for each group: the median, beside that of a second metric where it has one."""
    own, other = comparison.row(column.metric), comparison.row(column.of) if column.of else None
    texts = [median(own, group) for group in range(len(comparison.groups))]
    if other is None:
        return texts
    return [text if text == NOTHING else f"{text} of {median(other, group)}" for group, text in enumerate(texts)]
