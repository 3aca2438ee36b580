"""A resolved scenario back as TOML: every setting in force, spelled so that reading it gives the same scenario."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from loadsim.scenario.quantities import SPELLED

if TYPE_CHECKING:
    from loadsim.scenario.model import Scenario
    from loadsim.scenario.sweep import Matrix

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def to_toml(scenario: Scenario, matrix: Matrix | None = None) -> str:
    """Return the scenario as TOML, with the table [sweep] of a matrix; a key that has no value is left out."""
    values = scenario.model_dump(mode="json", by_alias=True, exclude_none=True, context=SPELLED)
    if scenario.server.close_after is None:
        values["server"]["close_after"] = "client"
    if matrix is not None:
        exclude = {"exclude": list(matrix.exclude)} if matrix.exclude else {}
        values["sweep"] = {
            **{name: list(tried) for name, tried in matrix.axes.items()},
            "repeat": matrix.repeat,
            **exclude,
        }
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = _pairs({name: value for name, value in values.items() if name not in tables})
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_pairs(table)] if table else []
    return "\n".join(lines) + "\n"


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in table.items()]


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _value(value: object) -> str:
    """Return a value as TOML; a table becomes an inline one."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(_pairs(value))}}}"
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def _text(text: str) -> str:
    """Return a TOML basic string: JSON's, but for DEL, which JSON lets stand."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
