"""Styled lines without rich: what `inspect` draws with, so that it starts at once on a host in trouble.

Owns the step from parts to one string: foreign text made harmless, clipped to the terminal, coloured where permitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.cells import cell_len
from loadsim.report.look import ALARM, BAD, GOOD, NAME, QUIET, STRONG, WARN
from loadsim.report.text import clip, printable, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadsim.report.look import Look

Part = tuple[str, str]  # text and style
Line = tuple[Part, ...]

_CODES = {STRONG: "1", QUIET: "2", NAME: "36", GOOD: "32", WARN: "33", BAD: "31", ALARM: "1;31"}


def line(*parts: str | Part) -> Line:
    """Return one line of parts, each plain or as (text, style)."""
    return tuple((part, "") if isinstance(part, str) else part for part in parts)


def width_of(parts: Line) -> int:
    """Return the columns that a line takes."""
    return sum(cell_len(text) for text, _ in parts)


def prose(text: str, look: Look, *, first: str = "", margin: str = "", style: str = "") -> list[Line]:
    """Return text wrapped behind a margin; the first line has `first` in its place, in the style."""
    shown = printable(text, unicode=look.unicode)
    head, *more = wrap(shown, look.edge - len(margin))
    return [line((first.ljust(len(margin)), style), head), *(line(margin, rest) for rest in more)]


def both_ends(left: Line, right: Line, look: Look) -> list[Line]:
    """Return one line with parts at both ends, or two lines where they would meet."""
    gap = look.edge - width_of(left) - width_of(right)
    if gap >= 2:
        return [(*left, (" " * gap, ""), *right)]
    return [left, ((" " * max(look.edge - width_of(right), 0), ""), *right)]


def paint(lines: Iterable[Line], look: Look) -> str:
    """Return the lines as one string that ends in a newline; none is wider than the terminal."""
    return "".join(_painted(parts, look) + "\n" for parts in lines)


def _painted(parts: Line, look: Look) -> str:
    shown = ""
    room = look.width
    for text, style in parts:
        safe = printable(text, unicode=look.unicode)
        fits = clip(safe, room, ellipsis=look.glyphs.ellipsis)
        room -= cell_len(fits)
        code = _CODES.get(style) if look.color else None
        shown += f"\x1b[{code}m{fits}\x1b[0m" if code and fits.strip() else fits
        if fits != safe:
            break
    return shown.rstrip()
