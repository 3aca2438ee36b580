"""What can be said of a sweep before it starts: its cells, its length, and whether its repeats can tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.compare import pairs_of
from loadsim.analysis.statistics import repeats_needed
from loadsim.scenario.sweep import AROUND_A_RUN_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.scenario.cautions import Caution
    from loadsim.scenario.plan import Plan
    from loadsim.scenario.sweep import Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOutlook:
    """One cell before it runs."""

    label: str
    expected_s: float  # of one run
    queue_full_at_s: float | None  # predicted; None: not, or not predicted
    emfile_at_s: float | None
    warnings: list[Caution]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A whole sweep before it starts."""

    scenario: str
    description: str
    cells: list[CellOutlook]
    repeat: int
    runs: int
    expected_s: float  # of all of them
    repeats_needed: int  # so many of each cell can tell any two of them apart

    @property
    def can_tell(self) -> bool:
        """Whether a difference, however large, could be told from chance with so many repeats."""
        return self.repeat >= self.repeats_needed


def outlook_of(matrix: Matrix, plans: Sequence[Plan]) -> Outlook:
    """Return the outlook; `plans` are those of the cells."""
    cells = [
        CellOutlook(
            label=cell.label,
            expected_s=plan.expected_s,
            queue_full_at_s=plan.prediction.queue_full_at_s,
            emfile_at_s=plan.prediction.emfile_at_s,
            warnings=list(plan.warnings),
        )
        for cell, plan in zip(matrix.cells, plans, strict=True)
    ]
    count = len(cells)
    return Outlook(
        scenario=matrix.scenario.name,
        description=matrix.scenario.description,
        cells=cells,
        repeat=matrix.repeat,
        runs=count * matrix.repeat,
        expected_s=matrix.repeat * sum(cell.expected_s + AROUND_A_RUN_S for cell in cells),
        repeats_needed=repeats_needed(len(pairs_of(count))) if count > 1 else 1,
    )
