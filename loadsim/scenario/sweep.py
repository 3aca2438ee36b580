"""Many runs of one scenario: the product of swept settings, repeated, in a fair order.

A `Scenario` is one run and knows nothing of this; a `Matrix` is all of them. Owns the table `[sweep]`, what its cells
are called and in which order they run. Must not know where a value came from (`toml`) or what a run does.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, ConfigDict, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from loadsim.scenario.model import Scenario
from loadsim.scenario.tables import Contradiction, Table, flattened, key

#: Runs of each cell, where nothing says how many: enough to tell up to 7 cells apart (`analysis.statistics`).
REPEAT = 6
#: The first part of every key that may be swept.
SWEEPABLE = frozenset({"canary", "client", "network", "seed", "server", "sysctl"})
MAX_CELLS = 1_000
#: Combinations that are walked through to see which of them are left out.
_MAX_PRODUCT = 10_000
#: Seconds that a run takes beside its load: namespace, processes, analysis, files.
AROUND_A_RUN_S = 0.8
_MAX_REPEAT = 1_000
_OWN = ("repeat", "exclude")
_NAMED_ALIKE = "close", "namespace"  # last parts of keys that say too little without their table


def _axis(value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        says = "an array of the values to try, such as [8, 128, 4096], is needed here"
        raise PydanticCustomError("axis", "{says}", {"says": says})
    if len(value) > MAX_CELLS:
        says = f"these are {len(value):,} values, {MAX_CELLS:,} combinations are possible: try fewer"
        raise PydanticCustomError("axis", "{says}", {"says": says})
    if any(isinstance(one, list | dict) for one in value):
        says = "every value of a sweep is one number, text or boolean"
        raise PydanticCustomError("axis", "{says}", {"says": says})
    return tuple(value)


def _exclusions(value: object) -> object:
    return [flattened(one) if isinstance(one, Mapping) else one for one in value] if isinstance(value, list) else value


Axis = Annotated[tuple[Any, ...], PlainValidator(_axis, json_schema_input_type=list[int | float | str | bool])]


class Sweep(Table):
    """`[sweep]`: beside these keys, each dotted key of a setting with the values to try."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Axis]

    repeat: int | None = key(
        None, ge=1, le=_MAX_REPEAT, description=f"Runs of each cell; {REPEAT} where something is swept."
    )
    exclude: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_exclusions)] = key(
        (), strict=False, description='Combinations that are left out: [{"server.backlog" = 1, "client.hold" = "1s"}].'
    )

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values to try by their dotted key, as written."""
        return self.__pydantic_extra__ or {}

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what cannot be swept, and what cannot be left out."""
        for name in self.axes:
            if name.partition(".")[0] not in SWEEPABLE or (name != "seed" and "." not in name):
                says = f"{name} cannot be swept: name a setting, such as server.backlog or client.rate"
                yield Contradiction((name,), says)
        tried = {name: [_in_force(name, value) for value in values] for name, values in self.axes.items()}
        for name, values in tried.items():
            for place in (place for place, value in enumerate(values) if value in values[:place]):
                yield Contradiction((name, place), "this value is there twice, and repeat says how often")
        for one in self.exclude:
            for name, value in sorted(one.items()):
                if name not in tried:
                    yield Contradiction(("exclude",), f"exclude names {name}, which is not swept: take it away")
                elif _in_force(name, value) not in tried[name]:
                    says = f"exclude names {name} = {_spelled(value)}, which is not among its values"
                    yield Contradiction(("exclude",), says)

    def excludes(self, values: Mapping[str, Any]) -> bool:
        """Return whether a combination is left out; "50ms" and "0.05s" are one value."""
        known = {name: _in_force(name, value) for name, value in values.items()}
        left_out = [{name: _in_force(name, value) for name, value in one.items()} for one in self.exclude if one]
        return any(one.items() <= known.items() for one in left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination of swept values, as a scenario of its own."""

    label: str  # "backlog 128"; the scenario's name where nothing is swept
    values: dict[str, Any]  # dotted key -> value, as in `Scenario.settings`
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """All cells of a scenario file, in the order of its values, and how often each is to run."""

    cells: tuple[Cell, ...]
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # as written
    exclude: tuple[dict[str, Any], ...] = ()
    repeat: int = 1

    @property
    def is_single(self) -> bool:
        """Whether this is one run."""
        return not self.axes and self.repeat == 1

    @property
    def scenario(self) -> Scenario:
        """The first cell: what all have in common, but for the swept values."""
        return self.cells[0].scenario


class Job(NamedTuple):
    """One run to be made: of which cell, and its how manieth, both from 0."""

    cell: int
    repeat: int

    def scenario(self, matrix: Matrix) -> Scenario:
        """Return what is to be run: it says which run it is; repeats have seeds of their own, alike in every cell."""
        cell = matrix.cells[self.cell]
        which = f"{cell.label}, run {self.repeat + 1} of {matrix.repeat}. {cell.scenario.description}".strip()
        seed = (cell.scenario.seed + self.repeat) % 2**63
        return cell.scenario.model_copy(update={"seed": seed, "description": which})


def order(cells: int, repeat: int, *, seed: int) -> list[Job]:
    """Return all runs: round by round every cell once, shuffled anew, so that no drift of the host favours one."""
    shuffle = random.Random(seed)  # noqa: S311 -- fairness, not secrecy
    rounds = [shuffle.sample(range(cells), cells) for _ in range(repeat)]
    return [Job(cell, number) for number, shuffled in enumerate(rounds) for cell in shuffled]


def expand(data: Mapping[str, Any]) -> Matrix | list[ErrorDetails]:
    """Return what the merged data of all layers plan, or everything that is wrong with them.

    The `loc` of an error that a swept value makes is that value's place in `[sweep]`.
    """
    base = {name: value for name, value in data.items() if name != "sweep"}
    try:
        sweep = Sweep.model_validate(data.get("sweep", {}))
    except ValidationError as error:
        return [_moved(line, ("sweep", *line["loc"])) for line in error.errors(include_url=False)]
    product = math.prod(map(len, sweep.axes.values()))
    chosen = list(_combinations(sweep)) if product <= _MAX_PRODUCT else []
    if not 1 <= len(chosen) <= MAX_CELLS:
        many = len(chosen) if product <= _MAX_PRODUCT else product
        says = f"this sweeps {many:,} combinations, 1 to {MAX_CELLS:,} are possible: sweep less, exclude less"
        return [ErrorDetails(type="contradiction", loc=("sweep",), msg=says, input=None)]
    cells, errors = [], {}
    for values in chosen:
        try:
            scenario = Scenario.model_validate(_with(base, values))
        except ValidationError as error:
            for line in error.errors(include_url=False):
                moved = _moved(line, _place(line, sweep.axes, values))
                errors[moved["loc"], moved["msg"]] = moved
        else:
            cells.append(_cell(values, scenario))
    if errors:
        return list(errors.values())
    repeat = sweep.repeat or (REPEAT if sweep.axes else 1)
    return Matrix(cells=tuple(cells), axes=sweep.axes, exclude=sweep.exclude, repeat=repeat)


def short(name: str) -> str:
    """Return what people call a swept key: "backlog" for server.backlog."""
    table, _, last = name.partition(".")
    last = last.rpartition(".")[2] or table
    return f"{table} {last}" if last in _NAMED_ALIKE else last


def _combinations(sweep: Sweep) -> Iterator[dict[str, Any]]:
    for chosen in itertools.product(*sweep.axes.values()):
        values = dict(zip(sweep.axes, chosen, strict=True))
        if not sweep.excludes(values):
            yield values


def _with(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of one cell; an empty text takes a key away, as in an override."""
    data = copy.deepcopy(dict(base))
    for name, value in values.items():
        table, _, rest = name.partition(".")
        path = [table] if not rest else [table, rest] if table == "sysctl" else [table, *rest.split(".")]
        inner = data
        for part in path[:-1]:
            deeper = inner.get(part)
            inner[part] = inner = deeper if isinstance(deeper, dict) else {}
        if value == "":
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
    return data


def _cell(values: Mapping[str, Any], scenario: Scenario) -> Cell:
    """Return a cell, called after its values."""
    words = [f"{short(name)} {_spelled(value)}" for name, value in values.items()]
    in_force = flattened(scenario.settings())
    known = {name: in_force.get(name) for name in values}
    return Cell(label=", ".join(words) or scenario.name, values=known, scenario=scenario)


def _in_force(name: str, value: object) -> object:
    """Return what a setting is when it is spelled like this; the spelling itself where it is wrong or unknown."""
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
    """Return where an error of a cell was written: in [sweep], at the key or value that made it."""
    dotted = ".".join(str(part) for part in line["loc"] if part != "[key]")
    for name, tried in axes.items():
        if dotted == name or dotted.startswith(f"{name}."):
            at_key = line["type"] == "extra_forbidden" or line["loc"][-1] == "[key]"
            return ("sweep", name) if at_key else ("sweep", name, list(tried).index(values[name]))
    return line["loc"]


def _moved(line: ErrorDetails, loc: tuple[Any, ...]) -> ErrorDetails:
    return ErrorDetails(**{**line, "loc": loc})
