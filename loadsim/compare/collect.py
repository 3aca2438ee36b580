"""Reads groups of runs from folders, and decides which of them are compared.

This is the only module that reads recordings for a comparison. `compare` compares the groups.
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

#: Settings that may differ between runs of one group.
_OF_ONE_RUN = {"seed": None, "description": None}
#: Names of the results and sweeps in a comparison, because their folders' names are long.
_LETTERS = string.ascii_uppercase


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A comparison and its groups."""

    comparison: Comparison
    run_groups: list[RunGroup]

    @property
    def summaries(self) -> list[Summary]:
        """The summaries of all runs, group by group."""
        return [one for run_group in self.run_groups for one in run_group.summaries]


def collect_sweep(folder: SweepFolder) -> Collected:
    """Return the comparison of all complete runs of a sweep; a notice names runs that cannot be read."""
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
    """Return the comparison of several results or sweeps; raises RecordingError if one cannot be read.

    Results with the same settings on the same kind of host are one group. Between sweeps, cells of the same name are
    compared, each with the cell of the first sweep. A sweep with one cell counts as the group of its runs.
    """
    for path in folders:
        if (path / VERDICT_MARK).exists():
            raise RecordingError(f"{path} is a verdict, and verdicts cannot be compared: see each one (report NAME)")
    sweeps = [path for path in folders if is_sweep(path)]
    single = list(dict.fromkeys(path.resolve() for path in folders if not is_sweep(path)))
    plain = _by_settings(single)
    groups = [*(groups_of_sweep(SweepFolder.open(path)) for path in sweeps), *([run_group] for run_group in plain)]
    names = [path.name for path in sweeps] + [run_group.label for run_group in plain]
    letters = [_LETTERS[index] if index < len(_LETTERS) else str(index + 1) for index in range(len(groups))]
    run_groups = [
        replace(run_group, label=letter if len(group) == 1 else f"{letter} {run_group.label}")
        for group, letter in zip(groups, letters, strict=True)
        for run_group in group
    ]
    if len(run_groups) < 2:
        raise RecordingError(
            "all these runs have the same settings: name results or sweeps that differ, or a sweep with several cells"
        )
    pairs = _pairs(groups)
    if not pairs:
        raise RecordingError(
            f"nothing to compare: {names[0]} and the others have no cell of the same name. Name two sweeps of the same "
            "values, or single runs of them (SWEEP/runs/...)"
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
        notices=[*_counted_twice(sweeps, single), *_without_counterpart(run_groups, pairs)],
    )
    return Collected(comparison=compare_groups(run_groups, question), run_groups=run_groups)


def groups_of_sweep(folder: SweepFolder) -> list[RunGroup]:
    """Return the cells of a sweep with their complete runs."""
    plan = folder.plan
    return [
        _read_group(
            [folder.path / name for name in folder.complete_runs(cell)],
            label=label,
            values=plan.values[cell],
            root=folder.path,
            refused=[reason for n in range(plan.repeat) if (reason := folder.refusal(cell, n)) is not None],
        )
        for cell, label in enumerate(plan.labels)
    ]


def is_sweep(path: Path) -> bool:
    """Return whether a folder contains a sweep."""
    return (path / SWEEP_MARK).exists()


def _by_settings(paths: Sequence[Path]) -> list[RunGroup]:
    """Return plain results as groups with the same settings on the same kind of host, in the order given."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        bundle = Bundle(path)
        settings = bundle.read_manifest()["facts"]["settings"]
        same = repr(({**settings, **_OF_ONE_RUN}, kind_of_host(bundle.read_host())))
        groups.setdefault(same, []).append(path)
    return [_read_group(group, label=group[0].name, values={}, root=None) for group in groups.values()]


def _read_group(
    paths: Sequence[Path], *, label: str, values: Mapping[str, Any], root: Path | None, refused: Sequence[str] = ()
) -> RunGroup:
    """Read runs as one group; their names are relative to `root`, the folder of their sweep.

    A run that cannot be read is left out. Without `root` the user named the run, and RecordingError is raised.
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


def _counted_twice(sweeps: Sequence[Path], single: Sequence[Path]) -> list[str]:
    """Return a notice if a run is in two groups: their chance differences are then the same."""
    named = [path.resolve() for path in sweeps]
    twice = len(set(named)) < len(named) or any(path.parent.parent in named for path in single)
    return ["The same runs are in two groups: agreement between these groups means nothing."] if twice else []


def _without_counterpart(run_groups: Sequence[RunGroup], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Return a notice about groups that are shown and not compared."""
    compared = {index for pair in pairs for index in pair}
    single = [run_group.label for index, run_group in enumerate(run_groups) if index not in compared]
    return [f"Not compared, because no other group has the same name: {', '.join(single)}."] if single else []


def _pairs(groups: Sequence[Sequence[RunGroup]]) -> list[tuple[int, int]]:
    """Return the pairs that are compared: each cell with its namesake in the first sweep, or all with all.

    `groups` has the cells of each sweep; a plain result is a sweep with one cell. Such cells have no namesakes: if all
    are of this kind, each is compared with each.
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
