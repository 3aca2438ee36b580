"""Result folders that are damaged, hostile or old: sound ones are read, others are rejected, and no text is obeyed."""

from __future__ import annotations

import json
import os
import random
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hostile_folders import ESCAPES, KEPT, KINDS, LARGEST_BYTES, ask, damaged, tainted_report, texts_in

from loadsim.commands import main
from loadsim.record.journal import Journal
from loadsim.record.result import SAMPLE_1, Bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Facts that the first runs of this format did not have.
LATER_FACTS = ("workers", "restarts", "log_bytes", "log_read", "process_seen", "sockets_seen", "started")


def report(folder: Path, *options: str) -> Result:
    """Report on a folder in this process."""
    return CliRunner().invoke(main, ["report", str(folder), *options], catch_exceptions=False)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 40, 20))
def test_a_damaged_folder_is_read_or_rejected_in_a_sentence(first: int, tmp_path: Path) -> None:
    """This takes bounded time and memory and ends with exit status 0 or 2; a seeded generator does the damage."""
    for seed in range(first, first + 20):
        folder, done = damaged(seed, tmp_path)
        answer = ask(["report", str(folder), "--out", str(tmp_path)], tmp_path)
        assert answer.is_clean, f"{seed}: {done}: {answer}"
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_folder_is_still_reported(kind: str, tmp_path: Path) -> None:
    """A folder of the first version of its format is reported on the terminal and as JSON."""
    folder = shutil.copytree(KEPT / kind, tmp_path / kind)
    shown, document = report(folder), report(folder, "--json")

    assert (shown.exit_code, document.exit_code) == (0, 0)
    assert len(shown.stdout.splitlines()) > 8
    assert json.loads(document.stdout)


@pytest.mark.parametrize(("kind", "expected"), [("simulated", ("REPRODUCED", 5, 16)), ("command", ("HEALTHY", 13, 7))])
def test_an_old_run_keeps_its_numbers(kind: str, expected: tuple[str, int, int], tmp_path: Path) -> None:
    """The numbers are the same without later facts, and the report files are written again."""
    folder = shutil.copytree(KEPT / kind, tmp_path / kind)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in LATER_FACTS:
        manifest["facts"]["server"].pop(name, None)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    summary = json.loads(report(folder, "--json").stdout)

    assert expected == (summary["status"], summary["ledger"]["accepted"], summary["metrics"]["fds.max"])
    for name in ("report.html", "summary.md", "junit.xml", "timeseries.csv"):
        assert (folder / name).stat().st_size > 100


@pytest.mark.parametrize(("kind", "capacity"), [("simulated", 9), ("command", 6), ("sweep/runs/01-backlog-4-1", 5)])
def test_an_old_queue_limit_is_read(kind: str, capacity: int, tmp_path: Path) -> None:
    """The `queue_limit` of format 1, a backlog, is read under its new names in facts, samples and thresholds."""
    folder = shutil.copytree(KEPT / kind, tmp_path / "it")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["facts"]["settings"]["thresholds"]["expect"] = [f"queue.limit == {capacity}", "emfile.count >= 0"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    old = np.load(folder / "samples.npy")
    recording, summary = Bundle(folder).read(), json.loads(report(folder, "--json").stdout)

    assert recording.facts.server.backlog == capacity - 1
    assert set(recording.samples["queue_capacity"].tolist()) <= {capacity, -1}
    assert (recording.samples["open_fds"] == old["open_fds"]).all()
    assert (summary["metrics"]["queue.capacity"], summary["timeline"]["queue_capacity"]) == (capacity, capacity)
    assert [threshold["text"] for threshold in summary["thresholds"]] == [
        f"queue.capacity == {capacity}",
        "emfile.count >= 0",
    ]
    assert summary["thresholds"][0]["ok"]


def test_an_old_interrupted_run_is_read(tmp_path: Path) -> None:
    """Samples of format 1 are also read from their journal."""
    folder = shutil.copytree(KEPT / "simulated", tmp_path / "it")
    old = np.load(folder / "samples.npy")
    (folder / "samples.npy").unlink()
    with Journal.create(folder / "samples.journal", SAMPLE_1, len(old)) as journal:
        for row in old.tolist():
            journal.append(*row)

    assert (Bundle(folder).read().samples["queue"] == old["queue"]).all()


def test_names_in_a_folder_control_neither_terminal_nor_page(tmp_path: Path) -> None:
    """Escape sequences, bidi overrides, tags and the delimiters of Markdown and XML are shown, not obeyed."""
    folder = shutil.copytree(KEPT / "simulated", tmp_path / "it")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["facts"] |= {"scenario": ESCAPES, "description": ESCAPES, "notices": [ESCAPES], "degraded": [ESCAPES]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shown = report(folder)

    assert shown.exit_code == 0
    assert not set("\x1b\x07\x9b\u202e") & set(shown.stdout + shown.stderr)
    assert "<script>alert" not in (folder / "report.html").read_text()
    assert "<script>alert" not in (folder / "summary.md").read_text()
    assert not set("\x1b\x07\x9b") & set((folder / "junit.xml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_a_folder_is_obeyed(kind: str, tmp_path: Path) -> None:
    """Twelve texts of each kind of folder, and the output of the server, are shown and not obeyed."""
    places = texts_in(KEPT / kind)
    chosen = random.Random(kind).sample(places, min(12, len(places)))  # noqa: S311 -- the same choice every time
    for path, keys in chosen:
        answer, obeyed = tainted_report(kind, path, keys, tmp_path)
        assert answer.is_clean, (path.name, keys, answer)
        assert not obeyed, (path.name, keys)


@pytest.mark.parametrize("harm", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_a_journal_that_is_not_a_file_is_damage(harm: Callable[[Path], None], tmp_path: Path) -> None:
    """A folder, a FIFO or a circular link in place of the records of an interrupted run is named in the error."""
    folder = shutil.copytree(KEPT / "simulated", tmp_path / "it")
    (folder / "attempts.npy").unlink()
    harm(folder / "attempts-0.journal")
    answer = report(folder)
    assert answer.exit_code == 2
    assert "attempts-0.journal" in answer.stderr
    assert "not a regular file" in answer.stderr


def test_only_a_page_that_was_just_written_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict has no page, so a file of that name in its folder is not opened."""
    opened: list[str] = []
    monkeypatch.setattr("loadsim.commands.output.open_page", lambda page: opened.append(page.name))
    for kind in ("verdict", "simulated"):
        (shutil.copytree(KEPT / kind, tmp_path / kind) / "report.html").write_text("<script>theirs()</script>")
        answer = report(tmp_path / kind, "--open")
        assert answer.exit_code == 0
        assert ("its runs have one: loadsim report --open" in answer.stderr) == (kind == "verdict")
    assert opened == ["report.html"]
    assert "theirs()" not in (tmp_path / "simulated" / "report.html").read_text()


def test_the_kept_folders_are_small() -> None:
    """They are part of every checkout."""
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) < LARGEST_BYTES
