"""Every metric of summary.json, computed again from the records and from its definition in `loadsim.metrics`.

Written from the definitions and not from the code that computes them: a mistake there must not be repeated here. A
metric is an interval: exact where the records are exact, and as wide as the records leave open elsewhere (a handshake
ends between two stamps, a sample is taken every 10 ms).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from oracle_join import AGE_ERROR_MS, LATE_MS, joined
from oracle_records import (
    AFTER_END,
    CANARY,
    EMFILE,
    FAILED,
    HELD,
    IDLE,
    IN_HANDLER,
    LEAKED,
    OUTCOMES,
    PENDING,
    SHED,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from oracle_join import Accept
    from oracle_records import Recorded

NS = 1_000_000_000
#: A SYN is lost when the kernel repeats it after its time-out of a second; a repetition within milliseconds met an old
#: connection of the same 4-tuple and was answered.
SYN_TIMEOUT_NS = 900_000_000
#: p90 and p99 are shown from 100 samples on, p999 from 10,000.
FEW, MANY = 100, 10_000
#: An accept() or a close() takes at most this long from the event to its stamp.
_STAMP_NS = 50_000
_SERVED = ("ok", "connected")
_TURNED_AWAY = ("refused", "reset", "eof", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Between which two values a metric lies, and whether it may be absent."""

    low: float
    high: float
    may_lack: bool = False

    def holds(self, value: float | None) -> bool:
        """Return whether a value of summary.json agrees."""
        if value is None:
            return self.may_lack
        slack = 1e-9 + 1e-6 * abs(value)
        return self.low - slack <= value <= self.high + slack

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.6g}"
        return f"{self.low:.6g} .. {self.high:.6g}"


#: A metric that must be absent.
ABSENT = None
Expected = dict[str, Bounds | None]


def exactly(value: float) -> Bounds:
    """Return bounds around one value."""
    return Bounds(low=float(value), high=float(value))


def expected(recorded: Recorded) -> Expected:
    """Return the bounds of every metric by its key in summary.json; None where it must be absent."""
    accepts = joined(recorded)
    values: Expected = {}
    for compute in (_attempts, _clients_times, _failures, _samples, _run_waits, _canary, _held, _generator):
        values |= compute(recorded)
    for compute_with in (_fates, _accept, _queue, _descriptors, _limit_rates, _recovery):
        values |= compute_with(recorded, accepts)
    values["server.log_rate"] = ABSENT
    values |= {f"accept_least.{one}_s": ABSENT for one in ("p50", "p90", "p99", "p999", "max", "mean")}
    return values


