"""Runs of small scenarios on the real kernel, into a temporary folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from loadsim.commands.output import display
from loadsim.record.result import Bundle
from loadsim.run.conductor import run
from loadsim.run.host import Options
from loadsim.scenario.toml import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loadsim.analysis.summary import Summary
    from loadsim.record.recording import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run: its folder, summary and recording."""

    folder: Path
    summary: Summary
    recording: Recording


def run_scenario(scenario: str, out: Path, *overrides: str) -> Ran:
    """Run a shipped scenario or a file with overrides, and read its result folder."""
    finished = trio.run(run, load(scenario, overrides), Options(out=out, argv=["test"]), display("none"))
    return Ran(folder=finished.folder, summary=finished.summary, recording=Bundle(finished.folder).read())


def write_scenario(folder: Path, text: str) -> str:
    """Write a scenario file and return its path."""
    path = folder / "test.toml"
    path.write_text(f'schema = 1\nname = "test"\n{text}')
    return str(path)


def wait_until(is_true: Callable[[], bool], patience_s: float = 10.0) -> None:
    """Wait until a condition is true, for at most `patience_s`."""
    end = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
