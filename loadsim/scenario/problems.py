"""What is wrong with a scenario, and how that is shown: place, sentence, line, caret, and what was perhaps meant."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The name of a source that is the argument of a --set.
OVERRIDE = "--set"
_WIDEST_LINE = 110
_TAB = "    "


class Span(NamedTuple):
    """A piece of one line: line and column count from 1, in characters; width 0 is a point."""

    line: int
    column: int
    width: int = 0


class Source(NamedTuple):
    """A text that the user wrote: a file, or the argument of an option."""

    name: str  # the path as the user knows it, or the option
    text: str
    is_option: bool = False  # another option than --set, which stands for one setting

    @property
    def is_override(self) -> bool:
        """Whether this is the argument of an option."""
        return self.is_option or self.name == OVERRIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: a sentence that ends with the remedy, and the place to point at."""

    source: Source
    span: Span
    sentence: str
    hint: str | None = None  # what was perhaps meant, spelled as it would be in the text
    note: str | None = None  # a second place that matters

    @property
    def place(self) -> str:
        """The place as "file:line:column", the form that editors and terminals understand."""
        if self.source.is_option:
            return self.source.name
        if self.source.is_override:
            return f"--set, column {self.span.column}"
        return f"{self.source.name}:{self.span.line}:{self.span.column}"


def render(problems: Sequence[Problem]) -> str:
    """Return the full account of all problems, in the order given."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return "\n\n".join([*(_account(problem) for problem in problems), f"{count}; nothing was started"])


def _account(problem: Problem) -> str:
    lines = problem.source.text.split("\n")
    line = lines[problem.span.line - 1].rstrip("\r") if problem.span.line <= len(lines) else ""
    number = problem.source.name if problem.source.is_override else str(problem.span.line)
    shown, indent, width = _excerpt(line, problem.span.column - 1, problem.span.width)
    mark = "^" * max(1, width)
    hint = f" did you mean {problem.hint}?" if problem.hint else ""
    gutter = " " * len(number)
    account = [f"{problem.place}: {problem.sentence}"]
    if problem.source.is_override:
        account += [f"  {number} {shown}", f"  {gutter} {' ' * indent}{mark}{hint}"]
    else:
        account += [f"  {number} | {shown}", f"  {gutter} | {' ' * indent}{mark}{hint}"]
    return "\n".join([*account, *([f"  {gutter} = {problem.note}"] if problem.note else [])])


def _excerpt(line: str, start: int, width: int) -> tuple[str, int, int]:
    """Return the line as it may be shown, and indent and width of the mark in terminal columns."""
    end = start + width
    shown = line[max(0, start - _WIDEST_LINE) : start], line[start:end], line[end:]
    before, marked, after = (printable(part[: _WIDEST_LINE + 1]) for part in shown)
    if _columns(before + marked + after) > _WIDEST_LINE:
        before = "..." + before[-30:] if _columns(before) > 40 else before
        marked = marked[: _WIDEST_LINE - len(before)]
        after = after[: max(0, _WIDEST_LINE - len(before) - len(marked))] + " ..."
    return before + marked + after, _columns(before), _columns(marked)


def printable(text: str) -> str:
    """Return the text without what a terminal would obey, tabs as spaces."""
    text = text.replace("\t", _TAB)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _columns(text: str) -> int:
    """Return how many terminal columns a text takes: wide characters take two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)
