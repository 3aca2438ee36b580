"""The answer of a sweep: the smallest tested value that is enough, the value needed, the cost of smaller values.

Owns the rules, one for each kind of limit (accept queue, descriptors), and their sentences. Does not know how a
comparison is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.compare.comparison import Answer, Says
from loadsim.metrics import METRICS
from loadsim.scenario.sweep import short
from loadsim.scenario.thresholds import show
from loadsim.units import backlog_for, format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadsim.compare.comparison import Column, Row, RunGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A kind of limit that a setting controls, and the metrics that show whether it was high enough."""

    losses: str  # the metric that is 0 in every run in which the limit was high enough
    peak: str  # the metric of the largest use
    spare: int  # needed setting minus peak: negative if the kernel grants more than is asked for
    exceed: str  # the verb for a run that reached the limit: "overflow"
    peak_sentence: str  # "The queue never held more than {}"; {} is a count of `peak_noun`
    peak_noun: str
    costs: Callable[[str, RunGroup], str]
    rule: Callable[[RunGroup], str]
    advice: Callable[[float, RunGroup], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Swept:
    """A swept limit: its groups, and their order from the smallest value up."""

    name: str
    limit: _Limit
    run_groups: Sequence[RunGroup]
    order: Sequence[int]

    def value(self, index: int) -> float:
        return _number(self.run_groups[index].values[self.name]) or 0

    def text(self, index: int) -> str:
        return self.run_groups[index].label.partition(" ")[2] or self.run_groups[index].label

    def held(self, index: int) -> bool:
        """Return whether the limit was high enough in all runs of a group."""
        run_group = self.run_groups[index]
        if not run_group.summaries or run_group.refused:
            return False
        return all(one == 0 for one in run_group.of(self.limit.losses))

    def enough(self) -> int | None:
        """Return the group of the smallest value for which it and all larger ones held."""
        found = None
        for index in reversed(self.order):
            if not self.held(index):
                break
            found = index
        return found

    def peaks(self) -> list[float]:
        """Return the peaks of the runs that held."""
        return [peak for index in self.order if self.held(index) for peak in self.run_groups[index].of(self.limit.peak)]


def answer_of(
    axes: Sequence[str], run_groups: Sequence[RunGroup], rows: Sequence[Row], columns: Sequence[Column]
) -> Answer:
    """Return the smallest value that is enough if a limit is swept, else the plainest differences between groups."""
    limit = _LIMITS.get(axes[0]) if len(axes) == 1 else None
    numbers = [_number(run_group.values[axes[0]]) for run_group in run_groups]
    if limit is None or any(number is None for number in numbers):
        return _extremes([_value_of(run_group, axes) for run_group in run_groups], rows, columns)
    order = sorted(range(len(run_groups)), key=lambda index: numbers[index] or 0)
    return _threshold(_Swept(name=axes[0], limit=limit, run_groups=run_groups, order=order), rows, columns)


def _threshold(swept: _Swept, rows: Sequence[Row], columns: Sequence[Column]) -> Answer:
    chosen, limit, name = swept.enough(), swept.limit, short(swept.name)
    if chosen is None:
        return _nothing_held(swept)
    value, sentence = swept.value(chosen), f"{name} {swept.text(chosen)} is enough"
    needed = round(max(swept.peaks())) + limit.spare if swept.peaks() else None
    if needed is not None and needed < value:
        sentence += f"; so would {format_count(max(needed, 1))} be"
    smaller = [index for index in swept.order if swept.value(index) < value]
    return Answer(
        group=chosen,
        sentence=f"{sentence}. {_against_largest(swept, chosen, rows, columns)}".strip(),
        evidence=[*_peak(swept), *([rule] if (rule := limit.rule(swept.run_groups[chosen])) else [])],
        costs=[limit.costs(swept.text(index), swept.run_groups[index]) for index in reversed(smaller)],
        advice=[limit.advice(value, swept.run_groups[chosen]), *_more_to_be_safe(name, value, needed)],
    )


def _more_to_be_safe(name: str, value: float, needed: int | None) -> list[str]:
    """Return the advice to choose more than the value that was enough, if a run with a larger value needed more."""
    if needed is None or needed <= value:
        return []
    return [f"{name} {format_count(needed)} is safer: a run with a larger {name} needed that much."]


def _nothing_held(swept: _Swept) -> Answer:
    """Return the answer of a sweep in which the largest value was not enough, whether or not smaller ones held."""
    largest, name, limit = swept.order[-1], short(swept.name), swept.limit
    if any(map(swept.held, swept.order)):
        good = [swept.text(index) for index in swept.order if swept.held(index)]
        sentence = f"{name} {', '.join(good)} held, but {swept.text(largest)} did not."
    else:
        sentence = f"No tested {name} is enough: even {swept.text(largest)} was too small."
    peak = max(swept.run_groups[largest].of(limit.peak), default=None)
    return Answer(
        group=None,
        sentence=sentence,
        evidence=[f"At least {format_count(peak)} were needed."] if peak else [],
        costs=[limit.costs(swept.text(largest), swept.run_groups[largest])],
        advice=[f"Sweep larger values: --set {swept.name}=..."],
    )


def _peak(swept: _Swept) -> list[str]:
    peaks, limit = swept.peaks(), swept.limit
    if not peaks:
        return []
    low, high = format_count(min(peaks)), format_count(max(peaks))
    span = f"{low}-{high} in the" if low != high else "the same in the"
    runs = f"{span} {len(peaks)} runs that did not {limit.exceed}" if len(peaks) > 1 else "one run"
    return [f"{limit.peak_sentence.format(some(max(peaks), limit.peak_noun))} ({runs})."]


def _against_largest(swept: _Swept, chosen: int, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Return whether the largest tested value is better than the chosen one."""
    largest = swept.order[-1]
    if largest == chosen:
        return ""
    shown = {column.metric for column in columns} - {swept.limit.peak}
    better = [row.metric for row in rows if row.metric in shown and _says(row, chosen, largest) is Says.BETTER]
    if better:
        return f"{swept.text(largest)} is better in {', '.join(better)}."
    return f"{swept.text(largest)} is not better than {swept.text(chosen)}."


def _says(row: Row, before: int, after: int) -> Says | None:
    """Return how group `after` compares with group `before` in a metric."""
    turned = {Says.BETTER: Says.WORSE, Says.WORSE: Says.BETTER, Says.HIGHER: Says.LOWER, Says.LOWER: Says.HIGHER}
    for pair in row.pairs:
        if (pair.a, pair.b) == (before, after):
            return pair.says
        if (pair.a, pair.b) == (after, before):
            return turned.get(pair.says, pair.says)
    return None


def _value_of(run_group: RunGroup, axes: Sequence[str]) -> str:
    """Return the name of a group: its value if one setting is swept, else its label."""
    return run_group.label.removeprefix(f"{short(axes[0])} ") if len(axes) == 1 else run_group.label


def _extremes(names: Sequence[str], rows: Sequence[Row], columns: Sequence[Column]) -> Answer:
    """Return the groups with the least and the most of each column in which they differ."""
    sentences = []
    for column in columns:
        row = next(row for row in rows if row.metric == column.metric)
        medians = {index: one.median for index, one in enumerate(row.estimates) if one is not None}
        if len(medians) < 2:
            continue
        low, high = min(medians, key=lambda index: medians[index]), max(medians, key=lambda index: medians[index])
        if _says(row, low, high) in {Says.BETTER, Says.WORSE, Says.HIGHER, Says.LOWER}:
            least, most = (f"{names[index]} ({show(METRICS[row.metric], medians[index])})" for index in (low, high))
            sentences.append(f"{column.heading}: least with {least}, most with {most}.")
    if sentences:
        sentence = f"The clearest difference is in {sentences[0]}"
    else:
        needed = [pair.repeats_needed or 0 for row in rows for pair in row.pairs]
        sentence = "No significant difference was found."
        if not any(row.pairs for row in rows):
            sentence = "There are too few runs to compare anything."
        elif max(needed):
            sentence = f"There are too few runs to find a difference: {max(needed)} of each are needed."
    return Answer(group=None, sentence=sentence, evidence=sentences[1:], costs=[], advice=[])


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return float(value) if isinstance(value, str) and value.isdecimal() else None


def _cost_of_a_queue(value: str, run_group: RunGroup) -> str:
    clients, served = run_group.typical("attempts.count") or 0, run_group.typical("attempts.served") or 0
    late, phantom, never = (run_group.typical(name) or 0 for name in ("attempts.late", "fate.phantom", "fate.dropped"))
    parts = []
    if late:
        parts.append(f"{_of(late, clients)} waited a second more: their first SYN was dropped and sent again")
    if phantom:
        parts.append(f'{_of(phantom, clients)} were phantoms: "connected", no socket at the server, no error')
    if never:
        parts.append(f"{_of(never, clients)} got no answer to connect")
    if not parts:
        return f"With {value}, packets met a full queue, but no client noticed."
    if served == 1:
        return f"{value} looks perfect, 100 % served, but {'; '.join(parts)}."
    return f"With {value}, {'; '.join(parts)}."


def _rule_of_a_queue(run_group: RunGroup) -> str:
    rate, pause = run_group.setting("client", "rate"), run_group.setting("server", "pause")
    if not rate or not pause:
        return ""
    product = f"{format_count(rate)}/s x {format_duration(pause)} = {format_count(rate * pause)}"
    return f"Rule: backlog >= rate x longest pause = {product}."


def _advice_of_a_queue(value: float, run_group: RunGroup) -> str:
    granted = backlog_for(round(run_group.typical("queue.capacity") or 0))
    here = "it is here" if granted >= value else f"here the kernel granted {format_count(granted)}"
    shown = f"{value:.0f}"
    return f"Set both: listen(fd, {shown}) and net.core.somaxconn >= {shown} ({here})."


def _cost_of_descriptors(value: str, run_group: RunGroup) -> str:
    clients, served = run_group.typical("attempts.count") or 0, run_group.typical("attempts.served") or 0
    failed, queued, never = (run_group.typical(name) or 0 for name in ("emfile.count", "fate.queued", "fate.dropped"))
    parts = [f'{format_count(failed)} calls failed with "Too many open files"'] if failed else []
    if queued:
        parts.append(f'{_of(queued, clients)} were "connected" and never accepted')
    if never:
        parts.append(f"{_of(never, clients)} got no answer to connect")
    slow = run_group.typical("reply.p99")
    late = f", reply p99 {format_duration(slow)}" if slow is not None else ""
    return (
        f"With {value}, {served:.0%} were served".replace("%", " %") + late + "".join(f"; {one}" for one in parts) + "."
    )


def _rule_of_descriptors(run_group: RunGroup) -> str:
    rate, hold = run_group.setting("client", "rate"), run_group.setting("client", "hold")
    base = run_group.typical("fds.baseline")
    if not rate or not hold or base is None or run_group.setting("server", "close_after") is not None:
        return ""  # a server that closes first does not keep a connection as long as its client would
    sum_ = (
        f"{format_count(base)} + {format_count(rate)}/s x {format_duration(hold)} = {format_count(base + rate * hold)}"
    )
    return f"Rule: nofile >= own descriptors + rate x hold time = {sum_}."


def _advice_of_descriptors(value: float, run_group: RunGroup) -> str:  # noqa: ARG001 -- the signature of _Limit.advice
    return f"Set LimitNOFILE= of the unit, or ulimit -n, to {value:.0f} or more. No limit cures a leak."


def _of(number: float, clients: float) -> str:
    """Return clients with their share of all: "389 of 6,000 clients (6.5 %)"."""
    share = f" ({100 * number / clients:.2g} %)" if clients else ""
    return f"{format_count(number)} of {format_count(clients)} clients{share}"


_QUEUE = _Limit(
    losses="listen.overflows",
    peak="queue.max",
    spare=-1,
    exceed="overflow",
    peak_sentence="The queue never held more than {}",
    peak_noun="client",
    costs=_cost_of_a_queue,
    rule=_rule_of_a_queue,
    advice=_advice_of_a_queue,
)
#: Swept setting -> the limit that it controls.
_LIMITS = {
    "server.backlog": _QUEUE,
    "sysctl.net.core.somaxconn": _QUEUE,
    "server.nofile": _Limit(
        losses="emfile.count",
        peak="fds.max",
        spare=0,
        exceed="run out",
        peak_sentence="The server never had more than {}",
        peak_noun="descriptor",
        costs=_cost_of_descriptors,
        rule=_rule_of_descriptors,
        advice=_advice_of_descriptors,
    ),
}
