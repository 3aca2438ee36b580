"""From folders to a comparison: what is read of each run, and which runs stand on which side.

The only place where a recording is read for a comparison; everything that is said of it is `analysis.contrast`'s.
"""

from __future__ import annotations

import os
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.judge import summary_of
from loadsim.compare.compare import Question, compare_groups, histograms_of, merged
from loadsim.compare.comparison import RunGroup
from loadsim.compare.folder import SweepFolder
from loadsim.compare.statistics import kind_of_host
from loadsim.errors import RecordingError
from loadsim.record.folder import SWEEP_MARK, VERDICT_MARK, sound
from loadsim.record.result import Bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadsim.analysis.latency import Histogram
    from loadsim.analysis.summary import Summary
    from loadsim.compare.compare import GateRule
    from loadsim.compare.comparison import Comparison

#: Settings in which runs of one group differ on purpose.
_OF_ONE_RUN = {"seed": None, "description": None}
#: What the sides of a comparison are called: their folders' names are long.
_LETTERS = string.ascii_uppercase


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A comparison, and the groups that it was made of."""

    comparison: Comparison
    run_groups: list[RunGroup]

    @property
    def summaries(self) -> list[Summary]:
        """Those of all runs, group by group."""
        return [one for run_group in self.run_groups for one in run_group.summaries]


def collect_sweep(folder: SweepFolder) -> Collected:
    """Return what all complete runs of a sweep say together; one that cannot be read is left out, and said."""
    plan = folder.plan
    run_groups = groups_of_sweep(folder)
    question = Question(
        kind="sweep",
        title=plan.scenario,
        description=plan.description,
        seed=plan.seed,
        axes=plan.axes,
        repeat=plan.repeat,
        min_effect=plan.min_effect,
    )
    return Collected(comparison=compare_groups(run_groups, question), run_groups=run_groups)


def collect(
    folders: Sequence[Path], *, min_effect: float, rules: Sequence[GateRule] = (), force: bool = False
) -> Collected:
    """Return several results or sweeps side by side; raises RecordingError where one cannot be read.

    Results of the same settings on the same kind of host are one group. Of several sweeps, cells of the same name are
    compared, each with that of the first sweep; a sweep of one cell stands for its runs.
    """
    for path in folders:
        if (path / VERDICT_MARK).exists():
            raise RecordingError(f"{path} is a verdict, and cards are not compared: read them one by one (report NAME)")
    whole = [path for path in folders if is_sweep(path)]
    single = list(dict.fromkeys(path.resolve() for path in folders if not is_sweep(path)))
    plain = _by_settings(single)
    groups = [*(groups_of_sweep(SweepFolder.open(path)) for path in whole), *([run_group] for run_group in plain)]
    names = [path.name for path in whole] + [run_group.label for run_group in plain]
    letters = [_LETTERS[index] if index < len(_LETTERS) else str(index + 1) for index in range(len(groups))]
    run_groups = [
        _named(run_group, letter, alone=len(group) == 1)
        for group, letter in zip(groups, letters, strict=True)
        for run_group in group
    ]
    if len(run_groups) < 2:
        raise RecordingError(
            "these are the runs of one group: name two results or sweeps that differ, or a sweep of several cells"
        )
    pairs = _pairs(groups)
    if not pairs:
        raise RecordingError(
            f"nothing to compare: {names[0]} has no cell that is called like one of the others. Name two sweeps of the "
            "same values, or single runs of them (SWEEP/runs/...)"
        )
    question = Question(
        kind="compare",
        title=" and ".join(letters[:5]) + (" ..." if len(letters) > 5 else ""),
        description="; ".join(f"{letter}: {name}" for letter, name in zip(letters, names, strict=True)),
        repeat=min(len(run_group.summaries) for run_group in run_groups),
        pairs=pairs,
        min_effect=min_effect,
        rules=rules,
        force=force,
        notices=[*_counted_twice(whole, single), *_without_counterpart(run_groups, pairs)],
    )
    return Collected(comparison=compare_groups(run_groups, question), run_groups=run_groups)


def groups_of_sweep(folder: SweepFolder) -> list[RunGroup]:
    """Return the cells of a sweep with those of their runs that are complete."""
    plan = folder.plan
    return [
        _side(
            [folder.path / name for name in folder.complete_runs(cell)],
            label=label,
            values=plan.values[cell],
            root=folder.path,
            refused=[said for n in range(plan.repeat) if (said := folder.refusal(cell, n)) is not None],
        )
        for cell, label in enumerate(plan.labels)
    ]


def is_sweep(path: Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return (path / SWEEP_MARK).exists()


def _by_settings(paths: Sequence[Path]) -> list[RunGroup]:
    """Return plain results as sides: those of the same settings on the same kind of host, in the order given."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        bundle = Bundle(path)
        settings = bundle.read_manifest()["facts"]["settings"]
        same = repr(({**settings, **_OF_ONE_RUN}, kind_of_host(bundle.read_host())))
        groups.setdefault(same, []).append(path)
    return [_side(group, label=group[0].name, values={}, root=None) for group in groups.values()]


