"""From a recording of a command that was kept out of descriptors to the numbers that its verdict stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loadsim.analysis.clock import reliefs, settled, telling
from loadsim.fates import Outcome
from loadsim.record.recording import Bools, column, has_flag, has_outcome, known
from loadsim.record.records import FailureFlag
from loadsim.units import NANOSECONDS
from loadsim.verdict.classify import Observed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.dataset import Dataset
    from loadsim.record.recording import Records

#: Parts of the first second after the first failure in which one looks whether there were more.
_PARTS = 10
#: Pauses at the beginning and at the end that are looked at.
_FIRST, _LAST = 3, 5
#: Two failures that were counted in neighbouring readings of the counter have no pause between them.
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
    """Return what was seen in the time before the relief in which the server was kept at its limit.

    `metrics` are those of the run by name. A server that ended before the relief was seen until then.
    """
    facts, samples = data.recording.facts.server, data.recording.samples
    gave, recovery = reliefs(data.recording.facts.steps), data.recovery
    relief = gave[0].done_ns if gave else data.clock.load_end
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
        recovery_s=metrics.get("recovery.time", None if recovery or not gave else 0.0),
        needs_close=recovery is not None and [gave[0].change, recovery.helped.change] == ["nofile", "release"],
        leftover_fds=_leftover(data, metrics),
        **_failures(data, start, stop),
        **_canaries(data, start, stop),
        **_held(data.recording.held, start, stop),
    )


def _log_rate(readings: Sequence[Sequence[int]], start: int, stop: int) -> float | None:
    """Return the bytes per second between two moments, as far as readings lie between them."""
    inside = [reading for reading in readings if start <= reading[0] <= stop]
    if len(inside) < 2:
        return None
    (since, before), (until, written) = inside[0], inside[-1]
    return (written - before) * NANOSECONDS / max(until - since, 1)


def _leftover(data: Dataset, metrics: dict[str, float]) -> int | None:
    """Return the descriptors more than before, but for those of the connections that are still held on purpose."""
    if "fds.end" not in metrics or "fds.baseline" not in metrics:
        return None
    held = data.recording.held
    there = held[has_outcome(held, Outcome.OK, Outcome.ERROR, Outcome.UNFINISHED)]
    cut = held[has_outcome(held, Outcome.EOF, Outcome.RESET)]
    still_held = len(np.unique(column(there, "port"))) - len(np.unique(column(cut, "port")))
    return int(metrics["fds.end"] - metrics["fds.baseline"]) - max(still_held, 0)


def _failures(data: Dataset, start: int, stop: int) -> dict[str, Any]:
    """Return how often and how regularly accept() failed; all None where that is not visible."""
    if not data.recording.facts.server.emfile_seen:
        return {}
    failures = data.recording.failures
    ends, counts = column(failures, "last"), column(failures, "count")
    until = ends <= stop  # a reading that spans the relief may hold failures of the time after it
    ends, counts, idle = ends[until], counts[until], has_flag(failures, FailureFlag.IDLE)[until]
    inside = ends >= start
    numbers: dict[str, Any] = {
        "emfile": int(counts.sum()),
        "emfile_per_s": float(counts[inside].sum()) * NANOSECONDS / max(stop - start, 1),
    }
    if len(ends):
        part = (ends - ends[0]) * _PARTS // NANOSECONDS
        numbers["busy_share"] = len(np.unique(part[part < _PARTS])) / _PARTS
        pauses = np.diff(ends[~idle])  # with nobody to serve, no pause follows
        pauses = pauses[pauses > _PAUSE_NS]
        if len(pauses):
            numbers["first_pause_s"] = float(np.median(pauses[:_FIRST])) / NANOSECONDS
            numbers["last_pause_s"] = float(np.median(pauses[-_LAST:])) / NANOSECONDS
    return numbers


def _canaries(data: Dataset, start: int, stop: int) -> dict[str, Any]:
    """Return what canaries saw, by what it was: of those that set out in this time and had all their patience in it.

    Of those that set out near its end only the ones that were answered at once, or turned away, would count.
    """
    canaries = telling(data.recording.canary)
    patience = round((data.setting("canary", "timeout") or 0.0) * NANOSECONDS)
    intended = column(canaries, "intended")
    inside: Bools = (intended >= start) & (intended <= max(stop - patience, start)) & (settled(canaries) <= stop)
    return {name: int(has_outcome(canaries[inside], *outcomes).sum()) for name, outcomes in _NEW.items()}


def _held(held: Records, start: int, stop: int) -> dict[str, Any]:
    """Return how those were served in this time who were in: a server that keeps no connection has none."""
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
