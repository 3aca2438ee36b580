"""Commands worth trying after a run: the change of one setting that shows whether the finding was the cause."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.analysis.comparison import Comparison
    from loadsim.analysis.summary import Summary

#: Finding -> the setting that takes its cause away in the simulated server.
CURES = {
    "emfile-handler": "server.nofile=1024",
    "emfile-spin": "server.on_emfile=backoff",
    "fd-leak": "server.leak=0",
    "fd-limit": "server.nofile=1024",
    "fd-table-stall": "server.prewarm_fds=8192",
    "phantom-connections": "sysctl.net.ipv4.tcp_syncookies=0",
    "queue-overflow": "server.backlog=4096",
    "slow-accept": "server.accept_delay=0s",
    "nothing-found": "server.leak=1",
}


def next_steps(summary: Summary) -> list[str]:
    """Return the commands: read about the first finding, then run it again without the cause that has a cure."""
    ids = [finding.id for finding in summary.findings]
    cures = [CURES[name] for name in ids if name in CURES]
    server = summary.settings.get("server", {})
    command = shlex.join(server.get("command") or ()).replace("'{port}'", "{port}")
    if command:  # it has none of the simulated server's settings
        cures = [cure for cure in cures if not cure.startswith("server.") or cure.startswith("server.nofile=")]
    elif server.get("pid") or server.get("address"):  # nor may anything of a running one be set, or around it
        cures = []
    steps = [f"loadsim explain {name}" for name in ids[:1]]
    again = f" -- {command}" if command and "\n" not in command else ""  # it may have come from the command line
    return steps + [f"loadsim run {summary.scenario} --set {cure}{again}" for cure in cures[:1]]


def after_comparison(comparison: Comparison, folder: Path | None) -> list[str]:
    """Return the commands after a sweep or a comparison: its page, or what would tell more."""
    if folder is None:
        return []
    unfinished = [] if comparison.complete else [f"loadsim run {shlex.quote(str(folder))} --resume"]
    return [*unfinished, f"loadsim report {shlex.quote(str(folder))} --open"]
