"""One group of runs as it enters a comparison: their summaries and what else was read of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadsim.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.analysis.histogram import Histogram
    from loadsim.analysis.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Runs with the same settings. `runs`, `summaries` and `hosts` have one element for each complete run."""

    label: str
    values: Mapping[str, Any]  # swept key -> value, as in the settings of a summary
    runs: Sequence[str]  # result folders
    summaries: Sequence[Summary]
    hosts: Sequence[Mapping[str, Any]] = ()  # host.json of each
    histograms: Mapping[str, Histogram] = field(default_factory=dict)  # of all of them together, by family
    refused: Sequence[str] = ()  # why a run could not take place
    damaged: Sequence[str] = ()  # why a run that took place cannot be read

    def of(self, metric: str) -> list[float]:
        """Return the values of a metric, of those runs that have it."""
        key = METRICS[metric].json_key
        return [one.metrics[key] for one in self.summaries if key in one.metrics]

    def typical(self, metric: str) -> float | None:
        """Return the median of a metric, None where no run has it."""
        values = self.of(metric)
        return statistics.median(values) if values else None

    def setting(self, table: str, key: str) -> Any:  # noqa: ANN401 -- any value of a scenario
        """Return a setting of its runs; None where there is none."""
        return self.summaries[0].settings.get(table, {}).get(key) if self.summaries else None
