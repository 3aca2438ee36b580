"""Durations, rates and other typed fields of a scenario, and the strict table that all its tables extend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from loadsim import units

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from loadsim.scenario.specs import Spec


_NUMBER = r"\d+(_\d+)*(\.\d+)?"
_RATE = rf"{_NUMBER}\s*(/ms|/s|/min|/h)"
#: The spellings that `units` reads, for the JSON Schema.
DURATION_PATTERN = rf"^\s*{_NUMBER}\s*(ns|us|µs|ms|s|min|h)\s*$"
RATE_PATTERN = rf"^\s*{_RATE}\s*$"
RAMP_PATTERN = rf"^\s*{_RATE}(\s*\.\.\s*{_RATE})?\s*$"

#: The context of a dump in which quantities are spelled as in a file instead of plain numbers.
SPELLED = {"spelled": True}


class Ramp(NamedTuple):
    """A rate that changes evenly from `start` to `end`, in attempts per second; if both are equal it is constant."""

    start: float
    end: float


def parse_ramp(text: str) -> Ramp:
    """Return the ramp of "50/s" or "50/s..500/s"; raises ValueError with the remedy."""
    first, dots, second = text.partition("..")
    start = units.parse_rate(first)
    return Ramp(start, units.parse_rate(second) if dots else start)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Parser, limits and JSON Schema of one kind of quantity; used as `Annotated` metadata.

    `low` and `high` bound the parsed value (both ends of a ramp); `above` excludes `low` itself.
    """

    parse: Callable[[str], float | Ramp]
    show: Callable[[float], str]
    unit: str  # the suggestion for a number without a unit
    pattern: str
    low: float
    high: float
    above: bool = False

    def validate(self, value: object) -> float | Ramp:
        """Return the parsed quantity; raises PydanticCustomError with a full sentence."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = str(value).strip() if is_number or isinstance(value, str) else ""
        try:
            parsed = self.parse(text)
        except ValueError as error:
            lacks_unit = text.replace("_", "").replace(".", "", 1).isdigit()
            hint = {"hint": f'"{text}{self.unit}"'} if lacks_unit else {}
            raise PydanticCustomError("no_quantity", "{sentence}", {"sentence": str(error), **hint}) from None
        for each in parsed if isinstance(parsed, Ramp) else (parsed,):
            self._check_range(each)
        return parsed

    def _check_range(self, value: float) -> None:
        if math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low):
            return
        least = "more than" if self.above else "at least"
        between = f"must be {least} {self.show(self.low)} and at most {self.show(self.high)}"
        raise PydanticCustomError("out_of_range", "{between}", {"between": between})

    def _dump(self, value: float | Ramp, info: core_schema.SerializationInfo) -> object:
        """Return plain numbers, or the spelling of a file in the context `SPELLED`."""
        if info.context != SPELLED:
            return value
        if not isinstance(value, Ramp):
            return self.show(value)
        return self.show(value.start) + (f"..{self.show(value.end)}" if value.end != value.start else "")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(self._dump, info_arg=True)
        return core_schema.no_info_plain_validator_function(self.validate, serialization=dump)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described: dict[str, Any] = {"type": "string", "pattern": self.pattern}
        return described


def duration(*, at_most: float, above_zero: bool = False) -> Quantity:
    """Return the metadata of a duration of at least 0 s."""
    return Quantity(units.parse_duration, show_duration, "s", DURATION_PATTERN, low=0.0, high=at_most, above=above_zero)


def rate(*, at_most: float) -> Quantity:
    """Return the metadata of a rate above 0, in events per second."""
    return Quantity(units.parse_rate, show_rate, "/s", RATE_PATTERN, low=0.0, high=at_most, above=True)


def ramp(*, at_most: float) -> Quantity:
    """Return the metadata of a rate, or of a ramp between two rates; 0 is allowed at both ends."""
    return Quantity(parse_ramp, show_rate, "/s", RAMP_PATTERN, low=0.0, high=at_most)


def show_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as exactly these seconds."""
    return _shortest(seconds, units.DURATION_UNITS, units.parse_duration, ("h", "min", "s", "ms", "us", "ns"))


def show_rate(per_second: float) -> str:
    """Return the shortest text that `parse_rate` reads as exactly this rate."""
    return _shortest(per_second, units.RATE_UNITS, units.parse_rate, ("/s", "/min", "/h"))


def _shortest(value: float, scales: dict[str, float], parse: Callable[[str], float], names: tuple[str, ...]) -> str:
    """Return a whole number of the largest exact unit, else a decimal number of the base unit."""
    base = "/s" if "/s" in scales else "s"
    for name in names if value else (base,):
        number = round(value / scales[name])
        text = f"{number}{name}"
        if number >= 1 and parse(text) == value:
            return text
    return f"{Decimal(repr(float(value))):f}".removesuffix(".0") + base


#: Durations and rates of a scenario, each with its largest value.
DAY_S = 86_400.0
MAX_RATE = 1_000_000.0
Duration = Annotated[float, duration(at_most=DAY_S)]
PositiveDuration = Annotated[float, duration(at_most=DAY_S, above_zero=True)]
Timeout = Annotated[float, duration(at_most=3600.0, above_zero=True)]
Rate = Annotated[float, rate(at_most=MAX_RATE)]


_KNOWN_ERRORS = frozenset(get_args(core_schema.ErrorType))


def key(default: object, *, description: str, **limits: Any) -> Any:  # noqa: ANN401 -- the annotation of the key is its type
    """Return the field of a key; its default is spelled as in a file ("2s") and validated in the same way."""
    return Field(default, description=description, **limits)


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one table with dotted names, because net.core.somaxconn = 4096 may be written bare."""
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
    rivals: tuple[tuple[str, ...], ...] = ()  # the other keys; the error points at the key that was written last


class Table(BaseModel):
    """A table of a scenario: unknown keys, wrong types and contradictions are errors, all reported together."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        validate_by_alias=True,
        defer_build=True,  # builds one validator when a scenario is read, not one per table at import
    )

    #: Pairs of keys that exclude each other, with the reason.
    exclusive: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the given keys with the defaults that depend on other keys."""
        return given

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield contradictions between the presence and absence of keys."""
        for first, second, reason in cls.exclusive:
            if given.get(first) is not None and given.get(second) is not None:
                yield Contradiction((second,), f"{first} and {second} exclude each other: {reason}", ((first,),))

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield contradictions between values; called only if each single field is valid."""
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


#: Unit of a quantity -> the suffix of its name as a plain number.
_SUFFIXES = {"s": "_s", "/s": "_per_s"}


def carried(table: Table, into: type[Spec]) -> dict[str, Any]:
    """Return the settings of a table that are fields of a spec, by the names of the spec: durations are NAME_s."""
    names = {plain_name(type(table), name): name for name in type(table).model_fields}
    return {field.name: getattr(table, names[field.name]) for field in dataclasses.fields(into)}


def plain_name(table: type[Table], name: str) -> str:
    """Return the name of a setting as a plain number: with the suffix of its unit."""
    field = table.model_fields[name]
    units = (each.unit for each in (*field.metadata, *_parts(field.annotation)) if isinstance(each, Quantity))
    return name + _SUFFIXES.get(next(units, ""), "")


def _parts(annotation: object) -> Iterator[object]:
    """Yield all parts of an annotation such as `Annotated[float, Quantity(...)] | None`, nested ones too."""
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


def _again(line: ErrorDetails) -> InitErrorDetails:
    """Return a reported error in a form that can be raised again."""
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
