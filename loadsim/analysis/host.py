"""The host's part in the results: times in which a process was ready to run and no CPU was free.

Each sample reads them from /proc/PID/schedstat. The first sample after a wait counts it, so the waits of a time are
between the samples around it. Time that a hypervisor takes from the CPU is not included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.units import NANOSECONDS, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.findings.case import Case

#: A notice names a host that keeps the server waiting for longer than this at once, or for this share of the load.
LONG_S, SHARE = 0.02, 0.05
#: Faults that a server can have because it gets no CPU. A slow acceptor is not one: its pauses exclude host time.
_OF_A_FULL_QUEUE = frozenset({"queue-overflow", "syn-delay", "phantom-connections", "late-admission", "queue-abort"})
_OF_A_LATE_SERVER = _OF_A_FULL_QUEUE | {"outage", "clients-failed"}
#: Metrics that a late server or a late client changes, by the first word of their names.
_TIMED = frozenset(
    {"accept", "accept_least", "attempts", "canary", "connect", "connect_service", "fate", "generator", "held"}
    | {"listen", "outcome", "queue", "recovery", "reply", "syn"}
)


def host_metrics(data: Dataset) -> dict[str, float]:
    """Return host.run_wait and server.run_wait*; nothing if the kernel does not report them."""
    clock, numbers = data.clock, dict[str, float]()
    steps = data.run_waits.steps(clock.start, max(clock.load_end, clock.judged))
    in_load = data.run_waits.steps(clock.start, clock.load_end)
    span = clock.load_end - clock.start
    shares = [
        driver.run_wait_ns / driver.wall_ns
        for driver in data.recording.facts.drivers
        if driver.run_wait_ns >= 0 and driver.wall_ns > 0
    ]
    if len(in_load) and span > 0:
        numbers["server.run_wait"] = int(in_load.sum()) / span
        numbers["server.run_wait_max"] = int(steps.max()) / NANOSECONDS
        shares.append(numbers["server.run_wait"])
    if shares:
        numbers["host.run_wait"] = max(shares)
    return numbers


def is_busy(share: float, longest_s: float) -> bool:
    """Return whether waits for a CPU matter: a share of the load, and the server's longest wait."""
    return share >= SHARE or longest_s >= LONG_S


def busy_sentence(numbers: dict[str, float]) -> str | None:
    """Return the notice about a host that kept processes of this run waiting; None if that did not matter."""
    share, longest = numbers.get("host.run_wait", 0.0), numbers.get("server.run_wait_max", 0.0)
    if not is_busy(share, longest):
        return None
    server = numbers.get("server.run_wait")
    of_server = (
        "" if server is None else f" (the server {100 * server:.0f} %, up to {format_duration(longest)} at once)"
    )
    return (
        f"The host was busy: a process of this run waited for a CPU during {100 * share:.0f} % of the load{of_server}. "
        "Times and pauses include that; stop what else runs, or give server and drivers a CPU each."
    )


def decides(case: Case, faults: Sequence[str], missed: Sequence[str]) -> bool:
    """Return whether the status of the run depends on a busy host.

    `faults` are the ids of the faults that were found, `missed` the metrics of expectations that were not met. The
    status depends on the host if a late server explains all of them: each is about time only, and no slow server was
    found. A late server explains a full queue if the queue filled up while the server waited for a CPU.
    """
    if busy_sentence(case.numbers) is None or not _OF_A_LATE_SERVER.issuperset(faults):
        return False
    if _OF_A_FULL_QUEUE.intersection(faults) and not _filled_while_waiting(case.data):
        return False
    if missed:
        return all(name.partition(".")[0] in _TIMED for name in missed)
    return bool(faults)


def _filled_while_waiting(data: Dataset) -> bool:
    """Return whether the queue was first full in a pause in which the server mostly waited for a CPU."""
    pauses, full_s = data.pauses, data.queue_full_at_s
    if full_s is None:
        return False
    full = data.clock.start + round(full_s * NANOSECONDS)
    inside = (pauses.ends - pauses.lengths <= full) & (full <= pauses.ends)
    return bool((inside & (2 * pauses.by_host > pauses.lengths)).any())
