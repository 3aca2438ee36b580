"""Scales and shapes of the drawings that need no script: SVG inside the page.

Owns the step from a value to a pixel. Knows nothing of runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.report.page.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Iterable


#: From here on an axis names powers of ten alone.
_MANY_DECADES = 2.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values between `low` and `high` as pixels between `start` and `end`; beyond, the nearer end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False  # then `low` is above 0

    def at(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        low, high, value = (self._place(number) for number in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def _place(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value


def log_ticks(values: Iterable[float], *, least: float = 1e-6) -> list[float]:
    """Return round numbers from below the smallest value to above the largest, as a logarithmic axis names them.

    Powers of ten, and where they are few 2 and 5 times each as well. Empty without any value; values below `least`
    count as that.
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
    """Return round numbers between two values: about so many."""
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
    """Return a rectangle; `title` is what the pointer tells over it."""
    about = tag("title", title) if title else None
    return tag("rect", about, x=x, y=y, width=round(width, 1), height=round(height, 1), class_=class_)


def label(x: float, y: float, text: str, *, class_: str = "tick", anchor: str = "middle") -> Markup:
    """Return a text at a point."""
    return tag("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def dot(x: float, y: float, *, radius: float, class_: str, title: str | None = None) -> Markup:
    """Return a circle."""
    return tag("circle", tag("title", title) if title else None, cx=x, cy=y, r=radius, class_=class_)


def diamond(x: float, y: float, *, radius: float, class_: str) -> Markup:
    """Return a square that stands on its corner."""
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    return tag("polygon", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in corners), class_=class_)


def picture(shapes: Iterable[str], *, width: float, height: float, title: str, least: float) -> Markup:
    """Return a drawing as wide as its place; where that is below `least` pixels it scrolls by itself."""
    whole = tag(
        "svg",
        tag("title", title),
        *shapes,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="drawing",
        style=f"min-width:{least:g}px",
    )
    return tag("div", whole, class_="scroll")
