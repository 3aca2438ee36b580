"""Options of several commands, the types of their values with their shell completion, and the user's consent.

Consent: on a terminal, a command named in a scenario file is shown before it runs for the first time. The list of
approved commands has one line for each command of each file. Without a terminal nothing is asked; the result records
the command in any case.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from loadsim.commands import output
from loadsim.errors import RecordingError, ScenarioError
from loadsim.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadsim.scenario.sweep import Matrix

_RESULTS = Path("results")


class Command(click.Command):
    """A command with exit statuses and examples at the end of its help, after the options."""

    def __init__(self, name: str, *, help: str, **attributes: Any) -> None:  # noqa: A002, ANN401 -- as click has them
        text, mark, end = inspect.cleandoc(help).partition("\b\nExit status:")
        super().__init__(name, help=text, epilog=mark + end, **attributes)


class Duration(click.ParamType):  # type: ignore[type-arg]  # only the newest click has one
    """A time with its unit, as in a scenario; a command gets seconds."""

    name = "duration"

    def __init__(self, least: str = "0s", most: str | None = None) -> None:
        self._least = least
        self._most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds of "10s" or "250ms"; a number without a unit is an error that names the fix."""
        text = str(value).strip()
        try:
            seconds = parse_duration(text)
        except ValueError:
            if text.replace(".", "", 1).isdecimal():
                self.fail(f"{text} has no unit: write {text}s, or another unit (ms, min, h).", param, ctx)
            self.fail(f'"{text}" is not a duration: write a number with a unit, such as 10s or 250ms.', param, ctx)
        most = math.inf if self._most is None else parse_duration(self._most)
        if not parse_duration(self._least) <= seconds <= most:
            bounds = f"at least {self._least}" if self._most is None else f"from {self._least} to {self._most}"
            self.fail(f"{text} is out of range: write a duration {bounds}.", param, ctx)
        return seconds


class ScenarioName(click.ParamType):  # type: ignore[type-arg]  # only the newest click has one
    """A scenario: a file or the name of a shipped one; with --resume also the folder of a sweep."""

    name = "scenario"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 -- click's signature
        """Return the shipped scenarios, and a request for files."""
        from loadsim.scenario.shipped import shipped_paths

        sweeps = _result_names(ctx) if ctx.params.get("resume") else []
        names = [*sweeps, *(path.stem for path in shipped_paths())]
        return [*_starting(names, incomplete), CompletionItem(incomplete, type="file")]


class ResultName(click.ParamType):  # type: ignore[type-arg]  # only the newest click has one
    """A result: a folder, a unique prefix of its name, or "latest"."""

    name = "run"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 -- click's signature
        """Return the results in --out, the newest first, and a request for folders."""
        return [*_starting(_result_names(ctx), incomplete), CompletionItem(incomplete, type="dir")]


class ExplainedName(click.ParamType):  # type: ignore[type-arg]  # only the newest click has one
    """The id of a finding, fate, outcome or metric."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 -- click's signature
        """Return the matching ids."""
        from loadsim.analysis.findings.registry import ids

        return _starting(ids(), incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _result_names(ctx: click.Context) -> list[str]:
    from loadsim.record.folder import LATEST, results

    try:
        names = [path.name for path in results(ctx.params.get("out") or _RESULTS)]
    except RecordingError:  # a folder that cannot be read has nothing to complete
        return []
    return [LATEST, *reversed(names)] if names else []


def _a_number(_: click.Context, __: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is not a number: write a fraction from 0 to 1, such as 0.05.")
    return value


OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=_RESULTS,
    show_default=True,
    help="The folder that holds the result folders.",
)
SET = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, for example --set server.backlog=8. An empty value removes the setting; values separated "
    "by commas are swept (server.backlog=8,128). May be repeated.",
)
SET_ONE = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, for example --set server.backlog=8. An empty value removes the setting. May be repeated.",
)
REPEAT = click.option("--repeat", type=click.IntRange(1, 1000), help="Runs per cell of a sweep.")
ALLOW_OUTSIDE = click.option(
    "--allow-outside", is_flag=True, help="Allow SCENARIO to extend files outside its own folder."
)
MIN_EFFECT = click.option(
    "--min-effect",
    callback=_a_number,
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="The smallest relative difference that matters.",
)
UI = click.option(
    "--ui",
    type=click.Choice(["auto", "live", "plain", "none"]),
    default="auto",
    show_default=True,
    help="How progress is shown. auto is live on a terminal and plain lines elsewhere.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def ask(matrix: Matrix, path: Path) -> None:
    """Ask before a command of this file runs for the first time; raises ScenarioError after a no."""
    from loadsim.scenario.shipped import shipped_folder

    commands = {tuple(cell.scenario.server.command or ()) for cell in matrix.cells} - {()}
    is_ours = path.resolve().is_relative_to(shipped_folder().resolve())
    if is_ours or not commands or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    approved = _approved()
    for command in sorted(commands):
        mark = _mark(path, command)
        if mark in approved:
            continue
        shown = output.terminal().printable(shlex.join(command))
        click.echo(f"{click.format_filename(path)} starts this command with your rights:\n\n    {shown}\n", err=True)
        if not click.confirm("Run it?", err=True):
            raise ScenarioError("nothing was started; --yes runs the command without this question")
        _approve(mark)


def _mark(path: Path, command: Sequence[str]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps([str(path.resolve()), *command]).encode()).hexdigest()


def _list() -> Path:
    """Return the file of approved commands (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "loadsim" / "commands"


def _approved() -> set[str]:
    try:
        return set(_list().read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return set()


def _approve(mark: str) -> None:
    with contextlib.suppress(OSError):  # then the question is asked again
        _list().parent.mkdir(parents=True, exist_ok=True)
        with _list().open("a", encoding="ascii") as file:
            file.write(mark + "\n")
