"""The server's descriptors: how many, how long at the limit, how many leaked, how often one was missing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Bools, Ints, column, emfile_records, has_flag, has_outcome, known
from loadsim.analysis.growth import stalls
from loadsim.fates import Fate, Outcome
from loadsim.record.events import AcceptFlag, AttemptFlag, FailureFlag, Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.view import View

Numbers = dict[str, float]


def descriptor_metrics(view: View) -> Numbers:
    """Return fds.*, emfile.* and what the server's CPU did at the limit; nothing of a server nobody can look into."""
    facts, samples = view.recording.facts, view.recording.samples
    if not facts.server.process_seen:
        return {}
    _, open_fds = known(samples, "open_fds")
    peaks = [column(view.recording.accepts, "open_fds")[view.waits.taken], open_fds]
    peaks.append(column(emfile_records(view.recording, *Where), "open_fds"))
    numbers: Numbers = {
        "fds.baseline": _baseline(view),
        "fds.max": max(int(peak.max(initial=0)) for peak in peaks),
        "fds.limit": view.fd_limit,
    }
    numbers["fds.max"] = max(numbers["fds.max"], numbers["fds.baseline"])
    end = fds_at_end(view)
    if end is not None:
        numbers["fds.end"] = end
        numbers["fds.leaked"] = leaked_descriptors(view, int(numbers["fds.baseline"]), end)
    reached = limit_reached(view)
    if reached is not None:
        numbers["fds.limit_at"] = view.clock.at(reached)
    stood_still = stalls(view)
    if stood_still:
        numbers["fds.growth_stall"] = max(stall.length_s for stall in stood_still)
    return numbers | _emfile(view) | _cpu_at_limit(view)


def fds_at_end(view: View) -> int | None:
    """Return the open descriptors once they no longer changed; None where the run did not come to that."""
    end = view.recording.facts.end
    if end is None:
        return None
    return end.fds_end if end.fds_end is not None else end.open_fds


def leaked_connections(view: View) -> Bools:
    """Return which accept records are connections that the server will never close although their client has left.

    The simulated server marks these. Others that are still open are closed later, such as after a pause. The end of a
    server ends all its clients too: they have left before it only if it did not cut them off.
    """
    accepts, attempts = view.recording.accepts, view.recording.attempts
    kept = view.waits.taken & (accepts["closed"] == 0)
    attempt_of = view.ledger.join.attempt_of
    gone = has_flag(accepts, AcceptFlag.LEAKED)  # of a foreign client nothing else is known
    ours = attempt_of >= 0
    left = (column(attempts, "ended") > 0) & ~has_flag(attempts, AttemptFlag.PENDING)
    died = view.recording.facts.server.exited_ns
    if died:
        cut_off = has_flag(attempts, AttemptFlag.CUT) | has_outcome(attempts, Outcome.EOF, Outcome.RESET)
        left &= ~cut_off & (column(attempts, "ended") <= died)
    gone[ours] &= left[attempt_of[ours]]
    result: Bools = kept & gone
    return result


def leaked_descriptors(view: View, baseline: int, end: int) -> int:
    """Return how many descriptors nobody uses and nobody closes.

    Of a server that writes no records about so many: whatever it has opened for itself counts, too. Exact where a
    request opens nothing besides its socket: accepted and not closed. Else what is left of the difference once the
    connections are taken off that a client still holds.
    """
    if not view.recording.facts.server.is_simulated:
        pending = has_flag(view.recording.attempts, AttemptFlag.PENDING)
        return max(end - baseline - int((pending & view.ledger.having(Fate.ACCEPTED)).sum()), 0)
    extras = int(view.setting("server", "extra_fds") or 0)
    if not extras:
        return int(leaked_connections(view).sum())
    held = view.waits.taken & (view.recording.accepts["closed"] == 0) & ~leaked_connections(view)
    return max(end - baseline - (1 + extras) * int(held.sum()), 0)


def limit_reached(view: View) -> int | None:
    """Return when the server was first known to have all the descriptors it may have; None = never.

    The earliest evidence counts: a sample may know it before an accept record does, and a server whose baseline is at
    the limit has reached it when the load starts. EMFILE is evidence also on an empty queue.
    """
    recording, start = view.recording, view.clock.start
    samples, sampled = known(recording.samples, "open_fds")
    missed = column(recording.failures[recording.failures["errno"] == errno.EMFILE], "first")
    accepted = view.waits.accepted[view.waits.taken]
    held = column(recording.accepts, "open_fds")[view.waits.taken]
    at_limit = (
        samples[sampled >= view.limits_at(samples)],
        accepted[held >= view.limits_at(accepted)],
        missed,
        np.full(int(_baseline(view) >= view.limits_at(np.array([start]))[0]), start),
    )
    evidence = np.concatenate(at_limit)
    return max(int(evidence.min()), start) if len(evidence) else None


