"""The whole of a comparison: groups of runs in, a `Comparison` with its answer out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadsim.analysis.answer import answer_of
from loadsim.analysis.compare import EACH_WITH_EACH, differences, flat_host, flat_settings, pairs_of, rows_of, unlike
from loadsim.analysis.comparison import Comparison, Group
from loadsim.analysis.curves import curves_of
from loadsim.analysis.gates import judge_gates
from loadsim.analysis.headings import columns_of
from loadsim.analysis.host import is_busy
from loadsim.analysis.statistics import repeats_needed
from loadsim.metrics import METRICS
from loadsim.units import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.analysis.gates import GateRule
    from loadsim.analysis.sides import Side
    from loadsim.analysis.summary import Summary

#: The smallest relative difference that matters, where nobody says otherwise.
MIN_EFFECT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of several groups of runs."""

    kind: str  # "sweep" | "compare"
    title: str
    description: str = ""
    seed: int = 1
    axes: Sequence[str] = ()  # swept keys
    repeat: int  # planned runs of each group
    min_effect: float = MIN_EFFECT
    pairs: Sequence[tuple[int, int]] | None = None  # of groups that are compared; None: each with each
    rules: Sequence[GateRule] = ()
    force: bool = False  # judge times and CPU also between unlike hosts
    notices: Sequence[str] = ()  # what else a reader has to know before the numbers: whole sentences


def contrast(sides: Sequence[Side], question: Question) -> Comparison:
    """Return everything that is said about these groups."""
    hosts = _filled([flat_host(side.hosts[0]) if side.hosts else {} for side in sides])
    strangers = unlike([flat_host(host) for side in sides for host in side.hosts if host])
    rows = rows_of(
        [[one.metrics for one in side.summaries] for side in sides],
        pairs=question.pairs,
        min_effect=question.min_effect,
        seed=question.seed,
        unlike_hosts=strangers and not question.force,
    )
    columns = columns_of(question.axes, rows)
    settings = _filled([flat_settings(side.summaries[0].settings) if side.summaries else {} for side in sides])
    return Comparison(
        kind=question.kind,
        title=question.title,
        description=question.description,
        seed=question.seed,
        axes=list(question.axes),
        repeat=question.repeat,
        complete=all(len(side.summaries) >= question.repeat for side in sides),
        duration_s=sum(one.duration_s for side in sides for one in side.summaries),
        min_effect=question.min_effect,
        groups=[_group(side) for side in sides],
        columns=columns,
        rows=rows,
        answer=answer_of(question.axes, sides, rows, columns) if question.axes and len(sides) > 1 else None,
        settings=differences(settings, but={*question.axes, *(name for side in sides for name in side.values)}),
        hosts=differences(hosts),
        unlike_hosts=strangers,
        curves=curves_of([side.histograms for side in sides]),
        gates=judge_gates(question.rules, rows),
        notices=list(_notices(sides, question, strangers=strangers)),
    )


def _filled(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is told of each group; one without runs differs in nothing."""
    known = next((one for one in told if one), {})
    return [one or known for one in told]


def _broken(side: Side) -> Iterator[str]:
    """Yield the thresholds that failed in runs of a group."""
    for place, threshold in enumerate(side.summaries[0].thresholds if side.summaries else ()):
        failed = [one.thresholds[place] for one in side.summaries if not one.thresholds[place].ok]
        if failed:
            times = f"{len(failed)} of {some(len(side.summaries), 'run')}"
            yield f"FAILED: expected {threshold.text}, measured {failed[0].measured} in {times} of {side.label}."


def _group(side: Side) -> Group:
    return Group(
        label=side.label,
        values=dict(side.values),
        runs=list(side.runs),
        verdicts=[one.verdict for one in side.summaries],
        refused=list(side.refused),
    )


def _notices(sides: Sequence[Side], question: Question, *, strangers: bool) -> Iterator[str]:
    """Yield what a reader has to know before the numbers."""
    yield from question.notices
    for side in sides:
        yield from _broken(side)
        if reasons := sorted(set(side.refused)):
            yield f"{some(len(side.refused), 'run')} of {side.label} could not take place: {'; '.join(reasons)}"
        for why in side.damaged:
            yield f"A run of {side.label} is left out, --resume makes it again: {why}"
        if doubtful := sum(one.verdict == "INCONCLUSIVE" for one in side.summaries):
            why = next(one.sentence for one in side.summaries if one.verdict == "INCONCLUSIVE")
            yield f"{doubtful} of {some(len(side.summaries), 'run')} of {side.label} are INCONCLUSIVE: {why}"
        busy = sum(map(_was_on_a_busy_host, side.summaries))
        if busy:
            yield (
                f"The host was busy in {busy} of {some(len(side.summaries), 'run')} of {side.label}: its times include "
                "waits for a CPU. Stop what else runs, and run them again."
            )
    known = [len(side.summaries) + len(side.refused) + len(side.damaged) for side in sides]
    missing = sum(max(question.repeat - count, 0) for count in known)
    if missing:
        yield f"{some(missing, 'planned run')} did not take place: --resume goes on with them."
    if strangers:
        yield (
            "These are not the runs of one machine: times and CPU are judged."
            if question.force
            else "These are not the runs of one machine: counts are judged, times and CPU only shown (--force judges)."
        )
    if question.pairs is None and len(sides) > EACH_WITH_EACH:
        yield f"{len(sides)} groups are many: each is compared with its neighbours, the first and the last one."
    yield from _too_few(sides, question)


def _was_on_a_busy_host(summary: Summary) -> bool:
    share, longest = (
        summary.metrics.get(METRICS[name].json_key, 0.0) for name in ("host.run_wait", "server.run_wait_max")
    )
    return is_busy(share, longest)


def _too_few(sides: Sequence[Side], question: Question) -> Iterator[str]:
    """Yield that these runs could not have told a difference, whatever they had been."""
    compared = len(pairs_of(len(sides)) if question.pairs is None else question.pairs)
    fewest = min((len(side.summaries) for side in sides), default=0)
    if compared and 0 < fewest < (needed := repeats_needed(compared)):
        yield (
            f"{some(fewest, 'run')} of each cannot tell a difference from chance, however large: "
            f"{needed} are needed (--repeat {needed})."
        )
