"""A busy host is named by what it takes from the server, on the real scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from real_runs import run_scenario, write_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real

BURNERS = 8
#: Ends by itself, should nothing else end it.
BURN = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"


@contextmanager
def one_busy_cpu() -> Iterator[None]:
    """Bind this process, and what it starts, to one CPU on which others never rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    burners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", BURN]) for _ in range(BURNERS)]
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        for burner in burners:
            burner.kill()
            burner.wait()


def test_a_server_on_a_busy_cpu_is_not_called_slow(tmp_path: Path) -> None:
    """Server and driver wait for the CPU, the metrics and the first notice say so, and no pause is the server's."""
    scenario = write_scenario(
        tmp_path, '[server]\nnofile = 256\nleak = 0.0\n[client]\nrate = "2000/s"\nduration = "1s"\nexchange = "hello"\n'
    )
    with one_busy_cpu():
        ran = run_scenario(scenario, tmp_path / "out")
    metrics = ran.summary.metrics

    assert metrics["server.run_wait"] > 0.01
    assert metrics["host.run_wait"] > 0.05
    assert metrics["server.run_wait_max_s"] > 0.002
    assert ran.summary.notices[0].startswith("The host was busy")
    assert "slow-accept" not in [one.id for one in ran.summary.findings]
    assert all(driver.run_wait_ns > 0 for driver in ran.recording.facts.drivers)
