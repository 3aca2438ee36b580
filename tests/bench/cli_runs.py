"""Runs of the loadsim command as separate processes, and their result folders.

For checks that compare loadsim with other programs: they use only the output and the folder of a run.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pytest

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.summary import Summary
from loadsim.record.folder import LATEST
from loadsim.record.result import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Exit codes of a completed run: as expected, and with a failed threshold, which does not matter here.
_COMPLETED = (0, 99)
_HINT = "see it: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished run, read from its folder."""

    summary: Summary
    data: Dataset

    @classmethod
    def latest(cls, out: Path) -> Self:
        """Return the last result in a folder."""
        folder = (out / LATEST).resolve()
        summary = Summary.from_json(json.loads((folder / "summary.json").read_text()))
        return cls(summary=summary, data=Dataset.of(Bundle(folder).read()))


def run(scenario: str, out: Path, *overrides: str, under: Sequence[str] = ()) -> Result:
    """Run a scenario to its end; `under` is a command that runs another one, such as perf."""
    ran = subprocess.run([*under, *_command(scenario, out, overrides)], check=False, capture_output=True, text=True)
    assert ran.returncode in _COMPLETED, ran.stderr
    return Result.latest(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The output of a program, and the times (monotonic, ns) of its start and its end."""

    begun: int
    ended: int
    text: str


class Running:
    """A run in progress; `enter` is the printed command that runs another one inside its namespace."""

    def __init__(self, process: subprocess.Popen[str], enter: Sequence[str], out: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._enter = enter
        self._out = out

    def readings(self, *command: str, every_s: float) -> Iterator[Reading]:
        """Yield the output of a program inside the namespace, repeatedly until the namespace is gone."""
        while self._process.poll() is None:
            begun = time.monotonic_ns()
            ran = subprocess.run([*self._enter, *command], check=False, capture_output=True, text=True)
            if ran.returncode:
                break
            yield Reading(begun=begun, ended=time.monotonic_ns(), text=ran.stdout)
            time.sleep(every_s)

    def result(self) -> Result:
        """Wait for the end and return the result."""
        _, stderr = self._process.communicate()
        assert self._process.returncode in _COMPLETED, stderr
        return Result.latest(self._out)


@contextmanager
def running(scenario: str, out: Path, *overrides: str) -> Iterator[Running]:
    """Start a run and yield it when it has printed its nsenter command; skips where it has no private namespace."""
    command = _command(scenario, out, overrides)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            assert _HINT in first, first + process.stderr.read()
            words = shlex.split(first.partition(_HINT)[2])
            if words[0] != "nsenter":
                pytest.skip("the run has no private network namespace: run as root, outside a container")
            yield Running(process, words[: words.index("ss")], out)
        finally:
            process.kill()  # after a failed check; its children end with it


def _command(scenario: str, out: Path, overrides: Sequence[str]) -> list[str]:
    settings = [word for override in overrides for word in ("--set", override)]
    return [sys.executable, "-P", "-m", "loadsim", "run", scenario, "--out", str(out), "--ui", "plain", *settings]
