"""The metrics of descriptors: failures with EMFILE, the limit, leaks, and the rates at the limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from oracle_bounds import ABSENT, NS, Bounds, Expected, column, exactly, outcomes_of
from oracle_records import CANARY, EMFILE, FAILED, HELD, IDLE, IN_HANDLER, LEAKED, PENDING, SHED

if TYPE_CHECKING:
    from oracle_join import Accept
    from oracle_records import Recorded


def failures_metrics(recorded: Recorded) -> Expected:
    """Return emfile.* without its rate."""
    rows = recorded.failures[recorded.failures["errno"] == EMFILE]
    is_idle = (rows["flags"] & IDLE) > 0
    counted = rows[~is_idle]
    in_handler = counted["where"] == IN_HANDLER
    first = column(counted, "first")
    return {
        "emfile.count": exactly(counted["count"].sum()),
        "emfile.handler": exactly(counted["count"][in_handler].sum()),
        "emfile.accept": exactly(counted["count"][~in_handler].sum()),
        "emfile.idle": exactly(rows["count"][is_idle].sum()),
        "emfile.first_at_s": exactly((first.min() - recorded.facts["start_ns"]) / NS) if len(first) else ABSENT,
    }


def descriptors_metrics(recorded: Recorded, accepts: list[Accept]) -> Expected:
    """Return fds.*."""
    facts, samples = recorded.facts, recorded.samples
    fds, times, limits = (column(samples, name) for name in ("open_fds", "time", "fd_limit"))
    before = fds[(times < facts["start_ns"]) & (fds >= 0)]
    judged = facts["judged_ns"]
    seen = fds[(fds >= 0) & (times <= judged)]
    counted = [one.open_fds for one in accepts if not one.is_after_end]
    changes = _limit_changes(recorded)
    values: Expected = {
        "fds.baseline": exactly(min([facts["server"]["baseline_fds"], *(int(one) for one in before)])),
        "fds.max": exactly(max([*counted, int(seen.max(initial=0))])),
        "fds.limit": exactly(min([*(limit for _, limit in changes), *(int(one) for one in limits[limits > 0])])),
    }
    end = facts["end"]["fds_end"] if facts["end"] else None
    values["fds.end"] = ABSENT if end is None else exactly(end)
    full = [int(at) for at, one, limit in zip(times, fds, limits, strict=True) if 0 < limit <= one and at <= judged]
    full += [one.at for one in accepts if not one.is_after_end and one.open_fds >= _limit_at(changes, one.at)]
    full += [int(row["first"]) for row in recorded.failures if row["errno"] == EMFILE]
    if full:  # 0, or a time before the start, for a server that is full before the load
        at = (min(full) - facts["start_ns"]) / NS
        values["fds.limit_at_s"] = Bounds(low=at, high=max(at, 0))
    else:
        values["fds.limit_at_s"] = ABSENT
    values["fds.leaked"] = _leaked(recorded, accepts)
    values["fds.growth_stall_s"] = Bounds(low=0, high=math.inf, may_lack=True)
    return values


def _limit_changes(recorded: Recorded) -> list[tuple[int, int]]:
    found = [(0, recorded.facts["server"]["nofile_soft"])]
    return found + [
        (step["done_ns"], int(step["after"] or step["asked"]))
        for step in recorded.facts["steps"]
        if step["change"] == "nofile" and step["refused"] is None
    ]


def _limit_at(changes: list[tuple[int, int]], moment: int) -> int:
    return next(limit for at, limit in reversed(changes) if at <= moment)


def _leaked(recorded: Recorded, accepts: list[Accept]) -> Bounds | None:
    """Return how many descriptors of clients that have left the server never closed.

    The records mark the connections that leak. Descriptors of a request leak with its connection, or instead of it.
    """
    if recorded.has_exited:
        return Bounds(low=-math.inf, high=math.inf, may_lack=True)
    server = recorded.settings["server"]
    extras = server["extra_fds"]
    leaking = [one for one in accepts if one.flags & LEAKED and not one.is_after_end]
    if server["leak"] == 0:
        return exactly(0)
    if server["leak_of"] == "extra":
        answered = outcomes_of(recorded.attempts)["ok"]
        most = sum(not one.is_after_end and not one.flags & FAILED for one in accepts) + len(recorded.held)
        return Bounds(low=max(0, answered * server["leak"] - 1) * extras, high=(most * server["leak"] + 1) * extras)
    pending = recorded.attempts[(recorded.attempts["flags"] & PENDING) > 0]
    still = {(int(row["source"]), int(row["port"])) for row in pending}
    still |= {(HELD, int(row["port"])) for row in recorded.held if row["port"]}
    if recorded.settings["canary"]:
        still |= {(CANARY, int(row["port"])) for row in recorded.canary if row["flags"] & PENDING}
    left = [one for one in leaking if one.client is None or (one.source, one.client.port) not in still]
    sure = sum(one.client is not None for one in left)
    return Bounds(low=sure, high=len(left) * (1 + extras))


def at_limit_metrics(recorded: Recorded, accepts: list[Accept]) -> Expected:
    """Return the rates over the time at the descriptor limit; a single failure has no rate."""
    failures = recorded.failures[(recorded.failures["errno"] == EMFILE) & ((recorded.failures["flags"] & IDLE) == 0)]
    count = int(failures["count"].sum())
    values: Expected = {"emfile.rate": ABSENT if count < 2 else Bounds(low=0, high=math.inf)}
    if count > 1 and recorded.settings["server"]["extra_fds"] == 0:
        at_limit = _time_at_limit(recorded, accepts)
        slack = 0.0005 + 0.02 * at_limit
        low, high = count / (at_limit + slack), count / max(at_limit - slack, 1e-9)
        values["emfile.rate"] = Bounds(low=low, high=high if at_limit > slack else math.inf)
    values["server.cpu_at_limit"] = _cpu_at_limit(recorded)
    return values


def _time_at_limit(recorded: Recorded, accepts: list[Accept]) -> float:
    """Return the seconds from the start until the judgement in which all descriptors were in use."""
    changes = _limit_changes(recorded)
    events: list[tuple[int, int, int]] = [(at, 0, 0) for at, _ in changes[1:]]
    for one in accepts:
        if one.is_after_end:
            continue
        events.append((one.at, 1, one.open_fds))
        if one.closed and not one.flags & SHED:
            events.append((one.closed, -1, 0))
    begin, end = recorded.facts["start_ns"], recorded.end_of_service_ns
    open_fds, before, full = recorded.facts["server"]["baseline_fds"], begin, 0
    for at, kind, known in sorted(events):
        now = min(max(at, begin), end)
        if open_fds >= _limit_at(changes, before):
            full += now - before
        before = now
        open_fds = known if kind == 1 else open_fds + kind
    return (full + (end - before if open_fds >= _limit_at(changes, before) else 0)) / NS


def _cpu_at_limit(recorded: Recorded) -> Bounds:
    samples = recorded.samples[recorded.samples["cpu_ns"] >= 0]
    times, spent = column(samples, "time"), column(samples, "cpu_ns")
    is_full = (samples["fd_limit"] > 0) & (samples["open_fds"] >= samples["fd_limit"])
    both = is_full[1:] & is_full[:-1]
    seconds = np.diff(times)[both].sum() / NS
    cores = np.diff(spent)[both].sum() / NS / seconds if seconds else 0.0
    slack = 0.05 + 0.25 * cores + (0.02 / seconds if seconds else math.inf)
    return Bounds(low=max(0.0, cores - slack), high=cores + slack, may_lack=seconds < 0.1)
