"""The layers of a scenario: files from the eldest parent down, then overrides; merged, but errors find their layer.

Tables merge, arrays and values replace, and an empty text removes a setting of an earlier layer. `name` and
`description` are not inherited.
"""

from __future__ import annotations

import copy
import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from loadsim.scenario.fields import flattened
from loadsim.scenario.problems import OVERRIDE, Place, Problem, Source, Span, places_in
from loadsim.scenario.sweep import SWEEPABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.scenario.problems import Path

#: Tables whose keys are dotted names, which may be written bare.
FLAT = ("sysctl", "sweep")
#: Keys that are not inherited.
_OWN = ("name", "description")
_AT = re.compile(r" \((?:at line (\d+), column (\d+)|at end of document)\)$")
_UNQUOTED = re.compile(r"""\s*[\w."'-]+\s*=\s*([^\s"'\[{#][^#]*?)\s*(?:#.*)?""")
#: Beginning of a message of tomllib -> the remedy.
_SYNTAX_REMEDIES = {
    "Cannot overwrite a value": "this key is written twice, keep one of them",
    "Cannot declare": "this table is written twice, put its keys together",
    "Unterminated string": "close it with a quote",
    "Expected ']'": "close the bracket",
    "Unclosed array": "close the bracket",
    "Illegal character": "remove it, or write it as an escape in quotes",
}
_NOT_TOML = "this is not TOML, see https://toml.io"
_TOO_DEEP = "this is nested too deeply: two levels are enough"
#: Deeper than any scenario, and far below the recursion limit. The parser's time grows with the square of the depth.
_DEEPEST = 32
_LONG_KEY = re.compile(
    rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_DEEPEST}}}(?=[\w"'-])""", re.ASCII
)
_LONGEST_OVERRIDE = 10_000
_SEGMENT = re.compile(r"""\s*(?:([\w-]+)|"([^"]*)"|'([^']*)')\s*""")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file or one override: its settings, and their places in its text."""

    source: Source
    data: dict[str, Any]

    @cached_property
    def places(self) -> dict[Path, Place]:
        """The place of every path; in [sysctl] and [sweep] a dotted name is also one key."""
        if self.source.is_option:
            return _places_of_option(self.data, Span(1, 1, len(self.source.text)))
        found = _places_of_override(self.source.text) if self.source.is_override else places_in(self.source.text)
        joined: dict[Path, Place] = {}
        for path, place in found.items():
            if path[0] in FLAT and len(path) > 1:
                names = list(itertools.takewhile(lambda part: isinstance(part, str), path[1:]))
                joined[path[0], ".".join(map(str, names)), *path[1 + len(names) :]] = place
        return {**joined, **found}


def read_layer(name: str, content: bytes) -> Layer | Problem:
    """Return the layer in the bytes of a file, or the reason why they are not TOML."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _not_utf8(name, content, error)
    source = Source(name, text.replace("\r\n", "\n"))
    if long := _LONG_KEY.search(source.text):
        before = source.text[: long.start()]
        span = Span(before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1, len(long[0]))
        return Problem(source=source, span=span, sentence=_TOO_DEEP)
    try:
        data = tomllib.loads(source.text)
        if not _is_too_deep(data):
            return Layer(source=source, data=data)
    except RecursionError:
        pass
    except ValueError as error:  # tomllib raises it for a number of thousands of digits, too
        return _not_toml(source, str(error))
    return Problem(source=source, span=Span(1, 1), sentence=_TOO_DEEP)


def _is_too_deep(data: object) -> bool:
    """Return whether tables and arrays are nested deeper than the limit; iterative, so it cannot overflow the stack."""
    level = [data]
    for _ in range(_DEEPEST):
        inner = [
            list(each.values()) if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)
        ]
        level = [value for group in inner for value in group]
    return any(isinstance(each, dict | list) for each in level)


def _not_utf8(name: str, content: bytes, error: UnicodeDecodeError) -> Problem:
    source = Source(name, content.decode(errors="replace"))
    before = content[: error.start].decode()
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    sentence = f"the byte 0x{content[error.start]:02x} is not UTF-8: save this file as UTF-8"
    return Problem(source=source, span=Span(line, column, 1), sentence=sentence)


def _not_toml(source: Source, message: str) -> Problem:
    """Return the parser's message with a place to point at and a remedy."""
    lines = source.text.split("\n")
    match = _AT.search(message)
    span = Span(len(lines), len(lines[-1]) + 1)
    if match is None:
        span = Span(1, 1)
    elif match[1]:
        span = Span(int(match[1]), int(match[2]))
    reason = _AT.sub("", message)
    unquoted = _UNQUOTED.fullmatch(lines[span.line - 1])
    if unquoted and not _is_value(unquoted[1]):
        span = Span(span.line, unquoted.start(1) + 1, len(unquoted[1]))
        return Problem(source=source, span=span, sentence="text needs quotes", hint=f'"{unquoted[1]}"')
    remedy = next((remedy for start, remedy in _SYNTAX_REMEDIES.items() if reason.startswith(start)), _NOT_TOML)
    return Problem(source=source, span=span, sentence=f"{reason}: {remedy}")


def _is_value(text: str) -> bool:
    return _value(text) != text


