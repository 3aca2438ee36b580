"""Sweeps on the real kernel: their files, interruption and resumption, a real difference."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import psutil
import pytest

from loadsim.compare.folder import SweepFolder
from loadsim.kernel.limits import own_nofile
from loadsim.record.folder import results

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

#: During a pause of 50 ms, 50 clients arrive at 1,000 clients a second.
SHORT = """
schema = 1
name = "short"
description = "Is 8 enough?"
[server]
pause = "50ms"
pause_every = "100ms"
[client]
rate = "1000/s"
duration = "200ms"
connect_timeout = "300ms"
reply_timeout = "300ms"
[thresholds]
expect = ["generator.local_failures == 0"]
[sweep]
server.backlog = [8, 256]
repeat = 4
"""
RUNS = 8


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "loadsim", *arguments]


def loadsim(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=90, check=False)


def sweep_in(folder: Path) -> SweepFolder:
    """Return the only sweep in a working directory."""
    [path] = results(folder / "results")
    return SweepFolder.open(path)


def written(sweep: SweepFolder) -> dict[str, tuple[int, int]]:
    """Return inode and time of the records of each complete run: a repeated run has others."""
    names = [name for cell in range(len(sweep.plan.labels)) for name in sweep.complete_runs(cell)]
    stats = {name: (sweep.path / name / "attempts.npy").stat() for name in names}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return the working directory and the output of one complete sweep."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "short.toml").write_text(SHORT)
    return folder, loadsim(folder, "run", "short.toml", "--json")


def test_every_planned_run_is_made(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Each cell has its runs, each run has its own folder and seed, and progress shows each run."""
    folder, ran = swept
    sweep = sweep_in(folder)

    assert ran.returncode == 0, ran.stderr
    assert sweep.missing() == []
    assert len(written(sweep)) == RUNS
    manifests = [json.loads((sweep.path / name / "manifest.json").read_text()) for name in written(sweep)]
    assert sorted(one["facts"]["seed"] for one in manifests) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [line.split()[0] for line in ran.stderr.splitlines()[1:]] == [f"[{n}/{RUNS}]" for n in range(1, RUNS + 1)]


