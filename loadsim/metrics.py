"""The table of metrics: the name, the unit, the better direction and the definition of each.

These names are the public interface: thresholds, `summary.json`, reports and `loadsim explain` use them. This module
owns the names and their meaning. It must not know how `analysis` computes a number. It imports only the standard
library and `fates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from loadsim.fates import Better, Fate, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number that loadsim measures.

    `unit` is "s", "/s", "cores", "bytes", "bytes/s", "share" (0 to 1), or "" for counts.
    """

    name: str
    unit: str
    better: Better
    definition: str

    @property
    def json_key(self) -> str:
        """Its key in `summary.json`: the name, with "_s" appended if it is a time."""
        return self.name + "_s" if self.unit == "s" else self.name

    @property
    def family(self) -> str:
        """The first word of its name: a key of FAMILIES, except for `fate` and `outcome`."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The texts that `loadsim explain` adds to the definition of every metric with the same first word."""

    look_at: str
    do: str  # "" if there is nothing to do


_LOW, _HIGH, _NONE = Better.LOWER, Better.HIGHER, Better.NEITHER

#: The statistics of a family of times. Each text follows the text of the family.
_STATISTICS = {
    "p50": "the median: half of them took at most this long",
    "p90": "90 % of them took at most this long; shown from 100 samples on",
    "p99": "99 % of them took at most this long; shown from 100 samples on",
    "p999": "99.9 % of them took at most this long; shown from 10,000 samples on",
    "max": "the longest one",
    "mean": "the arithmetic mean, which no client ever saw; prefer the percentiles",
}

_FAMILIES = {
    "connect": "Response time of connecting: from the moment the schedule intended the attempt to the moment it was "
    "connected. It includes the generator's own lag: a late start hides no delay",
    "connect_service": "Service time of connecting: from right before connect() to the moment it was connected. On "
    "loopback the handshake ends inside the call",
    "accept": "Accept latency: the wait in the accept queue, from a complete connection to the return of accept(). It "
    "covers accepted connections only: read it together with accept.waiting. For a command or a running server it is "
    "exact if the kernel can be traced, otherwise an upper bound: see accept_least",
    "accept_least": "Lower bound of the accept latency of a server that writes no records: samples of the queue show "
    "only an interval for each wait, and accept.* is its upper bound. Absent if accept.* is exact",
    "held.reply": "Response time on connections that were opened at the start, before anything went wrong: from the "
    "moment a request was due to the first byte of its answer, however late",
    "reply": "Response time of the reply: from the moment the schedule intended the attempt to its first byte",
}


def _of(name: str, unit: str, better: Better, definition: str) -> Metric:
    return Metric(name=name, unit=unit, better=better, definition=definition)


_LAG = "How late attempts started behind their schedule"
_NO_LAG = "Absent in a closed loop, which has no schedule."

