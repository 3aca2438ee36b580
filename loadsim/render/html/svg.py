"""Drawings without script: scales, shapes, and the fd table with one square per descriptor."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.render.html.markup import Markup, joined, tag
from loadsim.render.html.parts import count
from loadsim.render.picture import LETTERS, fd_letters

if TYPE_CHECKING:
    from collections.abc import Iterable


#: A logarithmic axis with more decades has labels at powers of ten only.
_MANY_DECADES = 2.6
#: A larger fd table is drawn with one square for several descriptors.
_MOST = 2048
#: Squares per row and per group.
_ROW, _GROUP = 64, 8


def fd_map(letters: str) -> Markup:
    """Return the fd table as rows of squares with a legend; `letters` has one letter for each descriptor."""
    table = letters.rstrip(". ")
    shown, each = fd_letters(table, most=_MOST)
    rows = [_row(shown[at : at + _ROW], at * each) for at in range(0, len(shown), _ROW)]
    note = f"One square stands for {each} descriptors and shows the most frequent kind." if each > 1 else None
    counts = Counter(table)
    label = ", ".join(f"{count(counts[letter])} {LETTERS[letter][1]}" for letter in LETTERS if counts[letter])
    return joined(
        [
            tag("div", *rows, class_="fd-map", role="img", aria_label=label),
            tag("p", note, class_="note") if note else None,
            _map_legend(counts),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `start` and `end`; other values to the nearer end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False  # requires `low` above 0

    def at(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        low, high, value = (self._place(number) for number in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def _place(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value


def log_ticks(values: Iterable[float], *, least: float = 1e-6) -> list[float]:
    """Return round numbers for a logarithmic axis, from below the smallest value to above the largest.

    These are powers of ten; if there are few of them, also 2 and 5 times each. Values below `least` count as `least`.
    Empty without values.
    """
    known = [max(value, least) for value in values]
    if not known:
        return []
    low, high = min(known), max(known)
    span = math.log10(high / low)
    factors = (1,) if span > _MANY_DECADES else (1, 2, 5)
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    ticks = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
    begin = max(i for i, tick in enumerate(ticks) if tick <= low * 1.02)
    end = min(i for i, tick in enumerate(ticks) if tick >= high * 0.98)
    return ticks[begin : max(end, begin + 1) + 1]


def steps(low: float, high: float, *, about: int = 4) -> list[float]:
    """Return about `about` round numbers between two values."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:  # noqa: PLR0917 -- two points
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def box(x: float, y: float, *, width: float, height: float, class_: str, title: str | None = None) -> Markup:
    """Return a rectangle; `title` is its tooltip."""
    about = tag("title", title) if title else None
    return tag("rect", about, x=x, y=y, width=round(width, 1), height=round(height, 1), class_=class_)


def label(x: float, y: float, text: str, *, class_: str = "tick", anchor: str = "middle") -> Markup:
    """Return a text at a point."""
    return tag("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def dot(x: float, y: float, *, radius: float, class_: str, title: str | None = None) -> Markup:
    """Return a circle; `title` is its tooltip."""
    return tag("circle", tag("title", title) if title else None, cx=x, cy=y, r=radius, class_=class_)


def diamond(x: float, y: float, *, radius: float, class_: str) -> Markup:
    """Return a square on its corner."""
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    return tag("polygon", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in corners), class_=class_)


def picture(shapes: Iterable[str], *, width: float, height: float, title: str, least: float) -> Markup:
    """Return a drawing as wide as its parent element; it scrolls if that is below `least` pixels."""
    drawing = tag(
        "svg",
        tag("title", title),
        *shapes,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="drawing",
        style=f"min-width:{least:g}px",
    )
    return tag("div", drawing, class_="scroll")


def _row(letters: str, first: int) -> Markup:
    groups = [letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP)]
    squares = (tag("span", *(_square(letter) for letter in group)) for group in groups)
    return tag("div", tag("span", count(first), class_="fd-at"), tag("span", *squares), class_="fd-row")


def _square(letter: str) -> Markup:
    return tag("i", "\N{MIDDLE DOT}" if letter == "." else letter, class_=_class(letter))


def _class(letter: str) -> str:
    return f"fd-{letter}" if letter in LETTERS and letter != "." else "fd-none" if letter == "." else "fd-T"


def _map_legend(counts: Counter[str]) -> Markup:
    items = [
        tag("li", _square(letter), " ", LETTERS[letter][1], tag("b", count(counts[letter])))
        for letter in LETTERS
        if counts[letter]
    ]
    return tag("ul", *items, class_="fd-legend")
