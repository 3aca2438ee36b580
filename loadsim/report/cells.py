"""How many columns text takes on a terminal: none for combining characters, two for wide ones.

Owns the widths, from the standard library's Unicode tables.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_NO_WIDTH = {"Mn", "Me", "Cf", "Cc"}
_WIDE = {"W", "F"}


@lru_cache(maxsize=4096)
def _width(char: str) -> int:
    if unicodedata.category(char) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1


def cell_len(text: str) -> int:
    """Return the columns that a text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def chop_cells(text: str, width: int) -> list[str]:
    """Return the text in pieces of at most `width` columns, each of at least one character."""
    pieces: list[str] = []
    room = 0
    for char in text:
        needed = _width(char)
        if not pieces or needed > room:
            pieces.append("")
            room = width
        pieces[-1] += char
        room -= needed
    return pieces


def set_cell_size(text: str, width: int) -> str:
    """Return exactly `width` columns of a text, cut or filled up with spaces."""
    kept, room = "", width
    for char in text:
        if _width(char) > room:
            break
        kept += char
        room -= _width(char)
    return kept + " " * max(room, 0)
