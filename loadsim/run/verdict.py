"""All runs of a verdict: each way, several times, and what they say together.

Owns their order and their folder; one run is the conductor's, what it means is `analysis`'s. A run in which the command
does not come up is data: it refuses to start under that limit.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loadsim.analysis.measure import measure
from loadsim.analysis.observe import observe
from loadsim.analysis.verdict import Observed, Verdict, judge
from loadsim.analysis.view import View
from loadsim.errors import DidNotStartError, EnvironmentRefusedError, RecordingError
from loadsim.kernel.limits import own_nofile
from loadsim.record.bundle import Bundle
from loadsim.record.folder import VERDICT_MARK, Folder, file_name, make_folder, new_folder
from loadsim.report.reproduce import script
from loadsim.run.conductor import run
from loadsim.run.interruption import QuitError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from loadsim.report.progress import Watcher
    from loadsim.run.conductor import Options
    from loadsim.scenario.ways import Trial, Way

FORMAT = 1
#: What a run takes beside its load, about: start of the command, settling, analysis, end of the command.
AROUND_S = 3.0


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
        runs = [dataclasses.asdict(one) for one in self.seen]
        return {"format": FORMAT, "command": self.command, "nofile": self.nofile, "verdict": named, "runs": runs}


async def pass_verdict(
    trial: Trial, options: Options, watcher: Watcher, *, names: Collection[str] = (), repeat: int = 1
) -> Judged:
    """Run a command out of descriptors in these ways, all where none is named, so many times each, and judge it.

    Raises QuitError where a signal ends it, EnvironmentRefusedError where this host cannot, or where the command does
    not even come up with room.
    """
    hard = own_nofile().hard
    if trial.nofile > hard:
        says = f"--nofile {trial.nofile} is above the hard limit of {hard}: raise that (ulimit -Hn), or ask for less"
        raise EnvironmentRefusedError(says)
    trial = replace(trial, roomy=min(trial.roomy, hard))
    command, planned = trial.command, trial.ways(names)
    folder = Folder(new_folder(options.out, f"verdict-{_program(command)}"))
    jobs = [(way, number) for number in range(repeat) for way in planned]
    lengths = [_length_s(way) for way, _ in jobs]
    watcher.begin_sweep(f"verdict on {_program(command)}", len(jobs), sum(lengths))
    seen = []
    for place, (way, number) in enumerate(jobs):
        into = folder.path / "runs" / f"{file_name(way.name)}-{number + 1}"
        one = await _run_one(way, replace(options, folder=make_folder(into)), watcher, trial.exhausted_s)
        watcher.end_run(way.name, "", one.refusal or "seen", left_s=sum(lengths[place + 1 :]))
        seen.append(one)
    if len(planned) > 1 and all(one.refusal is not None for one in seen):
        says = f"no verdict: it does not come up with {trial.roomy} descriptors either. {seen[-1].refusal}"
        raise EnvironmentRefusedError(says)
    seen.sort(key=lambda one: [way.name for way in planned].index(one.way))
    judged = Judged(folder=folder.path, command=list(command), nofile=trial.nofile, verdict=judge(seen), seen=seen)
    by_hand = script(command, nofile=trial.nofile, clients=trial.clients, path=trial.probe.path)
    folder.write_text("reproduce.sh", by_hand)
    folder.write_json(VERDICT_MARK, judged.to_json())
    return judged


def read_verdict(folder: Path) -> Judged:
    """Return a verdict that was saved, judged again from its numbers; raises RecordingError where it is damaged."""
    values = Folder(folder).read_json(VERDICT_MARK)
    try:
        seen = [Observed(**one) for one in values["runs"]]
        return Judged(
            folder=folder, command=list(values["command"]), nofile=values["nofile"], verdict=judge(seen), seen=seen
        )
    except (KeyError, TypeError, IndexError) as error:
        raise RecordingError(f"{folder / VERDICT_MARK}: is damaged ({error!r}); pass the verdict anew") from error


async def _run_one(way: Way, options: Options, watcher: Watcher, exhausted_s: float) -> Observed:
    """Make one run and return what was seen; a command that does not come up is seen to refuse."""
    try:
        finished = await run(way.scenario, options, watcher.begin_run())
    except DidNotStartError as refused:
        return Observed(way=way.name, refusal=str(refused))
    if finished.signal is not None:
        says = f"interrupted: there is no verdict. What was recorded is in {finished.folder.parent.parent}"
        raise QuitError(finished.signal, says)
    view = View.of(Bundle(finished.folder).read())
    return observe(view, measure(view), way=way.name, exhausted_s=exhausted_s)


def _length_s(way: Way) -> float:
    last = way.scenario.timeline.last_s
    return last + (way.scenario.canary.linger if way.scenario.canary else 0.0) + AROUND_S


def _program(command: Sequence[str]) -> str:
    """Return what a command is called: its program, or the module or script that an interpreter runs."""
    words = [word.rpartition("/")[2] for word in command]
    if words[0].startswith("python") and len(words) > 2 and words[1] == "-m":
        return words[2]
    if words[0].startswith(("python", "node", "ruby", "perl")) and len(words) > 1:
        return words[1]
    return words[0]
