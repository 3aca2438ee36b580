"""On a terminal, the command of a scenario is shown before its first run; elsewhere no question is asked."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

SCENARIO = """
schema = 1
name = "theirs"
[server]
command = ["sh", "-c", "echo \\u001b[2J >> {mark}", "{{port}}"]
[client]
rate = "1/s"
attempts = 1
"""


class Terminal:
    """Runs `loadsim run` on its own terminal."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "started"
        self._scenario = folder / "theirs.toml"
        self._scenario.write_text(SCENARIO.format(mark=self.mark))
        self._folder = folder

    def run(self, *options: str, answer: str = "", scenario: Path | None = None) -> tuple[int, str]:
        """Return the exit status and the output of the terminal."""
        ours, theirs = pty.openpty()
        named = str(scenario or self._scenario)
        command = [sys.executable, "-m", "loadsim", "run", named, "--out", str(self._folder / "out")]
        environment = {**os.environ, "XDG_STATE_HOME": str(self._folder), "TERM": "dumb", "COLUMNS": "200"}
        with subprocess.Popen(
            [*command, *options], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        ) as process:
            os.close(theirs)
            os.write(ours, answer.encode())
            shown = b""
            while piece := _read(ours):
                shown += piece
            os.close(ours)
            return process.wait(timeout=30), shown.decode()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65_536)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Return a terminal, and a scenario with a command that only leaves a mark."""
    return Terminal(tmp_path)


def test_no_starts_nothing(terminal: Terminal) -> None:
    """The command is shown with its escape sequences made harmless, and not started."""
    code, shown = terminal.run(answer="n\n")

    assert code == 2
    assert "starts this command with your rights" in shown
    assert "nothing was started; --yes runs the command without this question" in shown
    assert "\x1b[2J" not in shown
    assert not terminal.mark.exists()


def test_the_question_is_asked_once(terminal: Terminal) -> None:
    """The second run of the same command of the same file is not preceded by a question."""
    first, asked = terminal.run(answer="y\n")
    second, unasked = terminal.run()

    assert (first, second) == (3, 3)
    assert "Run it?" in asked
    assert "Run it?" not in unasked
    assert len(terminal.mark.read_text().splitlines()) == 2


def test_consent_on_the_command_line_skips_the_question(terminal: Terminal) -> None:
    """Consent is --yes, or the command itself."""
    assert "Run it?" not in terminal.run("--yes")[1]
    assert "Run it?" not in terminal.run("--", "true", "{port}")[1]


def test_a_resumed_sweep_asks_too(terminal: Terminal, tmp_path: Path) -> None:
    """The command comes from its folder, not from the command line."""
    begin = [sys.executable, "-m", "loadsim", "run", str(tmp_path / "theirs.toml"), "--out", str(tmp_path / "out")]
    subprocess.run([*begin, "--repeat", "2"], capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    [sweep] = [path for path in (tmp_path / "out").iterdir() if not path.is_symlink()]
    terminal.mark.unlink()

    for options in ((), ("--", "true", "{port}")):
        code, shown = terminal.run("--resume", *options, answer="n\n", scenario=sweep)
        assert (code, "starts this command with your rights" in shown) == (2, True)
        assert not terminal.mark.exists()


def test_without_a_terminal_no_question_is_asked(terminal: Terminal, tmp_path: Path) -> None:
    """A question would stop a script."""
    command = [sys.executable, "-m", "loadsim", "run", str(tmp_path / "theirs.toml"), "--out", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False)

    assert ran.returncode == 3
    assert terminal.mark.exists()