def _baseline(view: View) -> int:
    """Return the open descriptors in the last sample before the load, or when the server was ready."""
    times, open_fds = known(view.recording.samples, "open_fds")
    before = open_fds[times < view.clock.start]
    return int(before[-1]) if len(before) else view.recording.facts.server.baseline_fds


def _at_limit(view: View) -> tuple[Ints, Ints]:
    """Return the times between samples that both saw the limit reached, and the CPU time used in them."""
    times, open_fds, cpu = known(view.recording.samples, "open_fds", "cpu_ns")
    full = open_fds >= view.limits_at(times)
    both = full[1:] & full[:-1]
    both &= times[1:] <= max(view.clock.judged, view.clock.load_end)
    return np.diff(times)[both], np.diff(cpu)[both]


def _cpu_at_limit(view: View) -> Numbers:
    spent, cpu = _at_limit(view)
    return {"server.cpu_at_limit": float(cpu.sum()) / float(spent.sum())} if spent.sum() else {}


def _emfile(view: View) -> Numbers:
    recording = view.recording
    if not recording.facts.server.emfile_seen:
        return {}
    by_place = {where: column(emfile_records(recording, where), "count") for where in Where}
    numbers: Numbers = {
        "emfile.count": sum(int(counts.sum()) for counts in by_place.values()),
        "emfile.accept": int(by_place[Where.ACCEPT].sum()),
        "emfile.handler": int(by_place[Where.HANDLER].sum()),
        "emfile.idle": int(column(recording.failures[has_flag(recording.failures, FailureFlag.IDLE)], "count").sum()),
    }
    if not recording.facts.server.is_simulated:  # nobody sees what else a command opens
        del numbers["emfile.handler"]
    missed = emfile_records(recording, *Where)
    if len(missed):
        numbers["emfile.first_at"] = view.clock.at(int(missed["first"].min()))
    spent = time_at_limit(view)
    if numbers["emfile.count"] > 1 and spent:
        numbers["emfile.rate"] = numbers["emfile.count"] * NANOSECONDS / spent
    return numbers


def time_at_limit(view: View) -> int:
    """Return for how many nanoseconds, until it was judged, the server had all the descriptors that it may have.

    What each stamp shows holds until the next one: an accept() that took the last descriptor, a close, a failure, a
    sample, a limit that rose. Shed connections prove nothing, because they live on a descriptor kept in reserve.
    """
    times, full = _evidence(view)
    order = np.argsort(times, kind="stable")
    moments, full = times[order].clip(view.clock.start, view.clock.judged), full[order]
    return int(np.append(np.diff(moments), view.clock.judged - moments[-1:])[full].sum())


def _evidence(view: View) -> tuple[Ints, Bools]:
    """Return the moments that show whether the server was at its limit, and whether it was."""
    accepts, failures = view.recording.accepts, view.recording.failures
    kept = view.waits.taken & ~has_flag(accepts, AcceptFlag.SHED)
    accepted, closed = view.waits.accepted[kept], column(accepts, "closed")[kept]
    closed = closed[closed > 0]
    failed = failures[failures["errno"] == errno.EMFILE]
    # A handler that fails gives back what it had opened.
    at_last = failed["where"] == Where.ACCEPT
    sampled, seen = known(view.recording.samples, "open_fds")
    raised = np.array([at for at, limit in view.limit_changes.items() if limit > view.limits_at(np.array([at - 1]))[0]])
    shown: list[tuple[Ints, Bools]] = [
        (accepted, column(accepts, "open_fds")[kept] >= view.limits_at(accepted)),
        (closed, np.zeros(len(closed), dtype=np.bool_)),
        (column(failed, "first"), np.ones(len(failed), dtype=np.bool_)),
        (column(failed, "last"), at_last),
        (sampled, seen >= view.limits_at(sampled)),
        (raised.astype(np.int64), np.zeros(len(raised), dtype=np.bool_)),
    ]
    return np.concatenate([times for times, _ in shown]), np.concatenate([full for _, full in shown])
