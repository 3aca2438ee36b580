"""Ctrl-C before a command has begun, while it goes on, and after its end: always the exit status that was promised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CHECK = ("check", "healthy")
#: Pressed in a finaliser while a module of the command is imported: Python drops what is raised there.
WHILE_IMPORTING = """
import os, signal, sys
class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
class Finder:
    def find_spec(self, name, *_):
        if name == "loadsim.scenario.plan":
            Finalised()
sys.meta_path.insert(0, Finder())
"""
#: Pressed while a class is created from text, after the command has begun.
WHILE_COMPILING = """
import trio
trio.run = lambda *_: exec("raise KeyboardInterrupt")
"""
#: Pressed when the result has been shown, while the interpreter ends.
AT_THE_END = """
import atexit, os, signal
atexit.register(os.kill, os.getpid(), signal.SIGINT)
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
import builtins
builtins.late = Late()
"""


def press(when: str, folder: Path, *arguments: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command line in which Ctrl-C is pressed at that moment."""
    (folder / "sitecustomize.py").write_text(when)
    return subprocess.run(
        [sys.executable, "-m", "loadsim", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("when", "arguments"),
    [
        pytest.param(WHILE_IMPORTING, CHECK, id="importing"),
        pytest.param(WHILE_COMPILING, ("run", "healthy"), id="compiling"),
    ],
)
def test_it_ends_with_a_sentence_and_its_status(when: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """One press is enough, whatever Python was doing."""
    done = press(when, tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "loadsim: interrupted\n")


def test_what_has_been_shown_stands(tmp_path: Path) -> None:
    """Pressed while the interpreter ends: nothing is left to interrupt, and the status is that of the result."""
    done = press(AT_THE_END, tmp_path, *CHECK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_whoever_is_told_to_ignore_it_does(tmp_path: Path) -> None:
    """As a shell tells its jobs in the background."""
    done = press(WHILE_IMPORTING, tmp_path, *CHECK, ignored=True)
    assert (done.returncode, done.stderr) == (0, "")
