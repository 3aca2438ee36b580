"""Parts of both pages: sections, tables, fold-outs, badges, and numbers with their units.

Owns the format of values. Does not know summaries or comparisons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.metrics import METRICS
from loadsim.render.html.markup import Markup, escaped, joined, tag
from loadsim.render.text import NUMBER_AND_UNIT
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Shown for a missing number.
NOTHING = "\N{EN DASH}"
#: Status -> the sign beside it: colour does not carry the meaning.
STATUS_SIGNS = {"REPRODUCED": "\u25c9", "HEALTHY": "\u2713", "FAILED": "\u2717", "INCONCLUSIVE": "?"}
#: "accept.p99_s" -> its metric.
_BY_KEY = {metric.json_key: metric for metric in METRICS.values()}
#: Settings from this number on have thousands separators.
_GROUPED = 10_000
#: Unit -> factor, decimals, suffix.
_UNITS = {
    "share": (100.0, 1, " %"),
    "bytes": (1 / (1 << 20), 1, " MiB"),
    "bytes/s": (1e-3, 1, " kB/s"),
    "cores": (1.0, 2, " cores"),
    "/s": (1.0, 1, "/s"),
}


def badge(status: str, *, small: bool = False) -> Markup:
    """Return a status as a badge: a sign and the word."""
    sign = tag("span", STATUS_SIGNS.get(status, "?"), aria_hidden="true")
    return tag("span", sign, " ", status, class_=f"badge badge-{status.lower()}{' small' if small else ''}")


def section(identity: str, title: str, *content: str | None, note: str | None = None) -> Markup:
    """Return a part of the page under a heading; `note` is a sentence on how to read it."""
    heading = tag("h2", tag("a", title, href=f"#{identity}"))
    return tag("section", heading, tag("p", note, class_="note") if note else None, *content, id=identity)


def fold(title: str, *content: str | None, identity: str | None = None) -> Markup:
    """Return content that a click on the title unfolds."""
    return tag("details", tag("summary", title), tag("div", *content, class_="fold"), id=identity)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, class_: str = "", numbers: Iterable[int] = ()
) -> Markup:
    """Return a table that scrolls if it is too wide; the first cell of a row is the row's heading.

    `numbers` are the indexes of columns that are set flush right. Markup that begins with `td` or `th` stays as it is.
    """
    right = set(numbers)
    head = tag("tr", *(tag("th", text, scope="col", class_=_number(i, right)) for i, text in enumerate(heads)))
    body = (tag("tr", *(_cell(i, text, right) for i, text in enumerate(row))) for row in rows)
    full = tag("table", tag("thead", head), tag("tbody", joined(body)), class_=class_ or None)
    return tag("div", full, class_="scroll")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return names with their values, side by side."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")


def notices(texts: Iterable[str]) -> Markup | None:
    """Return notices, which a reader should see before the numbers; None without any."""
    items = [tag("li", text) for text in texts]
    return tag("ul", *items, class_="notices") if items else None


def navigation(links: Iterable[tuple[str, str]]) -> Markup:
    """Return links to parts of the page."""
    return tag("nav", *(tag("a", text, href=f"#{identity}") for identity, text in links), aria_label="On this page")


def prose(text: str) -> Markup:
    """Return sentences in which no line breaks between a number and its unit."""
    return Markup(NUMBER_AND_UNIT.sub("&nbsp;", escaped(text)))


def count_of(number: float, noun: str, nouns: str | None = None) -> str:
    """Return "1 client", "4,310 clients"; `nouns` is an irregular plural."""
    return f"{format_count(number)} {noun if round(number) == 1 else nouns or noun + 's'}"


def time(seconds: float | None) -> str:
    """Return a duration, a dash for None."""
    return NOTHING if seconds is None else format_duration(seconds)


def count(number: float | None) -> str:
    """Return a count, a dash for None."""
    return NOTHING if number is None else format_count(number)


def number(value: float, unit: str) -> str:
    """Return a number in the unit of its metric: "s", "/s", "cores", "bytes", "bytes/s", "share" or "" for counts."""
    if unit == "s":
        return format_duration(value) if value else "0 s"
    scale, places, suffix = _UNITS.get(unit, (1.0, 1, ""))
    return _digits(value * scale, places) + suffix


def span(low: float, high: float, unit: str) -> str:
    """Return a range of numbers; empty if both have the same text."""
    first, last = number(low, unit), number(high, unit)
    return "" if first == last else f"{first} \N{EN DASH} {last}"


def metric_number(key: str, value: float) -> str:
    """Return the value of a metric with its unit; `key` is the name in `summary.json`."""
    metric = _BY_KEY.get(key)
    return number(value, metric.unit if metric else "")


def definition(key: str) -> str:
    """Return the definition of a metric of `summary.json`; empty for a metric of another version."""
    metric = _BY_KEY.get(key)
    return metric.definition if metric else ""


def plain(value: object) -> str:
    """Return a setting for people: 0.7 and not 0.7000000000000001, "not set" for None."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} = {plain(item)}" for name, item in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:,.12g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= _GROUPED else str(value)


def _digits(value: float, most: int) -> str:
    """Return a number with at most `most` decimals, none if it is an integer or large."""
    places = 0 if abs(value) >= 1000 or value == int(value) else most
    return f"{value:,.{places}f}"


def _cell(place: int, text: str, right: set[int]) -> Markup:
    if isinstance(text, Markup) and text.startswith(("<td", "<th")):
        return text
    if place == 0:
        return tag("th", text, scope="row", class_=_number(place, right))
    return tag("td", text, class_=_number(place, right))


def _number(place: int, right: set[int]) -> str | None:
    return "number" if place in right else None
