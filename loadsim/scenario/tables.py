"""What every table of a scenario has in common: strictness, contradictions beside single errors, and how it crosses.

Owns the one conversion from a table to the plain dataclasses of `spec`, which are what a child process reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from loadsim.scenario.quantities import Quantity

if TYPE_CHECKING:
    from loadsim.scenario.spec import Spec

_KNOWN_ERRORS = frozenset(get_args(core_schema.ErrorType))


def key(default: object, *, description: str, **limits: Any) -> Any:  # noqa: ANN401 -- the annotation of the key is its type
    """Return the field of a key whose default is spelled as people write it ("2s") and validated like their own."""
    return Field(default, description=description, **limits)


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one with dotted names: net.core.somaxconn = 4096 may be written bare."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class Contradiction(NamedTuple):
    """Settings that cannot all hold: the key to point at, () for the table itself, and a sentence with the remedy."""

    at: tuple[str | int, ...]
    sentence: str
    rivals: tuple[tuple[str, ...], ...] = ()  # the other keys of it; the one written last is pointed at


class Table(BaseModel):
    """A table of a scenario: unknown keys, loose types and contradictions are errors, all reported together."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        validate_by_alias=True,
        defer_build=True,  # builds one validator when a scenario is read, not one per table at import
    )

    #: Pairs of keys of which each excludes the other, and why.
    exclusive: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what was given, with the defaults that depend on other keys."""
        return given

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield what contradicts itself by the mere presence or absence of keys."""
        for first, second, reason in cls.exclusive:
            if given.get(first) is not None and given.get(second) is not None:
                yield Contradiction((second,), f"{first} and {second} exclude each other: {reason}", ((first,),))

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what contradicts itself by its values; asked only where every single field is right."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _with_contradictions(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 -- any input
        given = data if isinstance(data, Mapping) else {}
        found = list(cls.clashes(given)) if isinstance(data, Mapping) else []
        errors: list[InitErrorDetails] = []
        try:
            table = handler(cls.completed(data) if isinstance(data, Mapping) else data)
        except ValidationError as error:
            errors = [_again(line) for line in error.errors(include_url=False)]
        else:
            if not found:
                found = list(table.contradictions())
            if not found:
                return table
        errors += [_as_error(problem, given) for problem in found]
        raise ValidationError.from_exception_data(cls.__name__, errors)


#: Unit of a quantity -> what its name ends with where it is a plain number.
_SUFFIXES = {"s": "_s", "/s": "_per_s"}


def carried(table: Table, into: type[Spec]) -> dict[str, Any]:
    """Return the settings of a table that are fields of a spec, under its names: a duration is NAME_s, in seconds."""
    names = {plain_name(type(table), name): name for name in type(table).model_fields}
    return {field.name: getattr(table, names[field.name]) for field in dataclasses.fields(into)}


def plain_name(table: type[Table], name: str) -> str:
    """Return what a setting is called where it is a plain number: its name and its unit."""
    field = table.model_fields[name]
    units = (each.unit for each in (*field.metadata, *_parts(field.annotation)) if isinstance(each, Quantity))
    return name + _SUFFIXES.get(next(units, ""), "")


def _parts(annotation: object) -> Iterator[object]:
    """Yield everything that an annotation such as `Annotated[float, Quantity(...)] | None` is made of."""
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


def _again(line: ErrorDetails) -> InitErrorDetails:
    """Return a reported error in the form in which it can be raised again."""
    context = line.get("ctx", {})
    if line["type"] in _KNOWN_ERRORS:
        return InitErrorDetails(type=line["type"], loc=line["loc"], input=line["input"], ctx=context)
    same = PydanticCustomError(line["type"], "{sentence}", {**context, "sentence": line["msg"]})
    return InitErrorDetails(type=same, loc=line["loc"], input=line["input"])


def _as_error(problem: Contradiction, given: Mapping[str, Any]) -> InitErrorDetails:
    value: Any = given
    for key in problem.at:
        value = value.get(key) if isinstance(value, Mapping) else None
    error = PydanticCustomError("contradiction", "{sentence}", {"sentence": problem.sentence, "rivals": problem.rivals})
    return InitErrorDetails(type=error, loc=problem.at, input=value)
