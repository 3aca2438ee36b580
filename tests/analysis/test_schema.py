"""The published schemas describe the files that are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from comparison_samples import backlog_sweep, two_builds
from jsonschema import Draft202012Validator
from report_samples import generator_limited, healthy, phantoms, too_many_open_files

from loadsim.analysis.summary import summary_schema
from loadsim.compare.comparison import comparison_schema

PUBLISHED = Path(__file__).parent.parent.parent / "results"


def problems(schema: dict[str, Any], document: object) -> list[str]:
    """Return what a validator has against a document, as it would be read from a file."""
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(json.loads(json.dumps(document)))]


@pytest.mark.parametrize("summary", [healthy(), too_many_open_files(), phantoms(), generator_limited()])
def test_summaries_are_valid(summary: Any) -> None:  # noqa: ANN401 -- a Summary
    """Every summary that we write is one."""
    assert problems(summary_schema(), summary.to_json()) == []


@pytest.mark.parametrize("comparison", [backlog_sweep(), two_builds()])
def test_comparisons_are_valid(comparison: Any) -> None:  # noqa: ANN401 -- a Comparison
    """Every comparison that we write is one."""
    assert problems(comparison_schema(), comparison.to_json()) == []


@pytest.mark.parametrize(
    "change", [{"format": 9}, {"status": 7}, {"metrics": {"no.such": 1}}, {"ledger": {"accepted": "many"}}]
)
def test_something_else_is_not(change: dict[str, Any]) -> None:
    """Another format, another type, a metric that does not exist."""
    assert problems(summary_schema(), {**healthy().to_json(), **change}) != []


def test_a_missing_part_is_told() -> None:
    """What a reader relies on is required."""
    summary = healthy().to_json()
    del summary["ledger"]

    assert problems(summary_schema(), summary) == ["'ledger' is a required property"]


@pytest.mark.parametrize(("name", "schema"), [("summary", summary_schema()), ("comparison", comparison_schema())])
def test_what_is_published_is_up_to_date(name: str, schema: dict[str, Any]) -> None:
    """`loadsim schema NAME > results/NAME.schema.json` after a change of the shapes."""
    assert json.loads((PUBLISHED / f"{name}.schema.json").read_text()) == schema
