"""The latencies of one run and when each was known: the same for its metrics and for its histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.columns import Bools, Ints, column

if TYPE_CHECKING:
    from loadsim.analysis.view import View
    from loadsim.record.arrays import Records


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
    """Return how long each connection that the running server took had waited in the accept queue."""
    ours = own_accepts(view)
    return Latencies(known=view.waits.accepted[ours], nanoseconds=view.waits.waited[ours])


def own_accepts(view: View) -> Bools:
    """Return which accept records are those of an attempt that the running server took: neither late nor foreign."""
    ours: Bools = view.waits.taken & (view.ledger.join.attempt_of >= 0)
    return ours
