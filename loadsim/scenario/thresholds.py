"""Expectations on metrics, such as "emfile.count > 0" or "accept.p99 < 50ms": parsing and judging.

A metric without samples fails its threshold, because no expectation passes without data.
"""

from __future__ import annotations

import difflib
import functools
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from loadsim import units
from loadsim.metrics import FORMER_NAMES, METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
BYTE_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}

_SHAPE = re.compile(r"\s*([\w.]+)\s*(==|!=|<=|>=|<|>)\s*(\S.*?)\s*", re.ASCII)
_NUMBER = re.compile(r"-?\d+(_\d+)*(\.\d+)?", re.ASCII)
_SUFFIXED = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)\s*(\S*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """One expectation; `value` in the metric's own unit (seconds, per second, cores, bytes, a fraction from 0 to 1)."""

    metric: str
    operator: str
    value: float
    text: str  # as written


class Judgement(NamedTuple):
    """Whether a threshold is met, and the measured value with its unit ("48", "1.2 ms", "no data")."""

    ok: bool
    measured: str


class ThresholdError(ValueError):
    """A threshold that cannot be read; `hint` is a suggestion, a complete threshold."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def parse(text: str) -> Threshold:
    """Return the threshold; raises ThresholdError if its metric, operator, value or unit is wrong."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        operators = ", ".join(OPERATORS)
        raise ThresholdError(f'a threshold is a metric, one of {operators}, and a value, such as "emfile.count > 0"')
    name, sign, value = match.groups()
    metric = METRICS.get(name)
    if metric is None:
        near = nearest_metric(name)
        hint = f"{near} {sign} {value}" if near else None
        raise ThresholdError(f"no metric is called {name}; `loadsim explain` lists them", hint)
    return Threshold(metric=name, operator=sign, value=_value(metric, value), text=text.strip())


def judge(threshold: Threshold, metrics: Mapping[str, float]) -> Judgement:
    """Return whether measured metrics, keyed as in `summary.json`, meet the threshold; an absent metric does not."""
    metric = METRICS[threshold.metric]
    value = metrics.get(metric.json_key)
    if value is None:
        return Judgement(ok=False, measured="no data")
    return Judgement(ok=OPERATORS[threshold.operator](value, threshold.value), measured=show(metric, value))


def show(metric: Metric, value: float) -> str:
    """Return a value of a metric with its unit, as text."""
    match metric.unit:
        case "s":
            return units.format_duration(value)
        case "share":
            return f"{value:.1%}".replace("%", " %")
        case "cores":
            return f"{value:.2f} cores"
        case "bytes" | "bytes/s":
            return f"{value / 1e6:,.1f} MB{metric.unit.removeprefix('bytes')}"
        case "/s":
            return f"{value:,.0f}/s" if value >= 10 else f"{value:.1f}/s"
    return units.format_count(value)


@functools.cache
def nearest_metric(name: str) -> str | None:
    """Return the metric closest to a name: by a former name, its key in summary.json, spelling or last part."""
    if name in FORMER_NAMES:
        return FORMER_NAMES[name]
    by_key = {metric.json_key: metric.name for metric in METRICS.values()}
    close = difflib.get_close_matches(name, [*METRICS, *by_key], n=1, cutoff=0.6)
    if close:
        return by_key.get(close[0], close[0])
    ends = [known for known in METRICS if known.rpartition(".")[2] == name]
    return ends[0] if len(ends) == 1 else None


def _value(metric: Metric, text: str) -> float:
    """Return the value in the metric's unit; raises ThresholdError if its unit is missing or wrong."""
    try:
        match metric.unit:
            case "s":
                return units.parse_duration(text)
            case "/s":
                return units.parse_rate(text)
            case "bytes":
                return _suffixed(text, BYTE_UNITS)
            case "bytes/s":
                return _suffixed(text.removesuffix("/s"), BYTE_UNITS)
            case "share":
                return _suffixed(text, {"": 1.0, "%": 0.01})
    except ValueError as error:
        raise ThresholdError(f"{metric.name}: {error}") from None
    if not _NUMBER.fullmatch(text):
        expected = "a number of cores" if metric.unit == "cores" else "a plain number"
        raise ThresholdError(f'{metric.name} is compared with {expected}, not with "{text}"')
    return float(text)


def _suffixed(text: str, scales: Mapping[str, float]) -> float:
    match = _SUFFIXED.fullmatch(text)
    if match is None or match[2] not in scales:
        known = ", ".join(unit for unit in scales if unit)
        form = f'a fraction from 0 to 1, or {known}, such as "0.5" or "50 %"' if "" in scales else f"a unit ({known})"
        raise ValueError(f"the value needs {form}")
    return float(match[1]) * scales[match[2]]
