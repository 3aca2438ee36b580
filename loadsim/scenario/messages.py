"""Errors of pydantic as sentences in the terms of a scenario file, with the remedy and a suggestion."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from loadsim.scenario.fields import Table
from loadsim.scenario.model import Scenario
from loadsim.scenario.problems import Problem, Span, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from loadsim.scenario.layers import Layer
    from loadsim.scenario.problems import Path, Place, Source


class _Message(NamedTuple):
    """One error as a sentence; `at_key` points at the key instead of the value."""

    sentence: str
    hint: str | None = None
    at_key: bool = False


#: Type of a pydantic error -> the expected value; {} is filled from the context of the error.
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "string_unicode": "valid text",
    "tuple_type": "an array, in square brackets",
    "dict_type": "a table",
    "model_type": "a table",
    "greater_than_equal": "at least {ge:,}",
    "less_than_equal": "at most {le:,}",
    "string_too_short": "at least {min_length:,} long",
    "string_too_long": "at most {max_length:,} characters long",
}
#: First parts of sysctl names, to recognise a sysctl that is set without its table.
_SYSCTL_ROOTS = {"fs", "kernel", "net"}
#: Keys of a file that are not fields of `Scenario`.
_FILE_KEYS = ("extends", "sweep")
_SWEEPS_OWN = ("repeat", "exclude")
_QUOTED = re.compile(r"'([^']*)'")


def problem_of(error: ErrorDetails, layers: Sequence[Layer]) -> Problem:
    """Return the problem for an error of a field, at its place in the last layer that sets the field."""
    path: Path = tuple(part for part in error["loc"] if part != "[key]")
    message = _message_of(error, path)
    rivals = [path[:-1] + tuple(rival) for rival in error.get("ctx", {}).get("rivals", ())]
    set_at = sorted((found for each in (path, *rivals) if (found := _last(layers, each))), key=lambda each: each.layer)
    if not set_at:
        return _problem_without_place(path, layers, message)
    chosen = set_at[-1]
    span = chosen.place.key if message.at_key else chosen.place.value
    note = "; ".join(f"{each.name} is set at {each.where}" for each in set_at[:-1]) or None
    return Problem(
        source=layers[chosen.layer].source, span=span, sentence=message.sentence, hint=message.hint, note=note
    )


class _Setting(NamedTuple):
    """A place in a layer, given by its index, that sets a path."""

    layer: int
    place: Place
    name: str
    source: Source

    @property
    def where(self) -> str:
        return Problem(source=self.source, span=self.place.key, sentence="").place


def _last(layers: Sequence[Layer], path: Path) -> _Setting | None:
    """Return the last setting of a path; an array replaces everything that earlier layers set inside it."""
    array = next((path[:at] for at, part in enumerate(path) if isinstance(part, int)), None)
    for index in range(len(layers) - 1, -1, -1):
        place = layers[index].places.get(path)
        if place is not None:
            return _Setting(index, place, str(path[-1]), layers[index].source)
        if array in layers[index].places:
            return None
    return None


def _problem_without_place(path: Path, layers: Sequence[Layer], message: _Message) -> Problem:
    """Return a problem for a missing key, at the nearest table above it, or at the end of the last file."""
    for length in range(len(path) - 1 if path else 0, 0, -1):
        if table := _last(layers, path[:length]):
            span = table.place.key if message.at_key else table.place.value
            return Problem(source=table.source, span=span, sentence=message.sentence, hint=message.hint)
    source = [layer.source for layer in layers if not layer.source.is_override][-1]
    lines = source.text.rstrip().split("\n")
    span = Span(len(lines), len(lines[-1]) + 1)
    return Problem(source=source, span=span, sentence=message.sentence, hint=message.hint)


def _message_of(error: ErrorDetails, path: Path) -> _Message:
    """Return the message for an error at a path of TOML keys (`loc` without pydantic's own marks)."""
    kind, context, found = error["type"], error.get("ctx", {}), error["input"]
    if len(path) > 1 and path[0] == "sweep" and path[1] not in _SWEEPS_OWN:  # a swept key has the path of its setting
        path = tuple(str(path[1]).split("."))
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return _Message(f"the key {path[-1]} is missing: add it", at_key=True)
    if kind in {"literal_error", "enum"}:
        return _unknown_value(path, _QUOTED.findall(context["expected"]), context["expected"], found)
    if kind in _MUST_BE:
        must_be = _MUST_BE[kind].format(**context)
        return _Message(f"{_dotted(path)} must be {must_be}, found {spell(found)}", _retyped(kind, found))
    if kind == "contradiction":
        return _Message(error["msg"], at_key=True)
    sentence = error["msg"] if error["loc"][-1] == "[key]" else f"{_dotted(path)}: {error['msg']}, found {spell(found)}"
    return _Message(sentence, context.get("hint"), at_key=error["loc"][-1] == "[key]")


def spell(value: object) -> str:
    """Return a value in the spelling of TOML, which shows its type, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = printable(value)
        return f'"{shown}"' if len(shown) <= 60 else f'"{shown[:57]}..."'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(word: str, known: list[str]) -> str | None:
    """Return the known word that is closest to this one."""
    close = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return close[0] if close else None


def _dotted(path: Path) -> str:
    """Return a path as text: client.stages[0].rate."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _unknown_key(path: Path) -> _Message:
    key = str(path[-1])
    if path[0] in _SYSCTL_ROOTS:
        return _Message(
            f"unknown key {key} at the top level: a sysctl belongs in [sysctl]", f"sysctl.{key}", at_key=True
        )
    table = _table_at(path[:-1])
    where = f"in [{_dotted(path[:-1])}]" if len(path) > 1 else "at the top level"
    known = [*_keys(table), *(_FILE_KEYS if len(path) == 1 else ())] if table else []
    near = nearest(key, known)
    elsewhere = [name for name, inner in _tables(Scenario).items() if key in _keys(inner)]
    if near is None and elsewhere:
        return _Message(f"{key} does not belong {where}: move it to [{elsewhere[0]}]", at_key=True)
    remedy = "" if near else f"; known are {', '.join(known)}" if table else ""
    return _Message(f"unknown key {key} {where}{remedy}", near, at_key=True)


def _unknown_value(path: Path, known: list[str], expected: str, found: object) -> _Message:
    if path == ("schema",):
        return _Message(f"this loadsim reads schema 1, found {spell(found)}: update loadsim, or write schema = 1")
    near = nearest(found, known) if isinstance(found, str) else None
    choices = ", ".join(f'"{choice}"' for choice in known) or expected
    return _Message(f"{_dotted(path)} must be one of {choices}, found {spell(found)}", f'"{near}"' if near else None)


def _retyped(kind: str, found: object) -> str | None:
    """Return the value in the expected type if only the type is wrong."""
    if kind == "tuple_type" and isinstance(found, str):
        return f'["{found}"]'
    if kind == "string_type" and isinstance(found, int | float) and not isinstance(found, bool):
        return f'"{found}"'
    if kind == "int_type" and isinstance(found, float) and found.is_integer():
        return str(int(found))
    if kind in {"int_type", "float_type"} and isinstance(found, str):
        try:
            number = float(found)
        except ValueError:
            return None
        fits = math.isfinite(number) if kind == "float_type" else number.is_integer()
        return found.strip() if fits else None
    return None


def _keys(table: type[Table]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _tables(table: type[Table]) -> dict[str, type[Table]]:
    """Return the tables inside a table by their keys, including tables in arrays."""
    found: dict[str, type[Table]] = {}
    for name, field in table.model_fields.items():
        inner = _table_in(field.annotation)
        if inner is not None:
            found[field.alias or name] = inner
    return found


def _table_in(annotation: Any) -> type[Table] | None:  # noqa: ANN401 -- any annotation
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part))), None)


def _table_at(path: Path) -> type[Table] | None:
    table: type[Table] | None = Scenario
    for key in path:
        if table is not None and isinstance(key, str):
            table = _tables(table).get(key)
    return table