class _Part(NamedTuple):
    """One part of a dotted key, with its start and end in the text, counted from 0."""

    name: str
    start: int
    end: int


class OptionValue(NamedTuple):
    """A setting that is made by another option than --set; errors quote that option."""

    option: str  # "--pid"
    typed: str  # its value on the command line
    key: str  # "server.pid"
    value: Any

    @classmethod
    def repeat(cls, count: int) -> OptionValue:
        """Return the setting of `--repeat`."""
        return cls("--repeat", str(count), "sweep.repeat", count)

    def layer(self) -> Layer:
        """Return the layer that makes only this setting."""
        table, _, name = self.key.partition(".")
        return Layer(source=Source(self.option, self.typed, is_option=True), data={table: {name: self.value}})


#: "key=value" of a --set, or the setting of another option.
Override = str | OptionValue


def override(text: str) -> Layer | Problem:
    """Return the layer of one "key=value"; a value that is not TOML is text: client.rate=200/s.

    Several values separated by commas are swept: server.backlog=8,128,4096.
    """
    source = Source(OVERRIDE, text)
    if len(text) > _LONGEST_OVERRIDE or _LONG_KEY.search(text):
        says = f"an override is one setting of at most {_LONGEST_OVERRIDE:,} characters: write this into a file"
        return Problem(source=source, span=Span(1, 1), sentence=says)
    key, equals, value = _split(text)
    parts = _dotted(key)
    if not equals or not parts:
        sentence = "an override is a key, an equals sign and a value, such as server.backlog=8"
        return Problem(source=source, span=Span(1, 1, len(text)), sentence=sentence)
    swept = _swept_values(parts, value)
    if swept and not swept[-1][0]:
        sentence = "a value is missing after the last comma; to try a setting unset, put the comma first: KEY=,8"
        return Problem(source=source, span=Span(1, len(text), 1), sentence=sentence)
    if swept:
        tried = [_value(each) for each, _ in swept]
        return Layer(source=source, data={"sweep": {".".join(part.name for part in parts): tried}})
    data: Any = _value(value.strip())
    for part in reversed(parts):
        data = {part.name: data}
    if _is_too_deep(data):
        return Problem(source=source, span=Span(1, len(key) + 2, len(value)), sentence=_TOO_DEEP)
    return Layer(source=source, data=data)


def _split(text: str) -> tuple[str, str, str]:
    """Return key, equals sign and value; the equals sign may be missing."""
    return text.partition("=")


def _dotted(key: str) -> list[_Part]:
    """Return the parts of a dotted key; an empty list if the text is not one."""
    parts: list[_Part] = []
    at = 0
    while match := _SEGMENT.match(key, at):
        group = match.lastindex or 0
        parts.append(_Part(match[group], match.start(group), match.end(group)))
        at = match.end() + 1
        if match.end() == len(key):
            return parts
        if key[match.end()] != ".":
            break
    return []


def _value(text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def _swept_values(parts: Sequence[_Part], value: str) -> list[tuple[str, int]]:
    """Return the values of a swept key with their start in the text; an empty list if it is a single value."""
    if parts[0].name not in SWEEPABLE or "," not in value or _is_value(value.strip()):
        return []
    found, at = [], 0
    for each in value.split(","):
        found.append((each.strip(), at + each.find(each.strip())))
        at += len(each) + 1
    return found


def _places_of_override(text: str) -> dict[Path, Place]:
    key, _, value = _split(text)
    if swept := _swept_values(_dotted(key), value):
        whole = Span(1, len(key) + 2, len(value))
        name = ".".join(part.name for part in _dotted(key))
        places: dict[Path, Place] = {("sweep", name): Place(Span(1, 1, len(key)), whole)}
        for index, (each, start) in enumerate(swept):
            span = Span(1, len(key) + 2 + start, len(each))
            places["sweep", name, index] = Place(span, span)
        return places
    stripped = value.strip()
    start = len(key) + 1 + value.find(stripped)
    whole = Span(1, start + 1, len(stripped))
    found: dict[Path, Place] = {}
    path: Path = ()
    for part in _dotted(key):
        path = (*path, part.name)
        found[path] = Place(Span(1, part.start + 1, part.end - part.start), whole)
    return found


def _places_of_option(data: Mapping[str, Any], span: Span) -> dict[Path, Place]:
    [(table, keys)] = data.items()
    return {path: Place(span, span) for path in ((table,), *((table, key) for key in keys))}


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the settings of all layers; a later layer wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if not layer.source.is_override:
            for key in _OWN:
                merged.pop(key, None)
        data = {key: value for key, value in layer.data.items() if key != "extends" or layer.source.is_override}
        data |= {table: flattened(data[table]) for table in FLAT if isinstance(data.get(table), Mapping)}
        if layer.source.is_override and isinstance(merged.get("sweep"), dict):
            _remove_from_sweep(merged["sweep"], data)
        _merge_into(merged, data)
    return merged


def _remove_from_sweep(sweep: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Remove a key from the sweep if an override sets it to one value."""
    for name in flattened({table: value for table, value in data.items() if table != "sweep"}):
        sweep.pop(name, None)


def _merge_into(base: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if value == "" and key in base:
            del base[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge_into(base[key], value)
        else:
            base[key] = copy.deepcopy(value)
