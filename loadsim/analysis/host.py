"""The part of the host in what was measured: times in which a process was ready to run and no CPU took it.

Read from /proc/PID/schedstat with every sample. A wait counts in the first sample after it, so that the waits of a time
are those between the samples around it. Time that a hypervisor takes from the CPU is not in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.units import NANOSECONDS, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.findings.case import Case

#: A host that keeps the server waiting for longer at once, or for more of the load's time, is worth a sentence.
LONG_S, SHARE = 0.02, 0.05
#: Faults that a server may have only because it does not run. A slow acceptor is not one: host time is not counted.
_OF_A_FULL_QUEUE = frozenset({"queue-overflow", "syn-delay", "phantom-connections", "late-admission", "queue-abort"})
_OF_A_LATE_SERVER = _OF_A_FULL_QUEUE | {"outage", "clients-failed"}
#: Metrics that a late server or a late client changes, by the first word of their names.
_TIMED = frozenset(
    {"accept", "accept_least", "attempts", "canary", "connect", "connect_service", "fate", "generator", "held"}
    | {"listen", "outcome", "queue", "recovery", "reply", "syn"}
)


def host_metrics(data: Dataset) -> dict[str, float]:
    """Return host.run_wait and server.run_wait*; nothing where the kernel did not say."""
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
    """Return whether waits for a CPU are worth a word: of this fraction of the load, the longest of the server's."""
    return share >= SHARE or longest_s >= LONG_S


def busy_sentence(numbers: dict[str, float]) -> str | None:
    """Return the notice of a host that kept processes of this run waiting; None where it did not matter."""
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
    """Return whether the verdict depends on a busy host.

    `faults` are the ids of what was found, `missed` the metrics of expectations that were not met. It does where a
    server that is only late explains all of them: none is about anything but time, and no slow server was found beside
    the host. A full queue is explained where it filled up while the server waited for a CPU.
    """
    if busy_sentence(case.numbers) is None or not _OF_A_LATE_SERVER.issuperset(faults):
        return False
    if _OF_A_FULL_QUEUE.intersection(faults) and not _filled_while_waiting(case.data):
        return False
    if missed:
        return all(name.partition(".")[0] in _TIMED for name in missed)
    return bool(faults)


def _filled_while_waiting(data: Dataset) -> bool:
    """Return whether the queue was full first in a pause that was mostly the host's."""
    pauses, full_s = data.pauses, data.queue_full_at_s
    if full_s is None:
        return False
    full = data.clock.start + round(full_s * NANOSECONDS)
    inside = (pauses.ends - pauses.lengths <= full) & (full <= pauses.ends)
    return bool((inside & (2 * pauses.by_host > pauses.lengths)).any())
