"""The folder of a sweep: complete, missing and incomplete runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from loadsim.compare.folder import SweepFolder, SweepPlan
from loadsim.errors import EnvironmentRefusedError, RecordingError
from loadsim.record.folder import Folder, find, results

if TYPE_CHECKING:
    from pathlib import Path

PLAN = SweepPlan(
    scenario="two-cells",
    description="",
    seed=1,
    repeat=2,
    axes=["server.backlog"],
    labels=["backlog 1", "backlog 1,024"],
    values=[{"server.backlog": 1}, {"server.backlog": 1024}],
    order=[(1, 0), (0, 0), (0, 1), (1, 1)],
    min_effect=0.05,
)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Return a sweep before its first run."""
    return SweepFolder.create(tmp_path, PLAN, scenario="schema = 1\n", argv=["run"])


def finish(folder: SweepFolder, cell: int, repeat: int, **summary: Any) -> None:  # noqa: ANN401 -- any JSON
    """Make a run that ended."""
    path = folder.begin_run(cell, repeat)
    Folder(path).write_json("summary.json", {"complete": True, "interrupted": None, **summary})


def test_plan_reads_back(folder: SweepFolder) -> None:
    """The files written before the first run are enough to resume a sweep."""
    again = SweepFolder.open(folder.path)

    assert again.plan == PLAN
    assert again.read_scenario() == "schema = 1\n"
    assert again.missing() == PLAN.order


def test_missing_runs_keep_their_order(folder: SweepFolder) -> None:
    """The folder of a run decides whether it is complete; a run that an `abort` ended is complete."""
    finish(folder, 0, 0)
    finish(folder, 1, 1, complete=False, interrupted="aborted: emfile.count > 0")
    finish(folder, 0, 1, complete=False, interrupted="SIGINT")

    assert folder.missing() == [(1, 0), (0, 1)]
    assert folder.complete_runs(0) == ["runs/01-backlog-1-1"]
    assert folder.complete_runs(1) == ["runs/02-backlog-1-024-2"]


def test_incomplete_runs_are_set_aside(folder: SweepFolder) -> None:
    """A resumed sweep overwrites nothing: the records of a killed run stay under another name."""
    folder.begin_run(0, 0)  # this one has no records
    for content in ("first", "second"):
        path = folder.begin_run(0, 0)
        (path / "manifest.json").write_text("{}")
        (path / "attempts-0.journal").write_text(content)
    finish(folder, 0, 0)
    kept = sorted((folder.path / "runs").glob("*.cut-*/attempts-0.journal"))

    assert [path.read_text() for path in kept] == ["first", "second"]
    assert folder.complete_runs(0) == ["runs/01-backlog-1-1"]


def test_refused_runs_say_why_and_are_tried_again(folder: SweepFolder) -> None:
    """A refused run is missing and has its reason; a later success removes it."""
    folder.begin_run(0, 0)
    folder.refuse_run(0, 0, "no namespace; do this")

    assert (folder.refusal(0, 0), folder.refusal(0, 1)) == ("no namespace; do this", None)
    assert (0, 0) in folder.missing()
    finish(folder, 0, 0)
    assert folder.refusal(0, 0) is None
    assert (0, 0) not in folder.missing()
    assert list((folder.path / "runs").glob("*.cut-*")) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "upgrade loadsim"),
        ({"repeat": 3}, "damaged"),
        ({"order": [[0, 0]]}, "damaged"),
        ({"order": 7}, "damaged"),
        ({"values": []}, "damaged"),
        ({"labels": None}, "labels: "),
        ({"labels": [1, 2]}, "labels.0: "),
        ({"axes": None}, "axes: "),
        ({"axes": []}, "damaged"),
        ({"min_effect": "x"}, "min_effect: "),
        ({"min_effect": float("nan")}, "damaged"),
        ({"description": None}, "description: "),
        ({"seed": "7"}, "seed: "),
        ({"repeat": 2.5}, "repeat: "),
        ({"order": [[1, 0], [0, 0], [0, 1], [1, 0]]}, "damaged"),
        ({"order": [[1, 0], [0, 0], [0, 1], [1, 7]]}, "damaged"),
        ({"values": [{"server.backlog": [1]}, {}]}, "values.0.server.backlog"),
    ],
)
def test_damaged_plans(folder: SweepFolder, change: dict[str, Any], says: str) -> None:
    """A plan with any damaged part is refused, and the message names the part."""
    path = folder.path / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(RecordingError, match=says):
        SweepFolder.open(folder.path)


def test_sweeps_are_found_like_results(folder: SweepFolder) -> None:
    """A sweep is found by prefix, as the latest and by path; its runs are not listed."""
    finish(folder, 0, 0)
    out = folder.path.parent

    assert results(out) == [folder.path]
    assert find("latest", out) == folder.path
    assert find(folder.path.name[:12], out) == folder.path


def test_only_one_process_makes_runs(folder: SweepFolder) -> None:
    """A second lock is refused until the first is released."""
    says = "another loadsim is making its runs"
    with folder.locked(), pytest.raises(EnvironmentRefusedError, match=says), folder.locked():
        pytest.fail("two hold one lock")
    with folder.locked():
        pass


def test_a_comparison_ends_with_the_next_run(folder: SweepFolder) -> None:
    """The comparison is removed when another run begins."""
    folder.write_comparison({})
    assert folder.is_compared()

    folder.begin_run(0, 0)
    assert not folder.is_compared()


def test_damaged_runs_are_named(folder: SweepFolder) -> None:
    """A complete run with records that cannot be read is not missing but unreadable."""
    finish(folder, 1, 0)

    assert folder.unreadable() == [(1, 0)]
    assert (1, 0) not in folder.missing()
