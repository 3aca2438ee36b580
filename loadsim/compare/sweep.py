"""Makes the runs of a sweep one after the other, each saved before the next, and compares them.

Owns the choice of the next run and the effect of a signal between two runs; the conductor makes a run. All decisions
need only the folder, therefore a killed sweep can be resumed.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from loadsim.compare.collect import collect_sweep, is_sweep
from loadsim.compare.compare import MIN_EFFECT
from loadsim.compare.files import write_comparison
from loadsim.compare.folder import SweepFolder, SweepPlan
from loadsim.errors import EnvironmentRefusedError, RecordingError, innermost
from loadsim.record.folder import find, results
from loadsim.run.conductor import run
from loadsim.run.host import observe_host, permit
from loadsim.run.signals import SIGNALS, NotBegunError, QuitError
from loadsim.scenario.plan import make_plans
from loadsim.scenario.sweep import AROUND_A_RUN_S, Job, Matrix, order
from loadsim.scenario.toml import load_matrix, load_text_matrix, to_toml
from loadsim.units import some

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from loadsim.compare.collect import Collected
    from loadsim.render.progress import SweepDisplay
    from loadsim.run.host import Options
    from loadsim.scenario.layers import Override


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A saved sweep; `signal` is the signal that interrupted it."""

    folder: Path
    collected: Collected
    signal: signal.Signals | None


def plan_of(matrix: Matrix, min_effect: float = MIN_EFFECT) -> SweepPlan:
    """Return the plan of a sweep, as it is saved."""
    scenario = matrix.scenario
    return SweepPlan(
        scenario=scenario.name,
        description=scenario.description,
        seed=scenario.seed,
        repeat=matrix.repeat,
        axes=list(matrix.axes),
        labels=[cell.label for cell in matrix.cells],
        values=[cell.values for cell in matrix.cells],
        order=[(job.cell, job.repeat) for job in order(len(matrix.cells), matrix.repeat, seed=scenario.seed)],
        min_effect=min_effect,
    )


def start(matrix: Matrix, options: Options, min_effect: float = MIN_EFFECT) -> SweepFolder:
    """Make the folder of a new sweep; raises ScenarioError if a run has a destination that is not permitted."""
    for cell in matrix.cells:
        permit(cell.scenario, options)
    plan = plan_of(matrix, min_effect)
    return SweepFolder.create(options.out, plan, scenario=to_toml(matrix.scenario, matrix), argv=options.argv)


def matrix_of(folder: SweepFolder) -> Matrix:
    """Return the matrix of a saved sweep; raises RecordingError if this version of loadsim plans it differently."""
    matrix = load_text_matrix(folder.read_scenario(), name=str(folder.path / folder.plan.scenario))
    if plan_of(matrix, folder.plan.min_effect) != folder.plan:
        raise RecordingError(f"{folder.path}: its plan and its scenario do not agree; start a new sweep")
    return matrix


def find_unfinished(
    run_or_scenario: str, overrides: Sequence[Override], out: Path, *, allow_outside: bool = False
) -> SweepFolder:
    """Return the sweep to resume: the named folder, or the last unfinished sweep of this scenario.

    `allow_outside` as in `load_matrix`. Raises RecordingError if there is none, and ScenarioError if the scenario is
    invalid.
    """
    with contextlib.suppress(RecordingError):
        path = find(run_or_scenario, out)
        if is_sweep(path):
            return SweepFolder.open(path)
    matrix = load_matrix(run_or_scenario, overrides, allow_outside=allow_outside)
    wanted = to_toml(matrix.scenario, matrix)
    for path in reversed(results(out)):
        with contextlib.suppress(RecordingError):  # a damaged sweep does not prevent resuming another
            folder = SweepFolder.open(path)
            if folder.read_scenario() == wanted and not _is_done(folder):
                return folder
    raise RecordingError(f"no unfinished sweep in {out} has these settings; start one: loadsim run {run_or_scenario}")


def _is_done(folder: SweepFolder) -> bool:
    return folder.is_compared() and not folder.missing() and not folder.unreadable()


def lengths_s(matrix: Matrix) -> list[float]:
    """Return the expected time of one run of each cell."""
    plans = make_plans([cell.scenario for cell in matrix.cells], observe_host)
    return [plan.expected_s + AROUND_A_RUN_S for plan in plans]


async def sweep(folder: SweepFolder, matrix: Matrix, options: Options, sweep_display: SweepDisplay) -> Swept:
    """Make all missing and damaged runs, and return the comparison of all runs.

    A run that cannot start is recorded, and the sweep continues. The first SIGINT or SIGTERM ends the current run and
    then the sweep; a second one raises QuitError. Raises EnvironmentRefusedError if another loadsim makes these runs.
    """
    with folder.locked():
        todo = {*folder.missing(), *folder.unreadable()}
        jobs = [Job(*job) for job in folder.plan.order if job in todo]
        try:
            interrupted = await _make(folder, matrix, jobs, options, sweep_display=sweep_display)
            collected = collect_sweep(folder)
            write_comparison(folder, collected.comparison, collected.run_groups)
        except QuitError as error:
            raise _quit(folder, error.signal) from error
        except KeyboardInterrupt as error:
            raise _quit(folder, signal.SIGINT) from error
    return Swept(folder=folder.path, collected=collected, signal=interrupted)


def _quit(folder: SweepFolder, number: signal.Signals) -> QuitError:
    made = some(len(folder.plan.order) - len(folder.missing()), "run")
    return QuitError(number, f"quit; {made} saved in {folder.path}; to resume: loadsim run {folder.path} --resume")


async def _make(
    folder: SweepFolder, matrix: Matrix, jobs: Sequence[Job], options: Options, *, sweep_display: SweepDisplay
) -> signal.Signals | None:
    """Make these runs one after the other; return the signal that ended the sweep early."""
    each_s = lengths_s(matrix)
    sweep_display.begin_sweep(folder.plan.scenario, len(jobs), sum(each_s[job.cell] for job in jobs))
    stop = _Stop()
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.listen, signals)
            for number, job in enumerate(jobs, 1):
                if stop.signal is None:
                    left_s = sum(each_s[one.cell] for one in jobs[number:])
                    ended = await _run_one(folder, matrix, job, options, sweep_display=sweep_display, left_s=left_s)
                    stop.signal = stop.signal or ended
                    await trio.lowlevel.checkpoint()  # deliver a late signal before the next run
            nursery.cancel_scope.cancel()
    return stop.signal


class _Stop:
    """The signal that ends a sweep, received during a run or between two runs."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Record signals that arrive between two runs."""
        async for number in signals:
            self.signal = signal.Signals(number)


async def _run_one(
    folder: SweepFolder, matrix: Matrix, job: Job, options: Options, *, sweep_display: SweepDisplay, left_s: float
) -> signal.Signals | None:
    """Make one run, or record why it cannot start; return the signal that interrupted it."""
    label = matrix.cells[job.cell].label
    into = replace(options, folder=folder.begin_run(*job))
    try:
        finished = await run(job.scenario(matrix), into, sweep_display.begin_run())
    except NotBegunError as stopped:
        return stopped.signal
    except (EnvironmentRefusedError, BaseExceptionGroup) as raised:
        error = innermost(raised)
        if not isinstance(error, EnvironmentRefusedError):
            raise
        folder.refuse_run(*job, str(error))
        sweep_display.end_run(label, "REFUSED", str(error), left_s=left_s)
        return None
    sweep_display.end_run(label, finished.summary.status, finished.summary.sentence, left_s=left_s)
    return finished.signal
