"""The predicted course of a run: when descriptors run out, when the queue is full, and the fates of the attempts.

The schedule is walked through a model server that serves in no time, accepts in order, and obeys its limits; only the
phase of a leak is unknown. Every prediction has a margin: the same schedule is also walked through a late server and
through one that closes early, and only results on which all three agree are reported. Some results depend on timing
that arithmetic cannot know: retransmitted SYNs that meet a moving queue, descriptors that become free at the limit, the
speed of a closed loop. They are reported as not predicted, with the reason.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadsim.exchange import Exchange
from loadsim.scenario.arrivals import offsets
from loadsim.scenario.client import MAX_CONNECTIONS
from loadsim.units import NANOSECONDS, format_count

if TYPE_CHECKING:
    from loadsim.scenario.client import Client
    from loadsim.scenario.model import Scenario
    from loadsim.scenario.server import Server

#: A server on one ordinary core needs no queue up to this rate (33 us of CPU per attempt on Linux 6.18).
EASY_RATE = 5000.0
#: Median delay with which a server wakes up from a wait between two accepts: 0.12 to 0.35 ms on Linux 6.18.
WAKE_UP_S = 0.0002
#: Most attempts that are walked through. There are four walks, each 1 to 2 us per attempt.
MOST_WALKED = 100_000
#: The margin of every prediction: a server on a quiet machine accepts and closes at most this late. The scheduler took
#: a server off its CPU for up to 56 ms on two busy cores, and 20 ms on two quiet ones (Linux 6.18, a virtual machine).
MARGIN_S = 0.05
#: Policies that retry soon after a descriptor was closed; `backoff` may wait longer.
_TRY_AGAIN = ("sleep", "spin", "until_close")
#: Spare descriptors in every prediction that none will be missing: the interpreter opens one for a moment.
SPARE_FDS = 2
#: The margin of a closed loop, in descriptors and queue places per client: a client connects again before a late server
#: has closed its last connection, and sometimes the one before.
CLOSED_LOOP_EACH, _CLOSED_LOOP_QUEUE = 3, 2
#: Time-outs from which a closed loop is predictable: its clients do not give up while the server is late.
_PATIENT_S = 4 * MARGIN_S
#: Predictions for a late and a prompt server agree if they differ by at most this fraction, or these amounts.
_AGREEMENT, _AGREEMENT_S, _AGREEMENT_COUNT = 0.10, 0.05, 2.0
#: A client that gives up before this never retransmits its SYN: the first time-out is 1 s (RFC 6298).
FIRST_SYN_TIMEOUT_S = 0.95
#: A run is judged when the server's descriptors have not changed for this time, but after the second at the latest.
#: Pauses of the simulated server do not count, because it closes nothing during a pause.
SETTLED_S, SETTLE_AT_MOST_S = 0.2, 2.0
#: The phase of a leak moves an event by up to 1/leak accepts. Predicted if that is at most this fraction of all.
_PHASE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A prediction. None and missing fates are not predicted, except for the events in `never`."""

    emfile_at_s: float | None = None  # first "Too many open files" with a client to serve, from the start of the load
    queue_full_at_s: float | None = None  # when the accept queue is first full; None if no SYN meets a full queue
    fates: dict[str, float] = field(default_factory=dict)  # fate -> attempts
    ends_at_s: float | None = None  # when the last client has ended
    never: list[str] = field(default_factory=list)  # "emfile", "queue_full": will not happen, even MARGIN_S late
    unpredicted: list[str] = field(default_factory=list)  # open questions with their reasons, as phrases


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """The capacity of the server: descriptors for clients, and connections that the accept queue holds."""

    free_fds: int
    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timing:
    """The delays of a model server."""

    accepts_late_s: float = 0.0
    closes_late_s: float = 0.0  # negative: early
    wake_up_s: float = WAKE_UP_S
    waits_for_a_close: bool = False  # after EMFILE; else the next owner of a closed descriptor is an open question


