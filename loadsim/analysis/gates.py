"""Rules of `--fail-on`: how much a metric may change against the group that others are held against.

Nothing passes vacuously. Must not know how a difference was found: rows of a comparison come in.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.comparison import Gate, Says
from loadsim.analysis.statistics import ALPHA, difference_interval, repeats_needed
from loadsim.errors import ScenarioError
from loadsim.metrics import METRICS
from loadsim.scenario.thresholds import nearest_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.comparison import Estimate, Pair, Row

_SEED = 1
_SHAPE = re.compile(r"\s*(\S+)\s+([+-])\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """A metric may grow (limit above 0, or +0) or fall (`down`) by at most this share."""

    metric: str
    share: float  # 0.1 for 10 %
    down: bool
    text: str  # as written

    def exceeded_by(self, change: float) -> bool:
        """Return whether a relative change, infinite where it comes from zero, is more than the rule allows."""
        return (-change if self.down else change) > self.share


def parse_gate(text: str) -> GateRule:
    """Return the rule that "accept.p99 +10%" stands for; raises ScenarioError with the remedy."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ScenarioError(f'--fail-on "{text}": a rule is a metric, + or -, and a share, such as "accept.p99 +10%"')
    metric, sign, number = match.groups()
    if metric not in METRICS:
        near = nearest_metric(metric)
        remedy = f"did you mean {near}?" if near else "`loadsim explain` lists them"
        raise ScenarioError(f'--fail-on "{text}": no metric is called {metric}; {remedy}')
    return GateRule(metric=metric, share=float(number) / 100, down=sign == "-", text=" ".join(text.split()))


def judge_gates(rules: Sequence[GateRule], rows: Sequence[Row]) -> list[Gate]:
    """Return what became of each rule: each group against the one that it was compared with and that is no later one.

    That is the first group where each is compared with each, and the cell of the first sweep where several sweeps are.
    """
    by_name = {row.metric: row for row in rows}
    return [_judge(rule, by_name.get(rule.metric)) for rule in rules]


def _judge(rule: GateRule, row: Row | None) -> Gate:
    if row is None or not row.pairs:
        return Gate(text=rule.text, ok=False, measured="no data")
    if missing := sum(estimate is None for estimate in row.estimates):  # its pairs are not there to be seen
        return Gate(text=rule.text, ok=False, measured=f"no data in {missing} of {len(row.estimates)} groups")
    later = {pair.b for pair in row.pairs}
    pairs = [pair for pair in row.pairs if pair.a not in later]
    if any(pair.says is Says.NOT_JUDGED for pair in pairs):
        return Gate(text=rule.text, ok=False, measured="not judged between unlike hosts; --force judges it")
    broken = [pair for pair in pairs if pair.p_holm <= ALPHA and rule.exceeded_by(_change(row, pair))]
    needed = max(_lacking(rule, row, pair) for pair in pairs)
    if needed and not broken:
        return Gate(text=rule.text, ok=False, measured=f"cannot tell: {needed} repeats needed")
    shown = max(broken or pairs, key=lambda pair: abs(_change(row, pair)))
    return Gate(text=rule.text, ok=not broken, measured=f"{_shown(shown)} ({shown.says})")


def _change(row: Row, pair: Pair) -> float:
    """Return the relative change, infinite where it comes from zero."""
    return pair.effect if pair.effect is not None else math.copysign(math.inf, _of(row, pair.b).median)


def _lacking(rule: GateRule, row: Row, pair: Pair) -> int:
    """Return how many runs of each it takes to break the rule, 0 where those at hand could or show that it holds.

    Groups can be the same as far as matters and differ by more than a rule allows: `same` alone shows nothing.
    """
    if pair.repeats_needed is not None:
        return pair.repeats_needed
    before, after = _of(row, pair.a), _of(row, pair.b)
    needed = repeats_needed(len(row.pairs))
    if min(len(before.values), len(after.values)) >= needed:
        return 0
    low, high = difference_interval(before.values, after.values, seed=_SEED)
    return needed if (-low if rule.down else high) > rule.share * abs(before.median) else 0


def _of(row: Row, group: int) -> Estimate:
    estimate = row.estimates[group]
    if estimate is None:
        raise ValueError(f"{row.metric} was compared in a group without it")
    return estimate


def _shown(pair: Pair) -> str:
    return "from zero" if pair.effect is None else f"{100 * pair.effect:+.0f} %"
