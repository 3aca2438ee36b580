"""Sentences on a terminal: wrapped to its width, quiet or behind a mark. Foreign text is made harmless here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.look import QUIET, Look, line
from loadsim.report.text import printable, wrap

if TYPE_CHECKING:
    from rich.text import Text


def marked(mark: str, style: str, text: str, look: Look, *, margin: str) -> list[Text]:
    """Return a sentence behind a mark, wrapped."""
    room = look.edge - len(margin) - len(mark)
    first, *more = wrap(printable(text, unicode=look.unicode), room)
    return [line(margin, (mark, style), first), *(line(margin, " " * len(mark), rest) for rest in more)]


def wrapped(text: str, look: Look, *, indent: int) -> list[Text]:
    """Return quiet prose, wrapped; nothing for an empty text."""
    shown = printable(text.replace("\n", " "), unicode=look.unicode)
    return [line(" " * indent, (part, QUIET)) for part in wrap(shown, look.edge - indent) if part]