def _side(
    paths: Sequence[Path], *, label: str, values: Mapping[str, Any], root: Path | None, refused: Sequence[str] = ()
) -> RunGroup:
    """Read runs as one side; their names are relative to `root`, the folder of their sweep.

    One that cannot be read is left out of a sweep; without one, where it was asked for by name, it is an error.
    """
    runs: list[str] = []
    summaries: list[Summary] = []
    histograms: list[Mapping[str, Histogram]] = []
    hosts: list[Mapping[str, Any]] = []
    damaged: list[str] = []
    for path in paths:
        bundle = Bundle(path)
        try:
            with sound(path):
                data = Dataset.of(bundle.read())
                summary, counted = summary_of(data), histograms_of(data)
        except RecordingError as error:
            if root is None:
                raise
            damaged.append(str(error))
            continue
        runs.append(os.path.relpath(path, root) if root else str(path))
        summaries.append(summary)
        histograms.append(counted)
        hosts.append(bundle.read_host())
    return RunGroup(
        label=label,
        values=values,
        runs=runs,
        summaries=summaries,
        hosts=hosts,
        histograms=merged(histograms),
        refused=refused,
        damaged=damaged,
    )


def _named(run_group: RunGroup, name: str, *, alone: bool) -> RunGroup:
    """Return a side under the letter of what it came from; a cell among others keeps its own name beside that."""
    return replace(run_group, label=name if alone else f"{name} {run_group.label}")


def _counted_twice(sweeps: Sequence[Path], single: Sequence[Path]) -> list[str]:
    """Return that the same runs stand on two sides: chance is then the same on both."""
    named = [path.resolve() for path in sweeps]
    twice = len(set(named)) < len(named) or any(path.parent.parent in named for path in single)
    return ["The same runs stand on two sides: that these agree says nothing."] if twice else []


def _without_counterpart(run_groups: Sequence[RunGroup], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Return which sides are shown and compared with nothing."""
    compared = {index for pair in pairs for index in pair}
    alone = [run_group.label for index, run_group in enumerate(run_groups) if index not in compared]
    return [f"Compared with nothing, since no other is called the same: {', '.join(alone)}."] if alone else []


def _pairs(groups: Sequence[Sequence[RunGroup]]) -> list[tuple[int, int]]:
    """Return which sides are compared: each cell with that of the same name in the first group, or all with all.

    Groups of one side each have no names in common: the first is compared with each other one, and they with each
    other.
    """
    starts = [sum(map(len, groups[:index])) for index in range(len(groups))]
    if all(len(group) == 1 for group in groups) or len(groups) == 1:
        count = sum(map(len, groups))
        return [(a, b) for a in range(count) for b in range(a + 1, count)]
    first = {run_group.label: index for index, run_group in enumerate(groups[0])}
    return [
        (first[run_group.label], start + index)
        for group, start in zip(groups[1:], starts[1:], strict=True)
        for index, run_group in enumerate(group)
        if run_group.label in first
    ]
