"""From a recording of a command at its descriptor limit to the numbers of its verdict.

Owns the window in which the command is observed: the time at the limit before the relief, which is the first step that
frees descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadsim.analysis.recovery import reliefs, settled, telling
from loadsim.fates import Outcome
from loadsim.record.recording import Bools, column, has_flag, has_outcome, known
from loadsim.record.records import FailureFlag
from loadsim.units import NANOSECONDS
from loadsim.verdict.classify import Observed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.dataset import Dataset
    from loadsim.record.recording import Records

#: The first second after the first failure is divided into this many parts; those with a failure are counted.
_PARTS = 10
#: How many pauses at the beginning, and at the end, give the medians.
_FIRST, _LAST = 3, 5
#: Failures in neighbouring readings of the counter have no pause between them.
_PAUSE_NS = NANOSECONDS // 200

_NEW = {
    "new_ok": (Outcome.OK,),
    "new_silent": (Outcome.REPLY_TIMEOUT,),
    "new_unreachable": (Outcome.CONNECT_TIMEOUT,),
    "new_turned_away": (Outcome.REFUSED, Outcome.RESET, Outcome.EOF),
    "new_failed": (Outcome.ERROR,),
}


def observe(
    data: Dataset, metrics: dict[str, float], *, trial: str, exhausted_s: float, leaks: bool = False
) -> Observed:
    """Return the numbers of one run, most of them from the `exhausted_s` before the relief.

    `metrics` are the metrics of the run by name. For a server that exited before the relief, the window ends there.
    """
    facts, samples = data.recording.facts.server, data.recording.samples
    freeing, recovery = reliefs(data.recording.facts.steps), data.recovery
    relief = freeing[0].done_ns if freeing else data.clock.load_end
    stop = min(relief, facts.exited_ns or relief)
    start = max(relief - round(exhausted_s * NANOSECONDS), data.clock.start)
    window_s = max(stop - start, 0) / NANOSECONDS
    times, cpu = known(samples, "cpu_ns")
    inside = (times >= start) & (times <= stop)
    fds = known(samples, "open_fds")[1]
    return Observed(
        trial=trial,
        leaks=leaks,
        exhausted_s=window_s,
        exit_status=facts.exit_status,
        workers=facts.workers,
        restarts=facts.restarts,
        fds_max=int(fds.max()) if len(fds) else None,
        fd_limit=data.fd_limit,
        cpu_cores=float(np.ptp(cpu[inside]) / np.ptp(times[inside])) if inside.sum() > 1 else None,
        log_bytes_per_s=_log_rate(facts.log_read, start, stop),
        talks=any(has_outcome(one, Outcome.OK).any() for one in (data.recording.canary, data.recording.held)),
        watched_s=max(data.clock.judged - relief, 0) / NANOSECONDS,
        recovery_s=metrics.get("recovery.time", None if recovery or not freeing else 0.0),
        needs_close=recovery is not None and [freeing[0].change, recovery.helped.change] == ["nofile", "release"],
        leftover_fds=_leftover(data, metrics),
        **_failures(data, start, stop),
        **_canaries(data, start, stop),
        **_held(data.recording.held, start, stop),
    )


def _log_rate(readings: Sequence[Sequence[int]], start: int, stop: int) -> float | None:
    """Return the bytes per second between the first and the last reading inside the window."""
    inside = [reading for reading in readings if start <= reading[0] <= stop]
    if len(inside) < 2:
        return None
    (since, before), (until, written) = inside[0], inside[-1]
    return (written - before) * NANOSECONDS / max(until - since, 1)


def _leftover(data: Dataset, metrics: dict[str, float]) -> int | None:
    """Return how many more descriptors are open than before the load, without connections that are still held."""
    if "fds.end" not in metrics or "fds.baseline" not in metrics:
        return None
    held = data.recording.held
    still_open = held[has_outcome(held, Outcome.OK, Outcome.ERROR, Outcome.UNFINISHED)]
    cut = held[has_outcome(held, Outcome.EOF, Outcome.RESET)]
    still_held = len(np.unique(column(still_open, "port"))) - len(np.unique(column(cut, "port")))
    return int(metrics["fds.end"] - metrics["fds.baseline"]) - max(still_held, 0)


def _failures(data: Dataset, start: int, stop: int) -> dict[str, Any]:
    """Return how often and how regularly accept() failed; nothing where failures are not visible."""
    if not data.recording.facts.server.emfile_seen:
        return {}
    failures = data.recording.failures
    ends, counts = column(failures, "last"), column(failures, "count")
    until = ends <= stop  # a reading that spans the relief may count later failures
    ends, counts, idle = ends[until], counts[until], has_flag(failures, FailureFlag.IDLE)[until]
    inside = ends >= start
    numbers: dict[str, Any] = {
        "emfile": int(counts.sum()),
        "emfile_per_s": float(counts[inside].sum()) * NANOSECONDS / max(stop - start, 1),
    }
    if len(ends):
        part = (ends - ends[0]) * _PARTS // NANOSECONDS
        numbers["busy_share"] = len(np.unique(part[part < _PARTS])) / _PARTS
        pauses = np.diff(ends[~idle])  # a failure with an empty queue starts no pause
        pauses = pauses[pauses > _PAUSE_NS]
        if len(pauses):
            numbers["first_pause_s"] = float(np.median(pauses[:_FIRST])) / NANOSECONDS
            numbers["last_pause_s"] = float(np.median(pauses[-_LAST:])) / NANOSECONDS
    return numbers


def _canaries(data: Dataset, start: int, stop: int) -> dict[str, Any]:
    """Return the outcomes of the canaries that started in the window, at least their timeout before its end.

    Canaries that start later are left out: a fast outcome would count and a slow one would not.
    """
    canaries = telling(data.recording.canary)
    timeout = round((data.setting("canary", "timeout") or 0.0) * NANOSECONDS)
    intended = column(canaries, "intended")
    inside: Bools = (intended >= start) & (intended <= max(stop - timeout, start)) & (settled(canaries) <= stop)
    return {name: int(has_outcome(canaries[inside], *outcomes).sum()) for name, outcomes in _NEW.items()}


def _held(held: Records, start: int, stop: int) -> dict[str, Any]:
    """Return how the held connections were served in the window; nothing where the server had closed all before."""
    before = held[(column(held, "intended") <= stop) & ((column(held, "ended") >= start) | (held["ended"] == 0))]
    if not len(before):
        return {}
    answered = has_outcome(before, Outcome.OK, Outcome.ERROR)
    late = (column(before, "replied") - column(before, "intended"))[answered]
    return {
        "held": len(np.unique(column(before, "port"))),
        "held_cut": int((~answered & ~has_outcome(before, Outcome.UNFINISHED)).sum()),
        "held_unanswered": int(has_outcome(before, Outcome.UNFINISHED).sum()),
        "held_late_s": int(late.max()) / NANOSECONDS if len(late) else None,
    }
