"""The verdict on the six policies of the simulated server, each run as a foreign command and seen only from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from perf_rights import needs_perf

from loadsim.kernel.limits import own_nofile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

#: Policy -> class.
POLICIES = {
    "sleep": "sleeps",
    "backoff": "backs off",
    "spin": "spins",
    "shed": "sheds",
    "until_close": "waits for a close",
    "exit": "dies",
}
#: Only the first trial, and short: these classes show within three seconds.
BRIEFLY = ("--trial", "start", "--at-limit", "3s", "--recover-within", "3s", "--ui", "none", "--json")


def verdict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `loadsim verdict`, briefly."""
    command = [sys.executable, "-m", "loadsim", "verdict", "--out", str(folder), *BRIEFLY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def simulated(policy: str) -> list[str]:
    """Return the command line of a simulated echo server with this policy."""
    settings = (f"server.on_emfile={policy}", "client.exchange=echo", "server.backlog=4096")
    chosen = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "loadsim", "serve", *chosen, "--port", "{port}"]


@needs_perf
def test_each_policy_gets_its_own_class(tmp_path: Path) -> None:
    """They run two at a time, since one of them takes a whole core."""

    def judged(policy: str) -> dict[str, Any]:
        ran = verdict(tmp_path / policy, "--echo", "--", *simulated(policy))
        assert ran.returncode == 0, ran.stderr
        card: dict[str, Any] = json.loads(ran.stdout)
        return card

    with ThreadPoolExecutor(2) as pool:
        cards = dict(zip(POLICIES, pool.map(judged, POLICIES), strict=True))

    assert {policy: card["verdict"]["class"] for policy, card in cards.items()} == POLICIES
    assert cards["exit"]["verdict"]["grade"] == "F"
    assert cards["spin"]["runs"][0]["emfile_per_s"] > 10_000
    assert cards["sleep"]["runs"][0]["emfile_per_s"] == pytest.approx(10, abs=2)


def test_a_command_that_does_not_start_under_the_limit_is_judged(tmp_path: Path) -> None:
    """Its class is "refuses to start", with its last words, and the exit status is 0."""
    picky = (
        "import resource, runpy, sys\nif resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 100: "
        "raise SystemExit('too few descriptors')\nsys.argv[1:1] = ['--bind', '127.0.0.1']\n"
        "runpy.run_module('http.server', run_name='__main__')"
    )
    ran = verdict(tmp_path, "--", sys.executable, "-c", picky, "{port}")
    card = json.loads(ran.stdout)

    assert ran.returncode == 0, ran.stderr
    assert (card["verdict"]["class"], card["verdict"]["grade"]) == ("refuses to start", "F")
    assert "too few descriptors" in card["runs"][0]["refusal"]


def test_a_command_that_never_starts_is_not_judged(tmp_path: Path) -> None:
    """Neither is a missing program, nor a limit above the hard limit: descriptors are not the cause."""
    broken = verdict(tmp_path, "--", sys.executable, "-c", "raise SystemExit('no config')", "{port}")
    missing = verdict(tmp_path, "--", "no-such-program", "{port}")
    beyond = verdict(tmp_path, "--nofile", str(min(own_nofile().hard + 1, 100_000)), "--", "true", "{port}")

    assert (broken.returncode, missing.returncode, beyond.returncode) == (3, 3, 3)
    assert "the command does not start with" in broken.stderr
    assert "no config" in broken.stderr
    assert "cannot execute no-such-program" in missing.stderr
    assert "is above the hard limit" in beyond.stderr


def test_a_server_that_does_not_answer_is_not_judged(tmp_path: Path) -> None:
    """One request before all trials finds a wrong path within seconds."""
    ran = verdict(tmp_path, "--path", "/nothing-here", "--", sys.executable, "-m", "http.server", "{port}")

    assert ran.returncode == 3
    assert "GET /nothing-here was answered with an error. Tell loadsim how to talk to it: --path PATH" in ran.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--echo", "--leak-path", "/leak"), "--leak-path cannot be combined with --echo or --send"),
        (("--echo", "--send", "x"), "--echo cannot be combined with --send or --expect."),
        (("--expect", "x"), "--expect needs --send TEXT"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    """The command is not started."""
    ran = verdict(tmp_path, *options, "--", "true", "{port}")

    assert (ran.returncode, list(tmp_path.iterdir())) == (2, [])
    assert message in ran.stderr


def test_ctrl_c_ends_a_verdict(tmp_path: Path) -> None:
    """The current run ends without a verdict, finished records stay, and no process is left."""
    command = [sys.executable, "-m", "loadsim", "verdict", "--out", str(tmp_path), *BRIEFLY]
    with subprocess.Popen(
        [*command, "--echo", "--", *simulated("sleep")], stderr=subprocess.PIPE, text=True
    ) as passing:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("*/runs/*/manifest.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        children = psutil.Process(passing.pid).children(recursive=True)
        passing.send_signal(signal.SIGINT)
        _, stderr = passing.communicate(timeout=30)

    assert passing.returncode == 130
    assert "interrupted: there is no verdict" in stderr
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_command_without_a_port_is_asked_for_one(tmp_path: Path) -> None:
    """The command is not started."""
    ran = verdict(tmp_path, "--", "true")

    assert ran.returncode == 2
    assert "the port of this command is unknown: write {port} in its place" in ran.stderr
