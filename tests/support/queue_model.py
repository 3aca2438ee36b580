"""A model of one accept queue and of clients that reuse few ports, which knows the true join of a recording.

Random, seeded, without a kernel. It assumes of Linux: a 4-tuple is free at once after a RST and at accept() after a
FIN; a queued connection keeps its place after a RST; the queue is first in, first out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from recordings import Row, packed, source

from loadsim.fates import Outcome
from loadsim.record.records import AcceptFlag, AttemptFlag


@dataclass(kw_only=True)
class History:
    """Attempts, accept records, and for each accept record the number of its attempt (0: foreign)."""

    attempts: list[Row] = field(default_factory=list)
    accepts: list[Row] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class World:
    """The probabilities of events, from 0 to 1."""

    seed: int
    length: int = 200
    ports: int = 4
    sources: int = 1
    rst: float = 0.5
    phantom: float = 0.0
    dropped: float = 0.0
    foreign: float = 0.0
    step_s: float = 0.004  # mean time between two events

    def run(self) -> History:
        """Return one history."""
        return _Run(self).play()


class _Run:
    def __init__(self, world: World) -> None:
        self.world = world
        self.random = random.Random(world.seed)  # noqa: S311 -- seeded on purpose, no secret
        self.now = 0.0
        self.free = [(source, port) for source in range(world.sources) for port in range(40_000, 40_000 + world.ports)]
        self.open: list[Row] = []  # attempts whose client is still there
        self.queue: list[Row] = []
        self.history = History()

    def play(self) -> History:
        for _ in range(self.world.length):
            self.now += self.random.expovariate(1 / self.world.step_s) + 1e-6
            self.random.choice((self.connect, self.leave, self.accept))()
        self.now += 1.0
        for attempt in self.open:
            attempt["flags"] |= AttemptFlag.PENDING
        while self.queue:
            self.now += 1e-5
            self.accept(AcceptFlag.AFTER_END)
        return self.history

    def connect(self) -> None:
        if not self.free:
            return
        place = self.free.pop(self.random.randrange(len(self.free)))
        number = len(self.history.attempts) + 1
        kind = self.random.random()
        foreign = self.random.random() < self.world.foreign
        row: Row = {
            "number": 0 if foreign else number, "intended": self.now, "started": self.now, "source": place[0],
            "port": place[1], "connected": self.now + 2e-5, "ended": None, "flags": 0, "outcome": Outcome.UNFINISHED,
        }  # fmt: skip
        self.open.append(row)
        if not foreign:
            self.history.attempts.append(row)
        if kind < self.world.dropped:
            row["connected"] = None
        elif kind >= self.world.dropped + self.world.phantom:
            self.queue.append(row)

    def leave(self) -> None:
        if not self.open:
            return
        row = self.open.pop(self.random.randrange(len(self.open)))
        row["ended"] = self.now
        by_rst = self.random.random() < self.world.rst
        row["flags"] |= AttemptFlag.RESET_BY_CLIENT if by_rst else 0
        row["outcome"] = Outcome.REPLY_TIMEOUT if row["connected"] else Outcome.CONNECT_TIMEOUT
        waits = any(row is queued for queued in self.queue)
        if by_rst or not waits:
            self.free.append((row["source"], row["port"]))

    def accept(self, flags: int = 0) -> None:
        if not self.queue:
            return
        row = self.queue.pop(0)
        reset = row["flags"] & AttemptFlag.RESET_BY_CLIENT or (flags and row["ended"] is None)
        if row["ended"] is not None and not reset:
            self.free.append((row["source"], row["port"]))
        self.history.truth.append(row["number"])
        self.history.accepts.append(self.record(row, 7 if reset else 8 if row["ended"] else 1, flags))

    def record(self, row: Row, state: int, flags: int) -> dict[str, Any]:
        age = (self.now - row["connected"]) * 1000 + self.random.uniform(-4, 4)
        return {
            "accepted": self.now, "port": row["port"], "peer": packed(source(row["source"])), "state": state,
            "age_ms": max(round(age), 0), "flags": flags,
        }  # fmt: skip
