"""Ctrl-C before, during and after a command always gives the documented exit status."""

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
#: Pressed in a finaliser during an import of the command: Python drops an exception that is raised there.
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
#: Pressed after the result was printed, while the interpreter ends.
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "arguments"),
    [
        pytest.param(WHILE_IMPORTING, CHECK, id="importing"),
        pytest.param(WHILE_COMPILING, ("run", "healthy"), id="compiling"),
    ],
)
def test_it_ends_with_a_sentence_and_its_status(when: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """One press is enough at any point of the start."""
    done = press(when, tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "loadsim: interrupted\n")


def test_it_is_ignored_after_the_result(tmp_path: Path) -> None:
    """While the interpreter ends, the status stays that of the result."""
    done = press(AT_THE_END, tmp_path, *CHECK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """A shell starts its background jobs in this way."""
    done = press(WHILE_IMPORTING, tmp_path, *CHECK, ignored=True)
    assert (done.returncode, done.stderr) == (0, "")
