"""All runs of a verdict: each way, several times, and what they say together.

Owns their order and their folder; one run is the conductor's, what it means is `analysis`'s. A run in which the command
does not come up is data: it refuses to start under that limit.
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
from loadsim.analysis.measure import measure
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
#: What a run takes beside its load, about: start of the command, settling, analysis, end of the command.
AROUND_S = 3.0
#: How the first client fared that came while there was room, where it got no good answer.
_NOTHING = "got no answer"
_HEARD = {
    Outcome.ERROR: "was answered with an error",
    Outcome.EOF: "was not answered: it closed the connection",
    Outcome.RESET: "was not answered: it reset the connection",
    Outcome.REPLY_TIMEOUT: "was not answered in time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict that has been saved."""

    folder: Path
    command: list[str]
    nofile: int
    verdict: Verdict
    seen: list[Observed]  # of all runs, way by way

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dump."""
        named = {"class": str(self.verdict.class_), **dataclasses.asdict(self.verdict)}
        del named["class_"]
        runs = [{"class": str(classify(one)[0]), **dataclasses.asdict(one)} for one in self.seen]
        return {"format": FORMAT, "command": self.command, "nofile": self.nofile, "verdict": named, "runs": runs}


async def pass_verdict(
    plan: TrialPlan, options: Options, sweep_display: SweepDisplay, *, names: Collection[str] = (), repeat: int = 1
) -> Judged:
    """Run a command out of descriptors in these ways, all where none is named, so many times each, and judge it.

    Raises QuitError where a signal ends it, EnvironmentRefusedError where this host cannot, or where the command does
    not even come up with room.
    """
    hard = own_nofile().hard
    if plan.nofile > hard:
        says = f"--nofile {plan.nofile} is above the hard limit of {hard}: raise that (ulimit -Hn), or ask for less"
        raise EnvironmentRefusedError(says)
    plan = replace(plan, hard=hard)
    planned = plan.trials(names)  # whatever makes no sense is said before anything starts
    command, length_s = plan.command, repeat * sum(map(_length_s, planned))
    folder = Folder(new_folder(options.out, f"verdict-{_program(command)}"))
    sweep_display.begin_sweep(f"verdict on {_program(command)}", 1 + repeat * len(planned), AROUND_S + length_s)
    workers = await _try_with_room(plan, _into(folder, plan.before(), 1, options), sweep_display)
    sweep_display.end_run(BEFORE, "answers", some(workers, "worker"), left_s=length_s)
    plan = replace(plan, workers=workers)
    seen = await _run_all(plan.trials(names), repeat, partial(_into, folder, options=options), sweep_display)
    judged = Judged(folder=folder.path, command=list(command), nofile=plan.nofile, verdict=judge(seen), seen=seen)
    folder.write_text("reproduce.sh", script(plan, Path.cwd(), trial=judged.verdict.trial))
    folder.write_json(VERDICT_MARK, judged.to_json())
    return judged


def _into(folder: Folder, trial: Trial, number: int, options: Options) -> Options:
    """Return the options of one run, with a folder of its own."""
    return replace(options, folder=make_folder(folder.path / "runs" / f"{file_name(trial.name)}-{number}"))


async def _run_all(
    trials: Sequence[Trial], repeat: int, into: Callable[[Trial, int], Options], sweep_display: SweepDisplay
) -> list[Observed]:
    """Make all runs, each way once before any of them a second time; return what was seen, way by way."""
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
    """Return a verdict that was saved, judged again from its numbers; raises RecordingError where it is damaged."""
    path = folder / VERDICT_MARK
    values = Folder(folder).read_json(VERDICT_MARK)
    raise_if_newer(path, values, FORMAT)
    with sound(path):
        if values["format"] == 1:  # a trial was called a way
            values["runs"] = [
                {("trial" if key == "way" else key): one for key, one in run.items()} for run in values["runs"]
            ]
        saved = _saved().validate_json(json.dumps(values), strict=True)
        return Judged(
            folder=folder, command=saved.command, nofile=saved.nofile, verdict=judge(saved.runs), seen=saved.runs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """What is read again of a verdict: its class and grade are judged again."""

    command: list[str]
    nofile: int
    runs: list[Observed]


@functools.cache
def _saved() -> TypeAdapter[_Saved]:
    return TypeAdapter(_Saved)


async def _try_with_room(plan: TrialPlan, options: Options, sweep_display: SweepDisplay) -> int:
    """Ask it once while there is room, and return how many processes accept.

    Raises EnvironmentRefusedError where it does not come up even so, or does not answer: that is not about descriptors.
    """
    try:
        finished = await run(plan.before().scenario, options, sweep_display.begin_run())
    except DidNotStartError as refused:
        says = f"no verdict: it does not come up with {plan.roomy} descriptors either. {refused}"
        raise EnvironmentRefusedError(says) from refused
    _raise_if_interrupted(finished)
    recording = Bundle(finished.folder).read()
    if not (answered := has_outcome(recording.attempts, Outcome.OK)).all() or not len(answered):
        saw = Outcome(int(recording.attempts["outcome"][0])) if len(answered) else Outcome.NOT_STARTED
        raise EnvironmentRefusedError(
            f"no verdict: with room for {plan.roomy} descriptors {plan.probe.asks} {_HEARD.get(saw, _NOTHING)}. "
            "Say how one talks to it: --path PATH, --echo, or --send TEXT --expect TEXT. What it printed: "
            f"{finished.folder}"
        )
    return max(recording.facts.server.workers, 1)


async def _run_one(trial: Trial, options: Options, sweep_display: SweepDisplay) -> Observed:
    """Make one run and return what was seen; a command that does not come up is seen to refuse."""
    try:
        finished = await run(trial.scenario, options, sweep_display.begin_run())
    except DidNotStartError as refused:
        return Observed(trial=trial.name, refusal=str(refused))
    _raise_if_interrupted(finished)
    data = Dataset.of(Bundle(finished.folder).read())
    return observe(data, measure(data), trial=trial.name, exhausted_s=trial.exhausted_s, leaks=trial.name == HANDLER)


def _raise_if_interrupted(finished: Finished) -> None:
    if finished.signal is not None:
        says = f"interrupted: there is no verdict. What was recorded is in {finished.folder.parent.parent}"
        raise QuitError(finished.signal, says)


def _length_s(trial: Trial) -> float:
    last = trial.scenario.timeline.last_s
    return last + (trial.scenario.canary.linger if trial.scenario.canary else 0.0) + AROUND_S


def _program(command: Sequence[str]) -> str:
    """Return what a command is called: its program, or the module or script that an interpreter runs."""
    words = [word.rpartition("/")[2] for word in command]
    if words[0].startswith("python") and len(words) > 2 and words[1] == "-m":
        return words[2]
    if words[0].startswith(("python", "node", "ruby", "perl")) and len(words) > 1:
        return words[1]
    return words[0]
