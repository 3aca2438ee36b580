"""The card of a verdict, and the script that reproduces it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from report_samples import golden

from loadsim.render.drawing import Terminal
from loadsim.verdict.card import render
from loadsim.verdict.classify import Observed, judge
from loadsim.verdict.reproduce import script
from loadsim.verdict.trials import AT_START, HANDLER, LOWERED, Probe, TrialPlan

if TYPE_CHECKING:
    from pathlib import Path

BASH = shutil.which("bash") or "/bin/bash"
UVICORN = Observed(
    trial="limit at start",
    exhausted_s=10.0,
    fds_max=64,
    fd_limit=64,
    cpu_cores=0.99,
    emfile=93_000,
    emfile_per_s=9_055.0,
    busy_share=0.2,
    log_bytes_per_s=3.9e6,
    new_silent=88,
    held=3,
    held_late_s=0.496,
    recovery_s=1.9,
    leftover_fds=0,
)
RUNS = [
    UVICORN,
    replace(UVICORN, recovery_s=4.3, cpu_cores=1.0),
    replace(UVICORN, trial="lowered live", recovery_s=2.2, held_late_s=0.02),
    replace(UVICORN, trial="leak in handler", cpu_cores=0.03, emfile=0, emfile_per_s=0.0, new_silent=0, new_failed=90,
            leaks=True, held=0, log_bytes_per_s=12_000.0, recovery_s=0.1, leftover_fds=40),
]  # fmt: skip
COMMAND = ["uvicorn", "app:app", "--port", "{port}"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_card(width: int) -> None:
    """Each line is a question, each column a trial; the verdict comes last."""
    saved = "results/20261127T120000Z-verdict-uvicorn-3f2a"
    text = render(judge(RUNS), RUNS, COMMAND, Terminal(width=width, color=False, unicode=True), nofile=64, saved=saved)

    assert text == golden(f"verdict-{width}.txt", text)
    assert max(map(len, text.splitlines())) <= width


def test_a_card_shows_how_long_recovery_was_awaited() -> None:
    """A server that never recovers is shown with the time that it had."""
    gone = replace(UVICORN, recovery_s=None, watched_s=33.0)
    text = render(judge([gone]), [gone], COMMAND, Terminal(width=80, color=False, unicode=True), nofile=64)

    assert "first answer after  none in 33 s" in text
    assert "it answered no new client within 33 s after descriptors were freed" in " ".join(text.split())


def test_a_card_shows_no_escape_of_a_command() -> None:
    """The name of a command and its last words are escaped."""
    refused = Observed(trial="limit at start", refusal="\x1b[31mno")
    text = render(judge([refused]), [refused], ["a\x1b[2J"], Terminal(width=80, color=False, unicode=True), nofile=64)

    assert "\x1b" not in text
    assert "does not start" in text


def plan(*command: str, nofile: int = 64, port: int = 0, **talk: str) -> TrialPlan:
    """Return the plan for a command."""
    return TrialPlan(command=list(command), probe=Probe(**talk), nofile=nofile, port=port)


def test_a_script_is_short_and_bash(tmp_path: Path) -> None:
    """It has at most 30 lines, keeps each word of the command one word, and changes to the folder of the command."""
    text = script(plan("my server", "--say", 'it\'s "$HOME"', "--at=127.0.0.1:{port}", "", path="/a'b"), tmp_path)

    assert len(text.splitlines()) <= 30
    assert subprocess.run([BASH, "-n"], input=text, text=True, check=False).returncode == 0
    settings = "\n".join(text.splitlines()[2:6])
    program = f"PORT=81; {settings}\n" + 'printf "%s\\n" "$PWD" "$URL" "${SERVER[@]}"'
    printed = subprocess.run([BASH, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == f"{tmp_path}\n/a'b\nmy server\n--say\nit's \"$HOME\"\n--at=127.0.0.1:81\n\n"


def test_a_script_keeps_a_port_that_was_given(tmp_path: Path) -> None:
    """A command without {port} listens on the port of --port."""
    assert "PORT=${PORT:-6379} " in script(plan("redis-server", port=6379), tmp_path)


@pytest.mark.parametrize("trial", [AT_START, LOWERED, HANDLER])
def test_a_script_of_every_trial_is_short(trial: str, tmp_path: Path) -> None:
    """The script of each trial has at most 30 lines and is valid bash."""
    text = script(plan("server", "{port}", leak_path="/leak"), tmp_path, trial=trial)

    assert len(text.splitlines()) <= 30
    assert subprocess.run([BASH, "-n"], input=text, text=True, check=False).returncode == 0


def scripted(one: TrialPlan, folder: Path, trial: str = AT_START) -> subprocess.CompletedProcess[str]:
    """Run the script of a trial with a shorter time at the limit."""
    text = script(one, folder, trial=trial).replace("sleep 9", "sleep 2")
    return subprocess.run([BASH, "-c", text], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.real
def test_the_script_prints_the_effects(tmp_path: Path) -> None:
    """http.server gives no answer at its limit, and answers again after the relief."""
    command = ("python3", "-m", "http.server", "--bind", "127.0.0.1", "{port}")
    ran = scripted(plan(*command, nofile=32, port=18099), tmp_path)

    assert "new client, before:          answered" in ran.stdout, ran.stderr
    assert "new client, exhausted:       no answer in 1 s" in ran.stdout
    assert "first answer after relief:" in ran.stdout


HANDS_OUT = """
import http.server, socketserver, sys
kept = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/leak":
            kept.append(open("/dev/null"))
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.real
@pytest.mark.parametrize(("trial", "port"), [(LOWERED, 18097), (HANDLER, 18096)])
def test_the_script_reproduces_its_trial(trial: str, port: int, tmp_path: Path) -> None:
    """It lowers the limit while clients are connected, or makes a handler leak, and raises the limit again."""
    one = plan("python3", "-c", HANDS_OUT, "{port}", nofile=32, port=port, leak_path="/leak")
    ran = scripted(one, tmp_path, trial)

    assert "new client, before:          answered" in ran.stdout, ran.stderr
    descriptors = int(ran.stdout.partition("open descriptors:")[2].split()[0])
    if trial == LOWERED:
        assert descriptors > 32  # connected clients keep their descriptors below a lower limit
        assert "new client, exhausted:       no answer in 1 s" in ran.stdout
    else:
        assert descriptors in {31, 32}  # a handler that finds none closes its connection
    assert int(ran.stdout.partition("first answer after relief:")[2].split()[0]) < 8000
    assert not ran.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    "talk",
    [{"exchange": "raw", "send": "say it's\r\n", "expect": "say it's\r\n"}],
)
def test_the_script_talks_as_the_canary_does(tmp_path: Path, talk: dict[str, str]) -> None:
    """It sends the text of --send and compares the reply; after an exit of the server it prints its last words."""
    echo = (
        "import socket, sys\nlistener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "for _ in range(9):\n client, _ = listener.accept()\n client.sendall(client.recv(99))"
    )
    one = TrialPlan(command=["python3", "-c", echo, "{port}"], probe=Probe(**talk), nofile=64, port=18098)
    ran = scripted(one, tmp_path)

    assert "new client, before:          answered" in ran.stdout, ran.stderr
    assert "the server has ended:" in ran.stdout
    assert ran.returncode == 1
