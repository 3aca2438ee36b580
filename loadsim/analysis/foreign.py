"""Where the clients of a server ended that writes no records: what their own bytes and the kernel's TCP table prove.

An answer proves that accept() returned the connection, and so does a process that owns its socket, or has closed it.
A complete connection that no process owns waits in the accept queue. What neither proves is `unknown`, and stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Bools, Ints, column, has_flag, has_outcome, was_connected
from loadsim.analysis.join import attempt_keys, client_keys, latest
from loadsim.fates import Fate, Outcome
from loadsim.record.events import SocketFlag

if TYPE_CHECKING:
    from loadsim.record.arrays import Recording

#: net/tcp_states.h. Who is accepted and whose process has closed is in one of the second kind, without an owner.
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
    """Return the fates of those that no SYN-ACK reached; where one may have been lost on its way: `unknown`."""
    if recording.facts.server.sockets_seen:
        return fate
    return np.where(fate == Fate.DROPPED, Fate.UNKNOWN, fate)


def queued_at_end(recording: Recording) -> int:
    """Return how many connections, foreign ones too, the table shows in the accept queue when the run was judged."""
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
    """Return who heard from the server: a byte, or its FIN, which the kernel sends for no connection in the queue."""
    attempts = recording.attempts
    return (column(attempts, "replied") > 0) | has_outcome(attempts, Outcome.EOF)


def attempts_of_sockets(recording: Recording) -> Ints:
    """Return for each record of a socket the attempt whose connection it is; -1 = none of ours."""
    sockets = recording.sockets
    keys = attempt_keys(recording.attempts)
    ours = np.flatnonzero(keys >= 0)
    started = column(recording.attempts, "started")[ours]
    asked = client_keys(recording, sockets["client"], column(sockets, "port"))
    place = latest(keys[ours], started, asked, column(sockets, "time"))
    found = (place >= 0) & (asked >= 0)
    return np.where(found, ours[place] if len(ours) else -1, -1)


class _Seen:
    """The sockets of the table, each with the attempt whose connection it is."""

    def __init__(self, recording: Recording) -> None:
        sockets = recording.sockets
        self._attempt = attempts_of_sockets(recording)
        self._state = column(sockets, "state")
        self._owned = column(sockets, "inode") > 0
        self._at_end = has_flag(sockets, SocketFlag.AT_END)
        self._at_client = has_flag(sockets, SocketFlag.AT_CLIENT)

    def owned(self) -> Ints:
        """Return the attempts whose connection a process of the server was ever seen to own."""
        return self._attempts(self._owned & ~self._at_client)

    def at_server(self, *states: int, owned: bool) -> Ints:
        """Return the attempts whose connection was in one of these states at the server in the end."""
        right = self._at_end & ~self._at_client & (self._owned == owned)
        return self._attempts(right & np.isin(self._state, states))

    def at_client(self, *states: int) -> Ints:
        """Return the attempts that were in one of these states at the client in the end."""
        return self._attempts(self._at_end & self._at_client & np.isin(self._state, states))

    def _attempts(self, sockets: Bools) -> Ints:
        attempts = self._attempt[sockets]
        return attempts[attempts >= 0]
