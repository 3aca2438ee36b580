"""What a run needs and what there is: attempts, connections, descriptors, ports, time, space.

Every number is an upper bound, except the descriptors of the server, which are an estimate with a margin. Owns the
constants that say what our own processes cost.
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
#: channel), five of trio 0.35, its epoll, listener and timer. Its ready message tells the truth of this machine.
BASELINE_FDS = 11
#: The reserved descriptor of the policy `shed`.
RESERVED_FDS = 1
#: Descriptors of a driver beside its connections, with those it keeps free.
DRIVER_FDS = 28
#: Attempts that one driver starts per second on an ordinary core: 33 us of CPU each and more with replies (Linux 6.18).
DRIVER_RATE = 20_000.0
#: A closed loop that counts no attempts cannot do more than this on one driver: space is reserved for it.
MOST_DRIVER_RATE = 50_000
#: A port that a client closed by FIN is free again after this: net.ipv4.tcp_tw_reuse = 2, loopback, since Linux 4.19.
PORT_REUSE_S = 1.0
#: A Poisson count exceeds its mean by fewer standard deviations than this, over all windows of a load.
_DEVIATIONS = 6.0

#: Of a closed loop that holds its connections: so many attempts find space even where the server cuts them short.
_CUT_SHORT = 1_000_000

_RECORD_BYTES = 64  # of an attempt and of an accept
_FAILURE_BYTES = 40
_SOCKET_BYTES = 40
_FAILURES_PER_S = 300  # accept, accept on an empty queue, handler: each one record per 10 ms
_FAILURES_FOR_S = 3600.0  # what comes later is counted, not listed
_FOREIGN = 1024  # accepts that no attempt explains find space, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a plan has to know of the host and of the run's namespace; the defaults are those of a plain Linux 6."""

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
    """How much of something a run needs (None: nothing bounds it), and how much there is.

    `needed` is an upper bound where `margin` is 0, else an estimate that a late server exceeds by up to the margin.
    """

    needed: int | None
    available: int
    margin: int = 0

    @property
    def is_met(self) -> bool:
        """Whether there is surely enough."""
        return self.needed is not None and self.needed + self.margin <= self.available

    @property
    def is_lacking(self) -> bool:
        """Whether there is not enough even where nothing is late."""
        return self.needed is not None and self.needed > self.available


