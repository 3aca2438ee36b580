"""What a finding is: its id, its rules with their rank, and the texts of `loadsim explain`.

Each module of rules ends with the table of its findings; `registry` collects them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsim.analysis.rules.case import Case, Found


class Kind(enum.IntEnum):
    """What a finding says about the run; a result shows the kinds in this order."""

    DOUBT = 0  # a reason not to trust the run: it is inconclusive
    FAULT = 1  # a fault of the server or its settings
    INFORMATION = 2  # worth knowing, and not a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A function that looks for a finding in a run, and the rank of its finding.

    Rules are tried in the order of their ranks. A rule is skipped if a finding of a kind in `unless` was found before.
    """

    kind: Kind
    order: int  # within the kind; causes come before their consequences
    find: Callable[[Case], Found | None]
    unless: frozenset[Kind] = frozenset()

    @property
    def rank(self) -> tuple[Kind, int]:
        """The place of its finding in a result."""
        return self.kind, self.order


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One finding: everything about it that is the same in every run.

    It has several rules where the rank depends on the run: a leak that used up the limit opens the result, a leak
    below the limit does not. At most one of them applies to a run.
    """

    id: str  # stable: people and scripts use it
    rules: tuple[Rule, ...]
    means: str
    look_at: str
    do: str
