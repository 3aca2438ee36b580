"""Runs of random scenarios on the command line, and the differences of their results from the oracle."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import oracle_known
from oracle_bounds import Bounds, exactly
from oracle_findings import contradictions, unexplained
from oracle_metrics import expected
from oracle_records import read
from oracle_scenarios import scenario
from oracle_tables import tables_of

if TYPE_CHECKING:
    from pathlib import Path

    from oracle_records import Recorded

#: Exit statuses of a completed run: as expected, and with a failed threshold.
_COMPLETED = (0, 99)
_LONGEST_S = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One number of a result that the oracle does not confirm."""

    metric: str
    shown: float | None  # in summary.json or the report; None: absent
    bounds: Bounds | None  # from the records; None: it must be absent

    def __str__(self) -> str:
        shown = "absent" if self.shown is None else f"{self.shown:.6g}"
        return f"{self.metric} is {shown}, the records say {'absent' if self.bounds is None else self.bounds}"


def run(seed: int, number: int, out: Path) -> Recorded:
    """Run one random scenario with all its files in one folder, and read its result."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "scenario.toml"
    path.write_text(scenario(seed, number))
    return run_file(path, out)


def run_file(path: Path, out: Path) -> Recorded:
    """Run a scenario file and read its result; raises AssertionError for a run without a result."""
    command = [sys.executable, "-P", "-m", "loadsim", "run", str(path), "--out", str(out), "--ui", "none"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_LONGEST_S)
    assert ran.returncode in _COMPLETED, f"exit status {ran.returncode}: {ran.stderr}\n{path.read_text()}"
    (out / "report.txt").write_text(ran.stdout)
    return read((out / "latest").resolve(), ran.stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The differences of one result: new ones, and known ones with their reasons."""

    new: list[str] = field(default_factory=list)
    known: list[tuple[str, str]] = field(default_factory=list)  # reason, line


def checked(recorded: Recorded) -> Checked:
    """Return the differences of a result, in its numbers, its findings, and the numbers in their sentences."""
    result = Checked()
    for one in differences(recorded):
        _add(result, str(one), _why_known(one, recorded))
    for line in contradictions(recorded):
        _add(result, line, oracle_known.why_known(line, oracle_known.CONTRADICTIONS))
    for line in unexplained(recorded):
        _add(result, line, oracle_known.why_known(line, oracle_known.SENTENCES))
    return result


def _add(result: Checked, line: str, why: str | None) -> None:
    if why is None:
        result.new.append(line)
    else:
        result.known.append((why, line))


def _why_known(one: Difference, recorded: Recorded) -> str | None:
    covering = (known for known in oracle_known.NUMBERS if known.covers(one.metric, one.shown, one.bounds, recorded))
    return next((known.why for known in covering), None)


def differences(recorded: Recorded) -> list[Difference]:
    """Return the numbers of a result that do not follow from its records."""
    found = []
    truth = expected(recorded)
    for name, bounds in truth.items():
        shown = recorded.metrics.get(name)
        if shown is None if bounds is None else bounds.holds(shown):
            continue
        found.append(Difference(metric=name, shown=shown, bounds=bounds))
    unknown = recorded.metrics.keys() - truth.keys()
    found += [Difference(metric=name, shown=recorded.metrics[name], bounds=None) for name in sorted(unknown)]
    for name, shown, true in tables_of(recorded):
        bounds = true if true is None or isinstance(true, Bounds) else exactly(true)
        if not (shown is None if bounds is None else bounds.holds(shown)):
            found.append(Difference(metric=name, shown=shown, bounds=bounds))
    return found
