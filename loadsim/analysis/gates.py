"""Rules of `--fail-on`: how much a metric may change against the first group. Nothing passes vacuously."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.comparison import Gate, Says
from loadsim.analysis.statistics import ALPHA
from loadsim.errors import ScenarioError
from loadsim.metrics import METRICS
from loadsim.scenario.thresholds import nearest_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.comparison import Pair, Row

_SHAPE = re.compile(r"\s*(\S+)\s+([+-])\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """A metric may grow (limit above 0, or +0) or fall (`down`) by at most this share."""

    metric: str
    share: float  # 0.1 for 10 %
    down: bool
    text: str  # as written

    def breaks(self, pair: Pair) -> bool:
        """Return whether a group has changed by more, and not by chance."""
        if pair.p_holm > ALPHA:
            return False
        if pair.effect is None:  # from zero: more than any share
            return not self.down
        return (-pair.effect if self.down else pair.effect) > self.share


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
    """Return what became of each rule: later groups against the first of each pair."""
    by_name = {row.metric: row for row in rows}
    return [_judge(rule, by_name.get(rule.metric)) for rule in rules]


def _judge(rule: GateRule, row: Row | None) -> Gate:
    pairs = row.pairs if row is not None else []
    first = min((pair.a for pair in pairs), default=0)
    pairs = [pair for pair in pairs if pair.a == first] if len({pair.b for pair in pairs}) > 1 else pairs
    if not pairs:
        return Gate(text=rule.text, ok=False, measured="no data")
    if any(pair.says is Says.NOT_JUDGED for pair in pairs):
        return Gate(text=rule.text, ok=False, measured="not judged between unlike hosts; --force judges it")
    broken = [pair for pair in pairs if rule.breaks(pair)]
    blind = [pair.repeats_needed for pair in pairs if pair.repeats_needed is not None]
    if blind and not broken:
        return Gate(text=rule.text, ok=False, measured=f"cannot tell: {max(blind)} repeats needed")
    shown = max(broken or pairs, key=lambda pair: abs(pair.effect) if pair.effect is not None else float("inf"))
    return Gate(text=rule.text, ok=not broken, measured=f"{_change(shown)} ({shown.says})")


def _change(pair: Pair) -> str:
    return "from zero" if pair.effect is None else f"{100 * pair.effect:+.0f} %"
