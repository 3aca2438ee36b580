"""The server's descriptors: their number, the time at the limit, leaks, and the rows of the growth table."""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.join import watchers
from loadsim.analysis.latency import own_accepts
from loadsim.analysis.summary import Band
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import Bools, Ints, column, emfile_records, has_flag, has_outcome, known, nearest_rank
from loadsim.record.records import AcceptFlag, AttemptFlag, FailureFlag, Where
from loadsim.units import NANOSECONDS, format_count

if TYPE_CHECKING:
    from loadsim.analysis.dataset import Dataset
    from loadsim.record.recording import Records


#: With fewer bands the curve cannot be seen.
_BANDS = 8
#: From this many samples on p99 is shown.
_ENOUGH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A pause of accepting in which the kernel enlarged the fd table."""

    fds: int  # the size of the table before
    length_s: float


def bands_of(data: Dataset, baseline: int, highest: int) -> list[Band]:
    """Return the bands of the numbers of open descriptors; `highest` is the most there ever were.

    They begin above the baseline, or at the fewest that a record shows: a server that sheds clients does so on a
    descriptor that it had kept in reserve.

    A server that writes no records has no bands: it is not known when it accepted each client.
    """
    if highest <= baseline or not data.recording.facts.server.is_simulated:
        return []
    points = growth_points(data)
    limits = _limits(data)
    shown = (column(data.recording.accepts, "open_fds")[data.waits.taken], _missed(data))
    lowest = min(baseline + 1, *(int(open_fds.min(initial=highest)) for open_fds in shown))
    starts = _starts(lowest, highest, [baseline + 1, *limits, *(above + 1 for above in (*points, *limits))])
    place = _Places(starts=starts, stops=np.append(starts[1:] - 1, highest))
    emfile, overflows = _band_emfile(data, place), _overflows(data, place)
    return [
        dataclasses.replace(
            _accepts(data, place, index),
            growth_point=int(start) - 1 in points,
            emfile=emfile[index],
            overflows=overflows[index] if overflows else None,
        )
        for index, start in enumerate(starts)
    ]


def growth_points(data: Dataset) -> list[int]:
    """Return the sizes of the fd table that became too small, ascending; the next descriptor enlarged it.

    The size is read ten times a second. A fast growth skips some: the table doubles each time.
    """
    _, sizes = known(data.recording.samples, "fd_size")
    if not len(sizes):
        return []
    points, size, last = [], int(sizes[0]), int(sizes.max())
    while 0 < size < last:
        points.append(size)
        size *= 2
    return points


def stalls(data: Dataset) -> list[Stall]:
    """Return the pause of accepting at each growth of the table, without the time in which no CPU was free."""
    lengths = np.where(data.pauses.starved, 0, data.pauses.own)
    return [
        Stall(fds=size, length_s=int(lengths[rows].max()) / NANOSECONDS) for size, rows in _rows_at_growth(data).items()
    ]


def stall_rows(data: Dataset) -> list[int]:
    """Return the accept() calls at which the table grew, by index among the calls of the running server."""
    return [row for rows in _rows_at_growth(data).values() for row in rows]


def _rows_at_growth(data: Dataset) -> dict[int, list[int]]:
    """Return for each size that became too small the accept() that met the full table, and the next one.

    The next one counts because a request may have opened the descriptor that did not fit.
    """
    fds = column(data.recording.accepts, "fd")[data.waits.taken]
    first = {size: np.flatnonzero(fds >= size)[:1] for size in growth_points(data)}
    return {
        size: list(range(int(rows[0]), min(int(rows[0]) + 2, len(fds)))) for size, rows in first.items() if len(rows)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Which band a number of open descriptors belongs to; a number outside of all belongs to the nearest."""

    starts: Ints
    stops: Ints  # inclusive

    def of(self, open_fds: Ints) -> Ints:
        return (np.searchsorted(self.starts, open_fds, "right") - 1).clip(0, len(self.starts) - 1)

    def sum(self, open_fds: Ints, weights: Ints) -> list[int]:
        sums = np.bincount(self.of(open_fds), weights=weights, minlength=len(self.starts))
        return [int(total) for total in sums]


