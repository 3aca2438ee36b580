"""The client of each accept record, and the interval in which that client entered the accept queue.

Solves the join independently of loadsim. A 4-tuple has one connection after the other, and therefore its accepts and
its clients have the same order. In an echo the payload names the client. Ambiguous assignments stay open and are
counted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oracle_records import AFTER_END, CANARY, CLOSED_STATE, HELD, PENDING, RESET_BY_CLIENT, source_of

if TYPE_CHECKING:
    from oracle_records import Recorded

MS = 1_000_000
#: The age of a socket at accept() is read in milliseconds and is off by at most this.
AGE_ERROR_MS = 6
#: A handshake completed late if the client's time and the age of the socket differ by this much.
LATE_MS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One connection of an attempt, of a canary, or of a held client."""

    source: int
    port: int
    number: int  # of its attempt; 0 for canaries and held clients
    started: int
    connected: int
    reset_at: int  # when its client reset it; a time after the run if it did not


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """One accept record, and its client; None where the client is ambiguous."""

    at: int
    closed: int
    source: int
    open_fds: int
    age_ms: int
    flags: int
    client: Client | None

    @property
    def is_of_attempt(self) -> bool:
        """Whether its source address is one of the load."""
        return self.source not in (CANARY, HELD)

    @property
    def is_after_end(self) -> bool:
        """Whether it was still queued when the run was judged."""
        return bool(self.flags & AFTER_END)

    @property
    def lateness_ms(self) -> float:
        """By how much connect() returned before the socket of the server existed."""
        assert self.client is not None
        return (self.at - self.client.connected) / MS - self.age_ms

    @property
    def entered(self) -> tuple[int, int]:
        """The earliest and the latest time at which it can have entered the accept queue."""
        assert self.client is not None
        before, after = self.client.started, min(self.client.connected, self.at)
        by_age = self.at - self.age_ms * MS
        if self.lateness_ms > LATE_MS + AGE_ERROR_MS:
            return max(before, by_age - AGE_ERROR_MS * MS), min(self.at, by_age + AGE_ERROR_MS * MS)
        if self.lateness_ms > LATE_MS - AGE_ERROR_MS:
            return before, min(self.at, max(after, by_age + AGE_ERROR_MS * MS))
        return before, after


_NEVER = 1 << 62


def clients_of(recorded: Recorded) -> list[Client]:
    """Return the completed connections of all clients, ordered by their start."""
    clients = []
    for rows, is_attempt in ((recorded.attempts, True), (recorded.canary, False), (recorded.held, False)):
        seen = set()
        for row in rows[rows["connected"] > 0]:
            key = (int(row["port"]), int(row["connected"]))
            if not is_attempt and key in seen:  # a held connection has a row for each of its requests
                continue
            seen.add(key)
            was_reset = bool(row["flags"] & (RESET_BY_CLIENT | PENDING))
            ended = int(row["ended"]) or recorded.facts["judged_ns"]
            clients.append(
                Client(
                    source=int(row["source"]),
                    port=int(row["port"]),
                    number=int(row["number"]) if is_attempt else 0,
                    started=int(row["started"]),
                    connected=int(row["connected"]),
                    reset_at=(recorded.facts["judged_ns"] if row["flags"] & PENDING else ended)
                    if was_reset
                    else _NEVER,
                )
            )
    return sorted(clients, key=lambda client: client.started)


def joined(recorded: Recorded) -> list[Accept]:
    """Return all accept records in order, each with its client where only one is possible."""
    by_tuple = defaultdict(list)
    for client in clients_of(recorded):
        by_tuple[client.source, client.port].append(client)
    rows = recorded.accepts[recorded.accepts["accepted"] > 0]
    rows = rows[rows["accepted"].argsort(kind="stable")]
    wanted = defaultdict(list)
    sources = [source_of(row["peer"]) for row in rows]
    for at, (row, source) in enumerate(zip(rows, sources, strict=True)):
        wanted[source, int(row["port"])].append(at)
    found: dict[int, Client | None] = {}
    for key, places in wanted.items():
        options = [[_fits(rows[at], client) for client in by_tuple[key]] for at in places]
        for at, which in zip(places, only_assignment(options), strict=True):
            found[at] = None if which is None else by_tuple[key][which]
    return [
        Accept(
            at=int(row["accepted"]),
            closed=int(row["closed"]),
            source=source,
            open_fds=int(row["open_fds"]),
            age_ms=int(row["age_ms"]),
            flags=int(row["flags"]),
            client=found[at],
        )
        for at, (row, source) in enumerate(zip(rows, sources, strict=True))
    ]


def _fits(row: Any, client: Client) -> bool:  # noqa: ANN401  # numpy has no type for one record
    """Return whether an accept record can belong to this client."""
    accepted, payload = int(row["accepted"]), int(row["payload"])
    if payload and client.number:
        return payload == client.number
    if client.started > accepted:
        return False
    return client.reset_at <= accepted if row["state"] == CLOSED_STATE else client.reset_at > accepted - MS


def only_assignment(options: list[list[bool]]) -> list[int | None]:
    """Return for each row the only client that fits in order; None where no client fits, or several."""
    earliest: list[int | None] = []
    least = 0
    for fits in options:
        which = next((at for at in range(least, len(fits)) if fits[at]), None)
        earliest.append(which)
        least = least if which is None else which + 1
    latest: list[int | None] = []
    most = len(options[0]) - 1
    for fits in reversed(options):
        which = next((at for at in range(most, -1, -1) if fits[at]), None)
        latest.append(which)
        most = most if which is None else which - 1
    return [one if one == other else None for one, other in zip(earliest, reversed(latest), strict=True)]
