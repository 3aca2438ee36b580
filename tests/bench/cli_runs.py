"""Runs of the command line, started from outside as a person would, and what they leave in their folders.

For checks that compare loadsim with something else: a run is a process of its own, and whoever watches it uses only
what it prints.
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

#: Exit codes of a run that took place: as expected, and an expectation not met. What is checked here is not that.
_TOOK_PLACE = (0, 99)
_HINT = "see it: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished run, read back from its folder alone."""

    summary: Summary
    view: Dataset

    @classmethod
    def latest(cls, out: Path) -> Self:
        """Return the last result in a folder."""
        folder = (out / LATEST).resolve()
        summary = Summary.from_json(json.loads((folder / "summary.json").read_text()))
        return cls(summary=summary, view=Dataset.of(Bundle(folder).read()))


def run(scenario: str, out: Path, *overrides: str, under: Sequence[str] = ()) -> Result:
    """Run a scenario to its end, `under` a command that runs another one."""
    ran = subprocess.run([*under, *_command(scenario, out, overrides)], check=False, capture_output=True, text=True)
    assert ran.returncode in _TOOK_PLACE, ran.stderr
    return Result.latest(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a program printed, and between which two moments (monotonic, ns) it ran."""

    begun: int
    ended: int
    text: str


class Running:
    """A run that is going on; `enter` is the printed command that runs another one inside its namespace."""

    def __init__(self, process: subprocess.Popen[str], enter: Sequence[str], out: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._enter = enter
        self._out = out

    def readings(self, *command: str, every_s: float) -> Iterator[Reading]:
        """Yield what a program prints inside the namespace, again and again until that is gone."""
        while self._process.poll() is None:
            begun = time.monotonic_ns()
            ran = subprocess.run([*self._enter, *command], check=False, capture_output=True, text=True)
            if ran.returncode:
                break
            yield Reading(begun=begun, ended=time.monotonic_ns(), text=ran.stdout)
            time.sleep(every_s)

    def result(self) -> Result:
        """Wait for the end and return what was saved."""
        _, said = self._process.communicate()
        assert self._process.returncode in _TOOK_PLACE, said
        return Result.latest(self._out)


@contextmanager
def running(scenario: str, out: Path, *overrides: str) -> Iterator[Running]:
    """Start a run and yield it as soon as it has printed how to see it; skips where it has no namespace of its own."""
    command = _command(scenario, out, overrides)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            assert _HINT in first, first + process.stderr.read()
            words = shlex.split(first.partition(_HINT)[2])
            if words[0] != "nsenter":
                pytest.skip("the run got no network namespace of its own here: run as root, outside a container")
            yield Running(process, words[: words.index("ss")], out)
        finally:
            process.kill()  # where a check has failed; its children end with it


def _command(scenario: str, out: Path, overrides: Sequence[str]) -> list[str]:
    settings = [word for override in overrides for word in ("--set", override)]
    return [sys.executable, "-P", "-m", "loadsim", "run", scenario, "--out", str(out), "--ui", "plain", *settings]
