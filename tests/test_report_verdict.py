"""The card of a verdict, and the script that shows the same by hand."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from report_samples import golden

from loadsim.analysis.verdict import Observed, judge
from loadsim.report.reproduce import script
from loadsim.report.verdict import render

if TYPE_CHECKING:
    from pathlib import Path

BASH = shutil.which("bash") or "/bin/bash"
UVICORN = Observed(
    way="limit at start",
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
    replace(UVICORN, way="lowered live", recovery_s=2.2, held_late_s=0.02),
    replace(UVICORN, way="leak in handler", cpu_cores=0.03, emfile=0, emfile_per_s=0.0, new_silent=0, new_failed=90,
            held=0, log_bytes_per_s=12_000.0, recovery_s=0.1, leftover_fds=40),
]  # fmt: skip
COMMAND = ["uvicorn", "app:app", "--port", "{port}"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_card(width: int) -> None:
    """One question a line, one way a column, the verdict last."""
    saved = "results/20261127T120000Z-verdict-uvicorn-3f2a"
    text = render(judge(RUNS), RUNS, COMMAND, nofile=64, width=width, color=False, unicode=True, saved=saved)

    assert text == golden(f"verdict-{width}.txt", text)
    assert max(map(len, text.splitlines())) <= width


def test_a_card_shows_no_escape_of_a_command() -> None:
    """What a command is called, and why it did not start, cannot act on a terminal."""
    refused = Observed(way="limit at start", refusal="\x1b[31mno")
    text = render(judge([refused]), [refused], ["a\x1b[2J"], nofile=64, width=80, color=False, unicode=True)

    assert "\x1b" not in text
    assert "does not come up" in text


def test_a_script_is_short_and_bash() -> None:
    """At most 30 lines, with every word of the command as one word."""
    text = script(
        ["my server", "--say", 'it\'s "$HOME"', "--at=127.0.0.1:{port}", ""], nofile=64, clients=200, path="/a'b"
    )

    assert len(text.splitlines()) <= 30
    assert subprocess.run([BASH, "-n"], input=text, text=True, check=False).returncode == 0
    printed = text.splitlines()[3] + '; printf "%s\\n" "${SERVER[@]}"'
    shown = subprocess.run([BASH, "-c", f"PORT=81; {printed}"], capture_output=True, text=True, check=True).stdout
    assert shown == 'my server\n--say\nit\'s "$HOME"\n--at=127.0.0.1:81\n\n'


@pytest.mark.real
def test_the_script_says_what_happens(tmp_path: Path) -> None:
    """http.server spins: no answer at its limit, seconds of CPU, and it is back at once."""
    text = script(["python3", "-m", "http.server", "--bind", "127.0.0.1", "{port}"], nofile=32, clients=60, path="/")
    text = text.replace("sleep 9", "sleep 2")
    ran = subprocess.run(
        [BASH, "-c", f"PORT=18099; {text}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert "new client, before:          answered" in ran.stdout, ran.stderr
    assert "new client, exhausted:       no answer in 1 s" in ran.stdout
    assert "first answer after relief:" in ran.stdout
