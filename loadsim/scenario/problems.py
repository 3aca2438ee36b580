"""Problems in a scenario: a sentence, the place in the TOML text, and a caret under it."""

from __future__ import annotations

import tomllib
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tree_sitter import Node


#: The name of a source that is the argument of a --set.
OVERRIDE = "--set"
_WIDEST_LINE = 110
_TAB = "    "


class Span(NamedTuple):
    """A part of one line. Line and column count from 1, in characters; width 0 is a point."""

    line: int
    column: int
    width: int = 0


class Source(NamedTuple):
    """A text by the user: a file, or the argument of an option."""

    name: str  # the path as the user typed it, or the option
    text: str
    is_option: bool = False  # an option other than --set that makes one setting

    @property
    def is_override(self) -> bool:
        """Whether this is the argument of an option."""
        return self.is_option or self.name == OVERRIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error: a sentence that ends with the remedy, and the place to point at."""

    source: Source
    span: Span
    sentence: str
    hint: str | None = None  # a suggestion, in the spelling of the text
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
    """Return the text of all problems, in the order given."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return "\n\n".join([*(_text(problem) for problem in problems), f"{count}; nothing was started"])


def _text(problem: Problem) -> str:
    source = problem.source.text.split("\n")
    line = source[problem.span.line - 1].rstrip("\r") if problem.span.line <= len(source) else ""
    number = problem.source.name if problem.source.is_override else str(problem.span.line)
    shown, indent, width = _excerpt(line, problem.span.column - 1, problem.span.width)
    mark = "^" * max(1, width)
    hint = f" did you mean {problem.hint}?" if problem.hint else ""
    gutter = " " * len(number)
    lines = [f"{problem.place}: {problem.sentence}"]
    if problem.source.is_override:
        lines += [f"  {number} {shown}", f"  {gutter} {' ' * indent}{mark}{hint}"]
    else:
        lines += [f"  {number} | {shown}", f"  {gutter} | {' ' * indent}{mark}{hint}"]
    return "\n".join([*lines, *([f"  {gutter} = {problem.note}"] if problem.note else [])])


def _excerpt(line: str, start: int, width: int) -> tuple[str, int, int]:
    """Return the printable line, and the indent and width of the mark in terminal columns."""
    end = start + width
    shown = line[max(0, start - _WIDEST_LINE) : start], line[start:end], line[end:]
    before, marked, after = (printable(part[: _WIDEST_LINE + 1]) for part in shown)
    if _columns(before + marked + after) > _WIDEST_LINE:
        before = "..." + before[-30:] if _columns(before) > 40 else before
        marked = marked[: _WIDEST_LINE - len(before)]
        after = after[: max(0, _WIDEST_LINE - len(before) - len(marked))] + " ..."
    return before + marked + after, _columns(before), _columns(marked)


def printable(text: str) -> str:
    """Return the text with control characters replaced and tabs as spaces; a terminal must not obey a file."""
    text = text.replace("\t", _TAB)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _columns(text: str) -> int:
    """Return the width of a text in terminal columns: wide characters take two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


#: Keys and array indices from the top of the file down.
Path = tuple[str | int, ...]

_KEYS = {"bare_key", "quoted_key", "dotted_key"}


class Place(NamedTuple):
    """The places of a key and its value; both are the header of a table."""

    key: Span
    value: Span


def places_in(text: str) -> dict[Path, Place]:
    """Return the place of every key, array element and table of a TOML text.

    Parts that tree-sitter cannot read are missing: its grammar may lag behind the parser of the standard library.
    """
    import tree_sitter_toml  # noqa: PLC0415 -- only errors need it, and `check` starts faster without it
    from tree_sitter import Language, Parser  # noqa: PLC0415 -- as above

    parser = Parser(Language(tree_sitter_toml.language()))
    reader = _Reader(text)
    reader.read_document(parser.parse(text.encode()).root_node)
    return reader.found


class _Reader:
    """Walks the syntax tree and records the first place of every path."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.columns: dict[int, list[int]] = {}
        self.found: dict[Path, Place] = {}
        self.elements: dict[Path, int] = {}

    def read_document(self, root: Node) -> None:
        for node in root.children:
            if node.type == "pair":
                self.read_pair(node, ())
            elif node.type in {"table", "table_array_element"}:
                self.read_table(node)

    def read_table(self, node: Node) -> None:
        header = next(child for child in node.children if child.type in _KEYS)
        path = self.read_keys(header, (), None)
        if node.type == "table_array_element":
            self.elements[path] = self.elements.get(path, -1) + 1
            path = (*path, self.elements[path])
            self.remember(path, header, header)
        for child in node.children:
            if child.type == "pair":
                self.read_pair(child, path)

    def read_pair(self, node: Node, table: Path) -> None:
        named = node.named_children
        if len(named) < 2 or named[0].type not in _KEYS:
            return
        path = self.read_keys(named[0], table, named[1])
        self.read_value(named[1], path)

    def read_keys(self, node: Node, table: Path, value: Node | None) -> Path:
        """Record each part of a dotted key; the value belongs to the last part."""
        path = table
        parts = list(_parts(node))
        for part in parts:
            path = (*path, _name(part))
            self.remember(path, part, value if value is not None and part is parts[-1] else part)
        return path

    def read_value(self, node: Node, path: Path) -> None:
        if node.type == "inline_table":
            for child in node.named_children:
                self.read_pair(child, path)
        elif node.type == "array":
            elements = [child for child in node.named_children if child.type != "comment"]
            for index, child in enumerate(elements):
                self.remember((*path, index), child, child)
                self.read_value(child, (*path, index))

    def remember(self, path: Path, key: Node, value: Node) -> None:
        self.found.setdefault(path, Place(self.span(key), self.span(value)))

    def span(self, node: Node) -> Span:
        """Return the part of a node on its first line; tree-sitter counts columns in bytes of UTF-8."""
        row, byte = node.start_point
        column = self.column(row, byte)
        end_row, end_byte = node.end_point
        end = self.column(row, end_byte) if end_row == row else len(self.lines[row].rstrip())
        return Span(row + 1, column + 1, max(0, end - column))

    def column(self, row: int, byte: int) -> int:
        """Return the number of characters before a byte of a line; each line is counted once."""
        line = self.lines[row]
        if line.isascii():
            return byte
        if row not in self.columns:
            self.columns[row] = [at for at, char in enumerate(line) for _ in char.encode()]
        before = self.columns[row]
        return before[byte] if byte < len(before) else len(line)


def _parts(node: Node) -> Iterator[Node]:
    if node.type == "dotted_key":
        for child in node.named_children:
            yield from _parts(child)
    elif node.type in _KEYS:
        yield node


def _name(node: Node) -> str:
    text = (node.text or b"").decode(errors="replace")
    return next(iter(tomllib.loads(f"{text} = 0"))) if node.type == "quoted_key" else text
