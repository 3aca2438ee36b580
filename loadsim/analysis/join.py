"""Joins accept records to attempts, and finds the fates of clients of a server that writes no records."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadsim.fates import Fate, Outcome
from loadsim.record.recording import Bools, Ints, column, has_flag, has_outcome, was_connected
from loadsim.record.records import AcceptFlag, AttemptFlag, SocketFlag
from loadsim.scenario.specs import CANARY_SOURCE, HELD_SOURCE, source_address
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.record.recording import Recording, Records


#: tcpi_state of an accepted socket (include/net/tcp_states.h).
ESTABLISHED, RESET = 1, 7
#: A close is stamped right before it is made: its thread may be off the CPU for this long in between.
_SLACK_NS = NANOSECONDS // 100
#: The age of a socket is read in jiffies: +-4 ms at HZ=250, +-10 ms at HZ=100.
_AGE_ERROR_NS = NANOSECONDS // 100
_FOREVER = np.iinfo(np.int64).max // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Attempts and accept records joined, by index into the recording's arrays; -1 = none."""

    attempt_of: Ints  # for each accept record; -1: foreign
    accept_of: Ints  # for each attempt
    watching: Bools  # for each accept record: it is a canary's or a held client's
    watcher_of: Ints  # for each accept record, by index into `watchers`; -1 = not found
    ambiguous: int  # accept records that fitted several attempts equally well: the oldest was joined
    mismatched: int  # accept records with a payload that names another attempt than the join

    @property
    def foreign(self) -> int:
        """Accept records that neither an attempt nor a canary explains."""
        return int(((self.attempt_of < 0) & ~self.watching).sum())


def join(recording: Recording) -> Join:
    """Return the attempt of every accepted connection."""
    desk = _Desk(recording)
    _match_living(desk)
    ambiguous = _match_reset(desk)
    _match_holders(desk)
    return Join(
        attempt_of=desk.attempt_of,
        accept_of=desk.accept_of,
        watching=_watching(recording),
        watcher_of=_watchers_of(recording),
        ambiguous=ambiguous,
        mismatched=_mismatched(recording, desk.attempt_of),
    )


