"""The needs of a run and the limits of the host: attempts, connections, descriptors, ports, time, space.

Every number is an upper bound, except the descriptors of the server, which are an estimate with a margin. Owns the
costs of loadsim's own processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from loadsim import units
from loadsim.scenario.arrivals import upper_count
from loadsim.scenario.client import MAX_ATTEMPTS
from loadsim.scenario.predict import CLOSED_LOOP_EACH, MARGIN_S, MOST_WALKED, Headroom, Prediction, predict

if TYPE_CHECKING:
    from loadsim.scenario.model import Scenario

#: Descriptors of the simulated server before its first client: three standard streams (the first is its control
#: channel), five of trio 0.35, its epoll, listener and timer. Its ready message carries the real number.
BASELINE_FDS = 11
#: The reserved descriptor of the policy `shed`.
RESERVED_FDS = 1
#: Descriptors of a driver beside its connections, including the ones that it keeps free.
DRIVER_FDS = 28
#: Attempts that one driver starts per second on an ordinary core: 33 us of CPU each and more with replies (Linux 6.18).
DRIVER_RATE = 20_000.0
#: Upper bound of attempts per second and driver in a closed loop; space is reserved for it.
MOST_DRIVER_RATE = 50_000
#: A port that a client closed by FIN is free again after this: net.ipv4.tcp_tw_reuse = 2, loopback, since Linux 4.19.
PORT_REUSE_S = 1.0
#: A Poisson count exceeds its mean by fewer standard deviations than this, over all windows of a load.
_DEVIATIONS = 6.0

#: Attempts of a closed loop with held connections for which space is reserved, in case the server closes early.
_CUT_SHORT = 1_000_000

_RECORD_BYTES = 64  # of an attempt and of an accept
_FAILURE_BYTES = 40
_SOCKET_BYTES = 40
_FAILURES_PER_S = 300  # accept, accept on an empty queue, handler: one record per 10 ms each
_FAILURES_FOR_S = 3600.0  # later failures are counted, not listed
_FOREIGN = 1024  # accepts that belong to no attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The limits of the host and of the run's namespace that a plan uses; the defaults are those of Linux 6."""

    nofile_soft: int = 1024
    nofile_hard: int = 524_288
    somaxconn: int = 4096
    port_first: int = 32_768
    port_last: int = 60_999  # inclusive
    cpus: int = 2
    syn_retries: int = 6
    syn_linear_timeouts: int = 4
    syncookies: int = 1


@dataclass(frozen=True, slots=True)
class Need:
    """The needed amount of a resource (None: unbounded), and the available amount.

    `needed` is an upper bound if `margin` is 0, else an estimate that a late server exceeds by up to the margin.
    """

    needed: int | None
    available: int
    margin: int = 0

    @property
    def is_met(self) -> bool:
        """Whether enough is available even if the server is late."""
        return self.needed is not None and self.needed + self.margin <= self.available

    @property
    def is_lacking(self) -> bool:
        """Whether too little is available even if the server is prompt."""
        return self.needed is not None and self.needed > self.available


