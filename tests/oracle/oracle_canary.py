"""The metrics of canaries and held clients, and the recovery that canaries measure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from oracle_bounds import ABSENT, NS, Bounds, Expected, column, exactly, outcomes_of
from oracle_records import AFTER_END, EMFILE, HELD, IDLE, OUTCOMES, source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from oracle_records import Recorded


_TURNED_AWAY = ("refused", "reset", "eof", "error")


def canary_metrics(recorded: Recorded) -> Expected:
    """Return canary.*; canaries that failed at limits of their own count only as local."""
    rows = recorded.canary
    names = ("count", "availability", "longest_outage_s", "silent", "unreachable", "turned_away")
    codes = {one: OUTCOMES.index(one) for one in ("local", "not_started", "unfinished")}
    asked = rows[~np.isin(rows["outcome"], list(codes.values()))]  # the others learned nothing about the server
    own = [codes["local"], codes["not_started"]]
    failed = sum(int(np.isin(one["outcome"], own).sum()) for one in (rows, recorded.held))
    local = {"canary.local": exactly(failed) if len(rows) or len(recorded.held) else ABSENT}
    if not len(asked):
        may_lack = Bounds(low=0, high=0, may_lack=True)
        return local | {f"canary.{name}": may_lack if recorded.settings["canary"] else ABSENT for name in names}
    outcomes = outcomes_of(asked)
    return local | {
        "canary.count": exactly(len(asked)),
        "canary.availability": exactly(outcomes["ok"] / len(asked)),
        "canary.silent": exactly(outcomes["reply_timeout"]),
        "canary.unreachable": exactly(outcomes["connect_timeout"]),
        "canary.turned_away": exactly(sum(outcomes[one] for one in _TURNED_AWAY)),
        "canary.longest_outage_s": _longest_outage(recorded, asked),
    }


def _longest_outage(recorded: Recorded, rows: NDArray[Any]) -> Bounds:
    lows, highs = [0.0], [0.0]
    begun: tuple[int, int] | None = None
    for row in rows[np.argsort(rows["started"], kind="stable")]:
        is_good = OUTCOMES[row["outcome"]] == "ok"
        if begun is not None:
            lows.append(int(row["intended"]) - begun[1])
            highs.append(max(int(row["ended"]), int(row["started"])) - begun[0])
        if is_good:
            begun = None
        elif begun is None:
            begun = (int(row["intended"]), int(row["started"]))
    if begun is not None:
        highs.append(recorded.facts["judged_ns"] - begun[0])
    return Bounds(low=max(lows) / NS, high=max(highs) / NS, may_lack=max(highs) == 0)


def recovery_metrics(recorded: Recorded) -> Expected:
    """Return recovery.*: the longest time from a step that freed descriptors to the next good answer."""
    names = ("recovery.time_s", "recovery.last_bad_s", "recovery.emfile")
    steps = [step for step in recorded.facts["steps"] if step["refused"] is None]
    times = sorted(
        step["done_ns"]
        for step in steps
        if step["change"] == "release"
        or (step["change"] == "nofile" and step["before"] is not None and step["after"] > step["before"])
    )
    rows = recorded.canary[recorded.canary["started"] > 0]
    if not times or not len(rows):
        return dict.fromkeys(names, ABSENT)
    started, replied = column(rows, "started"), column(rows, "replied")
    is_good = (rows["outcome"] == OUTCOMES.index("ok")) & (replied > 0)
    found = []
    for at, until in zip(times, [*times[1:], 1 << 62], strict=True):
        earlier = np.flatnonzero(started < at)
        is_down = len(earlier) > 0 and not (is_good[earlier[-1]] and replied[earlier[-1]] <= at)
        back = replied[is_good & (replied > at)]
        if is_down and len(back) and back.min() <= until:
            found.append((int(back.min()) - at, at))
    if not found:
        return {name: Bounds(low=0, high=math.inf, may_lack=True) for name in names} | {names[0]: ABSENT}
    longest, at = max(found)
    everything = sorted(step["done_ns"] for step in steps if step["done_ns"] > at)
    until = everything[0] if everything else 1 << 62
    bad = started[(started >= at) & (started < until) & ~is_good]
    last_bad = max((int(bad.max()) - at) / NS, 0.0) if len(bad) else 0.0
    return {
        names[0]: exactly(longest / NS),
        names[1]: exactly(last_bad),
        names[2]: _failures_after(recorded, at),
    }


def _failures_after(recorded: Recorded, at: int) -> Bounds:
    rows = recorded.failures[(recorded.failures["errno"] == EMFILE) & ((recorded.failures["flags"] & IDLE) == 0)]
    return Bounds(
        low=float(rows["count"][column(rows, "first") >= at].sum()),
        high=float(rows["count"][column(rows, "last") >= at].sum()),
    )


def held_metrics(recorded: Recorded) -> Expected:
    """Return held.count, held.cut and held.unanswered."""
    canary = recorded.settings["canary"]
    names = ("held.count", "held.cut", "held.unanswered")
    if not canary or not canary["held"]:
        return dict.fromkeys(names, ABSENT)
    rows = recorded.held
    taken = {
        int(row["port"]): int(row["closed"])
        for row in recorded.accepts
        if source_of(row["peer"]) == HELD and not row["flags"] & AFTER_END
    }
    last = {int(row["port"]): OUTCOMES[row["outcome"]] for row in rows if row["port"] and row["connected"]}
    kept = sum(port in taken and outcome in ("ok", "error", "unfinished") for port, outcome in last.items())
    return {
        "held.count": exactly(canary["held"]),
        "held.cut": exactly(canary["held"] - kept),
        "held.unanswered": Bounds(  # a request on a closed connection may count or not
            low=float((rows["outcome"] == OUTCOMES.index("unfinished")).sum()), high=float((rows["replied"] == 0).sum())
        ),
    }