class _Desk:
    """The columns that the matching uses, and its result so far."""

    def __init__(self, recording: Recording) -> None:
        attempts, accepts = recording.attempts, recording.accepts
        self.started = column(attempts, "started")
        ended = column(attempts, "ended")
        self.ended = np.where(ended == 0, _FOREVER, ended)
        self.connected = was_connected(attempts)
        stamped = column(attempts, "connected")
        self.owned = np.where(stamped > 0, stamped, self.ended)  # it certainly had its 4-tuple by then
        self.reset_by_server = has_outcome(attempts, Outcome.RESET)
        self.cut_off = has_flag(attempts, AttemptFlag.RESET_BY_CLIENT)
        self.pending = has_flag(attempts, AttemptFlag.PENDING)
        self.accepted = column(accepts, "accepted")
        self.created = self.accepted - column(accepts, "age_ms") * (NANOSECONDS // 1000)
        self.state = column(accepts, "state")
        self.after_end = has_flag(accepts, AcceptFlag.AFTER_END)
        self.attempt_key = attempt_keys(attempts)
        self.accept_key = client_keys(recording, accepts["peer"], column(accepts, "port"))
        self.attempt_of = np.full(len(accepts), -1)
        self.accept_of = np.full(len(attempts), -1)

    def match(self, accepts: Ints, attempts: Ints) -> None:
        """Join pairs; of several accept records for one attempt only the first is joined."""
        self.accept_of[attempts[::-1]] = accepts[::-1]
        won = self.accept_of[attempts] == accepts
        self.attempt_of[accepts[won]] = attempts[won]

    def latest_start(self, accepts: Ints, times: Ints) -> Ints:
        """Return for each of these accept records the last attempt of its 4-tuple started by its time; -1 = none."""
        ours = np.flatnonzero(self.attempt_key >= 0)
        place = latest(self.attempt_key[ours], self.started[ours], self.accept_key[accepts], times)
        return np.where(place >= 0, ours[place], -1) if len(ours) else place


def latest(keys: Ints, times: Ints, asked_keys: Ints, asked_times: Ints) -> Ints:
    """Return for each (key, time) asked for the index of the last event of that key at or before it; -1 = none."""
    order = np.lexsort((np.concatenate([times, asked_times]), np.concatenate([keys, asked_keys])))
    is_event = order < len(keys)
    place = np.maximum.accumulate(np.where(is_event, np.arange(len(order)), -1))
    asked = np.flatnonzero(~is_event & (place >= 0))
    event, question = order[place[asked]], order[asked] - len(keys)
    found = np.full(len(asked_keys), -1)
    found[question] = np.where(keys[event] == asked_keys[question], event, -1)
    return found


def attempt_keys(attempts: Records) -> Ints:
    """Return one number per 4-tuple for each attempt; -1 = it was never on the wire."""
    source, port = column(attempts, "source"), column(attempts, "port")
    on_the_wire = (column(attempts, "started") > 0) & (port > 0)
    return np.where(on_the_wire, source << 16 | port, -1)


def client_keys(recording: Recording, addresses: Ints, ports: Ints) -> Ints:
    """Return the same number for each client, by address (four words) and port; -1 = not a client of this run."""
    used = np.flatnonzero(np.bincount(column(recording.attempts, "source")))
    source = _source_of(addresses, used, recording.facts.server.address)
    return np.where(source >= 0, source << 16 | ports, -1)


def _source_of(addresses: Ints, sources: Ints, server: str) -> Ints:
    """Return the index of each address among the source addresses of this run; -1 = not one of them."""
    if len(sources) == 0 or len(addresses) == 0:
        return np.full(len(addresses), -1)
    peers = np.ascontiguousarray(addresses)
    known = np.array([_packed(_address(int(source), server)) for source in sources], dtype="<u4")
    order = np.argsort(known[:, 0], kind="stable")
    place = order[np.searchsorted(known[order, 0], peers[:, 0]).clip(max=len(order) - 1)]
    return np.where((known[place] == peers).all(axis=1), sources[place], -1)


def _address(source: int, server: str) -> str:
    """Return the address from which a driver connects: 127.0.x.y, or the server's own address outside 127.0.0.0/8."""
    if server.startswith("127.") or server == "0.0.0.0":  # noqa: S104 -- compared with, not bound to
        return source_address(source)
    return "::1" if server == "::" else server


def _packed(address: str) -> Ints:
    packed = ipaddress.ip_address(address).packed.ljust(16, b"\0")
    return np.frombuffer(packed, dtype="<u4").astype(np.int64)


def _match_living(desk: _Desk) -> None:
    """Join connections that had not been reset when they were accepted: no other client could use their 4-tuple then.

    A client that has closed by FIN keeps its 4-tuple until the server has answered. If the final ACK of its handshake
    was dropped, a repeated SYN-ACK or its own data can complete the connection after its FIN was lost as well: accept()
    then finds it in ESTABLISHED.
    """
    accepts = np.flatnonzero((desk.state != RESET) & (desk.accept_key >= 0))
    attempts = desk.latest_start(accepts, desk.accepted[accepts])
    accepts, attempts = accepts[attempts >= 0], attempts[attempts >= 0]
    attempts = _owners(desk, accepts, attempts)
    alive = desk.ended[attempts] >= desk.accepted[accepts] - _SLACK_NS
    closed = desk.connected[attempts] & ~desk.cut_off[attempts]
    left = closed & ((desk.state[accepts] != ESTABLISHED) | ~desk.reset_by_server[attempts])
    fits = alive | left
    desk.match(accepts[fits], attempts[fits])


def _owners(desk: _Desk, accepts: Ints, attempts: Ints) -> Ints:
    """Return these attempts, each replaced by the one before it on its 4-tuple where that was accepted instead.

    An attempt is stamped before connect() and owns a 4-tuple only some time after that. A close by the server that
    sends RST frees the 4-tuple although its client has not read of it yet. So an accept record between the stamp and
    the return of connect() belongs to the attempt before, if that had not ended and no earlier record is its own.
    """
    doubtful = np.flatnonzero(desk.accepted[accepts] < desk.owned[attempts])
    before = desk.latest_start(accepts[doubtful], desk.started[attempts[doubtful]] - 1)
    open_then = (before >= 0) & desk.connected[before]
    open_then &= desk.ended[before] >= desk.started[attempts[doubtful]]  # else its client had freed the 4-tuple
    doubtful, before = doubtful[open_then], before[open_then]
    owners = attempts.copy()
    certain = np.ones(len(accepts), dtype=np.bool_)
    certain[doubtful] = False
    taken = np.zeros(len(desk.accept_of), dtype=np.bool_)
    taken[attempts[certain]] = True
    for row, earlier in zip(doubtful.tolist(), before.tolist(), strict=True):  # in the order of the queue
        owners[row] = attempts[row] if taken[earlier] else earlier
        taken[owners[row]] = True
    return owners


def _match_reset(desk: _Desk) -> int:
    """Join connections that their client had reset before they were accepted; return how many were ambiguous.

    The queue is first in, first out: if a 4-tuple has as many of them as attempts that were reset, their order decides.
    Otherwise the age of the server's socket decides if it fits only one attempt. The rest is matched one by one.
    """
    accepts = np.flatnonzero((desk.state == RESET) & (desk.accept_key >= 0))
    could = desk.connected & (desk.accept_of < 0) & (desk.attempt_key >= 0)
    could &= desk.cut_off | (desk.ended == _FOREVER)
    attempts = np.flatnonzero(could)
    attempts = attempts[np.isin(desk.attempt_key[attempts], desk.accept_key[accepts])]
    accepts = accepts[np.lexsort((desk.accepted[accepts], desk.accept_key[accepts]))]
    attempts = attempts[np.lexsort((desk.started[attempts], desk.attempt_key[attempts]))]
    _match_in_order(desk, accepts, attempts)
    accepts, attempts = accepts[desk.attempt_of[accepts] < 0], attempts[desk.accept_of[attempts] < 0]
    _match_by_age(desk, accepts, attempts)
    return _match_carefully(desk, accepts[desk.attempt_of[accepts] < 0], attempts[desk.accept_of[attempts] < 0])


def _match_in_order(desk: _Desk, accepts: Ints, attempts: Ints) -> None:
    """Join the i-th accept record to the i-th attempt of every 4-tuple where the counts agree and every pair could be.

    Both come sorted by 4-tuple and time.
    """
    keys, accept_group, accept_counts = np.unique(desk.accept_key[accepts], return_inverse=True, return_counts=True)
    attempt_group = np.searchsorted(keys, desk.attempt_key[attempts])
    agree = accept_counts == np.bincount(attempt_group, minlength=len(keys))
    left, right = agree[accept_group], agree[attempt_group]
    possible = _could_be(desk, accepts[left], attempts[right])
    wrong = np.bincount(accept_group[left][~possible], minlength=len(keys)) > 0
    desk.match(accepts[left & ~wrong[accept_group]], attempts[right & ~wrong[attempt_group]])


def _match_by_age(desk: _Desk, accepts: Ints, attempts: Ints) -> None:
    """Join accept records to the only attempt that held the 4-tuple when the server's socket was made.

    Both are sorted by 4-tuple and time.
    """
    keys, ends = desk.attempt_key[attempts], desk.ended[attempts]
    created = desk.created[accepts]
    holder = latest(keys, desk.started[attempts], desk.accept_key[accepts], created + _AGE_ERROR_NS)
    accepts, created, holder = accepts[holder >= 0], created[holder >= 0], holder[holder >= 0]
    before = (holder - 1).clip(min=0)
    rival = (before < holder) & (keys[before] == keys[holder]) & (ends[before] >= created - _AGE_ERROR_NS)
    fits = (ends[holder] >= created - _AGE_ERROR_NS) & ~rival & _could_be(desk, accepts, attempts[holder])
    fits &= np.bincount(holder[fits], minlength=len(attempts))[holder] == 1
    desk.match(accepts[fits], attempts[holder[fits]])


def _could_be(desk: _Desk, accepts: Ints, attempts: Ints) -> Bools:
    """Return which pairs agree on the order of events: started, reset, accepted."""
    started, accepted = desk.started[attempts], desk.accepted[accepts]
    was_reset: Bools = desk.ended[attempts] <= accepted + _SLACK_NS
    # The drivers reset open connections once the run was judged, and a killed driver records no end.
    unseen = (desk.ended[attempts] == _FOREVER) & (desk.after_end[accepts] | ~desk.pending[attempts])
    possible: Bools = (started <= accepted) & (was_reset | unseen)
    return possible


def _match_carefully(desk: _Desk, accepts: Ints, attempts: Ints) -> int:
    """Join where the order has holes (phantoms that were reset); return how many accept records stayed ambiguous.

    Both are sorted by 4-tuple and time. Among the attempts that order and state allow, the age of the server's socket
    decides. If it fits several or none, the oldest is joined.
    """
    keys = desk.attempt_key[attempts]
    low = np.searchsorted(keys, desk.accept_key[accepts], "left").tolist()
    high = np.searchsorted(keys, desk.accept_key[accepts], "right").tolist()
    starts, ends = desk.started[attempts].tolist(), desk.ended[attempts].tolist()
    floor = _joined_before(desk, accepts).tolist()
    accepted, created = desk.accepted[accepts].tolist(), desk.created[accepts].tolist()
    after_end = desk.after_end[accepts].tolist()
    chosen, ambiguous, free = [-1] * len(accepts), 0, 0
    for row in range(len(accepts)):
        free = max(free, low[row])
        first = bisect_right(starts, floor[row], free, max(free, high[row]))
        last = bisect_right(starts, accepted[row], first, max(first, high[row]))
        if not after_end[row]:
            last = bisect_right(ends, accepted[row] + _SLACK_NS, first, last)
        if first == last:
            continue
        near = bisect_left(ends, created[row] - _AGE_ERROR_NS, first, last)
        beyond = bisect_right(starts, created[row] + _AGE_ERROR_NS, near, last)
        chosen[row] = near if near < beyond else first
        ambiguous += beyond - near != 1
        free = chosen[row] + 1
    places = np.array(chosen, dtype=np.int64)
    found = places >= 0
    desk.match(accepts[found], attempts[places[found]])
    return ambiguous


def _joined_before(desk: _Desk, accepts: Ints) -> Ints:
    """Return the start of the attempt of the previous record of the same 4-tuple; 0 = none.

    An attempt that follows it in the queue was started later.
    """
    joined = np.flatnonzero((desk.attempt_of >= 0) & np.isin(desk.accept_key, desk.accept_key[accepts]))
    if len(joined) == 0:
        return np.zeros(len(accepts), dtype=np.int64)
    last = latest(desk.accept_key[joined], desk.accepted[joined], desk.accept_key[accepts], desk.accepted[accepts])
    return np.where(last >= 0, desk.started[desk.attempt_of[joined[last]]], 0)


def _match_holders(desk: _Desk) -> None:
    """Join the remaining records to the attempts that held their 4-tuples when the server's sockets were made.

    They come from races of a few microseconds (a client gave up just as it was accepted), and from killed drivers.
    """
    accepts = np.flatnonzero((desk.attempt_of < 0) & (desk.accept_key >= 0))
    attempts = desk.latest_start(accepts, desk.created[accepts] + _AGE_ERROR_NS)
    accepts, attempts = accepts[attempts >= 0], attempts[attempts >= 0]
    held = desk.ended[attempts] >= desk.created[accepts] - _AGE_ERROR_NS
    held &= desk.accept_of[attempts] < 0
    desk.match(accepts[held], attempts[held])


def _watching(recording: Recording) -> Bools:
    """Return which accept records are of canaries and held clients: they have addresses of their own."""
    sources = np.array([CANARY_SOURCE, HELD_SOURCE])
    if not len(recording.canary) and not len(recording.held):
        return np.zeros(len(recording.accepts), dtype=np.bool_)
    watching: Bools = _source_of(recording.accepts["peer"], sources, recording.facts.server.address) >= 0
    return watching


def watchers(recording: Recording) -> Records:
    """Return a record for each canary, and the first request of each held connection."""
    held = recording.held
    connection = np.stack([column(held, "port"), column(held, "connected")], axis=1)
    _, first = np.unique(connection, axis=0, return_index=True)
    return np.concatenate([recording.canary, held[np.sort(first)]])


def _watchers_of(recording: Recording) -> Ints:
    """Return for each accept record the last of the `watchers` that had started on its 4-tuple; -1 = none.

    It is also -1 where the server's socket is older than that connection.
    """
    accepts, rows = recording.accepts, watchers(recording)
    if not len(rows):
        return np.full(len(accepts), -1)
    accepted = column(accepts, "accepted")
    started = column(rows, "started")
    sources = np.array([CANARY_SOURCE, HELD_SOURCE])
    source = _source_of(accepts["peer"], sources, recording.facts.server.address)
    asked = np.where(source >= 0, source << 16 | column(accepts, "port"), -1)
    found = latest(attempt_keys(rows), started, asked, accepted)
    found[asked < 0] = -1
    made = accepted - column(accepts, "age_ms") * (NANOSECONDS // 1000)
    found[(found >= 0) & (made < started[found] - _AGE_ERROR_NS)] = -1
    return found


def _mismatched(recording: Recording, attempt_of: Ints) -> int:
    """Return how many accept records carry the number of another attempt than theirs, as sent under echo."""
    payload, numbers = column(recording.accepts, "payload"), column(recording.attempts, "number")
    known = np.isin(payload, numbers) if payload.any() else np.zeros(len(payload), dtype=np.bool_)
    known &= ~_watching(recording)  # the canary counts from 1 as well
    joined = np.where(attempt_of >= 0, numbers[attempt_of], 0) if len(numbers) else np.zeros(len(payload))
    return int((known & (payload != joined)).sum())


#: net/tcp_states.h. A connection that the server has accepted and closed is in one of _CLOSED_BY_SERVER, without owner.
_ESTABLISHED, _FIN_WAIT1, _CLOSE_WAIT = 1, 4, 8
_CLOSED_BY_SERVER = (_FIN_WAIT1, 5, 6, 9, 11)  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING
_HALF_OPEN = (3, 12)  # SYN_RECV: the server still waits for the last ACK


def fates(recording: Recording) -> Ints:
    """Return the fate of each attempt that was connected, `unknown` where nothing proves one; others are `unknown`."""
    attempts = recording.attempts
    fate = np.full(len(attempts), Fate.UNKNOWN, dtype=np.int64)
    seen = _Seen(recording)
    fate[seen.at_client(_ESTABLISHED, _FIN_WAIT1)] = Fate.PHANTOM
    fate[seen.at_server(*_HALF_OPEN, owned=False)] = Fate.PHANTOM
    fate[seen.at_server(_ESTABLISHED, _CLOSE_WAIT, owned=False)] = Fate.QUEUED
    fate[seen.at_server(*_CLOSED_BY_SERVER, owned=False)] = Fate.ACCEPTED
    fate[seen.owned()] = Fate.ACCEPTED
    fate[_answered(recording)] = Fate.ACCEPTED
    fate[~was_connected(attempts)] = Fate.UNKNOWN
    return fate


def never_connected(recording: Recording, fate: Ints) -> Ints:
    """Return the fates of clients that received no SYN-ACK; `unknown` if one may have been lost on its way."""
    if recording.facts.server.sockets_seen:
        return fate
    return np.where(fate == Fate.DROPPED, Fate.UNKNOWN, fate)


def queued_at_end(recording: Recording) -> int:
    """Return how many connections, including foreign ones, were in the accept queue when the run was judged."""
    sockets = recording.sockets
    state = column(sockets, "state")
    waits = _is_at_end(recording) & (sockets["inode"] == 0) & np.isin(state, (_ESTABLISHED, _CLOSE_WAIT))
    return int(waits.sum())


def kept_at_end(recording: Recording) -> int:
    """Return how many connections the server kept although their clients had left: CLOSE_WAIT, with an owner."""
    sockets = recording.sockets
    kept = _is_at_end(recording) & (sockets["inode"] > 0) & (column(sockets, "state") == _CLOSE_WAIT)
    return int(kept.sum())


def _is_at_end(recording: Recording) -> Bools:
    """Return which records are the server's ends of connections when the run was judged."""
    at_end: Bools = column(recording.sockets, "flags") == SocketFlag.AT_END
    return at_end


def _answered(recording: Recording) -> Bools:
    """Return which clients got a byte or a FIN: the kernel sends neither for a connection in the queue."""
    attempts = recording.attempts
    return (column(attempts, "replied") > 0) | has_outcome(attempts, Outcome.EOF)


def attempts_of_sockets(recording: Recording) -> Ints:
    """Return the attempt of each socket record; -1 = not a connection of the load."""
    sockets = recording.sockets
    keys = attempt_keys(recording.attempts)
    ours = np.flatnonzero(keys >= 0)
    started = column(recording.attempts, "started")[ours]
    asked = client_keys(recording, sockets["client"], column(sockets, "port"))
    place = latest(keys[ours], started, asked, column(sockets, "time"))
    found = (place >= 0) & (asked >= 0)
    return np.where(found, ours[place] if len(ours) else -1, -1)


class _Seen:
    """The sockets of the table, each with its attempt."""

    def __init__(self, recording: Recording) -> None:
        sockets = recording.sockets
        self._attempt = attempts_of_sockets(recording)
        self._state = column(sockets, "state")
        self._owned = column(sockets, "inode") > 0
        self._at_end = has_flag(sockets, SocketFlag.AT_END)
        self._at_client = has_flag(sockets, SocketFlag.AT_CLIENT)

    def owned(self) -> Ints:
        """Return the attempts with a connection that a process of the server owned in any table."""
        return self._attempts(self._owned & ~self._at_client)

    def at_server(self, *states: int, owned: bool) -> Ints:
        """Return the attempts with a connection in one of these states at the server at the judgement."""
        right = self._at_end & ~self._at_client & (self._owned == owned)
        return self._attempts(right & np.isin(self._state, states))

    def at_client(self, *states: int) -> Ints:
        """Return the attempts in one of these states at the client at the judgement."""
        return self._attempts(self._at_end & self._at_client & np.isin(self._state, states))

    def _attempts(self, sockets: Bools) -> Ints:
        attempts = self._attempt[sockets]
        return attempts[attempts >= 0]
