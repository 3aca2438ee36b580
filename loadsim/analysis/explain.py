"""What a finding, a fate, an outcome or a metric means, where to look, and what to do.

For an engineer at three in the morning and for a learner alike. Owns the lookup only: the texts stand with the
findings (`rules`), with fates and outcomes (`loadsim.fates`) and with the metrics (`loadsim.metrics`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.rules.registry import FINDINGS
from loadsim.fates import FATES, OUTCOMES, Fate, Outcome
from loadsim.metrics import FAMILIES, METRICS, Metric

if TYPE_CHECKING:
    from loadsim.analysis.rules.definition import Definition

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
    """One explained thing; `look_at` and `do` are empty where there is nothing to look at or to do."""

    id: str
    kind: str  # "finding", "fate", "outcome", "fate and outcome" or "metric"
    means: str
    look_at: str
    do: str


def explain(asked: str) -> Explanation | None:
    """Return what an id means; None where no finding, fate, outcome or metric is called so.

    Metrics are also known by their key in `summary.json`. A fate and an outcome of one name are explained together;
    "fate.refused" and "outcome.refused" ask for one of them.
    """
    return _all().get(asked)


def ids() -> list[str]:
    """Return everything that can be explained: findings, fates, outcomes, metrics, each once."""
    return list(dict.fromkeys([*FINDINGS, *FATES, *OUTCOMES, *METRICS]))


@functools.cache
def _all() -> dict[str, Explanation]:
    """Return every explanation by everything that it can be asked for by."""
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


def _fate(asked: str, fate: Fate) -> Explanation:
    means = f"Where an attempt ended at the server: {fate.row.means}."
    return Explanation(id=asked, kind="fate", means=means, look_at=fate.row.look_at, do=fate.row.do)


def _outcome(asked: str, outcome: Outcome) -> Explanation:
    means = f"What the client of an attempt saw: {outcome.row.means}."
    return Explanation(id=asked, kind="outcome", means=means, look_at=outcome.row.look_at, do=outcome.row.do)


def _both(name: str) -> Explanation:
    fate, outcome = _fate(name, FATES[name]), _outcome(name, OUTCOMES[name])
    means = f"{fate.means} {outcome.means}"
    return Explanation(id=name, kind="fate and outcome", means=means, look_at=fate.look_at, do=fate.do)


def _metric(metric: Metric) -> Explanation:
    told = FAMILIES[metric.family]
    better = "" if metric.better == "neither" else f", {metric.better} is better"
    means = f"{metric.definition} ({_UNITS[metric.unit]}{better})"
    return Explanation(id=metric.name, kind="metric", means=means, look_at=told.look_at, do=told.do)
