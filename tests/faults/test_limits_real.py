"""loadsim at its own limits: it names the limit and the remedy, and keeps the records so far."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from faulty_runs import Left, hurt_run, run_to_end
from refusing import CAP_DAC_OVERRIDE, needs_root, with_limit, without_capabilities

from loadsim.record.recording import dtype_of
from loadsim.record.records import ATTEMPT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real


def assert_clean(left: Left, code: int) -> None:
    """Assert the exit code, no traceback, and no process left."""
    assert (left.code, left.tracebacks, left.orphans) == (code, [], []), left.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete result, made on one core."""
    with hurt_run(tmp_path_factory.mktemp("finished"), before=lambda: os.sched_setaffinity(0, {0})) as run:
        left = run.wait_end()
    assert_clean(left, 0)
    assert left.folder is not None
    return left.folder


def test_one_core_is_enough(finished: Path) -> None:
    """A run with all processes on one core is complete and balanced."""
    again = run_to_end("report", str(finished))
    assert again.returncode == 0, again.stderr
    assert "adds up" in again.stdout


def test_a_driver_with_few_descriptors_says_so(tmp_path: Path) -> None:
    """With a hard limit of 40 the driver opens fewer connections than planned, and the server is not blamed."""
    with hurt_run(tmp_path, "--set", "server.nofile=32", before=with_limit(resource.RLIMIT_NOFILE, 40)) as run:
        left = run.wait_end()
    assert_clean(left, 0)
    summary = left.report()
    assert summary["status"] == "INCONCLUSIVE"
    assert "hard RLIMIT_NOFILE leaves" in left.stdout
    assert summary["ledger"]["not_started"] > 0
    assert summary["balanced"]


@pytest.mark.parametrize("nofile", [12, 22])
def test_without_descriptors_it_names_its_own_limit(nofile: int, tmp_path: Path) -> None:
    """A conductor at its own limit ends with one sentence with the remedy, and exit code 3."""
    with hurt_run(tmp_path, "--set", "server.nofile=", before=with_limit(resource.RLIMIT_NOFILE, nofile)) as run:
        left = run.wait_end()
    assert_clean(left, 3)
    assert "Too many open files; loadsim itself is out of descriptors: raise its limit (ulimit -n" in left.stderr


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size; skips if that is not possible."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


@needs_root
@pytest.mark.parametrize(("size", "where"), [("4k", "No space left on device"), ("64k", "cannot reserve")])
def test_a_full_disk_ends_a_run_before_it_begins(size: str, where: str, tmp_path: Path) -> None:
    """Without space for the journals nothing is started, and the sentence has the remedy."""
    with small_disk(tmp_path / "small", size) as disk, hurt_run(tmp_path, out=disk) as run:
        left = run.wait_end()
    assert_clean(left, 3)
    assert where in left.stderr
    assert "choose another" in left.stderr


@needs_root
def test_a_disk_that_fills_up_does_not_affect_reserved_space(tmp_path: Path) -> None:
    """After the disk was filled once, unused journal space is freed, and the result is complete."""
    with small_disk(tmp_path / "small", "8m") as disk, hurt_run(tmp_path, out=disk) as run:
        run.wait_ready()
        fill(disk / "filler")
        left = run.wait_end()
        assert_clean(left, 0)
        assert left.report()["complete"]
        assert left.folder is not None
        assert list(left.folder.glob("*.journal")) == []


@needs_root
def test_a_disk_that_stays_full_keeps_the_journals(tmp_path: Path) -> None:
    """A disk that is full until the end gives exit code 3, and `report` reads the journals."""
    with small_disk(tmp_path / "small", "8m") as disk, hurt_run(tmp_path, out=disk) as run:
        run.wait_ready()
        over = threading.Event()
        filler = threading.Thread(target=fill, args=(disk / "filler", over))
        filler.start()
        left = run.wait_end()
        over.set()
        filler.join()
        assert_clean(left, 3)
        assert "No space left on device; free space there" in left.stderr
        assert f"the records so far are in {left.folder}: loadsim report {left.folder}" in left.stderr
        assert left.report()["ledger"]["accepted"] > 0


def fill(path: Path, over: threading.Event | None = None) -> None:
    """Take all free space, once or until `over` is set."""
    with path.open("ab", buffering=0) as file:
        while over is None or not over.is_set():
            for size in (1 << 20, 4096):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
            if over is None:
                return


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """The error names it, and nothing is started."""
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir(mode=0o500)
    with hurt_run(tmp_path, out=forbidden, before=without_capabilities(CAP_DAC_OVERRIDE)) as run:
        left = run.wait_end()
    assert_clean(left, 3)
    assert "cannot make the result folder" in left.stderr
    assert "Permission denied; choose another with --out DIR" in left.stderr


def test_a_folder_that_is_deleted_during_the_run(tmp_path: Path) -> None:
    """The run ends normally, reports that its records are missing, and prints no result."""
    with hurt_run(tmp_path) as run:
        run.wait_ready()
        time.sleep(0.3)
        shutil.rmtree(tmp_path / "out")
        left = run.wait_end()
    assert_clean(left, 3)
    assert "they were removed" in left.stderr
    assert "no records are left" in left.stderr
    assert left.stdout == ""


def test_a_result_without_its_records_is_damaged(finished: Path, tmp_path: Path) -> None:
    """A folder without its records is not reported as a run without clients."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "attempts.npy").unlink()
    again = run_to_end("report", str(copy))
    assert again.returncode == 2
    assert "the records of attempts are missing; they were removed" in again.stderr


def test_a_recording_beyond_the_memory(finished: Path, tmp_path: Path) -> None:
    """With a gigabyte of records and a limit of 600 MB, the error names the limit and the folder does not change."""
    large = tmp_path / "large"
    shutil.copytree(finished, large)
    count = (1 << 30) // ATTEMPT.size
    np.lib.format.open_memmap(large / "attempts.npy", mode="w+", dtype=dtype_of(ATTEMPT), shape=(count,))
    before = sorted(path.name for path in large.iterdir())
    again = run_to_end("report", str(large), before=with_limit(resource.RLIMIT_AS, 600 << 20))
    assert (again.returncode, again.stdout) == (3, "")
    assert again.stderr.startswith(f"loadsim: the kernel refused loadsim something: {os.strerror(errno.ENOMEM)}; ")
    assert "raise its limit (ulimit -v" in again.stderr
    assert sorted(path.name for path in large.iterdir()) == before


def test_two_runs_at_a_time_are_independent(tmp_path: Path) -> None:
    """Two runs that start together in one folder give two complete results."""
    with hurt_run(tmp_path) as one, hurt_run(tmp_path) as other:
        ends = [one.wait_end(), other.wait_end()]
    for left in ends:
        assert_clean(left, 0)
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("2*/summary.json")]
    assert [summary["ledger"]["accepted"] for summary in summaries] == [120, 120]
