"""The JSON Schema of a scenario file, for editors that complete and check TOML."""

from __future__ import annotations

from typing import Any

from loadsim.scenario.model import Scenario
from loadsim.scenario.sweep import Sweep

_EXTENDS = {"type": "string", "description": "The path of one parent: its tables merge, its arrays are replaced."}
_SYSCTL = {
    "type": "object",
    "description": "Inside the private namespace, full names.",
    "additionalProperties": {"type": ["integer", "string", "object"]},
}


def schema() -> dict[str, Any]:
    """Return the schema of a file as it is written: durations and rates are text, sysctls may be bare dotted keys."""
    model = Scenario.model_json_schema(by_alias=True)
    properties = {"extends": _EXTENDS, **model["properties"], "sysctl": _SYSCTL}
    properties["sweep"] = {**Sweep.model_json_schema(), "description": "Settings to try: a run of each combination."}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "loadsim scenario"}
    return {**head, **{key: value for key, value in model.items() if key != "title"}, "properties": properties}
