"""The metrics of the kernel's counters and of the server's process, from the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from oracle_bounds import ABSENT, NS, Bounds, Expected, column, exactly

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from oracle_records import Recorded


def counters_metrics(recorded: Recorded) -> Expected:
    """Return listen.* and syn.*."""
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
    return values


def process_metrics(recorded: Recorded) -> Expected:
    """Return the memory, the CPU time and the exit status of the server."""
    samples = recorded.samples
    rss = float(samples["rss"].max(initial=0))
    known = samples[samples["cpu_ns"] >= 0]
    times, spent = column(known, "time"), column(known, "cpu_ns")
    cores = ABSENT
    if len(times):
        first, last = (np.abs(times - recorded.facts[name]).argmin() for name in ("start_ns", "load_end_ns"))
        if first != last:
            cores = exactly((spent[last] - spent[first]) / (times[last] - times[first]))
    status = recorded.facts["server"]["exit_status"]
    return {
        "server.rss_max": Bounds(low=rss, high=rss, may_lack=not len(samples)),
        "server.cpu": cores,
        "server.exit": ABSENT if status is None else exactly(status),
    }


def run_wait_metrics(recorded: Recorded) -> Expected:
    """Return how long server and drivers waited for a CPU: shares of the load, and the server's longest wait."""
    facts = recorded.facts
    begin, load_s = facts["start_ns"], (facts["load_end_ns"] - facts["start_ns"]) / NS
    known = recorded.samples[recorded.samples["run_wait_ns"] >= 0]
    times, waited = column(known, "time"), column(known, "run_wait_ns")

    def steps(until: int) -> NDArray[np.int64]:
        during = (times >= begin) & (times <= until)
        grown: NDArray[np.int64] = np.diff(waited[during]).clip(min=0)
        return grown

    shares = [one["run_wait_ns"] / one["wall_ns"] for one in facts["drivers"] if one["run_wait_ns"] >= 0]
    in_load, in_all = steps(facts["load_end_ns"]), steps(max(facts["load_end_ns"], recorded.end_of_service_ns))
    values: Expected = {"server.run_wait": ABSENT, "server.run_wait_max_s": ABSENT}
    if len(in_load):
        shares.append(in_load.sum() / NS / load_s)
        values = {"server.run_wait": exactly(shares[-1]), "server.run_wait_max_s": exactly(in_all.max() / NS)}
    return values | {"host.run_wait": exactly(max(shares)) if shares else ABSENT}


def _gain(samples: NDArray[Any], name: str) -> float:
    read = column(samples, name)
    read = read[read >= 0]
    return float(read[-1] - read[0]) if len(read) else 0.0
