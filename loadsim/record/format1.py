"""Result folders of format 1, read as those of today.

Owns what that format called by another name: `queue_limit` was the backlog in force, one less than the accept queue
holds, and the metric `queue.limit` was the capacity itself. Must not know what the records mean.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from loadsim.metrics import FORMER_NAMES
from loadsim.record.arrays import empty
from loadsim.record.events import SAMPLE, Layout
from loadsim.units import queue_capacity

if TYPE_CHECKING:
    from loadsim.record.arrays import Records

_NOT_READ = -1
SAMPLE_1 = Layout(
    "sample",
    (
        ("time", "Q"),
        *(
            (name, "q")
            for name in (
                "open_fds",
                "fd_limit",
                "queue",
                "queue_limit",
                "drops",
                "cpu_ns",
                "rss",
                "listen_overflows",
                "listen_drops",
                "cookies",
                "request_drops",
                "embryonic_resets",
                "syn_retransmits",
                "fd_size",
                "fds_established",
                "fds_close_wait",
                "fds_other",
                "cost_ns",
            )
        ),
    ),
    152,
)
_FIELDS = frozenset(name for name, _ in SAMPLE_1.fields)
_METRIC = re.compile(r"[\w.]+", re.ASCII)


def samples_of(old: Records) -> Records:
    """Return samples of format 1 as those of today; what they did not hold was not read."""
    new = empty(SAMPLE, len(old))
    for name, _ in SAMPLE.fields:
        new[name] = old[name] if name in _FIELDS else _NOT_READ
    new["queue_capacity"] = [
        queue_capacity(backlog) if backlog >= 0 else _NOT_READ for backlog in old["queue_limit"].tolist()
    ]
    return new


def facts_of(old: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a manifest of format 1 under the names of today."""
    server, settings = dict(old["server"]), dict(old["settings"])
    server["backlog"] = server.pop("queue_limit")
    if thresholds := settings.get("thresholds"):
        settings["thresholds"] = {
            when: [_threshold_of(text) for text in texts or ()] for when, texts in thresholds.items()
        }
    return {**old, "server": server, "settings": settings}


def _threshold_of(text: str) -> str:
    return _METRIC.sub(lambda name: FORMER_NAMES.get(name[0], name[0]), text, count=1)
