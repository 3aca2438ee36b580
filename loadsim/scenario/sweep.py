"""Many runs of one scenario: the product of swept settings, repeated, in random order; and the schema of a file."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, ConfigDict, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from loadsim.scenario.fields import Contradiction, Table, flattened, key
from loadsim.scenario.model import Scenario

#: Default runs of each cell: enough to tell up to 7 cells apart (`compare.statistics`).
REPEAT = 6
#: The first part of every key that may be swept.
SWEEPABLE = frozenset({"canary", "client", "network", "seed", "server", "sysctl"})
MAX_CELLS = 1_000
#: Combinations before exclusion, and checks of a combination against an exclusion.
_MAX_PRODUCT = 10_000
_MAX_CHECKS = 1_000_000
#: Keys that are swept together: each is a part of the name of every cell.
_MAX_AXES = 20
#: Values of any array.
_MAX_VALUES = 1_000
#: Cells times settings of each: `check` reads this within two seconds.
_MAX_SETTINGS = 200_000
#: A text counts as one more setting for each of this number of characters.
_LONG_TEXT = 100
#: Errors of all cells after which no further cell is read.
_MANY_ERRORS = 10_000
#: Seconds of a run outside of its load: namespace, processes, analysis, files.
AROUND_A_RUN_S = 0.8
_MAX_REPEAT = 1_000
_OWN = ("repeat", "exclude")
_NAMED_ALIKE = "close", "namespace"  # last parts of keys that are unclear without their table


def _axis(value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        says = "write an array of the values to try, such as [8, 128, 4096]"
        raise PydanticCustomError("axis", "{says}", {"says": says})
    if any(isinstance(one, list | dict) or (isinstance(one, str) and len(one) > _LONG_TEXT) for one in value):
        says = f"every value of a sweep is one number, boolean or text of up to {_LONG_TEXT} characters"
        raise PydanticCustomError("axis", "{says}", {"says": says})
    return tuple(value)


def _exclusions(value: object) -> object:
    return [flattened(one) if isinstance(one, Mapping) else one for one in value] if isinstance(value, list) else value


Axis = Annotated[tuple[Any, ...], PlainValidator(_axis, json_schema_input_type=list[int | float | str | bool])]


class Sweep(Table):
    """`[sweep]`: these keys, and the dotted keys of settings, each with an array of values to try."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Axis]

    repeat: int | None = key(
        None, ge=1, le=_MAX_REPEAT, description=f"Runs of each combination; {REPEAT} if a key is swept, else 1."
    )
    exclude: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_exclusions)] = key(
        (),
        strict=False,
        description='Combinations to leave out, such as [{"server.backlog" = 1, "client.hold" = "1s"}].',
    )

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values to try by dotted key, as written."""
        return self.__pydantic_extra__ or {}

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield keys that cannot be swept, and exclusions that match nothing."""
        if len(self.axes) > _MAX_AXES:
            says = f"this sweeps {len(self.axes):,} keys, at most {_MAX_AXES} are possible: remove keys with one value"
            yield Contradiction((), says)
            return
        for name in self.axes:
            if name.partition(".")[0] not in SWEEPABLE or (name != "seed" and "." not in name):
                says = f"{name} cannot be swept: name a setting, such as server.backlog or client.rate"
                yield Contradiction((name,), says)
        tried = {name: [_in_force(name, value) for value in values] for name, values in self.axes.items()}
        for name, values in tried.items():
            for place in (place for place, value in enumerate(values) if value in values[:place]):
                yield Contradiction(
                    (name, place), "this value is written twice: remove one; repeat sets the number of runs"
                )
        for one in self.exclude:
            for name, value in sorted(one.items()):
                if name not in tried:
                    yield Contradiction(("exclude",), f"exclude names {name}, which is not swept: remove it")
                elif _in_force(name, value) not in tried[name]:
                    says = f"exclude names {name} = {_spelled(value)}, which is not one of its values"
                    yield Contradiction(("exclude",), says)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the combinations that are not excluded, as written; "50ms" and "0.05s" are the same value."""
        left_out = [{name: _in_force(name, value) for name, value in one.items()} for one in self.exclude if one]
        tried = [[(value, _in_force(name, value)) for value in values] for name, values in self.axes.items()]
        for chosen in itertools.product(*tried):
            known = {name: in_force for name, (_, in_force) in zip(self.axes, chosen, strict=True)}
            if not any(one.items() <= known.items() for one in left_out):
                yield {name: written for name, (written, _) in zip(self.axes, chosen, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination of swept values, as a scenario of its own."""

    label: str  # "backlog 128"; the name of the scenario if nothing is swept
    values: dict[str, Any]  # dotted key -> value, as in `Scenario.settings`
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """All cells of a scenario file in the order of its values, and the number of runs of each."""

    cells: tuple[Cell, ...]
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # as written
    exclude: tuple[dict[str, Any], ...] = ()
    repeat: int = 1

    @property
    def is_single(self) -> bool:
        """Whether this is a single run."""
        return not self.axes and self.repeat == 1

    @property
    def scenario(self) -> Scenario:
        """The scenario of the first cell; the others differ only in the swept values."""
        return self.cells[0].scenario