_SINGLE = [
    _of("attempts.count", "", _NONE, "Attempts of the plan: one client, one connect(). Every one has a fate."),
    _of(
        "attempts.rate",
        "/s",
        _HIGH,
        "Attempts that started, per second from the start of the load to the last of them.",
    ),
    _of(
        "attempts.delayed",
        "",
        _LOW,
        "Attempts that lost a SYN: the kernel sent it again, and connecting took at least its first time-out (1 s). A "
        "SYN that is sent again within milliseconds, after a challenge ACK, was not lost.",
    ),
    _of(
        "attempts.late",
        "",
        _LOW,
        "Attempts of attempts.delayed that were served in the end, at least a second late.",
    ),
    _of("attempts.served", "share", _HIGH, "Share of the attempts that ended as planned: outcome ok or connected."),
    _of(
        "accept.samples",
        "",
        _NONE,
        "Accepted connections with a known accept latency: the samples of the percentiles of accept.*.",
    ),
    _of(
        "accept.waiting",
        "",
        _LOW,
        "Connections still in the accept queue when the run was judged, with those of the canary at a simulated "
        "server. Percentiles of accepted connections only are survivor bias: these connections were never accepted. "
        "0 if the server had already ended: its queue ended with it (fate.orphaned).",
    ),
    _of("accept.waiting_max", "s", _LOW, "The longest wait of a connection of accept.waiting when the run was judged."),
    _of(
        "accept.pause_max",
        "s",
        _LOW,
        "The longest time in which clients waited in the accept queue and none was accepted.",
    ),
    _of(
        "accept.late",
        "",
        _LOW,
        "Accepted connections with a client that was connected long before the server had a socket for it: the final "
        "ACK was dropped at a full queue, and the handshake completed late.",
    ),
    _of(
        "accept.uncertainty",
        "s",
        _LOW,
        "The possible error of a single accept latency: the median time from the start of connect() to the moment at "
        "which the client was known to be connected, for accepted clients; the handshake ends in between. The error of "
        "percentiles is far smaller (p50, p90 and p99: 4 % on Linux 6.18).",
    ),
    _of(
        "fds.baseline",
        "",
        _NONE,
        "Open descriptors of the server before the first client: in the last sample that ended before the load.",
    ),
    _of(
        "fds.max",
        "",
        _NONE,
        "The most open descriptors of the server, by fds.baseline, the samples, the accepts and the failures.",
    ),
    _of("fds.end", "", _LOW, "Open descriptors once the load was over and they no longer changed."),
    _of(
        "fds.limit",
        "",
        _NONE,
        "RLIMIT_NOFILE of the server (soft), read back. If the timeline changes it: the limit in force at the first "
        "failure of emfile.count, or the lowest limit if nothing failed.",
    ),
    _of(
        "fds.leaked",
        "",
        _LOW,
        "Descriptors that the server does not close although their client has left. Exact for connections of the "
        "simulated server. For descriptors that its requests open, and for other servers, about fds.end - "
        "fds.baseline - descriptors of connected clients. Another server may close some of them later.",
    ),
    _of(
        "fds.limit_at",
        "s",
        _HIGH,
        "Time from the start of the load until the server was first known to have as many descriptors as its limit: "
        "the earliest accept, sample or EMFILE that shows it; 0 if the baseline does.",
    ),
    _of(
        "fds.growth_stall",
        "s",
        _LOW,
        "The longest pause of accepting while the kernel enlarged the fd table and clients waited, without the time "
        "for which the server waited for a CPU.",
    ),
    _of(
        "emfile.count",
        "",
        _LOW,
        'Calls of the server that failed with "Too many open files", with a client to serve.',
    ),
    _of("emfile.accept", "", _LOW, "Failures of emfile.count in accept(): the client stays in the queue."),
    _of(
        "emfile.handler",
        "",
        _LOW,
        "Failures of emfile.count after accept(), when the handler of a request opens something: a client that was "
        "accepted fails.",
    ),
    _of(
        "emfile.idle", "", _NONE, "EMFILE on an empty accept queue: affects no client, and is not part of emfile.count."
    ),
    _of(
        "emfile.rate",
        "/s",
        _LOW,
        "emfile.count per second that the server spent at its limit, by accept and close times, failures and samples. "
        "Absent for a single failure. A high rate is a spin if it costs CPU: see server.cpu_at_limit.",
    ),
    _of("emfile.first_at", "s", _HIGH, "Time from the start of the load to the first failure of emfile.count."),
    _of(
        "queue.max",
        "",
        _NONE,
        "The most connections in the accept queue at once, with those of the canary. Exact for the simulated server "
        "(from the journals of both ends). For other servers it is the largest sample: a lower bound.",
    ),
    _of(
        "queue.capacity",
        "",
        _NONE,
        "Capacity of the accept queue: min(backlog, net.core.somaxconn) + 1, read back from the kernel. If it changes: "
        "the value in force when queue.max was reached. Linux 6.18 exceeds it by one at times.",
    ),
    _of(
        "queue.full_share",
        "share",
        _LOW,
        "Share of the load's time in which the accept queue was full, by its capacity at each moment.",
    ),
    _of(
        "listen.overflows",
        "",
        _LOW,
        "Packets (SYNs and final ACKs) that met a full accept queue: ListenOverflows. Not connections: a client "
        "sends its SYN again and is counted again. In a shared namespace it is the listener's own drops, in which a "
        "final ACK counts twice.",
    ),
    _of("listen.drops", "", _LOW, "Packets to a listener that were dropped for any reason: ListenDrops."),
    _of(
        "listen.ack_drops",
        "",
        _LOW,
        "Final ACKs dropped at a full queue, in packets (the listener's own drops - ListenDrops): the client is then "
        "connected and the server is not.",
    ),
    _of(
        "listen.cookies",
        "",
        _LOW,
        "SYN cookies that the kernel sent (TCPReqQFullDoCookies): when the SYN queue was full, or for every SYN with "
        "net.ipv4.tcp_syncookies = 2. The server keeps no state for such a client until its final ACK is accepted.",
    ),
    _of(
        "syn.retransmits",
        "",
        _LOW,
        "SYNs that the clients' kernels sent again. A SYN that is sent again after a challenge ACK counts too, "
        "although it was not lost: see attempts.delayed.",
    ),
    _of(
        "server.cpu",
        "cores",
        _LOW,
        "CPU time of the server per second of the load, between the samples nearest to its start and its end. Absent "
        "where both are the same sample.",
    ),
    _of("server.cpu_at_limit", "cores", _LOW, "CPU time of the server per second spent at its descriptor limit."),
    _of("server.rss_max", "bytes", _LOW, "The largest resident memory of the server."),
    _of(
        "server.log_rate",
        "bytes/s",
        _LOW,
        "Bytes per second that a command wrote to its standard output and error, from the start of the load until the "
        "run was judged. Absent for the simulated server.",
    ),
    _of(
        "server.exit",
        "",
        _NONE,
        "Exit status of a server that ended during the run, -N for signal N. Absent if it ran to the end.",
    ),
    _of(
        "server.run_wait",
        "share",
        _LOW,
        "Share of the load's time in which the server was ready to run and waited for a CPU: the second number of "
        "/proc/PID/schedstat of its first thread; if several processes hold the listener, their sum.",
    ),
    _of(
        "server.run_wait_max",
        "s",
        _LOW,
        "The most time that the server waited for a CPU between two samples (10 ms apart, more on a busy host). That "
        "part of a pause of accepting is not the server's fault.",
    ),
    _of(
        "host.run_wait",
        "share",
        _LOW,
        "The largest share of the load's time in which the server or a driver waited for a CPU. The host was busy from "
        "0.05 on, or if server.run_wait_max is 20 ms or more.",
    ),
    _of("canary.count", "", _NONE, "Canaries that show whether the server was up: the base of canary.availability."),
    _of(
        "canary.local",
        "",
        _LOW,
        "Canaries, and requests of held clients, that failed at the limits of their own process or host. They show "
        "nothing about the server, and no other number of canary.* or held.* includes them.",
    ),
    _of(
        "canary.availability",
        "share",
        _HIGH,
        "Share of canary.count that got an answer in time. A canary is an independent client that connects, sends "
        "one request and leaves.",
    ),
    _of(
        "canary.longest_outage",
        "s",
        _LOW,
        "The longest time from the start of a canary that got no answer to the next answer. If there was none, to the "
        "end of the last canary, or to the end of the run if the server had ended.",
    ),
    _of(
        "canary.silent",
        "",
        _LOW,
        "Canaries that connected and got no answer in time. A port scan shows the server as up.",
    ),
    _of("canary.unreachable", "", _LOW, "Canaries whose SYNs were not answered in time."),
    _of("canary.turned_away", "", _LOW, "Canaries that were refused, reset, closed unanswered, or got an error."),
    _of(
        "recovery.time",
        "s",
        _LOW,
        "Time from the step that freed descriptors (clients leave, a higher limit) while the server was down to the "
        "first good answer of a canary. If several steps were needed, counted from the last; if several outages, the "
        "longest. Absent if it never recovered, or was never down.",
    ),
    _of(
        "recovery.last_bad",
        "s",
        _LOW,
        "Time from the step of recovery.time to the start of the last canary without a good answer; 0 without one. "
        "Canaries that start after the first step that follows the recovery do not count.",
    ),
    _of(
        "recovery.emfile",
        "",
        _LOW,
        "Failures of emfile.count from the step of recovery.time to the first step that follows the recovery. Clients "
        "that have given up are accepted first, and can use up the descriptors again.",
    ),
    _of(
        "held.count",
        "",
        _NONE,
        "Connections that clients opened, or tried to open, at the start, to keep them open and query them "
        "periodically.",
    ),
    _of("held.cut", "", _LOW, "Connections of held.count that the server ended, or that could not be established."),
    _of("held.unanswered", "", _LOW, "Requests on held connections that had no answer when the run ended."),
    _of("generator.lag.p50", "s", _LOW, f"{_LAG}: the median. {_NO_LAG}"),
    _of("generator.lag.p90", "s", _LOW, f"{_LAG}: 90 % at most this late, from 100 attempts on. {_NO_LAG}"),
    _of("generator.lag.p99", "s", _LOW, f"{_LAG}: 99 % at most this late, from 100 attempts on. {_NO_LAG}"),
    _of("generator.lag.max", "s", _LOW, f"{_LAG}: the worst. {_NO_LAG}"),
    _of(
        "generator.cpu",
        "cores",
        _LOW,
        "CPU time per second of the busiest driver; above 0.9 it is the bottleneck. Absent where no driver ran for "
        "50 ms.",
    ),
    _of("generator.local_failures", "", _LOW, "Attempts that failed at the generator's own limits: outcome.local."),
    _of(
        "generator.limited",
        "",
        _LOW,
        "1 if the load generator could not keep up: more than one attempt in ten (and more than one in all) started "
        "late by more than 10 ms and 5 % of the interval between attempts, or a driver used more than 0.9 cores, or an "
        "attempt was local or not_started.",
    ),
    _of(
        "join.foreign", "", _LOW, "Accepted connections from outside the run, such as a curl: no attempt matches them."
    ),
    _of("join.ambiguous", "", _LOW, "Accepted connections that fit several attempts of one 4-tuple equally well."),
    _of(
        "join.mismatched",
        "",
        _LOW,
        "Accepted connections matched to a different attempt from the one that their payload names.",
    ),
]


