"""The findings of one run, ranked: reasons to doubt it first, then causes before their consequences, then the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.host import decides
from loadsim.analysis.rules.definition import Kind
from loadsim.analysis.rules.host import HOST_BUSY, host_busy
from loadsim.analysis.rules.registry import BY_RANK
from loadsim.analysis.summary import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.rules.case import Case, Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """One finding of a run, its kind, and the sentence that opens the result if it is the first."""

    finding: Finding
    kind: Kind
    headline: str


def diagnose(case: Case) -> list[Diagnosed]:
    """Return the findings of a run, the most important first; never empty."""
    diagnosed: list[Diagnosed] = []
    for rule, finding in BY_RANK:
        if rule.unless.isdisjoint(one.kind for one in diagnosed) and (found := rule.find(case)):
            diagnosed.append(_diagnosed(finding.id, rule.kind, found))
    return diagnosed


def doubted(case: Case, found: list[Diagnosed], missed: Sequence[str]) -> list[Diagnosed]:
    """Return the findings, behind a doubt where the verdict depends on a busy host.

    `missed` are the metrics of the expectations that were not met.
    """
    faults = [one.finding.id for one in found if one.kind is Kind.FAULT]
    return [_diagnosed(HOST_BUSY, Kind.DOUBT, host_busy(case)), *found] if decides(case, faults, missed) else found


def _diagnosed(finding_id: str, kind: Kind, found: Found) -> Diagnosed:
    fault = kind is Kind.FAULT
    finding = Finding(id=finding_id, title=found.title, evidence=found.evidence, remedy=found.remedy, fault=fault)
    return Diagnosed(finding=finding, kind=kind, headline=found.headline or found.title)