class Job(NamedTuple):
    """One planned run: the index of its cell, and its number within the cell, both from 0."""

    cell: int
    repeat: int

    def scenario(self, matrix: Matrix) -> Scenario:
        """Return the scenario of this run, numbered in its description; the n-th runs of all cells share a seed."""
        cell = matrix.cells[self.cell]
        description = f"{cell.label}, run {self.repeat + 1} of {matrix.repeat}. {cell.scenario.description}".strip()
        seed = (cell.scenario.seed + self.repeat) % 2**63
        return cell.scenario.model_copy(update={"seed": seed, "description": description})


def order(cells: int, repeat: int, *, seed: int) -> list[Job]:
    """Return all runs: every cell once in random order, repeated, to spread any drift of the host over all cells."""
    shuffle = random.Random(seed)  # noqa: S311 -- fairness, not secrecy
    return [Job(cell, number) for number in range(repeat) for cell in shuffle.sample(range(cells), cells)]


def expand(data: Mapping[str, Any]) -> Matrix | list[ErrorDetails]:
    """Return the cells of the merged data of all layers, or all errors in the data.

    The `loc` of an error in a swept value is the place of that value in `[sweep]`.
    """
    if too_long := list(_too_long(data)):
        return too_long
    base = {name: value for name, value in data.items() if name != "sweep"}
    try:
        sweep = Sweep.model_validate(data.get("sweep", {}))
    except ValidationError as error:
        return [_moved(line, ("sweep", *line["loc"])) for line in error.errors(include_url=False)]
    product = math.prod(map(len, sweep.axes.values()))
    if product * len(sweep.exclude) > _MAX_CHECKS:
        says = f"these are {len(sweep.exclude):,} exclusions from {product:,} combinations: sweep less, exclude less"
        return [_contradiction(("sweep", "exclude"), says)]
    chosen = list(sweep.combinations()) if product <= _MAX_PRODUCT else []
    if says := _too_much(len(chosen) if product <= _MAX_PRODUCT else product, _size(base) + len(sweep.axes)):
        return [_contradiction(("sweep",), says)]
    cells = _cells(base, sweep.axes, chosen)
    if not isinstance(cells, tuple):
        return cells
    repeat = sweep.repeat or (REPEAT if sweep.axes else 1)
    return Matrix(cells=cells, axes=sweep.axes, exclude=sweep.exclude, repeat=repeat)


def _too_much(cells: int, settings: int) -> str:
    """Return the reason why this number of cells and settings is too large; "" if it is not."""
    if not 1 <= cells <= MAX_CELLS:
        return f"this sweeps {cells:,} combinations, 1 to {MAX_CELLS:,} are possible: sweep less, exclude less"
    if cells > 1 and cells * settings > _MAX_SETTINGS:
        return f"this sweeps {cells:,} combinations of {settings:,} settings: sweep less, or split the scenario"
    return ""


def _cells(
    base: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], chosen: Sequence[Mapping[str, Any]]
) -> tuple[Cell, ...] | list[ErrorDetails]:
    """Return the cells of the combinations, or their errors, each one once."""
    cells, errors, seen = [], {}, 0
    for values in chosen:
        try:
            scenario = Scenario.model_validate(_with(base, values))
        except ValidationError as error:
            for line in error.errors(include_url=False):
                moved = _moved(line, _place(line, axes, values))
                errors[moved["loc"], moved["msg"]] = moved
            seen += error.error_count()
            if seen > _MANY_ERRORS:
                break
        else:
            cells.append(_cell(values, scenario))
    return list(errors.values()) or tuple(cells)


