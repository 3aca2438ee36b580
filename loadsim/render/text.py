"""Text: harmless characters, columns instead of code points, wrapping, clipping, sentences of several renderers.

Foreign text (names, evidence, paths) passes through `printable` before it reaches a terminal. Widths come from the
Unicode tables of the standard library. Knows nothing about styles (`drawing`).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from loadsim.units import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.summary import Compared, Summary

#: Shown for a missing number.
NOTHING = "-"
#: Characters of our own sentences -> their replacement in ASCII.
_ASCII = str.maketrans(
    {
        "\N{MIDDLE DOT}": "-",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{PLUS-MINUS SIGN}": "+-",
        "\N{MICRO SIGN}": "u",
    }
)
#: The space between a number and its unit, and inside "5 min 28 s": no line breaks there.
NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:ns|us|ms|s|min|h|d|fds|kB|MB|GB)\b|%)|(?<=\d min) (?=\d)|(?<=\d h) (?=\d)")
_GLUE = "\ue000"  # one column wide; `printable` escapes it, therefore no text contains it
_NO_WIDTH = {"Mn", "Me", "Cf", "Cc"}  # Unicode categories: combining, format and control characters
_WIDE = {"W", "F"}  # East Asian widths: two columns


def printable(text: str, *, unicode: bool = True) -> str:
    r"""Return text that cannot move the cursor, ring the bell or reorder the text beside it: "\x1b" is shown.

    With `unicode` false, characters outside ASCII are transliterated or escaped.
    """
    shown = text
    if not text.isprintable():
        shown = "".join(char if char.isprintable() else _escaped(char) for char in text.replace("\xa0", " "))
    return shown if unicode else shown.translate(_ASCII).encode("ascii", "backslashreplace").decode()


def wrap(text: str, width: int, *, first: int | None = None) -> list[str]:
    """Return the text as lines of at most `width` columns; the first may have another width.

    Lines break at spaces, but not between a number and its unit; a word that is too long is cut. Never empty.
    """
    lines: list[str] = []
    room = width if first is None else first
    line = ""
    for word in NUMBER_AND_UNIT.sub(_GLUE, " ".join(text.split())).split(" "):
        if line and cell_len(line) + 1 + cell_len(word) <= room:
            line += " " + word
            continue
        if line:
            lines.append(line)
            room = width
        if cell_len(word) > room:
            head = pieces(word, max(room, 2))[0]
            *middle, line = pieces(word[len(head) :], max(width, 2)) or [""]
            lines += [head, *middle]
            room = width
        else:
            line = word
    lines.append(line)
    return [line.replace(_GLUE, " ") for line in lines]


def flow(cells: Sequence[str], width: int, *, gap: int = 3) -> list[str]:
    """Return cells side by side, as many per line as fit; a cell is never broken, only clipped."""
    lines: list[str] = []
    for cell in (clip(cell, width) for cell in cells):
        joined = lines[-1] + " " * gap + cell if lines else cell
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(cell)
    return lines


def clip(text: str, width: int, *, ellipsis: str = "...") -> str:
    """Return at most `width` columns of text; an ellipsis marks missing text."""
    if cell_len(text) <= width:
        return text
    room = width - cell_len(ellipsis)
    return cut(text, room).rstrip() + ellipsis if room > 0 else cut(text, width)


def cut(text: str, width: int) -> str:
    """Return the longest beginning of a text that takes at most `width` columns."""
    if text.isascii():
        return text[: max(width, 0)]
    room = width
    for at, char in enumerate(text):
        room -= _width(char)
        if room < 0:
            return text[:at]
    return text


def pieces(text: str, width: int) -> list[str]:
    """Return the text in pieces of at most `width` columns, each of at least one character."""
    found: list[str] = []
    room = 0
    for char in text:
        needed = _width(char)
        if not found or needed > room:
            found.append("")
            room = width
        found[-1] += char
        room -= needed
    return found


def cell_len(text: str) -> int:
    """Return the number of columns of a text: combining characters take none, wide ones two."""
    return len(text) if text.isascii() else sum(map(_width, text))


def left(text: str, width: int) -> str:
    """Return text padded to `width` columns, flush left."""
    return text + " " * (width - cell_len(text))


def right(text: str, width: int) -> str:
    """Return text padded to `width` columns, flush right."""
    return " " * (width - cell_len(text)) + text


def widest(texts: Sequence[str]) -> int:
    """Return the number of columns of the widest text, 0 for no text."""
    return max((cell_len(text) for text in texts), default=0)


def both(one: Compared, *, nothing: str = NOTHING) -> tuple[str, str]:
    """Return the predicted and the measured number in the same unit; a missing time is "never"."""
    pair = (one.predicted, one.measured)
    if one.unit != "s":
        predicted, measured = (nothing if value is None else format_count(value) for value in pair)
        return predicted, measured
    largest = max(abs(value) for value in pair if value is not None)
    digits = 3 if largest < 10 else 2 if largest < 100 else 0
    predicted, measured = ("never" if value is None else f"{value:,.{digits}f} s" for value in pair)
    return predicted, measured


def doubts(summary: Summary) -> list[str]:
    """Return what does not add up, and the accepted connections that the join could not assign."""
    sentences = list(summary.imbalance)
    if summary.foreign:
        sentences.append(f"{format_count(summary.foreign)} foreign: accepted connections that match no attempt.")
    if summary.ambiguous:
        sentences.append(
            f"{format_count(summary.ambiguous)} ambiguous: accepted connections that match several attempts."
        )
    return sentences


def interruption(summary: Summary) -> list[str]:
    """Return the notice about a run that did not end as planned; empty for a complete run."""
    if summary.complete:
        return []
    cause = f" ({summary.interrupted})" if summary.interrupted else ""
    return [f"The run was interrupted{cause}. The numbers cover the time until then."]


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


@lru_cache(maxsize=4096)
def _width(char: str) -> int:
    if unicodedata.category(char) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
