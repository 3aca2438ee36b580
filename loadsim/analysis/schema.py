"""The JSON Schemas of `summary.json` and `comparison.json`, for programs that read them.

Made from the shapes themselves, so that neither can be ahead of the other.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from loadsim.analysis import comparison, summary
from loadsim.metrics import METRICS

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def summary_schema() -> dict[str, Any]:
    """Return the schema of summary.json; every metric is described under its key."""
    schema = _schema(summary.Summary, "loadsim summary.json", summary.FORMAT)
    schema["properties"]["metrics"] = {
        "type": "object",
        "description": "Absent: no samples. Times are seconds.",
        "properties": {one.json_key: {"type": "number", "description": one.definition} for one in METRICS.values()},
        "additionalProperties": False,
    }
    return schema


def comparison_schema() -> dict[str, Any]:
    """Return the schema of comparison.json."""
    return _schema(comparison.Comparison, "loadsim comparison.json", comparison.FORMAT)


def _schema(shape: type, title: str, version: int) -> dict[str, Any]:
    made = TypeAdapter(shape).json_schema()
    properties = {"format": {"const": version, "description": "The version of this format."}, **made["properties"]}
    required = ["format", *made.get("required", ())]
    return {"$schema": _DRAFT, **made, "title": title, "properties": properties, "required": required}
