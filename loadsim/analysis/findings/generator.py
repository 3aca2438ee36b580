"""Findings about the load generator and the host: either of them, not the server, can be the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.findings.case import Definition, Found, Kind, Rule, ending, sentence, sentences, were
from loadsim.analysis.host import busy_sentence
from loadsim.analysis.metrics import CPU_CORES, LATE_SHARE, lag_limit_s, lags, late_starts
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import column, has_outcome
from loadsim.record.records import CLIENT_ERRNO
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.findings.case import Case
    from loadsim.record.recording import Records

#: The id of a finding that no rule detects: `registry.doubted` adds it.
HOST_BUSY = "host-busy"

#: A reason for a limit, and its remedy; two empty texts if it does not apply.
_Reason = tuple[str, str]
_NO_REASON = ("", "")


def lost_drivers(case: Case) -> Found | None:
    """Find drivers that ended before their load did."""
    drivers = [driver for driver in case.data.recording.facts.drivers if driver.exit_status is not None]
    if not drivers:
        return None
    ends = ", ".join(f"driver {driver.share + 1}: {ending(driver.exit_status or 0)}" for driver in drivers)
    return Found(
        f"{some(len(drivers), 'driver')} of the load generator ended before the load did.",
        f"{ends[0].upper()}{ends[1:]}.",
        "read driver-N.stderr and dmesg (out of memory?). A smaller client.max_in_flight needs less memory.",
    )


def limited(case: Case) -> Found | None:
    """Find a load generator that could not keep its own schedule; a result shows this before any fault."""
    if not case.number("generator.limited"):
        return None
    reasons = [reason for reason in (_late(case), _busy(case), _not_started(case), *_local(case)) if reason[0]]
    clamped = [
        sentence(driver.clamped[0].upper() + driver.clamped[1:])
        for driver in case.data.recording.facts.drivers
        if driver.clamped
    ]
    return Found(
        "The load generator could not keep up, so the run does not show what the server can do.",
        sentences(*(reason for reason, _ in reasons), *clamped),
        "; ".join(remedy for _, remedy in reasons) + ".",
    )


def late(case: Case) -> Found | None:
    """Find a load generator that was late at times, but too rarely to change the result."""
    lag = case.numbers.get("generator.lag.p99", 0.0)
    if lag <= lag_limit_s(case.data) or case.number("generator.limited"):
        return None
    return Found(
        f"One client in a hundred started at least {format_duration(lag)} late: the load generator delayed it.",
        f"The median start was {format_duration(case.numbers['generator.lag.p50'])} late. Response times (connect, "
        "reply) include this delay; accept latency, fates and counts do not depend on it.",
        "for more exact response times give the generator a CPU that nothing else uses, or use a quieter machine.",
    )


def canary_limited(case: Case) -> Found | None:
    """Find canaries and held clients that failed at the limits of their own process or host."""
    if not case.number("canary.local"):
        return None
    both = (case.data.recording.canary, case.data.recording.held)
    reasons = [reason for one in both for reason in _own_limits(one, "request")]
    late = sum(int(has_outcome(one, Outcome.NOT_STARTED).sum()) for one in both)
    if late:
        reasons.append((f"{some(late, 'request')} did not start.", "raise canary.every, or lower canary.timeout"))
    judged = case.number("canary.count")
    return Found(
        "Canaries or held clients failed at their own limits: it is unknown whether the server was up then.",
        sentences(
            *(reason for reason, _ in reasons),
            f"canary.availability counts only the other {format_count(judged)}." if judged else "",
        ),
        "; ".join(dict.fromkeys(remedy for _, remedy in reasons)) + ".",
    )


def host_busy(case: Case) -> Found:
    """Return the doubt that everything that went wrong is explained by a busy host."""
    return Found(
        "The host was busy, and a server without a CPU would explain everything that went wrong.",
        (busy_sentence(case.numbers) or "").partition(". ")[0] + ".",
        "run it again on an idle host, or bind server and drivers to CPUs that nothing else uses.",
    )


def _late(case: Case) -> _Reason:
    count, late_ones = len(lags(case.data)), late_starts(case.data)
    if late_ones <= max(LATE_SHARE * count, 1):
        return _NO_REASON
    return (
        (
            f"{format_count(late_ones)} of {some(count, 'attempt')} started more than "
            f"{format_duration(lag_limit_s(case.data))} late, the worst {case.time('generator.lag.max')}."
        ),
        "give it a CPU that nothing else uses, lower client.rate, or raise client.processes",
    )


def _busy(case: Case) -> _Reason:
    cores = case.numbers.get("generator.cpu", 0.0)
    if cores <= CPU_CORES:
        return _NO_REASON
    return f"Its busiest driver used {cores:.2f} cores.", "raise client.processes, or lower client.rate"


def _not_started(case: Case) -> _Reason:
    count, limit = case.fates(Fate.NOT_STARTED), case.data.setting("client", "max_in_flight")
    if not count:
        return _NO_REASON
    return (
        f"{some(count, 'planned attempt')} {were(count)} not started.",
        f"raise client.max_in_flight (now {limit}) or client.processes",
    )


def _local(case: Case) -> list[_Reason]:
    return _own_limits(case.data.recording.attempts, "attempt")


def _own_limits(records: Records, what: str) -> list[_Reason]:
    """Return a reason and its remedy for each errno of the client's own limits."""
    numbers = np.bincount(column(records, "errno")[has_outcome(records, Outcome.LOCAL)])
    reasons = []
    for number, count in enumerate(numbers.tolist()):
        if count:
            meaning = CLIENT_ERRNO.get(number)
            remedy = meaning.remedy if meaning else f"see errno {number} in errno(3)"
            reasons.append((f"{some(count, what)} failed at a local limit (errno {number}).", remedy))
    return reasons


