"""All findings by id and by rank, the findings of one run in order, and the explanations of `loadsim explain`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from loadsim.analysis.findings import acceptor, descriptors, exhaustion, generator, queue, recovery, run
from loadsim.analysis.findings.case import Kind
from loadsim.analysis.findings.generator import HOST_BUSY, host_busy
from loadsim.analysis.host import decides
from loadsim.analysis.summary import Finding
from loadsim.fates import FATES, OUTCOMES, Fate, Outcome
from loadsim.metrics import FAMILIES, METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.analysis.findings.case import Case, Definition, Found, Rule

_DEFINED: tuple[Definition, ...] = (
    *descriptors.FINDINGS,
    *exhaustion.FINDINGS,
    *queue.FINDINGS,
    *acceptor.FINDINGS,
    *recovery.FINDINGS,
    *run.FINDINGS,
    *generator.FINDINGS,
)

#: Every finding by its id, in the order in which `loadsim explain` lists them.
FINDINGS: Mapping[str, Definition] = MappingProxyType({finding.id: finding for finding in _DEFINED})

#: Every rule with its finding, in the order in which a result shows them.
BY_RANK: tuple[tuple[Rule, Definition], ...] = tuple(
    sorted(((rule, finding) for finding in _DEFINED for rule in finding.rules), key=lambda entry: entry[0].rank)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """One finding of a run, its kind, and the sentence that opens the result if this finding comes first."""

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
    """Return the findings, preceded by a doubt if the host was busy and may have caused everything that went wrong.

    `missed` are the metrics of the expectations that were not met.
    """
    faults = [one.finding.id for one in found if one.kind is Kind.FAULT]
    return [_diagnosed(HOST_BUSY, Kind.DOUBT, host_busy(case)), *found] if decides(case, faults, missed) else found


def _diagnosed(finding_id: str, kind: Kind, found: Found) -> Diagnosed:
    fault = kind is Kind.FAULT
    finding = Finding(id=finding_id, title=found.title, evidence=found.evidence, remedy=found.remedy, fault=fault)
    return Diagnosed(finding=finding, kind=kind, headline=found.headline or found.title)


_UNITS = {
    "s": "seconds",
    "/s": "per second",
    "cores": "cores",
    "bytes": "bytes",
    "bytes/s": "bytes per second",
    "share": "a share from 0 to 1",
    "": "a count",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The explanation of one id; `look_at` and `do` are empty where there is nothing to look at or to do."""

    id: str
    kind: str  # "finding", "fate", "outcome", "fate and outcome" or "metric"
    means: str
    look_at: str
    do: str


def explain(name: str) -> Explanation | None:
    """Return the explanation of a finding, fate, outcome or metric; None if nothing has this id.

    A metric is also found by its key in `summary.json`. A fate and an outcome with the same name are explained
    together; "fate.refused" and "outcome.refused" select one of them.
    """
    return _all().get(name)


def ids() -> list[str]:
    """Return all ids that can be explained: findings, fates, outcomes, metrics, each once."""
    return list(dict.fromkeys([*FINDINGS, *FATES, *OUTCOMES, *METRICS]))


@functools.cache
def _all() -> dict[str, Explanation]:
    """Return every explanation, by each id that it can be found by."""
    metrics = [metric for metric in METRICS.values() if metric.family in FAMILIES]
    table = {metric.json_key: _metric(metric) for metric in metrics}
    table |= {metric.name: _metric(metric) for metric in metrics}
    table |= {f"fate.{fate.id}": _fate(f"fate.{fate.id}", fate) for fate in Fate}
    table |= {f"outcome.{outcome.id}": _outcome(f"outcome.{outcome.id}", outcome) for outcome in Outcome}
    table |= {fate.id: _fate(fate.id, fate) for fate in Fate}
    table |= {name: _outcome(name, outcome) for name, outcome in OUTCOMES.items()}
    table |= {name: _both(name) for name in OUTCOMES if name in FATES}
    return table | {name: _finding(finding) for name, finding in FINDINGS.items()}


def _finding(finding: Definition) -> Explanation:
    return Explanation(id=finding.id, kind="finding", means=finding.means, look_at=finding.look_at, do=finding.do)


def _fate(name: str, fate: Fate) -> Explanation:
    means = f"Where an attempt ended at the server: {fate.row.means}."
    return Explanation(id=name, kind="fate", means=means, look_at=fate.row.look_at, do=fate.row.do)


def _outcome(name: str, outcome: Outcome) -> Explanation:
    means = f"What the client of an attempt saw: {outcome.row.means}."
    return Explanation(id=name, kind="outcome", means=means, look_at=outcome.row.look_at, do=outcome.row.do)


def _both(name: str) -> Explanation:
    fate, outcome = _fate(name, FATES[name]), _outcome(name, OUTCOMES[name])
    means = f"{fate.means} {outcome.means}"
    return Explanation(id=name, kind="fate and outcome", means=means, look_at=fate.look_at, do=fate.do)


def _metric(metric: Metric) -> Explanation:
    family = FAMILIES[metric.family]
    better = "" if metric.better == "neither" else f", {metric.better} is better"
    means = f"{metric.definition} ({_UNITS[metric.unit]}{better})"
    return Explanation(id=metric.name, kind="metric", means=means, look_at=family.look_at, do=family.do)