def _families() -> Iterator[Metric]:
    for family, measures in _FAMILIES.items():
        for statistic, means in _STATISTICS.items():
            yield _of(f"{family}.{statistic}", "s", _LOW, f"{measures}. {means[0].upper()}{means[1:]}.")
    for fate in Fate:
        yield _of(f"fate.{fate.id}", "", fate.row.better, f"Attempts with this fate: {fate.row.means}.")
    for outcome in Outcome:
        means = f"Attempts with this outcome for the client: {outcome.row.means}."
        yield _of(f"outcome.{outcome.id}", "", outcome.row.better, means)


#: Every metric by its name.
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in (*_SINGLE, *_families())})

#: Where to look and what to do about a metric, by the first word of its name. Fates and outcomes have their own texts.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "attempts": Family(
            look_at="The plan of the scenario: rate, stages or clients.",
            do="If attempts were delayed or late, see the finding syn-delay.",
        ),
        "connect": Family(
            look_at="attempts.delayed first: a SYN that was sent again adds a second or more.",
            do="See the finding syn-delay.",
        ),
        "connect_service": Family(look_at="connect.*: the difference is the lag of the load generator.", do=""),
        "accept": Family(
            look_at="The percentiles together with accept.waiting: they leave out clients that were never accepted.",
            do="See the finding slow-accept.",
        ),
        "accept_least": Family(
            look_at="accept.*: the true latency lies between the two.",
            do="Run as root for exact latencies: the kernel is then traced.",
        ),
        "reply": Family(look_at="The table of outcomes: clients without a reply are not in the percentiles.", do=""),
        "fds": Family(
            look_at="The chart of open fds and the growth table.", do="See the findings fd-leak and fd-limit."
        ),
        "emfile": Family(
            look_at="The finding that names the cause of the exhaustion.",
            do="See the findings fd-leak, fd-limit and emfile-spin.",
        ),
        "queue": Family(
            look_at="`ss -ltn` in the same namespace: Recv-Q is the length of the queue, Send-Q the backlog. Its "
            "capacity is one more than the backlog.",
            do="See the finding queue-overflow.",
        ),
        "listen": Family(
            look_at="`nstat -az` in the same namespace. These are packets, not clients.",
            do="See the finding queue-overflow.",
        ),
        "syn": Family(
            look_at="attempts.delayed: the clients that sent these packets.", do="See the finding syn-delay."
        ),
        "host": Family(look_at="`uptime` and `top` for other load on this machine.", do="See the finding host-busy."),
        "server": Family(
            look_at="The chart, above all the time at the limit.",
            do="See the findings emfile-spin, host-busy and target-ended.",
        ),
        "canary": Family(look_at="The row of canaries below the chart.", do="See the findings outage and no-recovery."),
        "recovery": Family(look_at="The marks of the timeline in the chart.", do="See the finding recovery."),
        "held": Family(
            look_at="The percentiles together with held.unanswered: they leave out requests without an answer.",
            do="",
        ),
        "generator": Family(
            look_at="The line of the generator in the summary.", do="See the finding generator-limited."
        ),
        "join": Family(look_at="The ledger.", do="See the findings foreign-accepts and join-ambiguous."),
    }
)

#: Former names of metrics, in results of format 1 -> their present names.
FORMER_NAMES: Mapping[str, str] = MappingProxyType({"queue.limit": "queue.capacity"})

#: Metrics that are already known during a run: `abort` thresholds can name only these.
LIVE = frozenset(
    {
        "attempts.count",
        "emfile.accept",
        "emfile.count",
        "emfile.handler",
        "fate.local",
        "fate.not_started",
        "fds.max",
        "generator.local_failures",
        "listen.overflows",
        "outcome.ok",
        "queue.max",
    }
)