def test_a_real_difference_is_found_with_its_reason(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """256 is enough, 8 is not, and the share of served clients differs significantly."""
    comparison: dict[str, Any] = json.loads(swept[1].stdout)
    rows = {row["metric"]: row for row in comparison["rows"]}

    assert comparison["answer"]["group"] == 1
    assert comparison["answer"]["sentence"].startswith("backlog 256 is enough; ")
    assert [pair["says"] for pair in rows["attempts.served"]["pairs"]] == ["better"]
    assert rows["queue.max"]["estimates"][0]["median"] == 9
    assert 45 <= rows["queue.max"]["estimates"][1]["median"] <= 75
    assert "Rule: backlog >= rate x longest pause = 1,000/s x 50 ms = 50." in comparison["answer"]["evidence"]


def test_files_of_a_sweep(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """A sweep has a page with valid links, a summary, and a test case for each threshold and cell."""
    path = sweep_in(swept[0]).path
    suite = ET.parse(path / "junit.xml").getroot()[0]  # noqa: S314 -- written by the code under test

    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    assert "backlog 256 is enough" in (path / "summary.md").read_text()
    page = (path / "report.html").read_text()
    linked = [name for name in written(sweep_in(swept[0])) if f'href="{name}/report.html"' in page]
    assert len(linked) == RUNS
    assert all((path / name / "report.html").exists() for name in linked)
    assert json.loads((path / "comparison.json").read_text()) == json.loads(swept[1].stdout)


def test_reports_need_only_the_folder(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """`report` prints the same comparison, and `compare` of a sweep with itself finds no difference."""
    folder, ran = swept
    again = loadsim(folder, "report", "--json")
    same = loadsim(folder, "compare", "latest", "latest", "--json", "--fail-on", "queue.max +50%")

    assert json.loads(again.stdout) == json.loads(ran.stdout)
    verdicts = {pair["says"] for row in json.loads(same.stdout)["rows"] for pair in row["pairs"]}
    assert verdicts <= {"same", "cannot tell"}
    assert same.returncode == 0, same.stderr


def test_a_gate_ends_with_99(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """A broken rule makes `compare` exit with status 99."""
    sweep = sweep_in(swept[0])
    runs = [str(sweep.path / name) for name in sorted(written(sweep), reverse=True)]
    ran = loadsim(swept[0], "compare", *runs, "--fail-on", "fate.dropped +10%", "--json")
    comparison = json.loads(ran.stdout)

    assert [group["label"] for group in comparison["groups"]] == ["A", "B"]
    assert [len(group["runs"]) for group in comparison["groups"]] == [4, 4]
    assert [one["name"] for one in comparison["settings"]] == ["server.backlog"]
    assert (ran.returncode, comparison["gates"][0]["ok"]) == (99, False)


def test_the_same_settings_on_another_host_are_another_group(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Runs of two hosts are not put into one group, and their times are not judged."""
    sweep = sweep_in(swept[0])
    here = [sweep.path / sweep.run_name(1, repeat) for repeat in range(2)]
    there = [tmp_path / f"there-{number}" for number in range(2)]
    for own, other in zip(here, there, strict=True):
        shutil.copytree(own, other)
        host = json.loads((other / "host.json").read_text())
        (other / "host.json").write_text(json.dumps(host | {"cpu_model": "another"}))
    ran = loadsim(tmp_path, "compare", *map(str, (*here, *there)), "--json")
    comparison = json.loads(ran.stdout)

    assert [len(group["runs"]) for group in comparison["groups"]] == [2, 2]
    assert comparison["unlike_hosts"]


def test_cells_without_a_counterpart_are_named(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A notice names cells that are not compared; without any pair, `compare` fails."""
    sweep = sweep_in(swept[0])
    other = tmp_path / "other"
    shutil.copytree(sweep.path, other)
    plan = json.loads((other / "sweep.json").read_text())
    for old, new, labels in ((1, 7, ["backlog 7", "backlog 256"]), (256, 300, ["backlog 7", "backlog 300"])):
        for run in (other / "runs").glob(f"*-backlog-{old}-*"):
            run.rename(run.with_name(run.name.replace(f"-backlog-{old}-", f"-backlog-{new}-")))
        (other / "sweep.json").write_text(json.dumps(plan | {"labels": labels}))
        ran = loadsim(tmp_path, "compare", str(sweep.path), str(other), "--json")
        if new == 7:
            assert json.loads(ran.stdout)["notices"][0] == (
                "Not compared, because no other group has the same name: A backlog 8, B backlog 7."
            )
    assert ran.returncode == 2
    assert "and the others have no cell of the same name" in " ".join(ran.stderr.split())


@pytest.fixture
def killed(tmp_path: Path) -> SweepFolder:
    """Return a sweep with a conductor that was killed during the third run."""
    (tmp_path / "short.toml").write_text(SHORT)
    with subprocess.Popen(
        command("run", "short.toml", "--ui", "plain"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as conductor:
        assert conductor.stderr is not None
        ended = 0
        while ended < 2:
            ended += conductor.stderr.readline().startswith("[")
        time.sleep(0.25)
        children = psutil.Process(conductor.pid).children(recursive=True)
        os.kill(conductor.pid, signal.SIGKILL)
        conductor.wait(timeout=10)
        assert psutil.wait_procs(children, timeout=5)[1] == []
    return sweep_in(tmp_path)


def test_resume_loses_and_repeats_nothing(killed: SweepFolder) -> None:
    """--resume keeps complete runs and makes the others in the planned order; other settings are refused."""
    before, missing = written(killed), killed.missing()
    assert (len(before), len(missing)) == (2, RUNS - 2)

    folder = killed.path.parent.parent
    other = loadsim(folder, "run", "short.toml", "--resume", "--set", "server.pause=10ms")
    assert (other.returncode, "no unfinished sweep in results has these settings" in other.stderr) == (2, True)
    ran = loadsim(folder, "run", "short.toml", "--resume", "--json")

    after = written(killed)
    assert ran.returncode == 0, ran.stderr
    assert (len(after), killed.missing()) == (RUNS, [])
    assert {name: after[name] for name in before} == before
    assert results(folder / "results") == [killed.path]
    assert json.loads(ran.stdout)["complete"]
    made = sorted(set(after) - set(before), key=lambda name: after[name][1])
    assert made == [killed.run_name(*job) for job in missing]


def test_nothing_to_resume(tmp_path: Path) -> None:
    """Without an unfinished sweep with these settings nothing starts, and the message says how to start one."""
    (tmp_path / "short.toml").write_text(SHORT)
    ran = loadsim(tmp_path, "run", "short.toml", "--resume")

    assert ran.returncode == 2
    assert "no unfinished sweep in results has these settings; start one: loadsim run short.toml" in ran.stderr


def wait_under_load(folder: Path) -> None:
    """Wait until a run is under load."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for manifest in folder.glob("results/*/runs/*/manifest.json"):
            if not (manifest.parent / "attempts.npy").exists():
                time.sleep(0.1)
                return
        time.sleep(0.005)
    pytest.fail("no run was under load within 20 s")


def test_damaged_runs_are_made_again(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """A run with damaged records is left out with a notice, and --resume makes it again.

    After a kill between the last run and the comparison, --resume makes the comparison.
    """
    folder, sweep = swept[0], sweep_in(swept[0])
    torn = sweep.path / sweep.run_name(0, 1) / "attempts.npy"
    before = written(sweep)
    torn.write_bytes(torn.read_bytes()[:-100])

    shown = loadsim(folder, "report")
    assert shown.returncode == 0, shown.stderr
    printed = " ".join(shown.stdout.split())
    assert "A run of backlog 8 is left out (" in printed
    assert "--resume makes it again." in printed

    resumed = loadsim(folder, "run", "short.toml", "--resume", "--json")
    after = written(sweep)
    assert resumed.returncode == 0, resumed.stderr
    assert [name for name in before if before[name] != after[name]] == [sweep.run_name(0, 1)]
    assert json.loads(resumed.stdout)["complete"]

    (sweep.path / "comparison.json").unlink()
    finished = loadsim(folder, "run", "short.toml", "--resume", "--json")
    assert (finished.returncode, written(sweep)) == (0, after), finished.stderr
    assert (sweep.path / "comparison.json").exists()


def test_a_running_sweep_cannot_be_resumed(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """--resume of a locked sweep starts nothing and exits with status 3."""
    sweep = sweep_in(swept[0])
    with sweep.locked():
        ran = loadsim(swept[0], "run", str(sweep.path), "--resume")

    assert ran.returncode == 3
    assert "another loadsim is making its runs" in ran.stderr


def wait_for_a_start(folder: Path) -> None:
    """Wait until a run is being set up: its folder exists, and its first client has not started."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for host in folder.glob("results/*/runs/*/host.json"):
            if not (host.parent / "manifest.json").exists():
                return
        time.sleep(0.002)
    pytest.fail("no run was set up within 20 s")


def test_interrupt_while_a_run_is_set_up(tmp_path: Path) -> None:
    """A signal during setup ends the sweep at once; the run leaves no folder."""
    (tmp_path / "short.toml").write_text(SHORT.replace('duration = "200ms"', 'duration = "20s"'))
    with subprocess.Popen(
        command("run", "short.toml", "--ui", "none"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as conductor:
        wait_for_a_start(tmp_path)
        begun = time.monotonic()
        conductor.send_signal(signal.SIGTERM)
        conductor.communicate(timeout=30)
    sweep = sweep_in(tmp_path)

    assert conductor.returncode == 143
    assert time.monotonic() - begun < 10
    assert (written(sweep), list((sweep.path / "runs").iterdir())) == ({}, [])


@pytest.mark.parametrize("during", [True, False])
def test_interrupt_saves_what_there_is(tmp_path: Path, *, during: bool) -> None:
    """Ctrl-C ends the run and the sweep with status 130; the runs are compared, and a notice counts the missing ones.

    During the load a run handles signals; before and after it the sweep does.
    """
    (tmp_path / "short.toml").write_text(SHORT)
    with subprocess.Popen(
        command("run", "short.toml", "--ui", "plain"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as conductor:
        assert conductor.stderr is not None
        while not conductor.stderr.readline().startswith("["):
            pass
        if during:
            wait_under_load(tmp_path)
        conductor.send_signal(signal.SIGINT)
        printed, _ = conductor.communicate(timeout=30)
    sweep = sweep_in(tmp_path)

    assert conductor.returncode == 130
    assert 1 <= len(written(sweep)) <= 2
    assert "not made: --resume makes them" in " ".join(printed.split())
    assert (sweep.path / "comparison.json").exists()


def test_a_cell_that_cannot_run_does_not_end_the_sweep(tmp_path: Path) -> None:
    """The cell is reported with its reason, the other cells are made, and the exit status is 3."""
    (tmp_path / "short.toml").write_text(SHORT)
    above = own_nofile().hard + 1
    overrides = ["--set", "server.backlog=256", "--set", f"server.nofile=128,{above}", "--repeat", "1"]
    ran = loadsim(tmp_path, "run", "short.toml", *overrides, "--json")
    comparison = json.loads(ran.stdout)

    assert ran.returncode == 3, ran.stderr
    assert [len(group["runs"]) for group in comparison["groups"]] == [1, 0]
    assert f"server.nofile = {above} is above this host's hard limit" in comparison["groups"][1]["refused"][0]
    assert any("could not start" in notice for notice in comparison["notices"])
    suite = ET.parse(sweep_in(tmp_path).path / "junit.xml").getroot()[0]  # noqa: S314 -- written by the code under test
    assert suite.get("errors") == "1"
