"""Advice that is followed on the real kernel: the value that a finding names helps, and is near what is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from real_runs import Ran, run_scenario, write_scenario

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

#: About twenty clients at once where they wait for no descriptor; several hundred where they do.
STARVED = """
[server]
nofile = 16
backlog = 512
on_emfile = "sleep"
close_after = "client"
[client]
{load}
exchange = "echo"
hold = "100ms"
connect_timeout = "3s"
reply_timeout = "3s"
"""


def advised(ran: Ran) -> int:
    """Return the nofile that the finding about the limit names."""
    remedy = next(finding.remedy for finding in ran.summary.findings if finding.id == "fd-limit")
    found = re.match(r"raise nofile to about (\d+)", remedy or "")
    assert found is not None
    return int(found[1])


def followed(folder: Path, load: str) -> tuple[Ran, Ran, int]:
    """Run a load without descriptors, and again with the limit that is advised then; return both, and the limit."""
    scenario = write_scenario(folder, STARVED.format(load=load))
    before = run_scenario(scenario, folder)
    limit = advised(before)
    return before, run_scenario(scenario, folder, f"server.nofile={limit}"), limit


def test_the_advised_limit_helps_and_is_not_far_above_what_is_used(tmp_path: Path) -> None:
    """Clients that come at a rate are served, and at least half of the advised limit is used."""
    before, after, limit = followed(tmp_path, 'rate = "200/s"\nduration = "2s"')
    # A generator that a busy machine holds up makes bursts, for which no limit was advised.
    assert after.summary.metrics["emfile.count"] < before.summary.metrics["emfile.count"]
    assert after.summary.metrics["attempts.served"] > before.summary.metrics["attempts.served"]
    assert limit <= 2 * after.summary.metrics["fds.max"]


def test_the_advised_limit_is_enough_for_clients_that_take_turns(tmp_path: Path) -> None:
    """Twenty clients are never more at once than they are, however slow the machine is."""
    before, after, limit = followed(tmp_path, "clients = 20\nattempts = 200")
    assert after.summary.metrics["emfile.count"] < before.summary.metrics["emfile.count"] / 4
    assert after.summary.metrics["attempts.served"] == 1
    assert limit <= 2 * after.summary.metrics["fds.max"]
