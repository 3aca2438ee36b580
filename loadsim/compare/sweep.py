"""The order of a sweep: one run after the other, each saved before the next, and what all of them say together.

Owns which run is next and what a signal means between two of them; a run itself is the conductor's. Nothing that is
decided here needs more than the folder: a sweep that was killed goes on where it was.
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
    """A sweep that has been saved; `signal` is what interrupted it."""

    folder: Path
    gathered: Collected
    signal: signal.Signals | None


def plan_of(matrix: Matrix, min_effect: float = MIN_EFFECT) -> SweepPlan:
    """Return what a sweep is to do, as it is written down."""
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
    """Make the folder of a new sweep; raises ScenarioError where a run of it would go where nobody permitted it."""
    for cell in matrix.cells:
        permit(cell.scenario, options)
    plan = plan_of(matrix, min_effect)
    return SweepFolder.create(options.out, plan, scenario=to_toml(matrix.scenario, matrix), argv=options.argv)


def matrix_of(folder: SweepFolder) -> Matrix:
    """Return what a sweep that goes on plans; raises RecordingError where this loadsim plans it differently."""
    matrix = load_text_matrix(folder.read_scenario(), name=str(folder.path / folder.plan.scenario))
    if plan_of(matrix, folder.plan.min_effect) != folder.plan:
        raise RecordingError(f"{folder.path}: its plan and its scenario do not agree; start the sweep anew")
    return matrix


def find_unfinished(
    run_or_scenario: str, overrides: Sequence[Override], out: Path, *, allow_outside: bool = False
) -> SweepFolder:
    """Return the sweep to go on with: that folder, or the last one of this scenario that was not brought to its end.

    `allow_outside` as in `load_matrix`.
    Raises RecordingError where there is none, and ScenarioError where the scenario is wrong.
    """
    with contextlib.suppress(RecordingError):
        path = find(run_or_scenario, out)
        if is_sweep(path):
            return SweepFolder.open(path)
    matrix = load_matrix(run_or_scenario, overrides, allow_outside=allow_outside)
    asked = to_toml(matrix.scenario, matrix)
    for path in reversed(results(out)):
        with contextlib.suppress(RecordingError):  # a damaged one is no reason not to go on with another
            folder = SweepFolder.open(path)
            if folder.read_scenario() == asked and not _is_done(folder):
                return folder
    raise RecordingError(
        f"no sweep in {out} has these settings and lacks a run; start one: loadsim run {run_or_scenario}"
    )


def _is_done(folder: SweepFolder) -> bool:
    return folder.is_compared() and not folder.missing() and not folder.unreadable()


def lengths_s(matrix: Matrix) -> list[float]:
    """Return about how long one run of each cell takes."""
    plans = make_plans([cell.scenario for cell in matrix.cells], observe_host)
    return [plan.expected_s + AROUND_A_RUN_S for plan in plans]


async def sweep(folder: SweepFolder, matrix: Matrix, options: Options, sweep_display: SweepDisplay) -> Swept:
    """Make all runs that are missing or damaged, and return what all of them say together.

    A run that cannot take place is noted and ends nothing. The first SIGINT or SIGTERM ends the run that goes on, and
    the sweep after it; a second one raises QuitError. Raises EnvironmentRefusedError where another loadsim is at it.
    """
    with folder.locked():
        todo = {*folder.missing(), *folder.unreadable()}
        jobs = [Job(*job) for job in folder.plan.order if job in todo]
        try:
            interrupted = await _make(folder, matrix, jobs, options, sweep_display=sweep_display)
            gathered = collect_sweep(folder)
            write_comparison(folder, gathered.comparison, gathered.run_groups)
        except QuitError as error:
            raise _quit(folder, error.signal) from error
        except KeyboardInterrupt as error:
            raise _quit(folder, signal.SIGINT) from error
    return Swept(folder=folder.path, gathered=gathered, signal=interrupted)


def _quit(folder: SweepFolder, number: signal.Signals) -> QuitError:
    made = some(len(folder.plan.order) - len(folder.missing()), "run")
    return QuitError(number, f"quit; {made} are in {folder.path}; go on: loadsim run {folder.path} --resume")


async def _make(
    folder: SweepFolder, matrix: Matrix, jobs: Sequence[Job], options: Options, *, sweep_display: SweepDisplay
) -> signal.Signals | None:
    """Make these runs one after the other; return the signal that ended them early."""
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
                    await trio.lowlevel.checkpoint()  # a signal of the last moments is heard before the next run
            nursery.cancel_scope.cancel()
    return stop.signal


class _Stop:
    """The signal that ends a sweep: one that came between two runs, or the one that ended a run."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Note what comes while no run takes the signals for itself."""
        async for number in signals:
            self.signal = signal.Signals(number)


async def _run_one(
    folder: SweepFolder, matrix: Matrix, job: Job, options: Options, *, sweep_display: SweepDisplay, left_s: float
) -> signal.Signals | None:
    """Make one run, or note why it cannot take place; return the signal that interrupted it."""
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
