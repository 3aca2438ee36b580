"""Whether the ledger balances in repeated runs of every shipped scenario.

    LOADSIM_CHECK_REPEATS=20 pytest tests/bench/check_balance.py -s

Not for CI: 20 repeats, the default, take about 25 minutes. Root is not needed.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from cli_runs import run
from witnesses import show

from loadsim.scenario.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.analysis.summary import Summary

#: Repeats of a scenario may take minutes.
pytestmark = [pytest.mark.real, pytest.mark.timeout(0)]

REPEATS = int(os.environ.get("LOADSIM_CHECK_REPEATS", "20"))


@pytest.fixture(scope="module", autouse=True)
def _header() -> None:
    show(f"\n{'scenario':<22} {'balanced':>9} {'attempts':>10} {'ambiguous':>10} {'foreign':>8}  status, fates")


@pytest.mark.parametrize("name", [scenario.name for scenario in shipped()])
def test_balance(tmp_path: Path, name: str) -> None:
    """Every attempt has one fate and one outcome, in every run."""
    summaries = [run(name, tmp_path / str(number)).summary for number in range(REPEATS)]
    balanced = sum(adds_up(summary) for summary in summaries)
    attempts = sum(summary.metrics["attempts.count"] for summary in summaries)
    ambiguous = sum(summary.ambiguous for summary in summaries)
    foreign = sum(summary.foreign for summary in summaries)
    statuses = ", ".join(f"{count} {status}" for status, count in Counter(one.status for one in summaries).items())
    counts = f"{f'{balanced} of {REPEATS}':>9} {attempts:>10,.0f} {ambiguous:>10} {foreign:>8}"
    show(f"\n{name:<22} {counts}  {statuses}; {fates(summaries)}")
    assert [sentence for summary in summaries for sentence in summary.imbalance] == []
    assert balanced == REPEATS


def adds_up(summary: Summary) -> bool:
    """Return whether the ledger is marked as balanced, and both margins equal the number of attempts."""
    count = summary.metrics["attempts.count"]
    margins = {sum(summary.ledger.values()), sum(summary.outcomes.values())}
    return summary.balanced and margins == {count} and not summary.ledger["unknown"]


def fates(summaries: list[Summary]) -> str:
    """Return the range of each fate over all runs: "accepted 53, queued 128-129"."""
    spans = {fate: sorted({one.ledger[fate] for one in summaries}) for fate in summaries[0].ledger}
    return ", ".join(
        f"{fate} {seen[0]}" + (f"-{seen[-1]}" if len(seen) > 1 else "") for fate, seen in spans.items() if seen[-1]
    )
