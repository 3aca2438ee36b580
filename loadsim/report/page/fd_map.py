"""The fd table, one square a descriptor, with a letter in it: colour alone says nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from loadsim.report.page.markup import Markup, joined, tag
from loadsim.report.page.parts import count
from loadsim.report.picture import LETTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: So many squares at most; beyond, one stands for several descriptors, a power of two, as the table grows.
_MOST = 2048
#: Squares of a row, and of a group in it.
_ROW, _GROUP = 64, 8


def fd_map(letters: str) -> Markup:
    """Return the table as rows of squares with a legend; `letters` has one letter for each descriptor."""
    table = letters.rstrip(". ")
    each = _each(len(table))
    shown = table if each == 1 else "".join(_commonest(table, each))
    rows = [_row(shown[at : at + _ROW], at * each) for at in range(0, len(shown), _ROW)]
    several = f"One square stands for {each} descriptors, for most of them." if each > 1 else None
    return joined(
        [
            tag("div", *rows, class_="fd-map", role="img", aria_label=_said(table)),
            tag("p", several, class_="note") if several else None,
            _legend(table),
        ]
    )


def _each(descriptors: int) -> int:
    each = 1
    while descriptors > each * _MOST:
        each *= 2
    return each


def _commonest(table: str, each: int) -> Iterator[str]:
    for at in range(0, len(table), each):
        part = table[at : at + each]
        yield max(sorted(set(part)), key=part.count)


def _row(letters: str, first: int) -> Markup:
    groups = [letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP)]
    squares = (tag("span", *(_square(letter) for letter in group)) for group in groups)
    return tag("div", tag("span", count(first), class_="fd-at"), tag("span", *squares), class_="fd-row")


def _square(letter: str) -> Markup:
    return tag("i", "\N{MIDDLE DOT}" if letter == "." else letter, class_=_class(letter))


def _class(letter: str) -> str:
    return f"fd-{letter}" if letter in LETTERS and letter != "." else "fd-none" if letter == "." else "fd-T"


def _said(table: str) -> str:
    counts = Counter(table)
    return ", ".join(f"{count(counts[letter])} {LETTERS[letter][1]}" for letter in LETTERS if counts[letter])


def _legend(table: str) -> Markup:
    counts = Counter(table)
    items = [
        tag("li", _square(letter), " ", LETTERS[letter][1], tag("b", count(counts[letter])))
        for letter in LETTERS
        if counts[letter]
    ]
    return tag("ul", *items, class_="fd-legend")
