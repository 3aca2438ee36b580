"""The metrics of one run, by the names of `loadsim.metrics`, and their comparison with the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.canary import watch_metrics
from loadsim.analysis.descriptors import descriptor_metrics
from loadsim.analysis.host import host_metrics
from loadsim.analysis.latency import accept_latencies, connect_latencies, family, own_accepts
from loadsim.analysis.summary import Compared
from loadsim.fates import Fate, Outcome
from loadsim.metrics import METRICS
from loadsim.record.recording import Bools, Ints, between, column, known, lost_a_syn, nearest_rank
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsim.analysis.accept_queue import Bounds
    from loadsim.analysis.dataset import Dataset


Numbers = dict[str, float]

#: A lag beyond both of these matters, seconds and a share of the mean interval. Where more than LATE_SHARE of the
#: attempts have it (and more than one), the schedule was not kept; at the 99th percentile it is worth a remark. A
#: smaller one is any busy machine's scheduler: it is in the response times, which count from the intended start, and
#: changes no fate.
LAG_S, LAG_SHARE, LATE_SHARE = 0.010, 0.05, 0.10
#: Cores of one driver beyond which it is the bottleneck.
CPU_CORES = 0.9
#: A shorter driver only starts and ends: a load of one attempt took 1.27 cores for 1.3 ms.
_SHORTEST_NS = NANOSECONDS // 20
#: From this many attempts on p90 and p99 are shown.
_ENOUGH = 100


def generator_metrics(data: Dataset) -> dict[str, float]:
    """Return generator.*: lag, CPU of the busiest driver, failures, and whether it set the pace of the run."""
    numbers: dict[str, float] = {"generator.local_failures": int(own_failures(data).sum())}
    lag = np.sort(lags(data))
    if len(lag):
        numbers["generator.lag.p50"] = nearest_rank(lag, 0.5) / NANOSECONDS
        numbers["generator.lag.max"] = int(lag[-1]) / NANOSECONDS
    if len(lag) >= _ENOUGH:
        numbers["generator.lag.p90"] = nearest_rank(lag, 0.9) / NANOSECONDS
        numbers["generator.lag.p99"] = nearest_rank(lag, 0.99) / NANOSECONDS
    cores = [
        driver.cpu_ns / driver.wall_ns for driver in data.recording.facts.drivers if driver.wall_ns >= _SHORTEST_NS
    ]
    if cores:
        numbers["generator.cpu"] = max(cores)
    numbers["generator.limited"] = int(
        late_starts(data) > max(LATE_SHARE * len(lag), 1)
        or numbers.get("generator.cpu", 0.0) > CPU_CORES
        or bool((own_failures(data) | data.ledger.having(Fate.NOT_STARTED)).any())
    )
    return numbers


def own_failures(data: Dataset) -> Bools:
    """Return which attempts failed at the generator's own limits, also after the server had accepted them."""
    return np.equal(column(data.recording.attempts, "outcome"), Outcome.LOCAL)


def lags(data: Dataset) -> Ints:
    """Return how late each attempt started behind its schedule; empty in a closed loop, which has none."""
    if data.setting("client", "clients"):
        return np.zeros(0, dtype=np.int64)
    return between(data.recording.attempts, "intended", "started")


def late_starts(data: Dataset) -> int:
    """Return how many attempts started later than does no harm."""
    return int((lags(data) > lag_limit_s(data) * NANOSECONDS).sum())


def lag_limit_s(data: Dataset) -> float:
    """Return the lag that does not matter: 10 ms, or 5 % of the mean interval between attempts."""
    intended = column(data.recording.attempts, "intended")
    if len(intended) < 2:
        return LAG_S
    interval = float(intended.max() - intended.min()) / NANOSECONDS / (len(intended) - 1)
    return max(LAG_S, LAG_SHARE * interval)


def measure(data: Dataset) -> Numbers:
    """Return all metrics of a run by name, times in seconds."""
    numbers: Numbers = {}
    for group in _GROUPS:
        numbers |= group(data)
    return numbers


