"""Compares groups of runs: takes groups, returns a `Comparison`.

Owns the columns for each swept setting, the gates of `--fail-on`, and the merged percentile curves: histograms are
merged, percentiles are never averaged.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsim.analysis.host import is_busy
from loadsim.analysis.latency import Histogram, accept_latencies, connect_latencies, distribution
from loadsim.analysis.series import Curve
from loadsim.compare.answer import answer_of
from loadsim.compare.comparison import Column, Comparison, Gate, Group, Says
from loadsim.compare.statistics import (
    ALPHA,
    EACH_WITH_EACH,
    difference_interval,
    differences,
    flat_host,
    flat_settings,
    pairs_of,
    repeats_needed,
    rows_of,
    unlike,
)
from loadsim.errors import ScenarioError
from loadsim.metrics import METRICS
from loadsim.record.recording import between
from loadsim.scenario.thresholds import nearest_metric
from loadsim.units import NANOSECONDS, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.summary import Summary
    from loadsim.compare.comparison import Estimate, Pair, Row, RunGroup

#: Default of the smallest relative difference that matters.
MIN_EFFECT = 0.05
_SEED = 1
_RULE = re.compile(r"\s*(\S+)\s+([+-])\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)
_SERVED = Column(metric="attempts.served", heading="served")
_LATE = Column(metric="attempts.late", heading="1 s late", legend="served, but the first SYN was lost and sent again")
_PHANTOM = Column(metric="fate.phantom", heading="phantom", legend="connected at the client only")
_DROPPED = Column(metric="fate.dropped", heading="dropped", legend="connect timed out")
_QUEUED = Column(metric="fate.queued", heading="queued", legend='"connected" and never accepted')
_EMFILE = Column(metric="emfile.count", heading="EMFILE", legend='calls that failed with "Too many open files"')
_PAUSE = Column(
    metric="accept.pause_max", heading="longest pause", legend="longest time without an accept while clients waited"
)
_REPLY = Column(metric="reply.p99", heading="reply p99")
_QUEUE = Column(metric="queue.max", heading="queue peak", of="queue.capacity")
_FDS = Column(metric="fds.max", heading="fds peak", of="fds.limit")
_CPU = Column(metric="server.cpu", heading="CPU", legend="cores, average during the load")
_RECOVERY = (
    Column(
        metric="recovery.time",
        heading="recovery",
        legend="from the step that freed descriptors to the first answer to a canary",
    ),
    Column(metric="recovery.last_bad", heading="last bad", legend="from that step to the last unanswered canary"),
    Column(metric="server.cpu_at_limit", heading="CPU at limit", legend="cores, while out of descriptors"),
    Column(metric="emfile.rate", heading="EMFILE"),
    Column(metric="canary.availability", heading="canaries"),
)
_OF_A_QUEUE = (_QUEUE, _SERVED, _LATE, _PHANTOM, _DROPPED, _REPLY)
_OF_DESCRIPTORS = (_FDS, _SERVED, _EMFILE, _QUEUED, _DROPPED, _REPLY)
#: Swept setting -> its columns.
_COLUMNS = {
    "server.backlog": _OF_A_QUEUE,
    "sysctl.net.core.somaxconn": _OF_A_QUEUE,
    "server.pause": _OF_A_QUEUE,
    "server.accept_delay": _OF_A_QUEUE,
    "server.nofile": _OF_DESCRIPTORS,
    "server.leak": _OF_DESCRIPTORS,
    "server.on_emfile": (
        _SERVED,
        _EMFILE,
        Column(metric="server.cpu_at_limit", heading="CPU at limit", legend="cores, while out of descriptors"),
        Column(metric="fate.shed", heading="shed", legend="accepted and closed at once, unserved"),
        _QUEUED,
        _PAUSE,
    ),
}
_ANYTHING = (_SERVED, _LATE, _EMFILE, _QUEUE, Column(metric="accept.p99", heading="accept p99"), _CPU)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to compare in several groups of runs, and how."""

    kind: str  # "sweep" | "compare"
    title: str
    description: str = ""
    seed: int = 1
    axes: Sequence[str] = ()  # swept keys
    repeat: int  # planned runs of each group
    min_effect: float = MIN_EFFECT
    pairs: Sequence[tuple[int, int]] | None = None  # groups to compare; None: each with each
    rules: Sequence[GateRule] = ()
    force: bool = False  # judge times and CPU also between unlike hosts
    notices: Sequence[str] = ()  # further notices: sentences


