"""`inspect --watch` reports a leak and estimates the time of EMFILE; `--save` reproduces it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from inspected import Running, running, wait_until

from loadsim.commands import main
from loadsim.inspect.snapshot import take
from loadsim.scenario.toml import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real

#: Never closes an accepted connection, and waits 50 ms after a failed accept().
LEAKING = """
import json, resource, socket, sys, threading, time
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
listener = socket.create_server(("127.0.0.1", int(sys.argv[3])), backlog=16)
accepted = []
def serve():
    while True:
        try: accepted.append(listener.accept()[0])
        except OSError: time.sleep(0.05)
threading.Thread(target=serve, daemon=True).start()
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
sys.stdin.read()
"""
#: Connects and disconnects at a rate, a number of times.
CALLERS = """
import json, socket, sys, time
print(json.dumps({}), flush=True)
port, rate, times = (int(one) for one in sys.argv[1:])
begun = time.monotonic()
for i in range(times):
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    time.sleep(max(begun + (i + 1) / rate - time.monotonic(), 0))
sys.stdin.read()
"""


@pytest.fixture
def leaking() -> Iterator[Running]:
    """Yield a server with 64 descriptors that leaks each connection."""
    with running(LEAKING, "64", "1024", "0") as ready:
        yield ready


@contextmanager
def watching(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a running `loadsim inspect --watch`."""
    command = [sys.executable, "-u", "-m", "loadsim", "inspect", *arguments, "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Send SIGINT and return the output."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=10)[0]


def test_a_leak_is_reported_with_the_time_of_emfile(leaking: Running) -> None:
    """--watch prints new fds, the time of EMFILE within a tenth, the limit, the queue and the leak."""
    with watching(str(leaking.pid)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{take(leaking.pid).process.name}[{leaking.pid}]")
        with running(CALLERS, str(leaking.report["port"]), "10", "68"):
            wait_until(lambda: take(leaking.pid).full, timeout_s=15)
            full_at = time.time()
            time.sleep(1)
            out = interrupt(process)
    assert process.returncode == 0
    assert re.search(r"\+ fd 5 CLOSE-WAIT :\d+", out)
    assert "64 of 64 fds: accept() will fail now" in out
    assert re.search(r"queue \d+ of 17  at :\d+", out)
    estimate = re.search(  # the pace needs ten descriptors
        r"^(\d\d):(\d\d):(\d\d)\.(\d)  [2-5]\d of 64 fds.*full in about ([\d.]+) (ms|s) ", out, re.MULTILINE
    )
    assert estimate is not None, out
    hour, minute, second, tenth = map(int, estimate.group(1, 2, 3, 4))
    now = datetime.now().astimezone()
    estimated_at = now.replace(hour=hour, minute=minute, second=second, microsecond=tenth * 100_000).timestamp()
    left_s = float(estimate[5]) / (1000 if estimate[6] == "ms" else 1)
    assert left_s == pytest.approx(full_at - estimated_at, rel=0.1, abs=0.3)  # five samples a second
    ending = " ".join(out.split("\n\n")[-1].split())
    assert "LEAK" in ending
    assert f"connections on :{leaking.report['port']} were closed by the peer but not by" in ending


def test_it_waits_for_a_listener() -> None:
    """With :PORT it can start before the server and reports the first client."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with watching(f":{port}") as process:
        time.sleep(0.5)
        with running(LEAKING, "64", "64", str(port)) as ready:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"{take(ready.pid).process.name}[{ready.pid}]")
            with socket.create_connection(("127.0.0.1", port)):
                wait_until(lambda: len(take(ready.pid).ports) == 1)
                time.sleep(0.6)
        out, _ = process.communicate(timeout=10)  # ends with the process
    assert re.search(r"\+ fd 4 CONNECTED :\d+", out)
    assert "has ended" in out


def test_a_saved_incident_is_reproduced(leaking: Running, tmp_path: Path) -> None:
    """The scenario passes `loadsim check`, and its run reaches EMFILE at the predicted time, within a fifth."""
    saved = tmp_path / "incident.toml"
    with running(CALLERS, str(leaking.report["port"]), "20", "50"):
        time.sleep(0.5)
        result = CliRunner().invoke(main, ["inspect", str(leaking.pid), "--save", str(saved), "--over", "1500ms"])
    assert result.exit_code == 0, result.output
    scenario = load(str(saved))
    assert scenario.server.backlog == 16
    assert scenario.server.leak == pytest.approx(1, abs=0.15)
    text = saved.read_text()
    assert "CLOSE_WAIT" in text
    predicted = re.search(r"the limit is reached after about ([\d.]+) s", text)
    assert predicted is not None
    assert CliRunner().invoke(main, ["check", str(saved)]).exit_code == 0
    command = ["run", str(saved), "--out", str(tmp_path / "results"), "--ui", "none", "--json"]
    run = subprocess.run([sys.executable, "-m", "loadsim", *command], capture_output=True, text=True, check=False)
    summary = json.loads(run.stdout)
    assert summary["metrics"]["emfile.first_at_s"] == pytest.approx(float(predicted[1]), rel=0.2)


def test_an_existing_file_is_never_overwritten(leaking: Running, tmp_path: Path) -> None:
    """`--save` to an existing file is an error with a remedy and does not change the file."""
    saved = tmp_path / "mine.toml"
    saved.write_text("precious")
    result = CliRunner().invoke(main, ["inspect", str(leaking.pid), "--save", str(saved), "--over", "100ms"])
    assert result.exit_code == 2
    assert "File exists; choose another file" in result.stderr
    assert saved.read_text() == "precious"


def test_a_quiet_process_is_saved_as_healthy(leaking: Running, tmp_path: Path) -> None:
    """Without growth the scenario says so and expects no EMFILE."""
    saved = tmp_path / "quiet.toml"
    result = CliRunner().invoke(main, ["inspect", str(leaking.pid), "--save", str(saved), "--over", "100ms"])
    assert result.exit_code == 0, result.output
    assert "Nothing grew between the snapshots" in saved.read_text()
    assert load(str(saved)).server.leak == 0