def in_json(numbers: Numbers) -> Numbers:
    """Return metrics under their keys in `summary.json`, in the order of the table."""
    return {metric.json_key: numbers[name] for name, metric in METRICS.items() if name in numbers}


def _ledger(data: Dataset) -> Numbers:
    join = data.ledger.join
    joined = {"join.foreign": join.foreign, "join.ambiguous": join.ambiguous, "join.mismatched": join.mismatched}
    return {
        **{f"fate.{fate}": count for fate, count in data.ledger.fates().items()},
        **{f"outcome.{outcome}": count for outcome, count in data.ledger.outcomes().items()},
        **(joined if data.recording.facts.server.is_simulated else {}),
    }


def _attempts(data: Dataset) -> Numbers:
    attempts = data.recording.attempts
    started = column(attempts, "started")
    started = started[started > 0]
    delayed = lost_a_syn(attempts)
    served = np.isin(attempts["outcome"], [Outcome.OK, Outcome.CONNECTED])
    count = len(attempts) + data.recording.facts.lost_records.get("attempts", 0)
    numbers: Numbers = {
        "attempts.count": count,
        "attempts.delayed": int(delayed.sum()),
        "attempts.late": int((served & delayed).sum()),
        **({"attempts.served": int(served.sum()) / count} if count else {}),
        "syn.retransmits": int(column(attempts, "syn_retransmits").sum()),
    }
    span = data.clock.at(int(started.max())) if len(started) else 0.0
    if span > 0:
        numbers["attempts.rate"] = len(started) / span
    return numbers


def _client_times(data: Dataset) -> Numbers:
    attempts = data.recording.attempts
    return {
        **family("connect", connect_latencies(attempts).nanoseconds),
        **family("connect_service", between(attempts, "started", "connected")),
        **family("reply", between(attempts, "intended", "replied")),
    }


def _accept_times(data: Dataset) -> Numbers:
    """Return accept.*; nothing for a server without visible sockets."""
    if not data.recording.facts.server.is_simulated:
        return {} if data.bounds is None else _bounded_accept_times(data, data.bounds)
    ours = own_accepts(data)
    numbers: Numbers = {
        "accept.samples": int(ours.sum()),
        "accept.late": int((data.waits.late & ours).sum()),
        **family("accept", accept_latencies(data).nanoseconds),
    }
    if len(data.pauses.lengths):
        numbers["accept.pause_max"] = data.pauses.longest / NANOSECONDS
    return numbers | _uncertainty(data, data.ledger.join.attempt_of[ours]) | _still_waiting(data)


def _bounded_accept_times(data: Dataset, bounds: Bounds) -> Numbers:
    """Return accept.* of a server that writes no records, and accept_least.* if accept.* is an upper bound."""
    waiting = data.ledger.having(Fate.QUEUED)
    since = column(data.recording.attempts, "connected")[waiting]
    return {
        **({"accept.samples": len(bounds.most)} if len(bounds.most) else {}),
        **family("accept", bounds.most),
        **({} if bounds.exact else family("accept_least", bounds.least)),
        **_waiting(data, since, int(waiting.sum())),
    }


def _uncertainty(data: Dataset, accepted: Ints) -> Numbers:
    """Return the median time that accepted clients took to connect: their stamps are at most that late."""
    attempts = data.recording.attempts[accepted]
    took = between(attempts, "started", "connected")
    return {"accept.uncertainty": nearest_rank(np.sort(took), 0.5) / NANOSECONDS} if len(took) else {}


def _still_waiting(data: Dataset) -> Numbers:
    """Return how many connections were in the queue when the run was judged; 0 if the server had ended."""
    return _waiting(data, data.waits.entered[data.waits.left], int(data.waits.left.sum()))


def _waiting(data: Dataset, since: Ints, count: int) -> Numbers:
    numbers: Numbers = {"accept.waiting": count}
    if len(since := since[since > 0]):
        numbers["accept.waiting_max"] = max(data.clock.judged - int(since.min()), 0) / NANOSECONDS
    return numbers