def compare_groups(groups: Sequence[RunGroup], question: Question) -> Comparison:
    """Return the comparison of these groups."""
    hosts = _filled([flat_host(group.hosts[0]) if group.hosts else {} for group in groups])
    unlike_hosts = unlike([flat_host(host) for group in groups for host in group.hosts if host])
    rows = rows_of(
        [[one.metrics for one in group.summaries] for group in groups],
        pairs=question.pairs,
        min_effect=question.min_effect,
        seed=question.seed,
        unlike_hosts=unlike_hosts and not question.force,
    )
    columns = columns_of(question.axes, rows)
    settings = _filled([flat_settings(group.summaries[0].settings) if group.summaries else {} for group in groups])
    return Comparison(
        kind=question.kind,
        title=question.title,
        description=question.description,
        seed=question.seed,
        axes=list(question.axes),
        repeat=question.repeat,
        complete=all(len(group.summaries) >= question.repeat for group in groups),
        duration_s=sum(one.duration_s for group in groups for one in group.summaries),
        min_effect=question.min_effect,
        groups=[_group(group) for group in groups],
        columns=columns,
        rows=rows,
        answer=answer_of(question.axes, groups, rows, columns) if question.axes and len(groups) > 1 else None,
        settings=differences(settings, but={*question.axes, *(name for group in groups for name in group.values)}),
        hosts=differences(hosts),
        unlike_hosts=unlike_hosts,
        curves=curves_of([group.histograms for group in groups]),
        gates=judge_gates(question.rules, rows),
        notices=list(_notices(groups, question, unlike_hosts=unlike_hosts)),
    )


def columns_of(axes: Sequence[str], rows: Sequence[Row]) -> list[Column]:
    """Return the columns for the swept settings; metrics that were not measured or are 0 everywhere are left out."""
    recovers = any(row.metric.startswith("recovery.") for row in rows)
    chosen = _RECOVERY if recovers else next((_COLUMNS[name] for name in axes if name in _COLUMNS), _ANYTHING)
    nonzero = {row.metric for row in rows if any(one is not None and one.high for one in row.estimates)}
    return [column for column in chosen if column.metric in nonzero]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """A metric may grow, or fall if `down` is set, by at most `share`."""

    metric: str
    share: float  # 0.1 for 10 %
    down: bool
    text: str  # as written

    def exceeded_by(self, change: float) -> bool:
        """Return whether a relative change (infinite from zero) is more than the rule allows."""
        return (-change if self.down else change) > self.share


def parse_gate(text: str) -> GateRule:
    """Return the rule of a text such as "accept.p99 +10%"; raises ScenarioError with the remedy."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise ScenarioError(f'--fail-on "{text}": a rule is a metric, + or -, and a share, such as "accept.p99 +10%"')
    metric, sign, number = match.groups()
    if metric not in METRICS:
        near = nearest_metric(metric)
        remedy = f"did you mean {near}?" if near else "`loadsim explain` lists them"
        raise ScenarioError(f'--fail-on "{text}": there is no metric {metric}; {remedy}')
    return GateRule(metric=metric, share=float(number) / 100, down=sign == "-", text=" ".join(text.split()))


def judge_gates(rules: Sequence[GateRule], rows: Sequence[Row]) -> list[Gate]:
    """Return the result of each rule. A rule compares each group with its baseline.

    The baseline is the first group if each group is compared with each, and the namesake in the first sweep if several
    sweeps are compared.
    """
    by_name = {row.metric: row for row in rows}
    return [_judge(rule, by_name.get(rule.metric)) for rule in rules]


def histograms_of(data: Dataset) -> dict[str, Histogram]:
    """Return the latencies of one run by family, response times as in its metrics; empty families are left out."""
    attempts = data.recording.attempts
    families = {
        "connect": connect_latencies(attempts).nanoseconds,
        "accept": accept_latencies(data).nanoseconds,
        "reply": between(attempts, "intended", "replied"),
    }
    return {name: Histogram.of(nanoseconds) for name, nanoseconds in families.items() if len(nanoseconds)}


def merged(histograms: Sequence[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Return the latencies of several runs together, by family."""
    families = dict.fromkeys(name for one in histograms for name in one)
    return {name: _sum([one[name] for one in histograms if name in one]) for name in families}


def curves_of(groups: Sequence[Mapping[str, Histogram]]) -> list[Curve]:
    """Return the percentile curves of each group of runs, one for each family with latencies."""
    return [_curve(index, name, histogram) for index, group in enumerate(groups) for name, histogram in group.items()]


