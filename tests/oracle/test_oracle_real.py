"""Forty random runs on the real kernel, compared with the oracle; `tests/bench/check_oracle.py` makes more."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from oracle_runs import checked, differences, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

SEED = 1
COUNT = 40


@pytest.mark.parametrize("number", range(COUNT))
def test_every_number_follows_from_the_records(tmp_path: Path, number: int) -> None:
    """Metrics, tables, findings and their sentences agree with the records, except for known differences."""
    assert checked(run(SEED, number, tmp_path)).new == []


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    """The oracle notices a larger value of any metric."""
    recorded = run(SEED, 0, tmp_path)
    unnoticed = set()
    for name, value in recorded.metrics.items():
        changed = dataclasses.replace(
            recorded, summary=recorded.summary | {"metrics": recorded.metrics | {name: 1.5 * value + 1}}
        )
        if not any(one.metric == name for one in differences(changed)):
            unnoticed.add(name)
    assert unnoticed == set()