def _queue(data: Dataset) -> Numbers:
    sampled = known(data.recording.samples, "queue")[1]
    if not (data.recording.facts.server.sockets_seen or len(sampled)):
        return {}
    longest, holds = data.queue_peak
    if data.capacity is None or holds is None:
        return {"queue.max": longest}
    numbers: Numbers = {"queue.max": longest, "queue.capacity": holds}
    clock = data.clock
    if clock.load_end > clock.start:
        full = data.queue.time_full(data.capacity, clock.start, clock.load_end)
        numbers["queue.full_share"] = full / (clock.load_end - clock.start)
    return numbers


def _listener(data: Dataset) -> Numbers:
    """Return what the kernel dropped; in a shared namespace only the drops of this listener."""
    samples = data.recording.samples
    if data.recording.facts.namespace != "private":
        own = known(samples, "drops")[1]
        return {**_grown("listen.overflows", own), **_grown("listen.drops", own)}
    _, all_drops, own_drops = known(samples, "listen_drops", "drops")
    numbers = {
        **_grown("listen.overflows", known(samples, "listen_overflows")[1]),
        **_grown("listen.drops", known(samples, "listen_drops")[1]),
        **_grown("listen.cookies", known(samples, "cookies")[1]),
    }
    if len(own_drops):
        numbers["listen.ack_drops"] = max(int(own_drops[-1] - own_drops[0] - all_drops[-1] + all_drops[0]), 0)
    return numbers


def _grown(name: str, readings: Ints) -> Numbers:
    return {name: int(readings[-1] - readings[0])} if len(readings) else {}


def _server(data: Dataset) -> Numbers:
    samples, clock = data.recording.samples, data.clock
    numbers: Numbers = {}
    times, cpu = known(samples, "cpu_ns")
    if len(times):
        first, last = (int(np.abs(times - moment).argmin()) for moment in (clock.start, clock.load_end))
        if first < last:
            numbers["server.cpu"] = float(cpu[last] - cpu[first]) / float(times[last] - times[first])
    _, rss = known(samples, "rss")
    if len(rss):
        numbers["server.rss_max"] = int(rss.max())
    server = data.recording.facts.server
    if server.log_bytes is not None and clock.judged > clock.start:
        numbers["server.log_rate"] = server.log_bytes * NANOSECONDS / (clock.judged - clock.start)
    if server.exit_status is not None:
        numbers["server.exit"] = server.exit_status
    return numbers


_GROUPS: tuple[Callable[[Dataset], Numbers], ...] = (
    _attempts,
    _ledger,
    _client_times,
    _accept_times,
    descriptor_metrics,
    _queue,
    _listener,
    _server,
    watch_metrics,
    generator_metrics,
    host_metrics,
)


#: A gap beyond this share is a finding; smaller differences than these come from the clock or from the arrivals.
GAP = 0.10
_GRAIN = {"s": 0.05, "": 2.0}


def compare(data: Dataset, numbers: dict[str, float]) -> list[Compared]:
    """Return each predicted number, or "never" (None), with the measured one."""
    predicted = data.recording.facts.prediction or {}
    never = predicted.get("never", [])
    moments = {
        "EMFILE": ("emfile", numbers.get("emfile.first_at")),
        "queue full": ("queue_full", data.queue_full_at_s),
    }
    rows = [
        Compared(name=name, unit="s", predicted=predicted.get(f"{event}_at_s"), measured=measured)
        for name, (event, measured) in moments.items()
        if predicted.get(f"{event}_at_s") is not None or event in never
    ]
    for fate, foretold in predicted.get("fates", {}).items():
        measured = numbers.get(f"fate.{fate}", 0)
        if foretold or measured:
            rows.append(Compared(name=fate, unit="", predicted=foretold, measured=measured))
    return rows


def is_gap(row: Compared) -> bool:
    """Return whether prediction and measurement differ by more than 10 %, or one of them is "never"."""
    if row.predicted is None or row.measured is None:
        return row.predicted is not row.measured
    difference = abs(row.predicted - row.measured)
    return difference > max(GAP * max(abs(row.predicted), abs(row.measured)), _GRAIN[row.unit])
