"""Where every client ended: a bar of fates that adds up, and fate by outcome with its sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.fates import FATES, OUTCOMES, Fate
from loadsim.report.page.markup import Markup, joined, tag
from loadsim.report.page.parts import NOTHING, count, count_of, notices

if TYPE_CHECKING:
    from loadsim.analysis.summary import Summary

#: A part of the bar that takes less than this of it has no room for its name.
_NARROW = 0.07


def ledger(summary: Summary) -> Markup:
    """Return the bar, the table, and what does not add up."""
    if not summary.clients:
        return tag("p", "No client was started.")
    return joined([_bar(summary), _table(summary), _sum(summary), notices(_doubts(summary))])


def _fates(summary: Summary) -> list[str]:
    return [fate for fate in dict.fromkeys((*FATES, *summary.ledger)) if summary.ledger.get(fate)]


def _named(name: str) -> str:
    return name.replace("_", " ")


def _colour(fate: str) -> str:
    """Return the classes that colour a fate; one that this version does not know is grey."""
    row = FATES.get(fate, Fate.UNKNOWN).row
    return f"tone-{row.tone} pattern-{row.pattern}"


def _bar(summary: Summary) -> Markup:
    total = sum(summary.ledger.values()) or 1
    parts = [_part(fate, summary.ledger[fate], total) for fate in _fates(summary)]
    said = ", ".join(f"{_named(fate)} {count(summary.ledger[fate])}" for fate in _fates(summary))
    return tag("div", *parts, class_="bar", role="img", aria_label=f"Fates: {said}")


def _part(fate: str, clients: int, total: int) -> Markup:
    label = tag("span", tag("b", count(clients)), _named(fate)) if clients / total >= _NARROW else None
    title = f"{_named(fate)}: {count_of(clients, 'client')}, {100 * clients / total:.1f} %"
    return tag("div", label, class_=f"part {_colour(fate)}", style=f"flex-grow:{clients}", title=title)


def _table(summary: Summary) -> Markup:
    """Return fates by outcomes; a column for each outcome that occurred, and sums at both margins."""
    outcomes = [name for name in dict.fromkeys((*OUTCOMES, *summary.outcomes)) if summary.outcomes.get(name)]
    heads = [tag("th", "where they ended", scope="col"), tag("th", "clients", scope="col", class_="number")]
    meanings = {name: OUTCOMES[name].row.means if name in OUTCOMES else "" for name in outcomes}
    saw = [tag("th", _named(name), scope="col", class_="number saw", title=meanings[name]) for name in outcomes]
    group = tag("th", "what they saw", scope="colgroup", colspan=len(outcomes) or None, class_="group saw")
    rows = [_row(summary, fate, outcomes) for fate in _fates(summary)]
    sums = [tag("td", count(summary.outcomes[name]), class_="number saw") for name in outcomes]
    total = [tag("th", "sum", scope="row"), tag("td", tag("b", count(sum(summary.ledger.values()))), class_="number")]
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", tag("td", colspan=2), group), tag("tr", *heads, *saw)),
            tag("tbody", *rows),
            tag("tfoot", tag("tr", *total, *sums)),
            class_="ledger",
        ),
        class_="scroll",
    )


def _row(summary: Summary, fate: str, outcomes: list[str]) -> Markup:
    cells = summary.fate_by_outcome.get(fate, {})
    meaning = FATES[fate].row.words if fate in FATES else ""
    swatch = tag("span", class_=f"swatch {_colour(fate)}", aria_hidden="true")
    name = tag("th", swatch, _named(fate), " ", tag("small", meaning), scope="row")
    saw = [
        tag("td", count(cells[outcome]) if cells.get(outcome) else NOTHING, class_=_saw(cells.get(outcome)))
        for outcome in outcomes
    ]
    return tag("tr", name, tag("td", tag("b", count(summary.ledger[fate])), class_="number"), *saw)


def _saw(clients: int | None) -> str:
    return "number saw" if clients else "number saw none"


def _sum(summary: Summary) -> Markup:
    own = summary.metrics.get("generator.local_failures", 0) + summary.ledger.get("not_started", 0)
    if not summary.balanced:
        return tag("p", tag("b", "\u2717 does not add up"), class_="sum bad")
    lost = f"{count(own)} lost by the generator"
    return tag("p", tag("b", "\u2713 adds up"), f": all {count_of(summary.clients, 'client')}, {lost}.", class_="sum")


def _doubts(summary: Summary) -> list[str]:
    doubts = list(summary.imbalance)
    if summary.foreign:
        doubts.append(f"{count(summary.foreign)} foreign: accepted connections that no attempt explains.")
    if summary.ambiguous:
        doubts.append(f"{count(summary.ambiguous)} ambiguous: accepted connections that fit several attempts equally.")
    return doubts
