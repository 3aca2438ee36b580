"""Every metric of summary.json, computed again from the records and from its definition in `loadsim.metrics`.

Follows the definitions and not the code of loadsim, because a mistake there must not be repeated here. A metric is an
interval, as wide as the records leave it: a handshake ends between two stamps, and samples are 10 ms apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle_bounds import ABSENT, Expected
from oracle_canary import canary_metrics, held_metrics, recovery_metrics
from oracle_clients import attempts_metrics, generator_metrics, times_metrics
from oracle_descriptors import at_limit_metrics, descriptors_metrics, failures_metrics
from oracle_join import joined
from oracle_queue import accept_metrics, fates_metrics, queue_metrics
from oracle_samples import counters_metrics, process_metrics, run_wait_metrics

if TYPE_CHECKING:
    from oracle_records import Recorded

_FROM_RECORDS = (
    attempts_metrics,
    times_metrics,
    generator_metrics,
    failures_metrics,
    counters_metrics,
    process_metrics,
    run_wait_metrics,
    canary_metrics,
    recovery_metrics,
    held_metrics,
)
_FROM_JOIN = (fates_metrics, accept_metrics, queue_metrics, descriptors_metrics, at_limit_metrics)


def expected(recorded: Recorded) -> Expected:
    """Return the bounds of every metric by its key in summary.json; None where it must be absent."""
    accepts = joined(recorded)
    values: Expected = {}
    for compute in _FROM_RECORDS:
        values |= compute(recorded)
    for compute_from_join in _FROM_JOIN:
        values |= compute_from_join(recorded, accepts)
    values["server.log_rate"] = ABSENT
    values |= {f"accept_least.{one}_s": ABSENT for one in ("p50", "p90", "p99", "p999", "max", "mean")}
    return values