@dataclass(frozen=True)
class Budget:
    """The numbers of one scenario on one host."""

    scenario: Scenario
    host: Host
    baseline_fds: int = BASELINE_FDS
    most_walked: int = MOST_WALKED  # the largest number of attempts that is predicted

    @cached_property
    def peak_rate(self) -> float:
        """The highest rate in attempts per second; in a closed loop the limit of its drivers."""
        client = self.scenario.client
        fastest = max((max(start, end) for _, start, end in client.schedule()), default=None)
        return client.processes * MOST_DRIVER_RATE if fastest is None else fastest

    @cached_property
    def attempts(self) -> int:
        """Attempts of the whole load."""
        client = self.scenario.client
        if client.attempts is not None:
            return client.attempts
        if client.clients is None:
            return upper_count(client.schedule(), arrivals=client.arrivals, attempts=None, duration_s=client.load_s)
        by_speed = math.ceil(client.load_s * self.peak_rate)
        return int(min(by_speed, max(self.connections_each * client.clients, _CUT_SHORT), MAX_ATTEMPTS))

    @cached_property
    def connections_each(self) -> float:
        """The most connections that each client of a closed loop makes if each one is held for the planned time.

        A step of the timeline that releases clients early adds one.
        """
        client = self.scenario.client
        if not client.hold:
            return math.inf
        return math.floor(client.load_s / client.hold) + 1 + len(self.scenario.timeline.of("release"))

    @cached_property
    def in_flight(self) -> int:
        """Connections that all clients have open at once."""
        client = self.scenario.client
        if client.clients is not None:
            return client.clients
        longest = client.connect_timeout + client.reply_timeout + client.hold
        return min(client.max_in_flight, self._arrivals_within(longest + MARGIN_S), self.attempts)

    def _arrivals_within(self, seconds: float) -> int:
        """Return an upper bound of the attempts of an open loop that arrive within this time."""
        mean = self.peak_rate * seconds
        deviation = 0.0 if self.scenario.client.arrivals == "constant" else _DEVIATIONS * math.sqrt(mean)
        return math.ceil(mean + deviation) + 1

    @cached_property
    def queue_capacity(self) -> int:
        """Connections that the accept queue holds; for other servers than the simulated one, the most by somaxconn."""
        server, most = self.scenario.server, self.host.somaxconn
        return units.queue_capacity(min(server.backlog, most) if server.is_simulated else most)

    @cached_property
    def baseline(self) -> int:
        """Descriptors of the server before its first client."""
        return self.baseline_fds + (RESERVED_FDS if self.scenario.server.on_emfile == "shed" else 0)

    @cached_property
    def server_fds(self) -> Need:
        """Descriptors of the server, against its own RLIMIT_NOFILE."""
        server, client = self.scenario.server, self.scenario.client
        available = self.host.nofile_soft if server.nofile is None else server.nofile
        if not server.is_simulated or (server.leak and client.clients is not None and client.attempts is None):
            return Need(None, available)
        each = 1 + (server.extra_fds if client.asks else 0)
        leaked_each = server.extra_fds if server.leak_of == "extra" else 1 + server.extra_fds
        leaked = math.ceil(server.leak * self.attempts) * leaked_each
        if server.leak == 1 and server.leak_of == "connection":  # all stay open, so time has no influence
            return Need(self.baseline + leaked, available)
        usual, most = self._served_at_once
        return Need(self.baseline + usual * each + leaked, available, (most - usual) * each)

    @cached_property
    def _served_at_once(self) -> tuple[int, int]:
        """Connections that the server has open at once: if it is prompt, and if it is late by the margin."""
        server, client = self.scenario.server, self.scenario.client
        if client.clients is not None:
            # without a reply to wait for, clients connect and leave until the queue is full
            most = (
                client.clients + self.queue_capacity if not client.expects_reply else CLOSED_LOOP_EACH * client.clients
            )
            return min(client.clients, self.attempts), min(most, self.attempts)
        stays = server.close_after is None or not client.asks  # until its client leaves
        served_s = client.hold if stays else min(server.close_after or 0.0, client.hold)
        usual = min(self.in_flight, math.ceil(self.peak_rate * (served_s + server.pause)) + 1)
        return usual, min(self.attempts, max(usual, self._arrivals_within(served_s + server.pause + 2 * MARGIN_S)))

    @cached_property
    def prediction(self) -> Prediction:
        """The prediction of the run; empty if the generator itself may run out of a resource."""
        free = max(0, self.server_fds.available - self.baseline)
        if self.scenario.timeline.steps or self.scenario.canary:
            return Prediction(unpredicted=["a timeline and a canary change the course of a run"])
        if not (self.driver_fds.is_met and self.ports.is_met):
            return Prediction(unpredicted=["the generator itself may run out of descriptors or ports"])
        headroom = Headroom(free_fds=free, queue=self.queue_capacity)
        return predict(self.scenario, headroom, most_walked=self.most_walked)

    @cached_property
    def driver_fds(self) -> Need:
        """Descriptors of each driver, against the hard limit, to which it raises its soft limit."""
        each = math.ceil(self.in_flight / self.scenario.client.processes)
        return Need(each + DRIVER_FDS, self.host.nofile_hard)

    @cached_property
    def clients_close_first(self) -> bool:
        """Whether clients may keep their ports in TIME_WAIT, which stays with the side that closes first."""
        server, client = self.scenario.server, self.scenario.client
        served_longer = server.close_after is None or server.close_after > client.hold
        return client.close == "fin" and (server.leak > 0 or served_longer or not client.expects_reply)

    @cached_property
    def ports(self) -> Need:
        """Local ports of all source addresses."""
        waiting = math.ceil(self.peak_rate * PORT_REUSE_S) if self.clients_close_first else 0
        each = max(0, self.host.port_last - self.host.port_first + 1)
        client = self.scenario.client
        held = math.inf if client.clients is None else self.connections_each * client.clients
        most = min(self.attempts, held, self.in_flight + waiting)
        return Need(math.ceil(most), each * client.sources)

    @cached_property
    def length_s(self) -> float:
        """Upper bound of the seconds from the first attempt to the end of the last."""
        client = self.scenario.client
        longest = client.connect_timeout + client.reply_timeout + client.hold
        if client.clients is not None and client.attempts is not None:
            load_s = math.ceil(client.attempts / client.clients) * (longest + 0.01)
        else:
            load_s = client.load_s + longest
        if self.all_left_s is not None:
            load_s = min(load_s, self.all_left_s)
        return max(load_s, self.scenario.timeline.last_s) + self.linger_s + self.patience_s

    @cached_property
    def linger_s(self) -> float:
        """Seconds for which the canary continues after the load."""
        canary = self.scenario.canary
        return canary.linger + 2 * canary.timeout if canary else 0.0

    @cached_property
    def patience_s(self) -> float:
        """Further seconds for which the canary continues if the server does not recover."""
        canary = self.scenario.canary
        return canary.patience + canary.linger if canary and canary.patience else 0.0

    @cached_property
    def all_left_s(self) -> float | None:
        """The time of a step that releases all clients after the last arrival; None without such a step."""
        leaving = [step.at for step in self.scenario.timeline.ordered if step.release == 1]
        return next((at for at in leaving if at >= self.scenario.client.load_s), None)

    @cached_property
    def expected_s(self) -> float:
        """The expected seconds of the run: as predicted, or until all clients have been released."""
        ends = self.prediction.ends_at_s if self.all_left_s is None else self.all_left_s
        if ends is None:
            return self.length_s
        return min(max(ends, self.scenario.timeline.last_s) + self.linger_s, self.length_s)

    @cached_property
    def canaries(self) -> int:
        """Records of the canary, and of each held connection, in the longest run."""
        canary = self.scenario.canary
        return math.ceil((self.length_s + 10) / canary.every) if canary else 0

    @cached_property
    def attempts_capacity(self) -> int:
        """Records of attempts for which each driver has space."""
        return math.ceil(self.attempts / self.scenario.client.processes) + 1

    @cached_property
    def accepts_capacity(self) -> int:
        """Records of accepts for which the server has space."""
        return self.attempts + self.canaries + _FOREIGN

    @cached_property
    def failures_capacity(self) -> int:
        """Records of failures for which the server has space."""
        return math.ceil(_FAILURES_PER_S * min(self.length_s + 10, _FAILURES_FOR_S))

    @cached_property
    def sockets_capacity(self) -> int:
        """Records of the connections of a command, at most seven each.

        Two for its wait, twice if the wait is also traced; one for its owner; two for its ends in the final snapshot.
        """
        return 7 * (self.attempts + self.canaries + _FOREIGN)

    @cached_property
    def reserved_bytes(self) -> int:
        """Bytes of disk and page cache that are reserved for records before the load starts."""
        attempts = self.attempts_capacity * self.scenario.client.processes + self.accepts_capacity
        sockets = 0 if self.scenario.server.is_simulated else self.sockets_capacity
        return attempts * _RECORD_BYTES + self.failures_capacity * _FAILURE_BYTES + sockets * _SOCKET_BYTES
