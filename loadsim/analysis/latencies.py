"""The latencies of one run, when each was known, and their statistics: the same for its metrics and histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Bools, Ints, column, nearest_rank
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.view import View
    from loadsim.record.arrays import Records

#: A percentile is shown from this many samples on.
_ENOUGH = {"p50": 1, "p90": 100, "p99": 100, "p999": 10_000}
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Latencies in the order of their records; both arrays have one element for each."""

    known: Ints  # the moment at which each one ended
    nanoseconds: Ints  # never negative


def connect_latencies(attempts: Records) -> Latencies:
    """Return how long each client that was connected had waited for it, from its intended start: response time."""
    known, intended = column(attempts, "connected"), column(attempts, "intended")
    done = known > 0
    return Latencies(known=known[done], nanoseconds=(known - intended)[done].clip(min=0))


def accept_latencies(view: View) -> Latencies:
    """Return how long each connection that the running server took had waited in the accept queue.

    Of a server that writes no records: at most, where it is not known exactly.
    """
    if view.bounds is not None:
        return Latencies(known=view.bounds.known, nanoseconds=view.bounds.most)
    ours = own_accepts(view)
    return Latencies(known=view.waits.accepted[ours], nanoseconds=view.waits.waited[ours])


def own_accepts(view: View) -> Bools:
    """Return which accept records are those of an attempt that the running server took: neither late nor foreign."""
    ours: Bools = view.waits.taken & (view.ledger.join.attempt_of >= 0)
    return ours


def family(name: str, nanoseconds: Ints) -> dict[str, float]:
    """Return the statistics of a family of times that have samples enough; empty without any."""
    if len(nanoseconds) == 0:
        return {}
    ordered = np.sort(nanoseconds)
    shown = {key: share for key, share in _SHARES.items() if len(ordered) >= _ENOUGH[key]}
    ranks = {f"{name}.{key}": nearest_rank(ordered, share) / NANOSECONDS for key, share in shown.items()}
    return {
        **ranks,
        f"{name}.max": int(ordered[-1]) / NANOSECONDS,
        f"{name}.mean": float(ordered.mean()) / NANOSECONDS,
    }