FINDINGS = (
    Definition(
        id="generator-ended",
        rules=(Rule(kind=Kind.DOUBT, order=50, find=lost_drivers),),
        means="A driver, one of the processes that play the clients, ended before its part of the load was done.",
        look_at="Its .stderr file in the result, and `dmesg` for the OOM killer.",
        do="Give it more memory, or less work: a lower client.max_in_flight, or more client.processes.",
    ),
    Definition(
        id="generator-limited",
        rules=(Rule(kind=Kind.DOUBT, order=60, find=limited),),
        means="Clients started later than the scenario says, or not at all, because the machine or a limit of the load "
        "generator held them back. The numbers then describe the generator, so this is reported before anything about "
        "the server.",
        look_at="generator.lag.p90, generator.cpu, generator.local_failures, and the fates `local` and `not_started`.",
        do="The finding names the remedy: more client.processes, more client.sources, a higher hard limit, a lower "
        "rate, or a quieter machine.",
    ),
    Definition(
        id="canary-limited",
        rules=(Rule(kind=Kind.DOUBT, order=70, find=canary_limited),),
        means="Canaries or held clients failed at the limits of their own process or host, such as ephemeral ports. "
        "For that time the availability of the server is unknown.",
        look_at="canary.local and canary.count.",
        do="The finding names the remedy, such as a wider net.ipv4.ip_local_port_range.",
    ),
    Definition(
        id="generator-late",
        rules=(Rule(kind=Kind.INFORMATION, order=90, find=late),),
        means="Some clients started after their scheduled time, but too few to change the result. Response times count "
        "from the intended start and include the delay.",
        look_at="generator.lag.p50, generator.lag.p90 and generator.lag.p99. `uptime` and `top` show what else runs on "
        "this machine.",
        do="Compare service times (connect_service) where microseconds matter, or use a quieter machine.",
    ),
    Definition(
        id=HOST_BUSY,
        rules=(),  # `registry.doubted` adds it: it depends on the other findings and on the expectations
        means="The server was ready to run, but the kernel gave the CPU to other processes. Clients waited meanwhile, "
        "and the queue may have overflowed. Neither is evidence against the server.",
        look_at="server.run_wait, server.run_wait_max and host.run_wait, and the pauses of accepting. In "
        "production: how fast the second number of /proc/PID/schedstat grows, in nanoseconds.",
        do="Stop other work on this machine, or bind server and drivers to CPUs that nothing else uses. Run it again.",
    ),
)
