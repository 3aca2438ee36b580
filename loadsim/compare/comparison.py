"""Records of a comparison: groups of runs with the same settings, and `comparison.json`."""

from __future__ import annotations

import dataclasses
import enum
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadsim.analysis.series import Curve  # noqa: TC001 -- pydantic makes the schema from it
from loadsim.analysis.summary import json_schema
from loadsim.metrics import METRICS
from loadsim.render.text import NOTHING
from loadsim.scenario.thresholds import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.analysis.latency import Histogram
    from loadsim.analysis.summary import Summary


FORMAT = 2


class Says(enum.StrEnum):
    """How one group compares with another in one metric."""

    BETTER = "better"
    WORSE = "worse"
    HIGHER = "higher"  # differs, and the metric does not decide whether that is good
    LOWER = "lower"
    SAME = "same"  # the difference is smaller than what matters
    CANNOT_TELL = "cannot tell"
    NOT_JUDGED = "not judged"  # a time or a share of CPU between unlike hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs with the same settings."""

    label: str  # "backlog 128"; of `compare`: a letter
    values: dict[str, Any]  # swept key -> value, as in the settings of a summary: {"server.backlog": 128}
    runs: list[str]  # folders of the complete runs, relative to the folder of comparison.json
    statuses: list[str]  # of each run in `runs`
    refused: list[str]  # why runs of this group could not start: sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One metric in one group, over its runs."""

    values: list[float]  # of each run that has it
    median: float
    low: float  # smallest value
    high: float  # largest value
    ci_low: float  # bootstrap confidence interval of the median, 95 %
    ci_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One metric in two groups: how group `b` compares with group `a`."""

    a: int  # index of the group
    b: int
    p: float  # exact two-sided Mann-Whitney
    p_holm: float  # corrected within the metric
    effect: float | None  # (median of b - median of a) / median of a; None if only that of a is 0
    says: Says
    repeats_needed: int | None  # runs per group to find a difference; None if there are enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric in all groups."""

    metric: str  # its name in `loadsim.metrics`: "accept.p99"
    unit: str  # as in `loadsim.metrics`
    better: str  # "lower" | "higher" | "neither"
    estimates: list[Estimate | None]  # by group; None: no run of it has this metric
    pairs: list[Pair]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the first table: a metric under a heading in plain words."""

    metric: str
    heading: str  # "queue peak", "1 s late"
    of: str | None = None  # a second metric beside it: "216 of 4,097"
    legend: str | None = None  # the meaning of a heading that does not explain itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The recommended value of a swept setting, and why; without a recommendation, the clearest differences."""

    group: int | None  # the smallest tested value that held; None: none held, or there is nothing to recommend
    sentence: str  # "backlog 256 is enough; so would 218 be. 4,096 is not better than 256."
    evidence: list[str]  # sentences: the measured peak, and the rule for other loads
    costs: list[str]  # sentences: the cost of each value that is too small
    advice: list[str]  # sentences: the settings to make


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting or a fact of the host that differs between groups."""

    name: str  # "server.backlog", "kernel", "sysctl net.core.somaxconn"
    values: list[str]  # by group


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One rule of --fail-on and its result."""

    text: str  # as written: "accept.p99 +10%"
    ok: bool
    measured: str  # "+34 % (worse)", "same", "no data", "cannot tell: 4 repeats needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison of several groups of runs."""

    kind: str  # "sweep" | "compare"
    title: str  # the scenario, or the names of the compared groups
    description: str  # one sentence; may be empty
    seed: int
    axes: list[str]  # swept keys: ["server.backlog"]
    repeat: int  # planned runs of each group
    complete: bool  # all planned runs are there
    duration_s: float  # sum of the loads of all runs, without the time around a run
    min_effect: float  # the smallest relative difference that matters: 0.05
    groups: list[Group]
    columns: list[Column]
    rows: list[Row]
    answer: Answer | None
    settings: list[Difference]  # without the swept ones
    hosts: list[Difference]
    unlike_hosts: bool  # times and CPU are then shown and not judged
    curves: list[Curve]
    gates: list[Gate] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # sentences, with the remedy

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dump, `format` first."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def row(self, metric: str) -> Row | None:
        """Return the row of a metric, None where no group has it."""
        return next((row for row in self.rows if row.metric == metric), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """Runs with the same settings. `runs`, `summaries` and `hosts` have one element for each complete run."""

    label: str
    values: Mapping[str, Any]  # swept key -> value, as in the settings of a summary
    runs: Sequence[str]  # result folders
    summaries: Sequence[Summary]
    hosts: Sequence[Mapping[str, Any]] = ()  # host.json of each
    histograms: Mapping[str, Histogram] = field(default_factory=dict)  # of all runs together, by family
    refused: Sequence[str] = ()  # why runs could not start
    damaged: Sequence[str] = ()  # why complete runs cannot be read

    def of(self, metric: str) -> list[float]:
        """Return the values of a metric in the runs that have it."""
        key = METRICS[metric].json_key
        return [one.metrics[key] for one in self.summaries if key in one.metrics]

    def typical(self, metric: str) -> float | None:
        """Return the median of a metric, None where no run has it."""
        values = self.of(metric)
        return statistics.median(values) if values else None

    def setting(self, table: str, key: str) -> Any:  # noqa: ANN401 -- any value of a scenario
        """Return a setting of the runs; None if it is missing or the group has no runs."""
        return self.summaries[0].settings.get(table, {}).get(key) if self.summaries else None


def median(row: Row | None, group: int) -> str:
    """Return the median of a metric in one group with its unit."""
    estimate = row.estimates[group] if row is not None else None
    return NOTHING if row is None or estimate is None else show(METRICS[row.metric], estimate.median)


def medians(comparison: Comparison, column: Column) -> list[str]:
    """Return the text of a column for each group: "216", or with a second metric "216 of 4,097"."""
    own, other = comparison.row(column.metric), comparison.row(column.of) if column.of else None
    texts = [median(own, group) for group in range(len(comparison.groups))]
    if other is None:
        return texts
    return [text if text == NOTHING else f"{text} of {median(other, group)}" for group, text in enumerate(texts)]


def comparison_schema() -> dict[str, Any]:
    """Return the schema of comparison.json."""
    return json_schema(Comparison, "loadsim comparison.json", FORMAT)
