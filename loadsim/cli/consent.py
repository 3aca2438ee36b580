"""A scenario of somebody else names a command: on a terminal it is shown before it is run for the first time.

Owns the list of what was agreed to, one line for each command of each file. Where nobody can be asked, nobody is: what
was run stands in the result in any case.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadsim.cli import shared
from loadsim.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.scenario.sweep import Matrix


def ask(matrix: Matrix, path: Path) -> None:
    """Ask before a command of this file is run for the first time; raises ScenarioError where the answer is no."""
    from loadsim.scenario.toml import shipped_folder

    commands = {tuple(cell.scenario.server.command or ()) for cell in matrix.cells} - {()}
    is_ours = path.resolve().is_relative_to(shipped_folder().resolve())
    if is_ours or not commands or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    agreed = _agreed()
    for command in sorted(commands):
        mark = _mark(path, command)
        if mark in agreed:
            continue
        shown = shared.terminal().printable(shlex.join(command))
        click.echo(f"{click.format_filename(path)} starts this command, with your rights:\n\n    {shown}\n", err=True)
        if not click.confirm("Run it?", err=True):
            raise ScenarioError("nothing was started; --yes runs it without asking")
        _note(mark)


def _mark(path: Path, command: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([str(path.resolve()), *command]).encode()).hexdigest()


def _list() -> Path:
    """Return the file of what was agreed to (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "loadsim" / "commands"


def _agreed() -> set[str]:
    try:
        return set(_list().read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return set()


def _note(mark: str) -> None:
    with contextlib.suppress(OSError):  # then it is asked again
        _list().parent.mkdir(parents=True, exist_ok=True)
        with _list().open("a", encoding="ascii") as file:
            file.write(mark + "\n")
