"""The folder of a sweep: the plan, and a result folder for each run.

    sweep.json                the plan (cells, order, seed) with versions and argv, written before the first run
    scenario.resolved.toml    the first cell and [sweep]: enough to make the plan again
    runs/CELL-NAME-REPEAT/    the result folder of each run; it has only refused.txt if the run could not start
    runs/*.cut-N/             incomplete runs that were set aside when the sweep was resumed
    comparison.json           the comparison of all runs
    report.html summary.md junit.xml      derived from it; they can be regenerated

Only the folder of a run decides whether that run is complete. Nothing else is written between runs, therefore a sweep
can be killed at any moment. comparison.json is the last file of a finished sweep. A process that makes runs holds a
lock on the folder. Does not know the meaning of a run.
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
    """The plan of a sweep as plain values."""

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
        """Raise ValueError if the parts do not fit together: the file may be damaged."""
        if not (math.isfinite(self.min_effect) and 0 <= self.min_effect <= 1):
            raise ValueError("its smallest effect is not between 0 and 1")
        cells, runs = len(self.labels), len(self.order)
        if len(self.values) != cells or cells * self.repeat != runs or len(set(self.order)) != runs:
            raise ValueError("its order does not fit its cells")
        if runs > MOST_RUNS:
            raise ValueError(f"it has {runs:,} runs, more than the maximum of {MOST_RUNS:,}")
        if any(not (0 <= cell < cells and 0 <= repeat < self.repeat) for cell, repeat in self.order):
            raise ValueError("its order does not fit its cells")
        if any(set(one) != set(self.axes) for one in self.values):
            raise ValueError("its cells do not have values for the swept settings")


_PLAN = TypeAdapter(SweepPlan)


class SweepFolder(Folder):
    """One sweep."""

    def __init__(self, path: Path, plan: SweepPlan) -> None:
        super().__init__(path)
        self.plan = plan

    @classmethod
    def create(cls, out: Path, plan: SweepPlan, *, scenario: str, argv: Sequence[str]) -> Self:
        """Make the folder and write the plan; `scenario` is the text of the resolved file.

        Raises EnvironmentRefusedError if the folder cannot be made.
        """
        folder = cls(new_folder(out, plan.scenario), plan)
        folder.write_text(_SCENARIO, scenario)
        folder.write_json(SWEEP_MARK, {"format": FORMAT, "loadsim": __version__, "argv": list(argv), **asdict(plan)})
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the plan of a sweep; raises RecordingError if it is missing, damaged or of a newer format."""
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
        """Lock the folder for making runs; raises EnvironmentRefusedError if another process holds the lock."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                os.close(directory)
                message = f"{self.path}: another loadsim is making its runs; wait for it, or end it with Ctrl-C"
                raise EnvironmentRefusedError(message) from error
        try:
            yield
        finally:
            os.close(directory)

    def read_scenario(self) -> str:
        """Return the text of the resolved scenario; raises RecordingError if it cannot be read."""
        try:
            return read_text(self.path / _SCENARIO)
        except (OSError, ValueError) as error:
            raise RecordingError(f"{self.path / _SCENARIO}: cannot be read ({error}); start a new sweep") from error

    def run_name(self, cell: int, repeat: int) -> str:
        """Return the folder of a run, relative to this one: "runs/03-backlog-128-2"."""
        return run_name(self.plan.labels[cell], cell, repeat)

    def begin_run(self, cell: int, repeat: int) -> Path:
        """Make the folder of a run. An incomplete result in it is set aside; without a result the folder is removed."""
        (self.path / _COMPARISON).unlink(missing_ok=True)  # it does not include this run
        path = self.path / self.run_name(cell, repeat)
        if path.exists() and not (path / RESULT_MARK).exists():
            shutil.rmtree(path)
        elif path.exists():
            aside = (path.with_name(f"{path.name}.cut-{number}") for number in itertools.count(1))
            path.rename(next(other for other in aside if not other.exists()))
        return make_folder(path)

    def refuse_run(self, cell: int, repeat: int, reason: str) -> None:
        """Write into the folder of a run why it could not start."""
        Folder(self.path / self.run_name(cell, repeat)).write_text(_REFUSED, reason + "\n")

    def is_complete(self, cell: int, repeat: int) -> bool:
        """Return whether this run ended as planned or by an `abort`, and has a summary."""
        return is_complete(self.path / self.run_name(cell, repeat))

    def refusal(self, cell: int, repeat: int) -> str | None:
        """Return why this run could not start; None if it was not refused."""
        try:
            return read_text(self.path / self.run_name(cell, repeat) / _REFUSED).strip()
        except (OSError, ValueError):
            return None

    def complete_runs(self, cell: int) -> list[str]:
        """Return the folders of a cell's complete runs, relative to this one."""
        repeats = range(self.plan.repeat)
        return [self.run_name(cell, repeat) for repeat in repeats if self.is_complete(cell, repeat)]

    def missing(self) -> list[tuple[int, int]]:
        """Return the runs that are not complete, including refused ones, in the planned order."""
        return [job for job in self.plan.order if not self.is_complete(*job)]

    def unreadable(self) -> list[tuple[int, int]]:
        """Return the complete runs with damaged records, in the planned order."""
        return [job for job in self.plan.order if self.is_complete(*job) and not self._is_readable(*job)]

    def is_compared(self) -> bool:
        """Return whether comparison.json was written."""
        return (self.path / _COMPARISON).exists()

    def write_comparison(self, values: Any) -> None:  # noqa: ANN401 -- any value that json.dumps accepts
        """Write comparison.json, the last file of a finished sweep."""
        self.write_json(_COMPARISON, values)

    def _is_readable(self, cell: int, repeat: int) -> bool:
        try:
            Bundle(self.path / self.run_name(cell, repeat)).read()
        except RecordingError:
            return False
        return True
