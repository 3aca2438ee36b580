"""Runs for the tests that use the real kernel: small scenarios, in namespaces of their own, into a temporary folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from loadsim.commands.output import display
from loadsim.record.result import Bundle
from loadsim.run.conductor import run
from loadsim.run.host import Options
from loadsim.scenario.toml import load

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.analysis.summary import Summary
    from loadsim.record.recording import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run: what was recorded and what it means."""

    folder: Path
    summary: Summary
    recording: Recording


def run_scenario(scenario: str, out: Path, *overrides: str) -> Ran:
    """Run a shipped scenario or a file with overrides, and read it back from its folder."""
    finished = trio.run(run, load(scenario, overrides), Options(out=out, argv=["test"]), display("none"))
    return Ran(folder=finished.folder, summary=finished.summary, recording=Bundle(finished.folder).read())


def write_scenario(folder: Path, text: str) -> str:
    """Write a scenario file and return its path."""
    path = folder / "test.toml"
    path.write_text(f'schema = 1\nname = "test"\n{text}')
    return str(path)