@dataclass(frozen=True)
class Budget:
    """The numbers of one scenario on one host."""

    scenario: Scenario
    host: Host
    baseline_fds: int = BASELINE_FDS
    most_walked: int = MOST_WALKED  # attempts, to predict what becomes of them

    @cached_property
    def peak_rate(self) -> float:
        """Attempts per second at most; of a closed loop what its drivers can do."""
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
        return int(min(by_speed, max(self.rounds * client.clients, _CUT_SHORT), MAX_ATTEMPTS))

    @cached_property
    def rounds(self) -> float:
        """How often each client of a closed loop connects at most, where every connection is held as long as planned.

        A step of the timeline that has clients leave before their time is the beginning of another round.
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
        """Return how many attempts of an open loop arrive within a time at most, at its highest rate."""
        mean = self.peak_rate * seconds
        deviation = 0.0 if self.scenario.client.arrivals == "constant" else _DEVIATIONS * math.sqrt(mean)
        return math.ceil(mean + deviation) + 1

    @cached_property
    def queue_capacity(self) -> int:
        """Connections that may wait to be accepted; of a server that is not ours, the most that somaxconn permits."""
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
        if server.leak == 1 and server.leak_of == "connection":  # all stay, so nothing depends on time
            return Need(self.baseline + leaked, available)
        usual, most = self._served_at_once
        return Need(self.baseline + usual * each + leaked, available, (most - usual) * each)

    @cached_property
    def _served_at_once(self) -> tuple[int, int]:
        """Connections that the server has open at once: as planned, and where it is late by the margin of a claim."""
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
        """What arithmetic says will happen, where the generator does not run out of anything itself."""
        free = max(0, self.server_fds.available - self.baseline)
        if self.scenario.timeline.steps or self.scenario.canary:
            return Prediction(unpredicted=["what a timeline changes, and what a canary takes, is not predicted"])
        if not (self.driver_fds.is_met and self.ports.is_met):
            return Prediction(unpredicted=["the generator may run out of descriptors or ports itself"])
        headroom = Headroom(free_fds=free, queue=self.queue_capacity)
        return predict(self.scenario, headroom, most_walked=self.most_walked)

    @cached_property
    def driver_fds(self) -> Need:
        """Descriptors of each driver, against the hard limit, to which it raises its own."""
        each = math.ceil(self.in_flight / self.scenario.client.processes)
        return Need(each + DRIVER_FDS, self.host.nofile_hard)

    @cached_property
    def clients_close_first(self) -> bool:
        """Whether FINs of clients may leave their ports in TIME_WAIT; it stays with the side that closes first."""
        server, client = self.scenario.server, self.scenario.client
        served_longer = server.close_after is None or server.close_after > client.hold
        return client.close == "fin" and (server.leak > 0 or served_longer or not client.expects_reply)

    @cached_property
    def ports(self) -> Need:
        """Local ports of all source addresses."""
        waiting = math.ceil(self.peak_rate * PORT_REUSE_S) if self.clients_close_first else 0
        each = max(0, self.host.port_last - self.host.port_first + 1)
        client = self.scenario.client
        held = math.inf if client.clients is None else self.rounds * client.clients
        most = min(self.attempts, held, self.in_flight + waiting)
        return Need(math.ceil(most), each * client.sources)

    @cached_property
    def length_s(self) -> float:
        """Seconds from the first attempt to the end of the last."""
        client = self.scenario.client
        longest = client.connect_timeout + client.reply_timeout + client.hold
        if client.clients is not None and client.attempts is not None:
            load_s = math.ceil(client.attempts / client.clients) * (longest + 0.01)
        else:
            load_s = client.load_s + longest
        if self.everybody_left_s is not None:
            load_s = min(load_s, self.everybody_left_s)
        return max(load_s, self.scenario.timeline.last_s) + self.linger_s + self.patience_s

    @cached_property
    def linger_s(self) -> float:
        """Seconds that the canary goes on after all else."""
        canary = self.scenario.canary
        return canary.linger + 2 * canary.timeout if canary else 0.0

    @cached_property
    def patience_s(self) -> float:
        """Seconds that it goes on beyond that, where the server does not come back."""
        canary = self.scenario.canary
        return canary.patience + canary.linger if canary and canary.patience else 0.0

    @cached_property
    def everybody_left_s(self) -> float | None:
        """When a step of the timeline has all clients leave of whom none comes later; None: no step does."""
        leaving = [step.at for step in self.scenario.timeline.ordered if step.release == 1]
        return next((at for at in leaving if at >= self.scenario.client.load_s), None)

    @cached_property
    def expected_s(self) -> float:
        """Seconds that the run probably takes: as predicted, or until everybody has been released."""
        ends = self.prediction.ends_at_s if self.everybody_left_s is None else self.everybody_left_s
        if ends is None:
            return self.length_s
        return min(max(ends, self.scenario.timeline.last_s) + self.linger_s, self.length_s)

    @cached_property
    def canaries(self) -> int:
        """Records of canaries, and of requests on each connection that is held: as many as come in the longest run."""
        canary = self.scenario.canary
        return math.ceil((self.length_s + 10) / canary.every) if canary else 0

    @cached_property
    def attempts_capacity(self) -> int:
        """Records of attempts that each driver finds space for."""
        return math.ceil(self.attempts / self.scenario.client.processes) + 1

    @cached_property
    def accepts_capacity(self) -> int:
        """Records of accepts that the server finds space for."""
        return self.attempts + self.canaries + _FOREIGN

    @cached_property
    def failures_capacity(self) -> int:
        """Records of failures that the server finds space for."""
        return math.ceil(_FAILURES_PER_S * min(self.length_s + 10, _FAILURES_FOR_S))

    @cached_property
    def sockets_capacity(self) -> int:
        """Records of connections of a command: two of how it waited, twice where that is traced, and three others.

        Those others: that a process was seen to own it, and both of its ends in the end.
        """
        return 7 * (self.attempts + self.canaries + _FOREIGN)

    @cached_property
    def reserved_bytes(self) -> int:
        """Disk and page cache that are reserved for the records before the load starts."""
        attempts = self.attempts_capacity * self.scenario.client.processes + self.accepts_capacity
        sockets = 0 if self.scenario.server.is_simulated else self.sockets_capacity
        return attempts * _RECORD_BYTES + self.failures_capacity * _FAILURE_BYTES + sockets * _SOCKET_BYTES