_PROMPT = _Timing()
_LATE = _Timing(accepts_late_s=MARGIN_S, closes_late_s=MARGIN_S, wake_up_s=1.5 * WAKE_UP_S, waits_for_a_close=True)
_EARLY = _Timing(closes_late_s=-MARGIN_S, wake_up_s=0.5 * WAKE_UP_S, waits_for_a_close=True)


def predict(scenario: Scenario, headroom: Headroom, *, most_walked: int = MOST_WALKED) -> Prediction:
    """Return the prediction for a run whose generator is not the bottleneck."""
    client = scenario.client
    if not scenario.server.is_simulated:
        kind = "command" if scenario.server.command else "server"
        return Prediction(unpredicted=[f"the behaviour of this {kind} is unknown"])
    if client.exchange is Exchange.RAW and not client.asks:
        return Prediction(
            unpredicted=["only the server knows where a raw request ends, so the effect of half a request is unknown"]
        )
    if client.clients is not None:
        return _closed_loop(scenario.server, client, client.clients, headroom)
    if max(max(start, end) for _, start, end in client.schedule()) > EASY_RATE:
        says = f"above {format_count(EASY_RATE)}/s the result depends on the speed of the server"
        return Prediction(unpredicted=[says])
    if client.planned() > most_walked:
        says = f"{format_count(client.planned())} attempts are more than the {most_walked:,} that are computed"
        return Prediction(unpredicted=[says])
    return _with_margin(scenario, headroom)


def _with_margin(scenario: Scenario, headroom: Headroom) -> Prediction:
    """Return the results on which a prompt, a late and an early server agree."""
    prompt, late, early = (_Walk(scenario, headroom, timing) for timing in (_PROMPT, _LATE, _EARLY))
    # a late server drops SYNs, which need no descriptor; a quicker one would need descriptors for them
    crowded = _Walk(scenario, Headroom(free_fds=headroom.free_fds - SPARE_FDS, queue=MAX_CONNECTIONS), _LATE)
    expected, *others = (walk.prediction() for walk in (prompt, late, early))
    never = [
        name
        for name, surely in (
            ("emfile", "emfile" in crowded.prediction().never),
            ("queue_full", "queue_full" in others[0].never and late.filled_at is None),
        )
        if surely and name in expected.never
    ]
    emfile_at = _agreed(expected.emfile_at_s, *(one.emfile_at_s for one in others))
    queue_full_at = _agreed(expected.queue_full_at_s, *(one.queue_full_at_s for one in others))
    agree = all(_same_fates(expected.fates, one.fates) for one in others)
    questions = {
        "whether descriptors run out": _is_settled("emfile", emfile_at, never)
        or not _is_settled("emfile", expected.emfile_at_s, expected.never),
        "whether the accept queue is full": _is_settled("queue_full", queue_full_at, never)
        or not _is_settled("queue_full", expected.queue_full_at_s, expected.never),
        "where clients end": agree,
    }
    left_out = ", ".join(question for question, is_settled in questions.items() if not is_settled)
    decides = [f"{left_out}: a delay of {MARGIN_S * 1000:.0f} ms makes the difference"] if left_out else []
    return Prediction(
        emfile_at_s=emfile_at,
        queue_full_at_s=queue_full_at,
        fates=expected.fates if agree else {},
        ends_at_s=expected.ends_at_s,
        never=never,
        unpredicted=[*expected.unpredicted, *decides],
    )


def _is_settled(event: str, at_s: float | None, never: list[str]) -> bool:
    return at_s is not None or event in never


def _agreed(expected: float | None, *others: float | None) -> float | None:
    """Return the expected time if the others are about the same, allowing for the margin of a late server."""
    if expected is None or any(other is None for other in others):
        return None
    allowed = MARGIN_S + max(_AGREEMENT_S, _AGREEMENT * expected)
    return expected if all(abs(expected - other) <= allowed for other in others if other is not None) else None


