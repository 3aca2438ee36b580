"""What one group is beside another, as a sign and a word: never by colour alone.

Owns the signs, and how a pair reads from its other end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.compare import EACH_WITH_EACH
from loadsim.analysis.comparison import Says
from loadsim.report.page.markup import Markup, joined, tag
from loadsim.report.page.parts import NOTHING, number, span, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.comparison import Group, Pair, Row

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
        lines = [[groups[pair.b].label, groups[pair.a].label, _words(pair, Says(pair.says))] for pair in row.pairs]
        return table(["this", "beside that", ""], lines, class_="matrix")
    heads = [tag("small", "this beside that"), *(group.label for group in groups)]
    rows = [[group.label, *(_cell(row, b, a) for a in range(len(groups)))] for b, group in enumerate(groups)]
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


def _cell(row: Row, group: int, beside: int) -> str:
    found = pair_of(row, group, beside)
    if found is None:
        return ""
    pair, says = found
    if (pair.a, pair.b) == (beside, group):  # the effect is that of b beside a: told on that side alone
        return _words(pair, says)
    return tag("td", sign(says), " ", says.value)


def _words(pair: Pair, says: Says) -> str:
    """Return a cell with all that is known of a pair."""
    return tag("td", sign(says), " ", says.value, tag("small", evidence(pair, says).removeprefix(says.value + ": ")))
