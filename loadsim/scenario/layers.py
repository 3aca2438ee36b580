"""The layers a scenario is made of: files from the eldest parent down, then overrides; merged, each still findable.

Tables merge, arrays and values replace, and an empty text takes away what an earlier layer said. `name` and
`description` belong to their own file and are not passed on.
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
#: What a file says of itself alone.
_OWN = ("name", "description")
_AT = re.compile(r" \((?:at line (\d+), column (\d+)|at end of document)\)$")
_UNQUOTED = re.compile(r"""\s*[\w."'-]+\s*=\s*([^\s"'\[{#][^#]*?)\s*(?:#.*)?""")
#: How a message of tomllib begins -> what to do.
_SYNTAX_REMEDIES = {
    "Cannot overwrite a value": "this key is there twice, keep one of them",
    "Cannot declare": "this table is there twice, put its keys together",
    "Unterminated string": "close it with a quote",
    "Expected ']'": "close the bracket",
    "Unclosed array": "close the bracket",
    "Illegal character": "take it away, or write it as an escape in quotes",
}
_NOT_TOML = "this is not TOML, see https://toml.io"
_TOO_DEEP = "this is nested too deeply: two levels are enough"
#: Deeper than any scenario, far from what Python can follow; the parser takes time that grows with the square of it.
_DEEPEST = 32
_LONG_KEY = re.compile(
    rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_DEEPEST}}}(?=[\w"'-])""", re.ASCII
)
_LONGEST_OVERRIDE = 10_000
_SEGMENT = re.compile(r"""\s*(?:([\w-]+)|"([^"]*)"|'([^']*)')\s*""")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file or one override: what it says, and where it says it."""

    source: Source
    data: dict[str, Any]

    @cached_property
    def places(self) -> dict[Path, Place]:
        """The place of every path in it; dotted names that are one key, in [sysctl] and [sweep], as that."""
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
    """Return the layer that the bytes of a file hold, or why they are no TOML."""
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
    except ValueError as error:  # a number of thousands of digits is one, too
        return _not_toml(source, str(error))
    return Problem(source=source, span=Span(1, 1), sentence=_TOO_DEEP)


def _is_too_deep(data: object) -> bool:
    """Return whether tables and arrays are nested deeper than whoever reads them follows, level by level."""
    level = [data]
    for _ in range(_DEEPEST):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for group in inner for one in group]
    return any(isinstance(one, dict | list) for one in level)


def _not_utf8(name: str, content: bytes, error: UnicodeDecodeError) -> Problem:
    source = Source(name, content.decode(errors="replace"))
    before = content[: error.start].decode()
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    sentence = f"the byte 0x{content[error.start]:02x} is not UTF-8: save this file as UTF-8"
    return Problem(source=source, span=Span(line, column, 1), sentence=sentence)


def _not_toml(source: Source, says: str) -> Problem:
    """Return what the parser said, with a place to point at and a remedy."""
    lines = source.text.split("\n")
    match = _AT.search(says)
    span = Span(len(lines), len(lines[-1]) + 1)
    if match is None:
        span = Span(1, 1)
    elif match[1]:
        span = Span(int(match[1]), int(match[2]))
    said = _AT.sub("", says)
    unquoted = _UNQUOTED.fullmatch(lines[span.line - 1])
    if unquoted and not _is_value(unquoted[1]):
        span = Span(span.line, unquoted.start(1) + 1, len(unquoted[1]))
        return Problem(source=source, span=span, sentence="text needs quotes", hint=f'"{unquoted[1]}"')
    remedy = next((remedy for start, remedy in _SYNTAX_REMEDIES.items() if said.startswith(start)), _NOT_TOML)
    return Problem(source=source, span=span, sentence=f"{said}: {remedy}")


def _is_value(text: str) -> bool:
    return _value(text) != text


class _Part(NamedTuple):
    """One part of a dotted key and where it stands in the text, counted from 0."""

    name: str
    start: int
    end: int


class OptionValue(NamedTuple):
    """A setting that an option other than --set stands for; errors quote the option."""

    option: str  # "--pid"
    typed: str  # its value on the command line
    key: str  # "server.pid"
    value: Any

    @classmethod
    def repeat(cls, count: int) -> OptionValue:
        """Return the setting of `--repeat`."""
        return cls("--repeat", str(count), "sweep.repeat", count)

    def layer(self) -> Layer:
        """Return the layer that sets this and nothing else."""
        table, _, name = self.key.partition(".")
        return Layer(source=Source(self.option, self.typed, is_option=True), data={table: {name: self.value}})


#: "key=value" of a --set, or what another option stands for.
Override = str | OptionValue


def override(text: str) -> Layer | Problem:
    """Return the layer of one "key=value"; the value is TOML if possible, else text: client.rate=200/s.

    Several values separated by commas are swept: server.backlog=8,128,4096.
    """
    source = Source(OVERRIDE, text)
    if len(text) > _LONGEST_OVERRIDE or _LONG_KEY.search(text):
        says = f"an override is one setting, in at most {_LONGEST_OVERRIDE:,} characters: write this into a file"
        return Problem(source=source, span=Span(1, 1), sentence=says)
    key, equals, value = _split(text)
    parts = _dotted(key)
    if not equals or not parts:
        sentence = "an override is a key, an equals sign and a value, such as server.backlog=8"
        return Problem(source=source, span=Span(1, 1, len(text)), sentence=sentence)
    several = _several(parts, value)
    if several and not several[-1][0]:
        sentence = "a value is missing after the last comma; to try a setting unset, put the comma first: KEY=,8"
        return Problem(source=source, span=Span(1, len(text), 1), sentence=sentence)
    if several:
        tried = [_value(one) for one, _ in several]
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
    """Return the parts of a dotted key, none where it is no such key."""
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


def _several(parts: Sequence[_Part], value: str) -> list[tuple[str, int]]:
    """Return the values of a swept key, each with where it starts in the text; none where it is one value."""
    if parts[0].name not in SWEEPABLE or "," not in value or _is_value(value.strip()):
        return []
    found, at = [], 0
    for one in value.split(","):
        found.append((one.strip(), at + one.find(one.strip())))
        at += len(one) + 1
    return found


def _places_of_override(text: str) -> dict[Path, Place]:
    key, _, value = _split(text)
    if several := _several(_dotted(key), value):
        whole = Span(1, len(key) + 2, len(value))
        name = ".".join(part.name for part in _dotted(key))
        places: dict[Path, Place] = {("sweep", name): Place(Span(1, 1, len(key)), whole)}
        for index, (one, start) in enumerate(several):
            span = Span(1, len(key) + 2 + start, len(one))
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
    """Return what all layers say together; a later one wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if not layer.source.is_override:
            for key in _OWN:
                merged.pop(key, None)
        data = {key: value for key, value in layer.data.items() if key != "extends" or layer.source.is_override}
        data |= {table: flattened(data[table]) for table in FLAT if isinstance(data.get(table), Mapping)}
        if layer.source.is_override and isinstance(merged.get("sweep"), dict):
            _take_from_sweep(merged["sweep"], data)
        _merge_into(merged, data)
    return merged


def _take_from_sweep(sweep: dict[str, Any], data: Mapping[str, Any]) -> None:
    """Sweep no longer what an override sets to one value."""
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