def _same_fates(expected: dict[str, float], other: dict[str, float]) -> bool:
    return all(
        abs(expected.get(fate, 0.0) - other.get(fate, 0.0))
        <= max(_AGREEMENT_COUNT, _AGREEMENT * expected.get(fate, 0.0))
        for fate in expected.keys() | other.keys()
    )


def settled_at(server: Server, changed_at: float) -> float:
    """Return when descriptors that last changed at this time have settled, in seconds from the start of the load.

    Only time outside of pauses counts. If the server runs for less than `SETTLED_S` between two pauses, half of that
    interval is enough, because work that was due during a pause is done right after it.
    """
    if not server.pause:
        return changed_at + SETTLED_S
    # whole nanoseconds: 3 * 0.3 is less than 0.9, and the same pause would be found again and again
    at, every, pause = (round(seconds * NANOSECONDS) for seconds in (changed_at, server.pause_every, server.pause))
    left = min(round(SETTLED_S * NANOSECONDS), (every - pause) // 2)
    while True:
        begun = at // every * every
        if begun > 0:
            at = max(at, begun + pause)
        if at + left <= begun + every:
            return (at + left) / NANOSECONDS
        left -= begun + every - at
        at = begun + every


class _Walk:
    """The schedule, attempt by attempt. All times in seconds from the start of the load."""

    def __init__(self, scenario: Scenario, headroom: Headroom, timing: _Timing) -> None:
        self.timing = timing
        self.server = scenario.server
        self.client = scenario.client
        self.headroom = headroom
        self.seed = scenario.seed
        self.leaked = 0  # leaked descriptors
        self.closing: list[tuple[float, int]] = []  # heap: (time, number of descriptors closed then)
        self.in_use = 0
        self.accepted = 0
        self.free_at = 0.0  # when the server may accept again
        self.queue: deque[float] = deque()  # accept times of the waiting connections
        self.stuck = 0  # waiting connections that are never accepted
        self.ends: list[float] = []  # heap: end times of the clients in flight
        self.last_end = 0.0
        self.accepts: list[float] = []
        self.fates = dict.fromkeys(("accepted", "shed", "queued", "dropped"), 0)
        self.emfile_at: float | None = None
        self.filled_at: float | None = None
        self.queue_full_at: float | None = None
        self.dead = False  # no descriptor will ever be closed
        self.open_question: str | None = None

    def prediction(self) -> Prediction:
        """Walk to the end, or to the first question that arithmetic cannot answer."""
        client = self.client
        times = offsets(
            client.schedule(),
            arrivals=client.arrivals,
            seed=self.seed,
            attempts=client.attempts,
            duration_s=client.load_s,
        )
        for offset in times:
            self._arrive(offset / NANOSECONDS)
            if self.open_question is not None:
                return self._partial(self.open_question)
        if self.emfile_at is not None and not self._phase_is_harmless():
            return Prediction(unpredicted=["the result of a small leak depends on its phase"])
        judged = self._judged_at()
        late = sum(1 for accepted in self.accepts if accepted > judged)
        self.fates["accepted"] -= late
        self.fates["queued"] += late
        events = {"emfile": self.emfile_at, "queue_full": self.queue_full_at}
        return Prediction(
            emfile_at_s=self.emfile_at,
            queue_full_at_s=self.queue_full_at,
            fates={fate: float(count) for fate, count in self.fates.items() if count},
            ends_at_s=self.last_end,
            never=[name for name, at in events.items() if at is None],
        )

    def _judged_at(self) -> float:
        """Return when the server stops accepting: after the last client, once its descriptors have settled."""
        judged = settled_at(self.server, self.last_end)
        if self.leaked:
            for accepted in self.accepts:
                judged = max(judged, settled_at(self.server, accepted)) if accepted <= judged else judged
        return min(judged, self.last_end + SETTLE_AT_MOST_S + self.server.pause)

    def _partial(self, why: str) -> Prediction:
        """Return the results from before the open question."""
        known = self.emfile_at is None or self._phase_is_harmless()
        return Prediction(
            emfile_at_s=self.emfile_at if known else None,
            queue_full_at_s=self.queue_full_at if known else None,
            unpredicted=[why],
        )

    def _phase_is_harmless(self) -> bool:
        leak = self.server.leak
        return leak in {0.0, 1.0} or 1 / leak <= _PHASE_TOLERANCE * self.accepted

    # one attempt

    def _arrive(self, now: float) -> None:
        self._pass_time(now)
        if len(self.ends) >= self.client.max_in_flight:
            self.open_question = "client.max_in_flight is reached, and timing decides which clients are not started"
            return
        waiting = len(self.queue) + self.stuck
        if waiting >= self.headroom.queue:
            self._drop(now)
            return
        if waiting + 1 == self.headroom.queue and self.filled_at is None:  # every connection passes through the queue
            self.filled_at = now
        if self.dead:
            self._wait_without_end(now)
        else:
            self._accept(now, self._accept_time(now))

    def _pass_time(self, now: float) -> None:
        while self.queue and self.queue[0] <= now:
            self.queue.popleft()
        while self.ends and self.ends[0] <= now:
            heapq.heappop(self.ends)

    def _end(self, at: float) -> None:
        heapq.heappush(self.ends, at)
        self.last_end = max(self.last_end, at)

    def _drop(self, now: float) -> None:
        if self.queue_full_at is None:
            self.queue_full_at = self.filled_at
        if not self.dead and self.client.connect_timeout > FIRST_SYN_TIMEOUT_S:
            self.open_question = "timing decides which retransmitted SYNs find a place in the queue"
        self.fates["dropped"] += 1
        self._end(now + self.client.connect_timeout)

    def _wait_without_end(self, now: float) -> None:
        self.stuck += 1
        self.fates["queued"] += 1
        self._end(now + (self.client.reply_timeout if self.client.expects_reply else self.client.hold))

    def _accept_time(self, now: float) -> float:
        """Return when a connection that is complete now is accepted."""
        at = max(now + self.timing.accepts_late_s, self.free_at)
        every, pause = self.server.pause_every, self.server.pause
        since = at % every
        if pause > 0 and at >= every and since < pause:
            at += pause - since
        return at

    def _accept(self, now: float, at: float) -> None:
        while self.closing and self.closing[0][0] <= at:
            self.in_use -= heapq.heappop(self.closing)[1]
        if self.in_use + self.leaked + 1 > self.headroom.free_fds:
            self._run_out(now, at)
            return
        self.accepted += 1
        self.fates["accepted"] += 1
        self.accepts.append(at)
        self.free_at = at + (self.server.accept_delay + self.timing.wake_up_s if self.server.accept_delay else 0.0)
        if at > now:
            self.queue.append(at)
        self._serve(now, at)

    def _serve(self, now: float, at: float) -> None:
        """Open the descriptors of the request, and schedule when they are closed."""
        wanted = extras = self.server.extra_fds if self.client.asks else 0
        if self.in_use + self.leaked + 1 + extras > self.headroom.free_fds:
            extras = 0
            self._note_emfile(at)
        leaves = self._client_leaves(now, at)
        leaks = self._leaks() and (self.client.asks or self.server.leak_of == "connection")
        if leaks and self.server.leak_of == "connection":
            self.leaked += 1 + extras
            self._end(leaves)
            return
        held = 1
        if leaks:
            self.leaked += extras
        else:
            held += extras
        close_after = self.server.close_after if self.client.asks else None
        closed = max(at, leaves) if close_after is None else min(at + close_after, max(at, leaves))
        if extras < wanted and self.client.exchange is not Exchange.HTTP:
            closed = at  # a failed handler can only close the connection
        ends = min(leaves, closed)
        closed += self.timing.closes_late_s
        if closed > at:
            self.in_use += held
            heapq.heappush(self.closing, (closed, held))
        self._end(ends)

    def _client_leaves(self, now: float, at: float) -> float:
        """Return when the client of a connection that is served at `at` leaves on its own."""
        if not self.client.expects_reply:
            return now + self.client.hold
        waited = at - now
        return at + self.client.hold if waited <= self.client.reply_timeout else now + self.client.reply_timeout

    def _leaks(self) -> bool:
        """Return whether the last accepted connection leaks, assuming the middle phase."""
        leak = self.server.leak
        return math.floor(self.accepted * leak + 0.5) > math.floor((self.accepted - 1) * leak + 0.5)

    # out of descriptors

    def _note_emfile(self, at: float) -> None:
        if self.emfile_at is None:
            self.emfile_at = at

    def _run_out(self, now: float, at: float) -> None:
        """Decide the fate of a connection for which accept() finds no free descriptor."""
        self._note_emfile(at)
        if self.closing and self.timing.waits_for_a_close and self.server.on_emfile in _TRY_AGAIN:
            delay = self.server.emfile_delay if self.server.on_emfile == "sleep" else 0.0
            self._accept(now, max(self.closing[0][0], at + delay))
        elif self.closing:
            self.open_question = "at the limit, timing decides which clients get a descriptor"
        elif self.server.on_emfile == "exit":
            self.open_question = "timing decides how many clients wait or are refused when the server exits"
        elif self.server.on_emfile == "shed":
            self.fates["shed"] += 1
            if at > now:
                self.queue.append(at)
            self._end(at)
        else:
            self.dead = True
            self._wait_without_end(now)


def _closed_loop(server: Server, client: Client, clients: int, headroom: Headroom) -> Prediction:
    """Return the results that hold at any speed of a closed loop."""
    idle = server.accept_delay == 0 and server.pause == 0
    waits = client.expects_reply and min(client.reply_timeout, client.connect_timeout) >= _PATIENT_S
    most_fds = CLOSED_LOOP_EACH * clients * (1 + server.extra_fds) + SPARE_FDS
    fits = most_fds <= headroom.free_fds and _CLOSED_LOOP_QUEUE * clients < headroom.queue
    if server.leak == 0 and idle and waits and fits:
        fates = {} if client.attempts is None else {"accepted": float(client.attempts)}
        pace = [] if fates else ["the number of attempts of a closed loop depends on its speed"]
        return Prediction(fates=fates, never=["emfile", "queue_full"], unpredicted=pace)
    plain_leak = server.leak == 1 and server.leak_of == "connection" and server.extra_fds == 0
    if plain_leak and idle and waits and clients <= headroom.queue and server.on_emfile != "exit":
        return _leak_in_a_closed_loop(server, client, clients, headroom)
    return Prediction(unpredicted=["the result of a closed loop depends on the speed of the server"])


def _leak_in_a_closed_loop(server: Server, client: Client, clients: int, headroom: Headroom) -> Prediction:
    """Return the fates once every descriptor is leaked; the time of that depends on speed."""
    fds, queue = headroom.free_fds, 0 if server.on_emfile == "shed" else headroom.queue
    rest = "shed" if server.on_emfile == "shed" else "dropped"
    fates = {"accepted": float(fds), "queued": float(queue)}
    if client.attempts is not None:
        accepted = min(fds, client.attempts)
        queued = min(queue, client.attempts - accepted)
        fates = {"accepted": accepted, "queued": queued, rest: client.attempts - accepted - queued}
    elif fds / EASY_RATE + math.ceil(queue / clients) * (client.reply_timeout + client.hold) > client.load_s:
        return Prediction(unpredicted=["whether a closed loop fills the queue in time depends on its speed"])
    why = "the times and the number of attempts of a closed loop depend on its speed"
    return Prediction(fates={fate: float(count) for fate, count in fates.items() if count}, unpredicted=[why])
