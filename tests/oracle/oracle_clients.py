"""The metrics that clients measure: attempts, times of connections and replies, and the generator's own lag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from oracle_bounds import ABSENT, NS, Bounds, Expected, column, exactly, outcomes_of, percentile, statistics
from oracle_records import OUTCOMES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from oracle_records import Recorded


#: The kernel repeats a lost SYN after a second. A repetition within milliseconds met an old connection of the same
#: 4-tuple, and was answered.
SYN_TIMEOUT_NS = 900_000_000
_SERVED = ("ok", "connected")


def attempts_metrics(recorded: Recorded) -> Expected:
    """Return attempts.*, outcome.* and the local failures."""
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
    """Return which attempts lost a SYN: it was repeated, and not within milliseconds."""
    until = column(rows, "connected")
    until = np.where(until > 0, until, column(rows, "ended"))
    until = np.where(until > 0, until, judged_ns)
    is_slow: NDArray[np.bool_] = (rows["syn_retransmits"] > 0) & (until - column(rows, "started") > SYN_TIMEOUT_NS)
    return is_slow


def times_metrics(recorded: Recorded) -> Expected:
    """Return connect.*, connect_service.*, reply.* and held.reply.*."""
    rows = recorded.attempts
    values: Expected = {}
    for name, since, until in (
        ("connect", "intended", "connected"),
        ("connect_service", "started", "connected"),
        ("reply", "intended", "replied"),
    ):
        reached = rows[rows[until] > 0]
        values |= statistics(name, column(reached, until) - column(reached, since))
    answered = recorded.held[recorded.held["replied"] > 0]
    values |= statistics("held.reply", column(answered, "replied") - column(answered, "intended"))
    return values


def generator_metrics(recorded: Recorded) -> Expected:
    """Return the lag, the CPU and the limits of the generator."""
    rows = recorded.attempts[recorded.attempts["started"] > 0]
    lag = statistics("generator.lag", column(rows, "started") - column(rows, "intended"))
    if recorded.settings["client"]["clients"]:  # a closed loop has no schedule
        lag = dict.fromkeys(lag, ABSENT)
    values = {key: value for key, value in lag.items() if not key.endswith(("p999_s", "mean_s"))}
    cpus = [driver["cpu_ns"] / driver["wall_ns"] for driver in recorded.facts["drivers"] if driver["wall_ns"]]
    cpu = max(cpus, default=0.0)
    is_short = any(driver["wall_ns"] < NS // 10 for driver in recorded.facts["drivers"])  # too short to measure
    values["generator.cpu"] = Bounds(low=cpu, high=cpu, may_lack=is_short or not cpus)
    outcomes = outcomes_of(recorded.attempts)
    is_busy = cpu > 0.9
    is_certain = (is_busy and not is_short) or outcomes["local"] + outcomes["not_started"] > 0
    lags = np.sort(column(rows, "started") - column(rows, "intended")) / NS
    p90 = percentile(lags, lags, 0.9) if len(lags) and not recorded.settings["client"]["clients"] else exactly(0)
    # Every load here has at least 5 attempts a second, and 5 % of that interval are at most 10 ms.
    low, high = is_certain or p90.low > 0.01, is_certain or is_busy or p90.high > 0.01
    values["generator.limited"] = Bounds(low=float(low), high=float(high))
    return values