def _starts(low: int, high: int, edges: list[int]) -> Ints:
    """Return where bands begin: at the lowest number and at these edges, halved until there are enough of them."""
    starts = sorted({low, *(edge for edge in edges if low < edge <= high)})
    while len(starts) < _BANDS:
        widths = [(stop - start, -start) for start, stop in zip(starts, [*starts[1:], high + 1], strict=True)]
        width, start = max(widths)
        if width < 2:
            break
        starts = sorted({*starts, -start + width // 2})
    return np.array(starts, dtype=np.int64)


def _accepts(data: Dataset, place: _Places, index: int) -> Band:
    """Return one band with its accept() calls, which are the ones that accept.* counts."""
    low, high = int(place.starts[index]), int(place.stops[index])
    open_fds = column(data.recording.accepts, "open_fds")
    waited = np.sort(data.waits.waited[own_accepts(data) & (place.of(open_fds) == index)])
    pauses = data.pauses.lengths[place.of(_open_at_pauses(data, high=int(place.stops[-1]))) == index]
    count = len(waited)
    return Band(
        fds_from=low,
        fds_to=high,
        label=_label(low, high, _limits(data)),
        growth_point=False,
        accepted=count,
        accept_p50_s=nearest_rank(waited, 0.5) / NANOSECONDS if count else None,
        accept_p99_s=nearest_rank(waited, 0.99) / NANOSECONDS if count >= _ENOUGH else None,
        accept_max_s=int(waited[-1]) / NANOSECONDS if count else None,
        pause_max_s=int(pauses.max()) / NANOSECONDS if len(pauses) else None,
        emfile=0,
        overflows=None,
    )


def _open_at_pauses(data: Dataset, *, high: int) -> Ints:
    """Return the open descriptors after each pause; after the last accept() if the end of the run ended the pause."""
    open_fds = column(data.recording.accepts, "open_fds")[data.waits.taken]
    return np.append(open_fds, open_fds[-1] if len(open_fds) else high) if data.pauses.final else open_fds


def _limits(data: Dataset) -> list[int]:
    """Return every limit of descriptors that was in force at some time."""
    return sorted({data.recording.facts.server.nofile_soft, *data.limit_changes.values()})


def _label(low: int, high: int, limits: list[int]) -> str:
    if low == high and low in limits:
        return f"{format_count(low)} = {'the' if len(limits) == 1 else 'a'} limit"
    return f"{format_count(low)} fds" if low == high else f"{format_count(low)} - {format_count(high)} fds"


def _missed(data: Dataset) -> Ints:
    """Return the open descriptors at each record of failures."""
    return column(emfile_records(data.recording, *Where), "open_fds")


def _band_emfile(data: Dataset, place: _Places) -> list[int]:
    return place.sum(_missed(data), column(emfile_records(data.recording, *Where), "count"))


def _overflows(data: Dataset, place: _Places) -> list[int] | None:
    """Return the packets that were lost at a full queue in each band; None if no counter was read.

    A loss between two readings counts for the band of the first. In a shared namespace the counter includes other
    listeners, and the listener's own drops replace it.
    """
    private = data.recording.facts.namespace == "private"
    _, open_fds, lost = known(data.recording.samples, "open_fds", "listen_overflows" if private else "drops")
    return place.sum(open_fds[:-1], np.diff(lost)) if len(lost) else None


Numbers = dict[str, float]


def descriptor_metrics(data: Dataset) -> Numbers:
    """Return fds.*, emfile.* and the CPU use at the limit; nothing if the server's process cannot be read."""
    facts, samples = data.recording.facts, data.recording.samples
    if not facts.server.process_seen:
        return {}
    _, open_fds = known(samples, "open_fds")
    peaks = [column(data.recording.accepts, "open_fds")[data.waits.taken], open_fds]
    peaks.append(column(emfile_records(data.recording, *Where), "open_fds"))
    numbers: Numbers = {
        "fds.baseline": _baseline(data),
        "fds.max": max(int(peak.max(initial=0)) for peak in peaks),
        "fds.limit": data.fd_limit,
    }
    numbers["fds.max"] = max(numbers["fds.max"], numbers["fds.baseline"])
    end = fds_at_end(data)
    if end is not None:
        numbers["fds.end"] = end
        numbers["fds.leaked"] = leaked_descriptors(data, int(numbers["fds.baseline"]), end)
    reached = limit_reached(data)
    if reached is not None:
        numbers["fds.limit_at"] = data.clock.at(reached)
    stood_still = stalls(data)
    if stood_still:
        numbers["fds.growth_stall"] = max(stall.length_s for stall in stood_still)
    return numbers | _emfile(data) | _cpu_at_limit(data)


def fds_at_end(data: Dataset) -> int | None:
    """Return the open descriptors once they no longer changed; None if the run ended before."""
    end = data.recording.facts.end
    if end is None:
        return None
    return end.fds_end if end.fds_end is not None else end.open_fds


def leaked_connections(data: Dataset) -> Bools:
    """Return which accept records are connections that the server will never close although their client has left.

    The simulated server marks them. It closes other connections later, such as after a pause. A server that ends also
    ends its clients: a client had left before only if the server did not cut it off.
    """
    recording, joined = data.recording, data.ledger.join
    accepts = recording.accepts
    kept = data.waits.taken & (accepts["closed"] == 0)
    gone = has_flag(accepts, AcceptFlag.LEAKED)  # nothing else is known about a foreign client
    ours, watched = joined.attempt_of >= 0, joined.watcher_of >= 0
    gone[ours] &= _have_left(data, recording.attempts)[joined.attempt_of[ours]]
    canaries = _have_left(data, recording.canary)
    # A held client keeps its socket until the run has been judged, also where its last request failed.
    have_left = np.append(canaries, np.zeros(len(watchers(recording)) - len(canaries), dtype=np.bool_))
    gone[watched] &= have_left[joined.watcher_of[watched]]
    result: Bools = kept & gone
    return result


def _have_left(data: Dataset, attempts: Records) -> Bools:
    """Return which clients closed their connection before the run was judged, and before the server ended."""
    left = (column(attempts, "ended") > 0) & ~has_flag(attempts, AttemptFlag.PENDING)
    died = data.recording.facts.server.exited_ns
    if died:
        cut_off = has_flag(attempts, AttemptFlag.CUT) | has_outcome(attempts, Outcome.EOF, Outcome.RESET)
        left &= ~cut_off & (column(attempts, "ended") <= died)
    return left


def leaked_descriptors(data: Dataset, baseline: int, end: int) -> int:
    """Return how many descriptors are no longer used and never closed.

    For a server that writes no records it is an estimate: descriptors that it has opened for itself count, too. Exact
    where a request opens nothing besides its socket: accepted and not closed. Else the difference between both ends of
    the run, without the connections that a client still holds and what their requests have opened.
    """
    if not data.recording.facts.server.is_simulated:
        pending = has_flag(data.recording.attempts, AttemptFlag.PENDING)
        return max(end - baseline - int((pending & data.ledger.having(Fate.ACCEPTED)).sum()), 0)
    extras = int(data.setting("server", "extra_fds") or 0)
    if not extras:
        return int(leaked_connections(data).sum())
    leaked = leaked_connections(data)
    held = data.waits.taken & (data.recording.accepts["closed"] == 0) & ~leaked
    more = max(end - baseline - int(held.sum()) - _opened_by_requests(data, held, extras), 0)
    if data.setting("server", "leak_of") == "extra":
        return more if data.setting("server", "leak") else 0
    connections = int(leaked.sum())  # each keeps what its request opened, if it sent one
    return min(max(more, connections), (1 + extras) * connections)


def _opened_by_requests(data: Dataset, connections: Bools, extras: int) -> int:
    """Return how many descriptors the requests on these connections keep open until the connection is closed.

    A held connection carries many requests, any other one. A server that leaks what requests open keeps it elsewhere.
    """
    held, watcher_of = data.recording.held, data.ledger.join.watcher_of
    rows = watchers(data.recording)
    served = held[has_outcome(held, Outcome.OK)]
    requests = np.ones(len(rows), dtype=np.int64)
    for index in range(len(data.recording.canary), len(rows)):
        same = (served["port"] == rows["port"][index]) & (served["connected"] == rows["connected"][index])
        requests[index] = same.sum()
    watched = connections & (watcher_of >= 0)
    count = int((connections & ~watched).sum()) + int(requests[watcher_of[watched]].sum())
    leak = data.setting("server", "leak") if data.setting("server", "leak_of") == "extra" else 0.0
    return round(extras * count * (1.0 - (leak or 0.0)))


def limit_reached(data: Dataset) -> int | None:
    """Return when the server was first known to have as many descriptors as it may; None = never.

    The earliest evidence counts: a sample may show it before an accept record does. A server with a baseline at the
    limit has reached it when the load starts. EMFILE is evidence on an empty queue, too.
    """
    recording, start = data.recording, data.clock.start
    samples, sampled = known(recording.samples, "open_fds")
    missed = column(recording.failures[recording.failures["errno"] == errno.EMFILE], "first")
    accepted = data.waits.accepted[data.waits.taken]
    held = column(recording.accepts, "open_fds")[data.waits.taken]
    at_limit = (
        samples[sampled >= data.limits_at(samples)],
        accepted[held >= data.limits_at(accepted)],
        missed,
        np.full(int(_baseline(data) >= data.limits_at(np.array([start]))[0]), start),
    )
    evidence = np.concatenate(at_limit)
    return max(int(evidence.min()), start) if len(evidence) else None


def _baseline(data: Dataset) -> int:
    """Return the open descriptors in the last sample that ended before the load, or when the server was ready.

    A sample is stamped before it is read, and on a busy host that takes its time: it had certainly ended when the next
    one was stamped.
    """
    times, open_fds = known(data.recording.samples, "open_fds")
    ended = open_fds[:-1][times[1:] <= data.clock.start]
    return int(ended[-1]) if len(ended) else data.recording.facts.server.baseline_fds


def _at_limit(data: Dataset) -> tuple[Ints, Ints]:
    """Return the times between two samples that both show the limit reached, and the CPU time used in them."""
    times, open_fds, cpu = known(data.recording.samples, "open_fds", "cpu_ns")
    full = open_fds >= data.limits_at(times)
    both = full[1:] & full[:-1]
    both &= times[1:] <= max(data.clock.judged, data.clock.load_end)
    return np.diff(times)[both], np.diff(cpu)[both]


def _cpu_at_limit(data: Dataset) -> Numbers:
    spent, cpu = _at_limit(data)
    return {"server.cpu_at_limit": float(cpu.sum()) / float(spent.sum())} if spent.sum() else {}


def _emfile(data: Dataset) -> Numbers:
    recording = data.recording
    if not recording.facts.server.emfile_seen:
        return {}
    by_place = {where: column(emfile_records(recording, where), "count") for where in Where}
    numbers: Numbers = {
        "emfile.count": sum(int(counts.sum()) for counts in by_place.values()),
        "emfile.accept": int(by_place[Where.ACCEPT].sum()),
        "emfile.handler": int(by_place[Where.HANDLER].sum()),
        "emfile.idle": int(column(recording.failures[has_flag(recording.failures, FailureFlag.IDLE)], "count").sum()),
    }
    if not recording.facts.server.is_simulated:  # a command's other calls are not seen
        del numbers["emfile.handler"]
    missed = emfile_records(recording, *Where)
    if len(missed):
        numbers["emfile.first_at"] = data.clock.at(int(missed["first"].min()))
    spent = time_at_limit(data)
    if numbers["emfile.count"] > 1 and spent:
        numbers["emfile.rate"] = numbers["emfile.count"] * NANOSECONDS / spent
    return numbers


def time_at_limit(data: Dataset) -> int:
    """Return for how many nanoseconds before the judgement the server had as many descriptors as it may.

    Each stamp is valid until the next one: an accept() that took the last descriptor, a close, a failure, a sample, a
    higher limit. Shed connections prove nothing: they use a descriptor that was kept in reserve.
    """
    times, full = _evidence(data)
    order = np.argsort(times, kind="stable")
    moments, full = times[order].clip(data.clock.start, data.clock.judged), full[order]
    return int(np.append(np.diff(moments), data.clock.judged - moments[-1:])[full].sum())


def _evidence(data: Dataset) -> tuple[Ints, Bools]:
    """Return the moments that show whether the server was at its limit, and whether it was."""
    accepts, failures = data.recording.accepts, data.recording.failures
    kept = data.waits.taken & ~has_flag(accepts, AcceptFlag.SHED)
    accepted, closed = data.waits.accepted[kept], column(accepts, "closed")[kept]
    closed = closed[closed > 0]
    failed = failures[failures["errno"] == errno.EMFILE]
    # A handler that fails closes what it had opened.
    at_last = failed["where"] == Where.ACCEPT
    sampled, seen = known(data.recording.samples, "open_fds")
    raised = np.array([at for at, limit in data.limit_changes.items() if limit > data.limits_at(np.array([at - 1]))[0]])
    shown: list[tuple[Ints, Bools]] = [
        (accepted, column(accepts, "open_fds")[kept] >= data.limits_at(accepted)),
        (closed, np.zeros(len(closed), dtype=np.bool_)),
        (column(failed, "first"), np.ones(len(failed), dtype=np.bool_)),
        (column(failed, "last"), at_last),
        (sampled, seen >= data.limits_at(sampled)),
        (raised.astype(np.int64), np.zeros(len(raised), dtype=np.bool_)),
    ]
    return np.concatenate([times for times, _ in shown]), np.concatenate([full for _, full in shown])
