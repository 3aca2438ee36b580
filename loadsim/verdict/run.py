"""All runs of a verdict: every trial, repeated, and the verdict that follows from them.

Owns the order of the runs and the folder of the verdict; the conductor makes each run. A command that does not start
under the limit is a result, not an error.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.metrics import measure
from loadsim.errors import DidNotStartError, EnvironmentRefusedError
from loadsim.fates import Outcome
from loadsim.kernel.limits import own_nofile
from loadsim.record.folder import VERDICT_MARK, Folder, file_name, make_folder, new_folder, raise_if_newer, sound
from loadsim.record.recording import has_outcome
from loadsim.record.result import Bundle
from loadsim.run.conductor import run
from loadsim.run.signals import QuitError
from loadsim.units import some
from loadsim.verdict.classify import Observed, Verdict, classify, judge
from loadsim.verdict.observe import observe
from loadsim.verdict.reproduce import script
from loadsim.verdict.trials import BEFORE, HANDLER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from loadsim.render.progress import SweepDisplay
    from loadsim.run.conductor import Finished
    from loadsim.run.host import Options
    from loadsim.verdict.trials import Trial, TrialPlan

FORMAT = 2
#: About the time that a run takes beside its load: start of the command, settling, analysis, end of the command.
AROUND_S = 3.0
#: How the server treated the first client, which it did not serve although descriptors were free.
_NO_ANSWER = "got no answer"
_BAD_ANSWERS = {
    Outcome.ERROR: "was answered with an error",
    Outcome.EOF: "was not answered: the server closed the connection",
    Outcome.RESET: "was not answered: the server reset the connection",
    Outcome.REPLY_TIMEOUT: "was not answered in time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict that has been saved."""

    folder: Path
    command: list[str]
    nofile: int
    verdict: Verdict
    seen: list[Observed]  # of all runs, trial by trial

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dump."""
        named = {"class": str(self.verdict.class_), **dataclasses.asdict(self.verdict)}
        del named["class_"]
        runs = [{"class": str(classify(one)[0]), **dataclasses.asdict(one)} for one in self.seen]
        return {"format": FORMAT, "command": self.command, "nofile": self.nofile, "verdict": named, "runs": runs}


async def pass_verdict(
    plan: TrialPlan, options: Options, sweep_display: SweepDisplay, *, names: Collection[str] = (), repeat: int = 1
) -> Judged:
    """Exhaust the descriptors of a command in these trials (all if none is named), and save the verdict.

    Each trial runs `repeat` times. Raises QuitError after a signal, and EnvironmentRefusedError where this host cannot
    run the trials or the command does not work even with enough descriptors.
    """
    hard = own_nofile().hard
    if plan.nofile > hard:
        raise EnvironmentRefusedError(
            f"--nofile {plan.nofile} is above the hard limit of {hard}: raise the hard limit (ulimit -Hn), or lower "
            "--nofile"
        )
    plan = replace(plan, hard=hard)
    planned = plan.trials(names)  # raises for settings that make no sense before anything starts
    command, length_s = plan.command, repeat * sum(map(_length_s, planned))
    folder = Folder(new_folder(options.out, f"verdict-{_program(command)}"))
    sweep_display.begin_sweep(f"verdict on {_program(command)}", 1 + repeat * len(planned), AROUND_S + length_s)
    workers = await _check_with_enough(plan, _into(folder, plan.before(), 1, options), sweep_display)
    sweep_display.end_run(BEFORE, "answers", some(workers, "worker"), left_s=length_s)
    plan = replace(plan, workers=workers)
    seen = await _run_all(plan.trials(names), repeat, partial(_into, folder, options=options), sweep_display)
    judged = Judged(folder=folder.path, command=list(command), nofile=plan.nofile, verdict=judge(seen), seen=seen)
    folder.write_text("reproduce.sh", script(plan, Path.cwd(), trial=judged.verdict.trial))
    folder.write_json(VERDICT_MARK, judged.to_json())
    return judged


def _into(folder: Folder, trial: Trial, number: int, options: Options) -> Options:
    return replace(options, folder=make_folder(folder.path / "runs" / f"{file_name(trial.name)}-{number}"))


async def _run_all(
    trials: Sequence[Trial], repeat: int, into: Callable[[Trial, int], Options], sweep_display: SweepDisplay
) -> list[Observed]:
    """Make all runs, each trial once before any of them a second time; return their numbers trial by trial."""
    jobs = [(trial, number) for number in range(1, repeat + 1) for trial in trials]
    lengths = [_length_s(trial) for trial, _ in jobs]
    seen: dict[str, list[Observed]] = {trial.name: [] for trial in trials}
    for place, (trial, number) in enumerate(jobs, start=1):
        one = await _run_one(trial, into(trial, number), sweep_display)
        class_, because = classify(one)
        sweep_display.end_run(trial.name, class_, because, left_s=sum(lengths[place:]))
        seen[trial.name].append(one)
    return [one for runs in seen.values() for one in runs]


def read_verdict(folder: Path) -> Judged:
    """Return a saved verdict, judged again from the numbers of its runs; raises RecordingError where it is damaged."""
    path = folder / VERDICT_MARK
    values = Folder(folder).read_json(VERDICT_MARK)
    raise_if_newer(path, values, FORMAT)
    with sound(path):
        if values["format"] == 1:  # which called a trial "way"
            values["runs"] = [
                {("trial" if key == "way" else key): one for key, one in run.items()} for run in values["runs"]
            ]
        saved = _saved().validate_json(json.dumps(values), strict=True)
        return Judged(
            folder=folder, command=saved.command, nofile=saved.nofile, verdict=judge(saved.runs), seen=saved.runs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """The parts of verdict.json that are read again; class and grade are computed from them."""

    command: list[str]
    nofile: int
    runs: list[Observed]


@functools.cache
def _saved() -> TypeAdapter[_Saved]:
    return TypeAdapter(_Saved)


async def _check_with_enough(plan: TrialPlan, options: Options, sweep_display: SweepDisplay) -> int:
    """Send one request while descriptors are free, and return how many processes accept.

    Raises EnvironmentRefusedError for a command that does not start or does not answer even then: its descriptors are
    not the cause.
    """
    try:
        finished = await run(plan.before().scenario, options, sweep_display.begin_run())
    except DidNotStartError as refused:
        says = f"no verdict: the command does not start with {plan.roomy} descriptors either. {refused}"
        raise EnvironmentRefusedError(says) from refused
    _raise_if_interrupted(finished)
    recording = Bundle(finished.folder).read()
    if not (answered := has_outcome(recording.attempts, Outcome.OK)).all() or not len(answered):
        saw = Outcome(int(recording.attempts["outcome"][0])) if len(answered) else Outcome.NOT_STARTED
        raise EnvironmentRefusedError(
            f"no verdict: with {plan.roomy} descriptors, {plan.probe.request} {_BAD_ANSWERS.get(saw, _NO_ANSWER)}. "
            "Tell loadsim how to talk to it: --path PATH, --echo, or --send TEXT --expect TEXT. Its output is in "
            f"{finished.folder}"
        )
    return max(recording.facts.server.workers, 1)


async def _run_one(trial: Trial, options: Options, sweep_display: SweepDisplay) -> Observed:
    """Make one run and return its numbers; for a command that does not start they are only the reason."""
    try:
        finished = await run(trial.scenario, options, sweep_display.begin_run())
    except DidNotStartError as refused:
        return Observed(trial=trial.name, refusal=str(refused))
    _raise_if_interrupted(finished)
    data = Dataset.of(Bundle(finished.folder).read())
    return observe(data, measure(data), trial=trial.name, exhausted_s=trial.exhausted_s, leaks=trial.name == HANDLER)


def _raise_if_interrupted(finished: Finished) -> None:
    if finished.signal is not None:
        says = f"interrupted: there is no verdict. The runs so far are in {finished.folder.parent.parent}"
        raise QuitError(finished.signal, says)


def _length_s(trial: Trial) -> float:
    last = trial.scenario.timeline.last_s
    return last + (trial.scenario.canary.linger if trial.scenario.canary else 0.0) + AROUND_S


def _program(command: Sequence[str]) -> str:
    """Return the name of a command: its program, or the module or script that an interpreter runs."""
    words = [word.rpartition("/")[2] for word in command]
    if words[0].startswith("python") and len(words) > 2 and words[1] == "-m":
        return words[2]
    if words[0].startswith(("python", "node", "ruby", "perl")) and len(words) > 1:
        return words[1]
    return words[0]
