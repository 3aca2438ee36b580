"""The metrics of the accept queue, from the join: fates, accept latency, waiting clients, pauses, and its length."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from oracle_bounds import ABSENT, NS, Bounds, Expected, column, exactly, outcomes_of, percentile, statistics
from oracle_join import AGE_ERROR_MS, LATE_MS
from oracle_records import OUTCOMES, SHED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oracle_join import Accept
    from oracle_records import Recorded


#: accept() and close() take at most this long from the event to its stamp.
_STAMP_NS = 50_000


def fates_metrics(recorded: Recorded, accepts: list[Accept]) -> Expected:
    """Return the fates, counted without the join: only the load and the canary connect in a private namespace."""
    rows = recorded.attempts
    outcomes = outcomes_of(rows)
    own = [one for one in accepts if one.is_of_attempt]
    queued = sum(one.is_after_end for one in own)
    shed = sum(bool(one.flags & SHED) and not one.is_after_end for one in own)
    accepted = len(own) - queued - shed
    is_connected = rows["connected"] > 0
    lost = int(is_connected.sum()) - accepted - shed - queued
    unconnected = Counter(OUTCOMES[code] for code in rows["outcome"][~is_connected])
    aborts = recorded.facts["sysctls"].get("net.ipv4.tcp_abort_on_overflow") == "1"
    values: Expected = {
        "fate.accepted": exactly(accepted),
        "fate.shed": exactly(shed),
        "fate.queued": exactly(queued),
        "fate.local": exactly(outcomes["local"]),
        "fate.not_started": exactly(outcomes["not_started"]),
        "fate.refused": exactly(unconnected["refused"]),
        "fate.dropped": exactly(unconnected["connect_timeout"] + unconnected["unfinished"]),
        "fate.unknown": exactly(0),
        "join.foreign": exactly(0),
        "join.mismatched": exactly(0),
        "join.ambiguous": Bounds(low=0, high=sum(one.client is None for one in accepts)),
    }
    causes = {"fate.phantom": True, "fate.orphaned": recorded.has_exited, "fate.aborted": aborts}
    possible = [name for name, is_possible in causes.items() if is_possible]
    for name in causes:
        is_only = possible == [name]
        most = lost if name == "fate.phantom" else lost + unconnected["reset"]  # a reset can end the handshake, too
        high = most if name in possible else 0
        values[name] = Bounds(low=lost if is_only else 0, high=max(high, 0))
    return values


def accept_metrics(recorded: Recorded, accepts: list[Accept]) -> Expected:
    """Return accept.*: the wait in the accept queue, and the clients that still wait at the end."""
    judged = recorded.end_of_service_ns
    own = [one for one in accepts if one.is_of_attempt and not one.is_after_end]
    known = [one for one in own if one.client is not None]
    served = [one for one in known if not one.flags & SHED]
    values = _waits(served)
    if len(known) == len(own):  # clients that were shed may be included or not
        values = {
            key: _either(bounds, other)
            for (key, bounds), other in zip(values.items(), _waits(own).values(), strict=True)
        }
    else:
        longest = max((_longest(one, judged, recorded) for one in own), default=0) / NS
        values = {key: Bounds(low=0, high=longest, may_lack=True) for key in values}
    values["accept.samples"] = Bounds(low=len(served), high=len(own))
    lateness = [one.lateness_ms for one in known]
    values["accept.late"] = Bounds(
        low=sum(one > LATE_MS + AGE_ERROR_MS for one in lateness),
        high=sum(one > LATE_MS - AGE_ERROR_MS for one in lateness) + len(own) - len(known),
    )
    doubts = np.sort([one.client.connected - one.client.started for one in known if one.client]) / NS
    values["accept.uncertainty_s"] = percentile(doubts, doubts, 0.5) if len(doubts) else ABSENT
    if len(doubts) != len(own) or len(served) != len(known):
        values["accept.uncertainty_s"] = Bounds(low=0, high=math.inf, may_lack=True)
    return values | _waiting(recorded, accepts) | {"accept.pause_max_s": _longest_pause(recorded, accepts)}


def _waits(accepts: list[Accept]) -> Expected:
    waits = [_wait(one) for one in accepts]
    return statistics("accept", [low for low, _ in waits], [high for _, high in waits])


def _either(one: Bounds | None, other: Bounds | None) -> Bounds | None:
    """Return bounds around two bounds."""
    if one is None or other is None:
        known = one or other
        return known and Bounds(low=known.low, high=known.high, may_lack=True)
    return Bounds(low=min(one.low, other.low), high=max(one.high, other.high))


def _wait(one: Accept) -> tuple[float, float]:
    early, late = one.entered
    return max(0, one.at - late), max(0, one.at - early)


def _longest(one: Accept, judged: int, recorded: Recorded) -> float:
    return _wait(one)[1] if one.client is not None else judged - recorded.facts["start_ns"]


def _waiting(recorded: Recorded, accepts: list[Accept]) -> Expected:
    judged = recorded.facts["judged_ns"]
    waiting = [one for one in accepts if one.is_after_end and one.is_of_attempt]
    queued = [one for one in accepts if one.is_after_end]
    values: Expected = {"accept.waiting": Bounds(low=len(waiting), high=len(queued))}
    if not queued:
        values["accept.waiting_max_s"] = ABSENT
        return values
    since = [one.entered for one in queued if one.client is not None]
    is_open = len(since) < len(queued) or len(waiting) < len(queued)
    values["accept.waiting_max_s"] = Bounds(
        low=0 if is_open else (judged - min(late for _, late in since)) / NS,
        high=(judged - min((early for early, _ in since), default=recorded.facts["start_ns"])) / NS,
        may_lack=not waiting,
    )
    return values


def _longest_pause(recorded: Recorded, accepts: list[Accept]) -> Bounds | None:
    """Return the longest time in which clients waited and none was accepted.

    The queue is first in, first out. Between two accepts a client waits from the moment at which the client of the
    second accept entered the queue.
    """
    if any(one.client is None for one in accepts):
        return Bounds(low=0, high=math.inf, may_lack=True)
    end = recorded.end_of_service_ns
    lows, highs = [0.0], [0.0]
    before = recorded.facts["start_ns"]
    done = [one for one in accepts if not one.is_after_end]
    for one in done:
        early, late = one.entered
        lows.append(one.at - max(before, late))
        highs.append(one.at - max(before, early))
        before = one.at
    rest = [one.entered for one in accepts if one.is_after_end]
    lost = _lost_connected(recorded, accepts) if recorded.has_exited else []
    if rest:
        lows.append(end - max(before, min(late for _, late in rest)))
    if rest or lost:
        highs.append(end - max(before, min([early for early, _ in rest] + lost)))
    return Bounds(low=max(lows) / NS, high=max(highs) / NS, may_lack=max(lows) <= 0)


def _lost_connected(recorded: Recorded, accepts: list[Accept]) -> list[int]:
    """Return when the clients without an accept record connected: they may have been queued when the server exited."""
    named = {(one.client.source, one.client.port, one.client.connected) for one in accepts if one.client is not None}
    lost = []
    for rows in (recorded.attempts, recorded.canary, recorded.held):
        lost += [
            int(row["started"])
            for row in rows[rows["connected"] > 0]
            if (int(row["source"]), int(row["port"]), int(row["connected"])) not in named
        ]
    return lost


def queue_metrics(recorded: Recorded, accepts: list[Accept]) -> Expected:
    """Return queue.*."""
    sampled = column(recorded.samples, "queue").max(initial=0)
    capacities = _capacities(recorded)
    sizes = [size for _, size in capacities]
    values: Expected = {"queue.capacity": Bounds(low=min(sizes), high=max(sizes))}
    is_open = any(one.client is None for one in accepts)
    lost = _lost_connected(recorded, accepts) if recorded.has_exited or is_open else []
    never = 1 << 62
    known = [one for one in accepts if one.client is not None]
    least = [(one.entered[1], never if one.is_after_end else one.at) for one in known]
    most = [(one.entered[0], never if one.is_after_end else one.at) for one in known]
    most += [(at, recorded.end_of_service_ns) for at in lost]
    low, high = _peak(least) - 1, _peak(most)
    values["queue.max"] = Bounds(low=max(low, sampled, 0), high=max(high, sampled))
    begin, end = recorded.facts["start_ns"], recorded.facts["load_end_ns"]
    slack = (len(accepts) * _STAMP_NS + 10_000_000) / max(end - begin, 1)
    shares = [_full_time(one, capacities, begin, end) / max(end - begin, 1) for one in (least, most)]
    values["queue.full_share"] = Bounds(low=max(0.0, shares[0] - slack), high=min(1.0, shares[1] + slack))
    return values


def _capacities(recorded: Recorded) -> list[tuple[int, int]]:
    """Return the queue capacities, min(backlog, somaxconn) + 1, each with the time from which it was in force."""
    most = int(recorded.facts["sysctls"].get("net.core.somaxconn", 1 << 31))
    found = [(0, min(recorded.facts["server"]["backlog_asked"], most) + 1)]
    return found + [
        (step["done_ns"], min(int(step["asked"]), most) + 1)
        for step in recorded.facts["steps"]
        if step["change"] == "backlog" and step["refused"] is None
    ]


def _events(stays: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the changes of the queue length in order of time, entries before departures of the same time."""
    changes = [(since, 1) for since, _ in stays] + [(until, -1) for _, until in stays]
    yield from sorted(changes, key=lambda change: (change[0], -change[1]))


def _peak(stays: Sequence[tuple[int, int]]) -> int:
    length = most = 0
    for _, change in _events(stays):
        length += change
        most = max(most, length)
    return most


def _full_time(stays: Sequence[tuple[int, int]], capacities: list[tuple[int, int]], begin: int, end: int) -> int:
    """Return for how long the queue was at its capacity of that time."""
    steps = [(at, 0, size) for at, size in capacities] + [(at, change, 0) for at, change in _events(stays)]
    length, size, full, before = 0, capacities[0][1], 0, begin
    for at, change, new_size in sorted(steps, key=lambda step: (step[0], -step[1])):
        now = min(max(at, begin), end)
        if length >= size:
            full += now - before
        before = now
        length += change
        size = new_size or size
    return full + (end - before if length >= size else 0)
