"""The oracle has valid scenarios, and its join, bounds and look-ups tell right from wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from oracle_bounds import Bounds, exactly, statistics
from oracle_findings import CONTRADICTIONS, EXPLAINED, Pool, is_explained
from oracle_join import only_assignment
from oracle_scenarios import scenario

from loadsim.scenario.toml import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(4))
def test_every_random_scenario_is_valid(tmp_path: Path, seed: int) -> None:
    """Every number makes a valid scenario, and always the same one."""
    for number in range(50):
        text = scenario(seed, number)
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert load(str(path), ()).name == f"oracle-{seed}-{number}"
        assert scenario(seed, number) == text


@pytest.mark.parametrize(
    ("fits", "expected"),
    [
        ([[True]], [0]),
        ([[False, True]], [1]),
        ([[True, True]], [None]),
        ([[True, True], [True, True]], [0, 1]),
        ([[True, True, True], [True, True, True]], [None, None]),
        ([[True, False], [False, False]], [0, None]),
    ],
)
def test_only_unique_assignments_are_joined(fits: list[list[bool]], expected: list[int | None]) -> None:
    """Accepts and clients of a 4-tuple have the same order; an ambiguous assignment is None."""
    assert only_assignment(fits) == expected


def test_bounds_of_percentiles() -> None:
    """A percentile lies between the percentiles of its bounds, and is absent below 100 samples."""
    values = statistics("wait", [1e9] * 100, [2e9] * 100)
    assert values["wait.p99_s"] == Bounds(low=1, high=2)
    assert values["wait.p999_s"] is None
    assert statistics("wait", [1e9] * 99)["wait.p90_s"] is None
    assert statistics("wait", [])["wait.max_s"] is None


@pytest.mark.parametrize(("value", "holds"), [(2.0, True), (2.001, False), (1.999, False), (None, False)])
def test_an_exact_value_is_compared_exactly(value: float | None, holds: bool) -> None:  # noqa: FBT001  # a parameter
    """A rounding error is accepted; a difference of a thousandth and an absent value are not."""
    assert exactly(2).holds(value) is holds


@pytest.mark.parametrize(
    ("token", "is_known"),
    [
        ("1,234", True),
        ("1,235", False),
        ("13 ms", True),
        ("12 ms", False),
        ("2 min 5 s", True),
        ("2 min 7 s", False),
        ("41 %", True),
        ("40 %", False),
        ("500/s", True),
        ("600/s", False),
    ],
)
def test_a_number_of_a_sentence_is_looked_up_by_its_kind(token: str, is_known: bool) -> None:  # noqa: FBT001
    """A number must agree with a value of its own kind, to the digits that are shown."""
    pool = Pool(counts={1234.0}, times={0.0128, 125.2}, rates={500.2}, percents={41.3})
    assert is_explained(pool, token) is is_known


def test_every_pair_names_a_finding() -> None:
    """Every finding in the tables of contradictions and explained numbers exists in loadsim."""
    command = [sys.executable, "-P", "-m", "loadsim", "explain"]
    known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    named = {pair.finding for pair in CONTRADICTIONS} | {finding for finding, _, _ in EXPLAINED} - {"*"}
    assert sorted(named - set(known)) == []
