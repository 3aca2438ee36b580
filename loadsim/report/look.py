"""How a terminal can be written to: its width, its colours, its characters.

Owns the glyphs, the styles and the step from styled lines to one string. Meaning never hangs on colour: a line says
the same when its styles are gone.
"""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.text import Text

#: Lines longer than this are hard to read, however wide the terminal is.
WIDEST = 120
#: Below this the layout gives up and lines are clipped.
NARROWEST = 40

STRONG = "bold"
QUIET = "dim"
NAME = "cyan"
GOOD = "green"
WARN = "yellow"
BAD = "red"
ALARM = "bold red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The characters that draw; each set has the same meanings."""

    levels: str  # from nothing to the limit; the last one is the limit alone
    full: str
    eighths: str  # of a bar's last character, from 1/8 to 7/8; "" where there are none
    track: str  # the empty part of a gauge
    met: str
    missed: str
    up: str  # a canary that was answered, and one that was not
    down: str
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
class Look:
    """What one terminal, file or pipe can show."""

    width: int
    color: bool
    unicode: bool

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str]) -> Look:
        """Return the look that a stream takes: its width, NO_COLOR, a dumb terminal, an encoding without blocks.

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
        """The column at which lines end: two short of the terminal's, and of what reads well."""
        return max(min(self.width, WIDEST), NARROWEST) - 2


def line(*parts: str | tuple[str, str] | Text) -> Text:
    """Return one line of parts, each plain, as (text, style), or a line itself."""
    from rich.text import Text  # noqa: PLC0415  # `inspect` takes a Look and does without rich, to start at once

    return Text.assemble(*parts, end="", no_wrap=True)


def both_ends(left: Text, right: Text, look: Look) -> list[Text]:
    """Return one line with text at both ends, or two lines where they would meet."""
    gap = look.edge - left.cell_len - right.cell_len
    if gap >= 2:
        return [line().append_text(left).append(" " * gap).append_text(right)]
    return [left, line(" " * max(look.edge - right.cell_len, 0)).append_text(right)]


def bar(share: float, width: int, glyphs: Glyphs) -> str:
    """Return a bar as long as a share (0 to 1) of `width` characters; whatever is not 0 can be seen."""
    if width <= 0 or share <= 0:
        return ""
    whole, rest = divmod(round(min(share, 1.0) * width * 8), 8)
    part = glyphs.eighths[rest - 1] if rest and glyphs.eighths else ""
    return glyphs.full * whole + part or (glyphs.eighths[:1] or glyphs.full)


def gauge(share: float, width: int, glyphs: Glyphs) -> str:
    """Return a bar in its track, `width` characters in all."""
    filled = bar(share, width, glyphs)
    return filled + glyphs.track * (width - len(filled))


def paint(lines: Iterable[Text], look: Look) -> str:
    """Return the lines as one string that ends in a newline; none is wider than the terminal."""
    return "".join(_painted(text, look) + "\n" for text in lines)


def _painted(text: Text, look: Look) -> str:
    shown = text.copy()
    shown.rstrip()
    if shown.cell_len > look.width:
        shown.truncate(max(look.width - len(look.glyphs.ellipsis), 0))
        shown.append(look.glyphs.ellipsis[: look.width])
    if not look.color:
        return shown.plain
    console = _console()
    with console.capture() as capture:
        console.print(shown, end="", soft_wrap=True)
    return capture.get()


@functools.cache
def _console() -> Console:
    """Return a console that writes colours whatever the environment says: `Look` has asked it already."""
    from rich.console import Console  # noqa: PLC0415  # as in `line`

    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        no_color=False,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )


def _columns(stream: TextIO, environ: Mapping[str, str]) -> int:
    """Return COLUMNS where it is set, else what the terminal says, else 80."""
    asked = environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a file, a pipe, or no descriptor at all
        return 80