def short(name: str) -> str:
    """Return the short name of a swept key: "backlog" for server.backlog."""
    table, _, last = name.partition(".")
    last = last.rpartition(".")[2] or table
    return f"{table} {last}" if last in _NAMED_ALIKE else last


def _too_long(data: object, path: tuple[str | int, ...] = ()) -> Iterator[ErrorDetails]:
    """Yield an error for each array that is too long; its values are not read."""
    if isinstance(data, list) and len(data) > _MAX_VALUES:
        says = f"this array has {len(data):,} values, at most {_MAX_VALUES:,} are possible: make it shorter"
        yield _contradiction(path, says)
    elif isinstance(data, Mapping | list):
        for part, value in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from _too_long(value, (*path, part))


def _size(data: object) -> int:
    """Return the number of settings, including arrays and tables."""
    if isinstance(data, Mapping | list):
        return 1 + sum(map(_size, data.values() if isinstance(data, Mapping) else data))
    return 1 + (len(data) // _LONG_TEXT if isinstance(data, str) else 0)


def _with(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of one cell; tables without swept keys are shared between cells.

    An empty text removes a key, as in an override.
    """
    data = dict(base)
    for name, value in values.items():
        table, _, rest = name.partition(".")
        path = [table] if not rest else [table, rest] if table == "sysctl" else [table, *rest.split(".")]
        inner = data
        for part in path[:-1]:
            deeper = inner.get(part)
            inner[part] = inner = dict(deeper) if isinstance(deeper, Mapping) else {}
        if value == "":
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
    return data


def _cell(values: Mapping[str, Any], scenario: Scenario) -> Cell:
    """Return a cell, named after its values."""
    words = [f"{short(name)} {_spelled(value)}" for name, value in values.items()]
    in_force = flattened(scenario.settings())
    known = {name: in_force.get(name) for name in values}
    return Cell(label=", ".join(words) or scenario.name, values=known, scenario=scenario)


def _in_force(name: str, value: object) -> object:
    """Return the value of a setting that is spelled like this; the spelling itself if it is wrong or unknown."""
    table, _, last = name.partition(".")
    tables = Scenario.model_fields.get(table)
    fields = getattr(tables.annotation, "model_fields", {}) if tables else {}
    if last not in fields:
        return str(value) if table == "sysctl" else value
    try:
        return _reader_of(table, last).validate_python(value, strict=True)
    except ValidationError:
        return value


@functools.cache
def _reader_of(table: str, last: str) -> TypeAdapter[Any]:
    field = getattr(Scenario.model_fields[table].annotation, "model_fields")[last]  # noqa: B009 -- not known to mypy
    annotation: Any = Annotated[field.annotation, field]
    return TypeAdapter(annotation)


def _spelled(value: object) -> str:
    if value == "":
        return "unset"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _place(line: ErrorDetails, axes: Mapping[str, Sequence[Any]], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the place of an error of a cell: in [sweep], at the key or value that caused it."""
    dotted = ".".join(str(part) for part in line["loc"] if part != "[key]")
    for name, tried in axes.items():
        if dotted == name or dotted.startswith(f"{name}."):
            at_key = line["type"] == "extra_forbidden" or line["loc"][-1] == "[key]"
            return ("sweep", name) if at_key else ("sweep", name, list(tried).index(values[name]))
    return line["loc"]


def _contradiction(loc: tuple[str | int, ...], says: str) -> ErrorDetails:
    return ErrorDetails(type="contradiction", loc=loc, msg=says, input=None)


def _moved(line: ErrorDetails, loc: tuple[Any, ...]) -> ErrorDetails:
    return ErrorDetails(**{**line, "loc": loc})


_EXTENDS = {
    "type": "string",
    "description": "Path of a parent, or name of a shipped scenario. Its tables are merged, its arrays replaced.",
}
_SYSCTL = {
    "type": "object",
    "description": "Sysctls of the private network namespace, by their full names, such as net.core.somaxconn.",
    "additionalProperties": {"type": ["integer", "string", "object"]},
}


def schema() -> dict[str, Any]:
    """Return the schema of a file as written: durations and rates are text, sysctls may be bare dotted keys."""
    model = Scenario.model_json_schema(by_alias=True)
    properties = {"extends": _EXTENDS, **model["properties"], "sysctl": _SYSCTL}
    properties["sweep"] = {
        **Sweep.model_json_schema(),
        "description": "Settings with values to try: each combination is run.",
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "loadsim scenario"}
    return {**head, **{key: value for key, value in model.items() if key != "title"}, "properties": properties}
