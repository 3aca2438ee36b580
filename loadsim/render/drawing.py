"""Lines on a terminal: its abilities, styled text, bars, and painting lines as one string.

All commands draw with this module, and `inspect` must start on a host in trouble. Therefore it imports only the
standard library. Colour never carries the meaning: a line says the same without its styles.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from loadsim.render.text import cell_len, clip, cut, printable, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Longer lines are hard to read on any terminal.
WIDEST = 120
#: On a narrower terminal lines are clipped, because no layout fits.
NARROWEST = 40

# Styles are the parameters of SGR, the escape sequence for colours and weight ("Select Graphic Rendition", ECMA-48)
STRONG = "1"
QUIET = "2"
NAME = "36"
GOOD = "32"
WARN = "33"
BAD = "31"
ALARM = "1;31"
STRONG_GOOD = "1;32"
STRONG_WARN = "1;33"
FOUND = "1;35"
#: Status of a run -> its style.
STATUSES = {"REPRODUCED": FOUND, "HEALTHY": STRONG_GOOD, "FAILED": ALARM, "INCONCLUSIVE": STRONG_WARN}

Part = tuple[str, str]  # text and style; "" is the terminal's own style


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """Characters for drawing."""

    levels: str  # from zero to the limit; the last one is used only at the limit
    full: str
    eighths: str  # the last character of a bar, from 1/8 to 7/8; "": the set has none
    track: str  # the empty part of a gauge
    met: str
    missed: str
    up: str  # an answered canary
    down: str  # an unanswered canary
    grown: str  # the kernel enlarged the fd table here
    dot: str  # between facts
    ellipsis: str


_UNICODE = Glyphs(
    levels="▁▂▃▄▅▆▇█",
    full="█",
    eighths="▏▎▍▌▋▊▉",
    track="░",
    met="✓",
    missed="✗",
    up="·",
    down="✗",
    grown="↑",
    dot=" · ",
    ellipsis="…",
)
_ASCII = Glyphs(
    levels="._-=+*%#",
    full="#",
    eighths="",
    track=".",
    met="[ok]",
    missed="[--]",
    up=".",
    down="x",
    grown="^",
    dot=" - ",
    ellipsis="...",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The abilities of a terminal, file or pipe."""

    width: int
    color: bool
    unicode: bool

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str]) -> Terminal:
        """Return the abilities of a stream, from its size, its encoding, TERM, COLUMNS, NO_COLOR and FORCE_COLOR.

        The Linux console (TERM=linux) has no glyphs for eighths of a block and gets ASCII.
        """
        term = environ.get("TERM", "")
        encoding = (stream.encoding or "ascii").lower()
        colorful = stream.isatty() or bool(environ.get("FORCE_COLOR"))
        return cls(
            width=_columns(stream, environ),
            color=colorful and term != "dumb" and not environ.get("NO_COLOR"),
            unicode=encoding.startswith("utf") and term != "linux",
        )

    @property
    def glyphs(self) -> Glyphs:
        """The characters that this terminal can draw."""
        return _UNICODE if self.unicode else _ASCII

    @property
    def edge(self) -> int:
        """The column at which lines end: two before the terminal's edge, and at most `WIDEST` - 2."""
        return max(min(self.width, WIDEST), NARROWEST) - 2

    def printable(self, text: str) -> str:
        r"""Return harmless text in the terminal's alphabet; a line break is shown as "\n"."""
        return printable(text, unicode=self.unicode)

    def prose(self, text: str) -> str:
        """Return harmless text in the terminal's alphabet; a line break becomes a space."""
        return self.printable(text.replace("\n", " "))

    def clip(self, text: str, width: int) -> str:
        """Return at most `width` columns of harmless text; an ellipsis marks missing text."""
        return clip(self.printable(text), width, ellipsis=self.glyphs.ellipsis)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of styled text; see `line`."""

    parts: tuple[Part, ...] = ()

    @property
    def plain(self) -> str:
        """The text without styles."""
        return "".join(text for text, _ in self.parts)

    @property
    def width(self) -> int:
        """The number of columns."""
        return sum(cell_len(text) for text, _ in self.parts)


def line(*parts: str | Part | Line) -> Line:
    """Return one line of parts: plain text, (text, style), or the parts of another line."""
    return Line(tuple(_flat(parts)))


def _flat(parts: Iterable[str | Part | Line]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Line):
            yield from part.parts
        else:
            yield (part, "") if isinstance(part, str) else part


def paragraph(
    text: str, terminal: Terminal, *, margin: str = "", mark: str = "", mark_style: str = "", style: str = ""
) -> list[Line]:
    """Return wrapped text behind a margin and a mark; on further lines spaces replace the mark.

    Line breaks become spaces. An empty text gives no lines.
    """
    if not text:
        return []
    first, *more = wrap(terminal.prose(text), terminal.edge - len(margin) - len(mark))
    rest = margin + " " * len(mark)
    return [line(margin, (mark, mark_style), (first, style)), *(line(rest, (text, style)) for text in more)]


def both_ends(left: Line, right: Line, terminal: Terminal) -> list[Line]:
    """Return one line with text at both ends, or two lines if one is too short for both."""
    gap = terminal.edge - left.width - right.width
    if gap >= 2:
        return [line(left, " " * gap, right)]
    return [left, line(" " * max(terminal.edge - right.width, 0), right)]


def joined(sections: Iterable[list[Line]]) -> list[Line]:
    """Return the lines of all sections, with an empty line between two of them; empty sections are left out."""
    lines: list[Line] = []
    for section in sections:
        if section:
            lines += [line(), *section] if lines else section
    return lines


def bar(share: float, width: int, glyphs: Glyphs) -> str:
    """Return a bar for a share (0 to 1) of `width` characters; a share above 0 is always visible."""
    if width <= 0 or share <= 0:
        return ""
    full, rest = divmod(round(min(share, 1.0) * width * 8), 8)
    part = glyphs.eighths[rest - 1] if rest and glyphs.eighths else ""
    return glyphs.full * full + part or (glyphs.eighths[:1] or glyphs.full)


def gauge(share: float, width: int, glyphs: Glyphs) -> str:
    """Return a bar in its track, together `width` characters."""
    filled = bar(share, width, glyphs)
    return filled + glyphs.track * (width - len(filled))


def paint(lines: Iterable[Line], terminal: Terminal) -> str:
    """Return the lines as one string that ends in a newline; each line fits the terminal.

    Control characters that a renderer left in are escaped here.
    """
    return "".join(_painted(one, terminal) + "\n" for one in lines)


def _painted(one: Line, terminal: Terminal) -> str:
    parts = [(terminal.printable(text), style) for text, style in one.parts]
    while parts and not (stripped := parts[-1][0].rstrip()):
        parts.pop()
    if parts:
        parts[-1] = (stripped, parts[-1][1])
    if sum(cell_len(text) for text, _ in parts) > terminal.width:
        parts = _shortened(parts, terminal)
    if not terminal.color:
        return "".join(text for text, _ in parts)
    return "".join(f"\x1b[{style}m{text}\x1b[0m" if style and text else text for text, style in parts)


def _shortened(parts: list[Part], terminal: Terminal) -> list[Part]:
    """Return parts that fit the terminal, with an ellipsis for the missing text."""
    ellipsis = terminal.glyphs.ellipsis[: terminal.width]
    room = terminal.width - len(ellipsis)
    shortened: list[Part] = []
    for text, style in parts:
        shortened.append((cut(text, room), style))
        room -= cell_len(text)
        if room <= 0:
            break
    return [*shortened, (ellipsis, "")]


def _columns(stream: TextIO, environ: Mapping[str, str]) -> int:
    """Return COLUMNS if it is set, else the width of the terminal, else 80."""
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a file, a pipe, or no descriptor at all
        return 80