def column(rows: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return a column as signed integers: times are unsigned in the records, and differences would wrap."""
    return rows[name].astype(np.int64)


def outcomes_of(rows: NDArray[Any]) -> Counter[str]:
    """Return how often each outcome occurs."""
    return Counter(OUTCOMES[code] for code in rows["outcome"])


# times and percentiles


def statistics(name: str, low: Iterable[float], high: Iterable[float] | None = None) -> Expected:
    """Return the statistics of a family of times between their lower and upper bounds, in seconds.

    The order statistics of values are between those of their bounds. Two definitions of a percentile (nearest rank and
    interpolated) are accepted.
    """
    lows = np.sort(np.array(list(low), dtype=float)) / NS
    highs = lows if high is None else np.sort(np.array(list(high), dtype=float)) / NS
    count = len(lows)
    values: Expected = {}
    for one, share, needed in (("p50", 0.5, 1), ("p90", 0.9, FEW), ("p99", 0.99, FEW), ("p999", 0.999, MANY)):
        values[f"{name}.{one}_s"] = _percentile(lows, highs, share) if count >= needed else ABSENT
    for one, function in (("max", np.max), ("mean", np.mean)):
        both = Bounds(low=float(function(lows)), high=float(function(highs))) if count else ABSENT
        values[f"{name}.{one}_s"] = both
    return values


def _percentile(lows: NDArray[Any], highs: NDArray[Any], share: float) -> Bounds:
    last = len(lows) - 1
    at = {math.floor(last * share), math.ceil(last * share), min(last, max(0, math.ceil(len(lows) * share) - 1))}
    return Bounds(low=float(lows[min(at)]), high=float(highs[max(at)]))


# from attempts


def _attempts(recorded: Recorded) -> Expected:
    rows = recorded.attempts
    outcomes = outcomes_of(rows)
    started = column(rows, "started")
    begun = started[started > 0]
    start_ns = recorded.facts["start_ns"]
    is_delayed = _delayed(rows, recorded.facts["judged_ns"])
    is_served = np.isin(rows["outcome"], [OUTCOMES.index(one) for one in _SERVED])
    values: Expected = {f"outcome.{one}": exactly(outcomes[one]) for one in OUTCOMES}
    values |= {
        "attempts.count": exactly(len(rows)),
        "attempts.delayed": exactly(is_delayed.sum()),
        "attempts.late": exactly((is_delayed & is_served).sum()),
        "attempts.served": exactly(is_served.mean()) if len(rows) else ABSENT,
        "attempts.rate": exactly(len(begun) / ((begun.max() - start_ns) / NS)) if len(begun) else ABSENT,
        "generator.local_failures": exactly(outcomes["local"]),
    }
    return values


def _delayed(rows: NDArray[Any], judged_ns: int) -> NDArray[np.bool_]:
    """Return which attempts lost a SYN: one was repeated, and not within milliseconds."""
    until = column(rows, "connected")
    until = np.where(until > 0, until, column(rows, "ended"))
    until = np.where(until > 0, until, judged_ns)
    is_slow: NDArray[np.bool_] = (rows["syn_retransmits"] > 0) & (until - column(rows, "started") > SYN_TIMEOUT_NS)
    return is_slow


def _clients_times(recorded: Recorded) -> Expected:
    rows = recorded.attempts
    values: Expected = {}
    for name, since, until in (
        ("connect", "intended", "connected"),
        ("connect_service", "started", "connected"),
        ("reply", "intended", "replied"),
    ):
        there = rows[rows[until] > 0]
        values |= statistics(name, column(there, until) - column(there, since))
    answered = recorded.held[recorded.held["replied"] > 0]
    values |= statistics("held.reply", column(answered, "replied") - column(answered, "intended"))
    return values


def _generator(recorded: Recorded) -> Expected:
    rows = recorded.attempts[recorded.attempts["started"] > 0]
    lag = statistics("generator.lag", column(rows, "started") - column(rows, "intended"))
    if recorded.settings["client"]["clients"]:  # a closed loop has no schedule to be behind
        lag = dict.fromkeys(lag, ABSENT)
    values = {key: value for key, value in lag.items() if not key.endswith(("p999_s", "mean_s"))}
    cpus = [driver["cpu_ns"] / driver["wall_ns"] for driver in recorded.facts["drivers"] if driver["wall_ns"]]
    cpu = max(cpus, default=0.0)
    is_short = any(driver["wall_ns"] < NS // 10 for driver in recorded.facts["drivers"])  # too short to tell
    values["generator.cpu"] = Bounds(low=cpu, high=cpu, may_lack=is_short or not cpus)
    outcomes = outcomes_of(recorded.attempts)
    is_busy = cpu > 0.9
    is_certain = (is_busy and not is_short) or outcomes["local"] + outcomes["not_started"] > 0
    lags = np.sort(column(rows, "started") - column(rows, "intended")) / NS
    p90 = _percentile(lags, lags, 0.9) if len(lags) and not recorded.settings["client"]["clients"] else exactly(0)
    # Every load here has at least 5 attempts a second: 5 % of its interval is then at most 10 ms.
    low, high = is_certain or p90.low > 0.01, is_certain or is_busy or p90.high > 0.01
    values["generator.limited"] = Bounds(low=float(low), high=float(high))
    return values


# from the join


def _fates(recorded: Recorded, accepts: list[Accept]) -> Expected:
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
    ways = {"fate.phantom": True, "fate.orphaned": recorded.has_exited, "fate.aborted": aborts}
    possible = [name for name, is_possible in ways.items() if is_possible]
    for name in ways:
        is_only = possible == [name]
        most = lost if name == "fate.phantom" else lost + unconnected["reset"]  # a reset can end the handshake itself
        high = most if name in possible else 0
        values[name] = Bounds(low=lost if is_only else 0, high=max(high, 0))
    return values


def _accept(recorded: Recorded, accepts: list[Accept]) -> Expected:
    judged = _end_of_service(recorded)
    own = [one for one in accepts if one.is_of_attempt and not one.is_after_end]
    known = [one for one in own if one.client is not None]
    served = [one for one in known if not one.flags & SHED]
    values = _waits(served)
    if len(known) == len(own):  # these may include the clients that were shed, or not
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
    values["accept.uncertainty_s"] = _percentile(doubts, doubts, 0.5) if len(doubts) else ABSENT
    if len(doubts) != len(own) or len(served) != len(known):
        values["accept.uncertainty_s"] = Bounds(low=0, high=math.inf, may_lack=True)
    return values | _waiting(recorded, accepts) | {"accept.pause_max_s": _longest_pause(recorded, accepts)}


def _waits(accepts: list[Accept]) -> Expected:
    waits = [_wait(one) for one in accepts]
    return statistics("accept", [low for low, _ in waits], [high for _, high in waits])


def _either(one: Bounds | None, other: Bounds | None) -> Bounds | None:
    """Return bounds that hold for what one of two holds for."""
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
    """Return the longest time in which a client waited and none was accepted.

    The queue is first in, first out: from one accept to the next a client waited from the moment at which the one that
    is accepted next had entered.
    """
    if any(one.client is None for one in accepts):
        return Bounds(low=0, high=math.inf, may_lack=True)
    end = _end_of_service(recorded)
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


def _end_of_service(recorded: Recorded) -> int:
    exited: int = recorded.facts["server"]["exited_ns"]
    judged: int = recorded.facts["judged_ns"]
    return min(exited, judged) if exited else judged


def _lost_connected(recorded: Recorded, accepts: list[Accept]) -> list[int]:
    """Return when the clients connected that no accept record names: where the server died they may have queued."""
    named = {(one.client.source, one.client.port, one.client.connected) for one in accepts if one.client is not None}
    lost = []
    for rows in (recorded.attempts, recorded.canary, recorded.held):
        lost += [
            int(row["started"])
            for row in rows[rows["connected"] > 0]
            if (int(row["source"]), int(row["port"]), int(row["connected"])) not in named
        ]
    return lost


# the queue


def _capacities(recorded: Recorded) -> list[tuple[int, int]]:
    """Return from when on which capacity was in force: min(backlog, somaxconn) + 1, changed by steps."""
    most = int(recorded.facts["sysctls"].get("net.core.somaxconn", 1 << 31))
    found = [(0, min(recorded.facts["server"]["backlog_asked"], most) + 1)]
    return found + [
        (step["done_ns"], min(int(step["asked"]), most) + 1)
        for step in recorded.facts["steps"]
        if step["change"] == "backlog" and step["refused"] is None
    ]


def _queue(recorded: Recorded, accepts: list[Accept]) -> Expected:
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
    most += [(at, _end_of_service(recorded)) for at in lost]
    low, high = _peak(least) - 1, _peak(most)
    values["queue.max"] = Bounds(low=max(low, sampled, 0), high=max(high, sampled))
    begin, end = recorded.facts["start_ns"], recorded.facts["load_end_ns"]
    slack = (len(accepts) * _STAMP_NS + 10_000_000) / max(end - begin, 1)
    shares = [_full_time(one, capacities, begin, end) / max(end - begin, 1) for one in (least, most)]
    values["queue.full_share"] = Bounds(low=max(0.0, shares[0] - slack), high=min(1.0, shares[1] + slack))
    return values


def _events(stays: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the changes of the number present, in order of time; an entry comes before a departure of the same time."""
    changes = [(since, 1) for since, _ in stays] + [(until, -1) for _, until in stays]
    yield from sorted(changes, key=lambda change: (change[0], -change[1]))


def _peak(stays: Sequence[tuple[int, int]]) -> int:
    there = most = 0
    for _, change in _events(stays):
        there += change
        most = max(most, there)
    return most


def _full_time(stays: Sequence[tuple[int, int]], capacities: list[tuple[int, int]], begin: int, end: int) -> int:
    """Return for how long at least as many were present as the queue could hold at that time."""
    steps = [(at, 0, size) for at, size in capacities] + [(at, change, 0) for at, change in _events(stays)]
    there, size, full, before = 0, capacities[0][1], 0, begin
    for at, change, new_size in sorted(steps, key=lambda step: (step[0], -step[1])):
        now = min(max(at, begin), end)
        if there >= size:
            full += now - before
        before = now
        there += change
        size = new_size or size
    return full + (end - before if there >= size else 0)


# descriptors


def _failures(recorded: Recorded) -> Expected:
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


def _limit_changes(recorded: Recorded) -> list[tuple[int, int]]:
    found = [(0, recorded.facts["server"]["nofile_soft"])]
    return found + [
        (step["done_ns"], int(step["after"] or step["asked"]))
        for step in recorded.facts["steps"]
        if step["change"] == "nofile" and step["refused"] is None
    ]


def _limit_at(changes: list[tuple[int, int]], moment: int) -> int:
    return next(limit for at, limit in reversed(changes) if at <= moment)


def _descriptors(recorded: Recorded, accepts: list[Accept]) -> Expected:
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
    if full:  # a server can be full before the load: then this is 0, or a time before the start
        at = (min(full) - facts["start_ns"]) / NS
        values["fds.limit_at_s"] = Bounds(low=at, high=max(at, 0))
    else:
        values["fds.limit_at_s"] = ABSENT
    values["fds.leaked"] = _leaked(recorded, accepts)
    values["fds.growth_stall_s"] = Bounds(low=0, high=math.inf, may_lack=True)
    return values


def _leaked(recorded: Recorded, accepts: list[Accept]) -> Bounds | None:
    """Return how many descriptors the server chose never to close although their clients have left.

    The records name the connections that leak. Descriptors of a request leak with its connection, or instead of it.
    """
    if recorded.has_exited:
        return Bounds(low=-math.inf, high=math.inf, may_lack=True)
    server = recorded.settings["server"]
    extras = server["extra_fds"]
    chosen = [one for one in accepts if one.flags & LEAKED and not one.is_after_end]
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
    left = [one for one in chosen if one.client is None or (one.source, one.client.port) not in still]
    sure = sum(one.client is not None for one in left)
    return Bounds(low=sure, high=len(left) * (1 + extras))


def _limit_rates(recorded: Recorded, accepts: list[Accept]) -> Expected:
    """Return the rates over the time at the limit."""
    failures = recorded.failures[(recorded.failures["errno"] == EMFILE) & ((recorded.failures["flags"] & IDLE) == 0)]
    count = int(failures["count"].sum())
    values: Expected = {"emfile.rate": ABSENT if not count else Bounds(low=0, high=math.inf)}
    if count and recorded.settings["server"]["extra_fds"] == 0:
        at_limit = _time_at_limit(recorded, accepts)
        slack = 0.0005 + 0.02 * at_limit
        low, high = count / (at_limit + slack), count / max(at_limit - slack, 1e-9)
        values["emfile.rate"] = Bounds(low=low, high=high if at_limit > slack else math.inf)
    values["server.cpu_at_limit"] = _cpu_at_limit(recorded)
    return values


def _time_at_limit(recorded: Recorded, accepts: list[Accept]) -> float:
    """Return the seconds from the start until the judgement in which every descriptor was taken."""
    changes = _limit_changes(recorded)
    events: list[tuple[int, int, int]] = [(at, 0, 0) for at, _ in changes[1:]]
    for one in accepts:
        if one.is_after_end:
            continue
        events.append((one.at, 1, one.open_fds))
        if one.closed and not one.flags & SHED:
            events.append((one.closed, -1, 0))
    begin, end = recorded.facts["start_ns"], _end_of_service(recorded)
    there, before, full = recorded.facts["server"]["baseline_fds"], begin, 0
    for at, kind, known in sorted(events):
        now = min(max(at, begin), end)
        if there >= _limit_at(changes, before):
            full += now - before
        before = now
        there = known if kind == 1 else there + kind
    return (full + (end - before if there >= _limit_at(changes, before) else 0)) / NS


def _cpu_at_limit(recorded: Recorded) -> Bounds:
    samples = recorded.samples[recorded.samples["cpu_ns"] >= 0]
    times, spent = column(samples, "time"), column(samples, "cpu_ns")
    is_full = (samples["fd_limit"] > 0) & (samples["open_fds"] >= samples["fd_limit"])
    both = is_full[1:] & is_full[:-1]
    seconds = np.diff(times)[both].sum() / NS
    cores = np.diff(spent)[both].sum() / NS / seconds if seconds else 0.0
    slack = 0.05 + 0.25 * cores + (0.02 / seconds if seconds else math.inf)
    return Bounds(low=max(0.0, cores - slack), high=cores + slack, may_lack=seconds < 0.1)


# from samples


def _samples(recorded: Recorded) -> Expected:
    samples = recorded.samples
    values: Expected = {}
    for name, field in (
        ("listen.overflows", "listen_overflows"),
        ("listen.drops", "listen_drops"),
        ("listen.cookies", "cookies"),
    ):
        values[name] = Bounds(low=_gain(samples, field), high=_gain(samples, field), may_lack=len(samples) == 0)
    values["syn.retransmits"] = exactly(recorded.attempts["syn_retransmits"].sum())
    drops = _gain(samples[samples["listen_drops"] >= 0], "drops") - _gain(samples, "listen_drops")
    values["listen.ack_drops"] = Bounds(low=max(drops, 0), high=max(drops, 0), may_lack=recorded.has_exited)
    values["server.rss_max"] = Bounds(
        low=float(samples["rss"].max(initial=0)), high=float(samples["rss"].max(initial=0)), may_lack=not len(samples)
    )
    begin, end = recorded.facts["start_ns"], recorded.facts["load_end_ns"]
    known = samples[samples["cpu_ns"] >= 0]
    times, spent = column(known, "time"), column(known, "cpu_ns")
    cores = float(np.interp(end, times, spent) - np.interp(begin, times, spent)) / max(end - begin, 1)
    slack = 0.01 + 0.05 * cores + 10_000_000 / max(end - begin, 1)
    while_alive = cores * (end - begin) / max(_end_of_service(recorded) - begin, 1) if recorded.has_exited else cores
    values["server.cpu"] = Bounds(low=max(0.0, cores - slack), high=while_alive + slack, may_lack=recorded.has_exited)
    status = recorded.facts["server"]["exit_status"]
    values["server.exit"] = ABSENT if status is None else exactly(status)
    return values


def _run_waits(recorded: Recorded) -> Expected:
    """Return for how much of the load the server and the drivers were ready to run and had no CPU."""
    facts = recorded.facts
    begin, load_s = facts["start_ns"], (facts["load_end_ns"] - facts["start_ns"]) / NS
    known = recorded.samples[recorded.samples["run_wait_ns"] >= 0]
    times, waited = column(known, "time"), column(known, "run_wait_ns")

    def steps(until: int) -> NDArray[np.int64]:
        during = (times >= begin) & (times <= until)
        grown: NDArray[np.int64] = np.diff(waited[during]).clip(min=0)
        return grown

    shares = [one["run_wait_ns"] / one["wall_ns"] for one in facts["drivers"] if one["run_wait_ns"] >= 0]
    in_load, in_all = steps(facts["load_end_ns"]), steps(max(facts["load_end_ns"], _end_of_service(recorded)))
    values: Expected = {"server.run_wait": ABSENT, "server.run_wait_max_s": ABSENT}
    if len(in_load):
        shares.append(in_load.sum() / NS / load_s)
        values = {"server.run_wait": exactly(shares[-1]), "server.run_wait_max_s": exactly(in_all.max() / NS)}
    return values | {"host.run_wait": exactly(max(shares)) if shares else ABSENT}


def _gain(samples: NDArray[Any], name: str) -> float:
    read = column(samples, name)
    read = read[read >= 0]
    return float(read[-1] - read[0]) if len(read) else 0.0


# the canary, recovery, held connections


def _canary(recorded: Recorded) -> Expected:
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


def _recovery(recorded: Recorded, _: list[Accept]) -> Expected:
    """Return how long the server took to come back after each step that made a descriptor free."""
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


def _held(recorded: Recorded) -> Expected:
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
        "held.unanswered": Bounds(  # whether a request on a connection that was cut counts is left open
            low=float((rows["outcome"] == OUTCOMES.index("unfinished")).sum()), high=float((rows["replied"] == 0).sum())
        ),
    }