def _filled(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the facts of each group; a group without runs differs in nothing and gets the facts of another."""
    known = next((one for one in groups if one), {})
    return [one or known for one in groups]


def _group(group: RunGroup) -> Group:
    return Group(
        label=group.label,
        values=dict(group.values),
        runs=list(group.runs),
        statuses=[one.status for one in group.summaries],
        refused=list(group.refused),
    )


def _notices(groups: Sequence[RunGroup], question: Question, *, unlike_hosts: bool) -> Iterator[str]:
    """Yield the notices, which a reader should see before the numbers."""
    yield from question.notices
    for group in groups:
        yield from _broken(group)
        if reasons := sorted(set(group.refused)):
            yield f"{some(len(group.refused), 'run')} of {group.label} could not start: {'; '.join(reasons)}"
        for why in group.damaged:
            yield f"A run of {group.label} is left out ({why}). --resume makes it again."
        if doubtful := sum(one.status == "INCONCLUSIVE" for one in group.summaries):
            why = next(one.sentence for one in group.summaries if one.status == "INCONCLUSIVE")
            yield f"{doubtful} of {some(len(group.summaries), 'run')} of {group.label} are INCONCLUSIVE: {why}"
    yield from _busy(groups)
    known = [len(group.summaries) + len(group.refused) + len(group.damaged) for group in groups]
    missing = sum(max(question.repeat - count, 0) for count in known)
    if missing:
        yield f"{some(missing, 'planned run')} were not made: --resume makes them."
    if unlike_hosts:
        yield (
            "The runs are from different hosts. Because of --force, times and CPU are judged nevertheless."
            if question.force
            else "The runs are from different hosts: only counts are judged. Use --force to judge times and CPU too."
        )
    if question.pairs is None and len(groups) > EACH_WITH_EACH:
        yield f"There are {len(groups)} groups: each is compared only with its neighbours, the first and the last one."
    yield from _too_few(groups, question)


def _broken(group: RunGroup) -> Iterator[str]:
    """Yield the thresholds that failed in runs of a group."""
    for place, threshold in enumerate(group.summaries[0].thresholds if group.summaries else ()):
        failed = [one.thresholds[place] for one in group.summaries if not one.thresholds[place].ok]
        if failed:
            times = f"{len(failed)} of {some(len(group.summaries), 'run')}"
            yield f"FAILED: expected {threshold.text}, measured {failed[0].measured} in {times} of {group.label}."


def _busy(groups: Sequence[RunGroup]) -> Iterator[str]:
    """Yield one notice for all groups with runs on a busy host."""
    busy = [(sum(map(_was_on_a_busy_host, group.summaries)), group) for group in groups]
    if names := [f"{count} of {some(len(group.summaries), 'run')} of {group.label}" for count, group in busy if count]:
        yield (
            f"The host was busy in {', '.join(names)}: the times include waits for a CPU. Stop other processes, and "
            "run them again."
        )


def _was_on_a_busy_host(summary: Summary) -> bool:
    share, longest = (
        summary.metrics.get(METRICS[name].json_key, 0.0) for name in ("host.run_wait", "server.run_wait_max")
    )
    return is_busy(share, longest)


def _too_few(groups: Sequence[RunGroup], question: Question) -> Iterator[str]:
    """Yield a notice if there are too few runs to find any difference."""
    compared = len(pairs_of(len(groups)) if question.pairs is None else question.pairs)
    fewest = min((len(group.summaries) for group in groups), default=0)
    if compared and 0 < fewest < (needed := repeats_needed(compared)):
        yield (
            f"{some(fewest, 'run')} of each cannot tell even a large difference from chance: "
            f"{needed} are needed (--repeat {needed})."
        )


def _judge(rule: GateRule, row: Row | None) -> Gate:
    if row is None or not row.pairs:
        return Gate(text=rule.text, ok=False, measured="no data")
    if missing := sum(estimate is None for estimate in row.estimates):  # a group without the metric is in no pair
        return Gate(text=rule.text, ok=False, measured=f"no data in {missing} of {len(row.estimates)} groups")
    later = {pair.b for pair in row.pairs}
    pairs = [pair for pair in row.pairs if pair.a not in later]
    if any(pair.says is Says.NOT_JUDGED for pair in pairs):
        return Gate(text=rule.text, ok=False, measured="not judged between unlike hosts; use --force to judge it")
    broken = [pair for pair in pairs if pair.p_holm <= ALPHA and rule.exceeded_by(_change(row, pair))]
    needed = max(_lacking(rule, row, pair) for pair in pairs)
    if needed and not broken:
        return Gate(text=rule.text, ok=False, measured=f"cannot tell: {needed} repeats needed")
    shown = max(broken or pairs, key=lambda pair: abs(_change(row, pair)))
    return Gate(text=rule.text, ok=not broken, measured=f"{_shown(shown)} ({shown.says})")


def _change(row: Row, pair: Pair) -> float:
    """Return the relative change, infinite from zero."""
    return pair.effect if pair.effect is not None else math.copysign(math.inf, _of(row, pair.b).median)


def _lacking(rule: GateRule, row: Row, pair: Pair) -> int:
    """Return how many runs of each group are needed to judge the rule, 0 if the available runs are enough.

    They are enough if they could break the rule, or if they show that it holds. The word `same` does not show that:
    groups can be the same within `min_effect` and still differ by more than a rule allows.
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


def _sum(histograms: Sequence[Histogram]) -> Histogram:
    counts = np.sum([one.counts for one in histograms], axis=0)
    return Histogram(counts=counts, beyond=sum(one.beyond for one in histograms))


def _curve(group: int, family: str, histogram: Histogram) -> Curve:
    rows = distribution(histogram).rows
    return Curve(
        group=group,
        family=family,
        percentiles=[round(100 * row.share, 6) for row in rows],
        values_s=[row.value_ns / NANOSECONDS for row in rows],
        count=histogram.total,
    )
