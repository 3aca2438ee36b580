"""The folder of a sweep: what was planned, and a result folder for each run of it.

    sweep.json                the plan (cells, order, seed) with versions and argv: written before the first run
    scenario.resolved.toml    the first cell and [sweep]: all that is needed to plan it again
    runs/CELL-NAME-REPEAT/    the result folder of each run (`bundle`); .../refused.txt instead: it could not take place
    runs/*.cut-N/             runs that were cut off, kept aside when the sweep went on
    comparison.json           what analysis made of all of them
    report.html summary.md junit.xml      made from that, and made again at any time

A run is complete when its folder says so: nothing else is written while a sweep goes on, so that it can be killed at
any moment; comparison.json is the last file of one that ended. Whoever makes runs holds the folder locked. Must not
know what a run means.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import math
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter, ValidationError

from loadsim import __version__
from loadsim.errors import EnvironmentRefusedError, RecordingError
from loadsim.record.folder import (
    MOST_RUNS,
    RESULT_MARK,
    SWEEP_MARK,
    Folder,
    is_complete,
    make_folder,
    new_folder,
    raise_if_newer,
    read_text,
    run_name,
)
from loadsim.record.result import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FORMAT = 1
_REFUSED = "refused.txt"
_SCENARIO = "scenario.resolved.toml"
_COMPARISON = "comparison.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep is to do, as plain values."""

    scenario: str
    description: str
    seed: int
    repeat: int
    axes: list[str]  # swept keys
    labels: list[str]  # of each cell
    values: list[dict[str, bool | int | float | str | None]]  # of each cell: swept key -> value, as in a summary
    order: list[tuple[int, int]]  # cell and repeat of each run, both from 0
    min_effect: float

    def __post_init__(self) -> None:
        """Raise ValueError where the parts do not fit together: a file may have been damaged."""
        if not (math.isfinite(self.min_effect) and 0 <= self.min_effect <= 1):
            raise ValueError("its smallest effect is no share")
        cells, runs = len(self.labels), len(self.order)
        if len(self.values) != cells or cells * self.repeat != runs or len(set(self.order)) != runs:
            raise ValueError("its order does not fit its cells")
        if runs > MOST_RUNS:
            raise ValueError(f"it has {runs:,} runs, and {MOST_RUNS:,} are the most")
        if any(not (0 <= cell < cells and 0 <= repeat < self.repeat) for cell, repeat in self.order):
            raise ValueError("its order does not fit its cells")
        if any(set(one) != set(self.axes) for one in self.values):
            raise ValueError("its cells do not have the values that are swept")


_PLAN = TypeAdapter(SweepPlan)


class SweepFolder(Folder):
    """One sweep."""

    def __init__(self, path: Path, plan: SweepPlan) -> None:
        super().__init__(path)
        self.plan = plan

    @classmethod
    def create(cls, out: Path, plan: SweepPlan, *, scenario: str, argv: Sequence[str]) -> Self:
        """Make the folder and write the plan; `scenario` is the resolved file. Raises EnvironmentRefusedError."""
        folder = cls(new_folder(out, plan.scenario), plan)
        folder.write_text(_SCENARIO, scenario)
        folder.write_json(SWEEP_MARK, {"format": FORMAT, "loadsim": __version__, "argv": list(argv), **asdict(plan)})
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the plan of a sweep; raises RecordingError where it is missing, damaged or of a newer format."""
        values = Folder(path).read_json(SWEEP_MARK)
        raise_if_newer(path, values, FORMAT)
        try:
            return cls(path, _PLAN.validate_json(json.dumps(values), strict=True))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "as a whole"
            raise RecordingError(f"{path / SWEEP_MARK}: is damaged ({where}: {first['msg']})") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from making runs in this folder; raises EnvironmentRefusedError where somebody does."""
        held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                os.close(held)
                says = f"{self.path}: another loadsim is making its runs; wait for it, or end that one with Ctrl-C"
                raise EnvironmentRefusedError(says) from error
        try:
            yield
        finally:
            os.close(held)

    def read_scenario(self) -> str:
        """Return the resolved file; raises RecordingError where it cannot be read."""
        try:
            return read_text(self.path / _SCENARIO)
        except (OSError, ValueError) as error:
            raise RecordingError(f"{self.path / _SCENARIO}: cannot be read ({error}); start the sweep anew") from error

    def run_name(self, cell: int, repeat: int) -> str:
        """Return the folder of a run, relative to this one: "runs/03-backlog-128-2"."""
        return run_name(self.plan.labels[cell], cell, repeat)

    def begin_run(self, cell: int, repeat: int) -> Path:
        """Make the folder of a run; what was cut off in it is kept aside, an earlier refusal or start forgotten."""
        (self.path / _COMPARISON).unlink(missing_ok=True)  # it does not know this run
        path = self.path / self.run_name(cell, repeat)
        if path.exists() and not (path / RESULT_MARK).exists():
            shutil.rmtree(path)
        elif path.exists():
            aside = (path.with_name(f"{path.name}.cut-{number}") for number in itertools.count(1))
            path.rename(next(other for other in aside if not other.exists()))
        return make_folder(path)

    def refuse_run(self, cell: int, repeat: int, reason: str) -> None:
        """Note why a run could not take place, in its folder."""
        Folder(self.path / self.run_name(cell, repeat)).write_text(_REFUSED, reason + "\n")

    def is_complete(self, cell: int, repeat: int) -> bool:
        """Return whether this run ended as planned or by an `abort`, and has a summary."""
        return is_complete(self.path / self.run_name(cell, repeat))

    def refusal(self, cell: int, repeat: int) -> str | None:
        """Return why this run could not take place; None where nothing says so."""
        try:
            return read_text(self.path / self.run_name(cell, repeat) / _REFUSED).strip()
        except (OSError, ValueError):
            return None

    def complete_runs(self, cell: int) -> list[str]:
        """Return the folders of a cell's complete runs, relative to this one."""
        repeats = range(self.plan.repeat)
        return [self.run_name(cell, repeat) for repeat in repeats if self.is_complete(cell, repeat)]

    def missing(self) -> list[tuple[int, int]]:
        """Return the runs that are still to be made, in the planned order; those that were refused among them."""
        return [job for job in self.plan.order if not self.is_complete(*job)]

    def unreadable(self) -> list[tuple[int, int]]:
        """Return the runs that are complete but whose records are damaged, in the planned order."""
        return [job for job in self.plan.order if self.is_complete(*job) and not self._is_readable(*job)]

    def is_compared(self) -> bool:
        """Return whether it was written down what all runs say together."""
        return (self.path / _COMPARISON).exists()

    def write_comparison(self, values: Any) -> None:  # noqa: ANN401 -- whatever json.dumps takes
        """Write what all runs say together: the last file of a sweep that has ended."""
        self.write_json(_COMPARISON, values)

    def _is_readable(self, cell: int, repeat: int) -> bool:
        try:
            Bundle(self.path / self.run_name(cell, repeat)).read()
        except RecordingError:
            return False
        return True
