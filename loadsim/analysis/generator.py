"""The generator's own part in what was measured: it accuses itself first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Bools, Ints, between, column, nearest_rank
from loadsim.fates import Fate, Outcome
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.view import View

#: A lag beyond both of these matters, seconds and a share of the mean interval: at the 90th percentile the schedule was
#: not kept, at the 99th it is worth a remark. Less is any busy machine's scheduler; it stands in the response times,
#: which count from the intended start, and changes no fate.
LAG_S, LAG_SHARE = 0.010, 0.05
#: Cores of one driver beyond which it is the bottleneck.
CPU_CORES = 0.9
#: Within less than this a driver is busy starting and ending: a load of one attempt took 1.27 cores for 1.3 ms.
_SHORTEST_NS = NANOSECONDS // 20
#: Below this many attempts the 99th percentile is one attempt, and one preemption would condemn a run.
_ENOUGH = 100


def generator_metrics(view: View) -> dict[str, float]:
    """Return generator.*: the lag behind the schedule, the busiest driver, its own failures, and the verdict."""
    numbers: dict[str, float] = {"generator.local_failures": int(own_failures(view).sum())}
    lag = np.sort(lags(view))
    if len(lag):
        numbers["generator.lag.p50"] = nearest_rank(lag, 0.5) / NANOSECONDS
        numbers["generator.lag.max"] = int(lag[-1]) / NANOSECONDS
    if len(lag) >= _ENOUGH:
        numbers["generator.lag.p90"] = nearest_rank(lag, 0.9) / NANOSECONDS
        numbers["generator.lag.p99"] = nearest_rank(lag, 0.99) / NANOSECONDS
    cores = [
        driver.cpu_ns / driver.wall_ns for driver in view.recording.facts.drivers if driver.wall_ns >= _SHORTEST_NS
    ]
    if cores:
        numbers["generator.cpu"] = max(cores)
    numbers["generator.limited"] = int(
        lag_limit_s(view) < numbers.get("generator.lag.p90", 0.0)
        or numbers.get("generator.cpu", 0.0) > CPU_CORES
        or bool((own_failures(view) | view.ledger.having(Fate.NOT_STARTED)).any())
    )
    return numbers


def own_failures(view: View) -> Bools:
    """Return which attempts failed at the generator's own limits, also after the server had accepted them."""
    return np.equal(column(view.recording.attempts, "outcome"), Outcome.LOCAL)


def lags(view: View) -> Ints:
    """Return how late each attempt started behind its schedule; empty in a closed loop, which has none."""
    if view.setting("client", "clients"):
        return np.zeros(0, dtype=np.int64)
    return between(view.recording.attempts, "intended", "started")


def lag_limit_s(view: View) -> float:
    """Return the lag that does not matter: 10 ms, or 5 % of the mean interval between attempts."""
    intended = column(view.recording.attempts, "intended")
    if len(intended) < 2:
        return LAG_S
    interval = float(intended.max() - intended.min()) / NANOSECONDS / (len(intended) - 1)
    return max(LAG_S, LAG_SHARE * interval)
