"""How many clients a server would have had at once if none of them had waited for a descriptor.

The clients that were under way at once are no measure of that: most of them waited because of the exhaustion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.columns import Bools, Ints, column, has_outcome
from loadsim.fates import Fate, Outcome
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.rules.case import Case
    from loadsim.record.arrays import Records

#: The server's thread may be off the CPU for this long, and closes a connection, or accepts the next ones, that late.
_SLACK_NS = NANOSECONDS // 100
#: The first client that waits in a pause started this long before it at most.
_HANDSHAKE_NS = NANOSECONDS // 1000
#: A client of a closed loop connects again before the server has closed its last connection: one in ten at once.
_TURNING = 0.1


def clients_at_once(case: Case) -> int:
    """Return the most clients at once, each from its start, for as long as those stay that are served."""
    clients = case.view.setting("client", "clients")
    watching = _watching(case)
    if clients:
        return int(min(clients, len(case.view.recording.attempts))) + watching
    attempts = case.view.recording.attempts
    begun = column(attempts, "started") > 0
    begins, stays = _begins(case)[begun], _stays(case)[begun]
    return _most_at_once(begins, begins + stays) + watching


def turning_over(case: Case) -> int:
    """Return how many connections are on their way out while their clients already have the next one."""
    return int(np.ceil(_TURNING * clients_at_once(case))) if case.view.setting("client", "clients") else 0


def _most_at_once(begins: Ints, ends: Ints) -> int:
    times = np.concatenate([ends + _SLACK_NS, begins])
    order = np.argsort(times, kind="stable")
    return int(np.cumsum(np.where(order < len(ends), -1, 1)).max(initial=0))


def _begins(case: Case) -> Ints:
    """Return when each attempt would have been accepted: at its start, and never while the server pauses by itself."""
    view = case.view
    begins = column(view.recording.attempts, "started")
    own = (view.pauses.lengths >= _SLACK_NS) & ~view.pauses.starved
    ends = view.pauses.ends[own]
    since = np.append(ends - view.pauses.lengths[own] - _HANDSHAKE_NS, np.iinfo(np.int64).max)
    place = np.searchsorted(since, begins, "right") - 1
    inside = place >= 0
    begins[inside] = np.maximum(begins[inside], ends[place[inside]])
    each = round((view.setting("server", "accept_delay") or 0.0) * NANOSECONDS)
    turns = each * np.arange(len(begins))
    order = np.argsort(begins, kind="stable")
    begins[order] = np.maximum.accumulate(begins[order] - turns) + turns
    return begins


def _stays(case: Case) -> Ints:
    """Return how long each attempt keeps its descriptors: as it did, or as the served clients do at the median."""
    attempts = case.view.recording.attempts
    served = has_outcome(attempts, Outcome.OK, Outcome.CONNECTED) & case.view.ledger.having(Fate.ACCEPTED)
    if case.view.recording.facts.server.is_simulated:
        own, ends = _stays_at_server(case, served)
    else:
        own, ends = _stays_at_client(attempts, served), served
    usual = int(np.median(own[ends])) if ends.any() else _planned(case)
    kept_share = float((served & ~ends).sum() / served.sum()) if served.any() else 0.0
    stays = np.where(served, own, usual)
    # Of those that were not served as many would never have been closed.
    others = np.flatnonzero(~served)
    stays[others[: round(kept_share * len(others))]] = _to_the_end(case)
    return stays


def _stays_at_server(case: Case, served: Bools) -> tuple[Ints, Bools]:
    """Return the time from accept() to close of each attempt, and for which there was a close."""
    accept_of = case.view.ledger.join.accept_of.clip(min=0)
    if not served.any():
        return np.zeros(len(served), dtype=np.int64), served
    accepted, closed = (column(case.view.recording.accepts, name)[accept_of] for name in ("accepted", "closed"))
    ends: Bools = served & (closed > 0)
    return np.where(ends, (closed - accepted).clip(min=0), _to_the_end(case)), ends


def _stays_at_client(attempts: Records, served: Bools) -> Ints:
    """Return how long each served client stayed, without its wait: the quickest tenth shows how long a reply takes."""
    started, connected, replied, ended = (
        column(attempts, name) for name in ("started", "connected", "replied", "ended")
    )
    answered = served & (replied > 0)
    reply = int(np.percentile((replied - started)[answered], 10)) if answered.any() else 0
    stays: Ints = np.where(answered, ended - replied + reply, ended - connected).clip(min=0)
    return stays


def _to_the_end(case: Case) -> int:
    return case.view.clock.judged - case.view.clock.start


def _planned(case: Case) -> int:
    """Return how long a client means to stay where none was served."""
    return round((case.view.setting("client", "hold") or 0.0) * NANOSECONDS)


def _watching(case: Case) -> int:
    """Return how many connections of the canary, and of those that it holds, were open at once, each for an answer."""
    canary, held = case.view.recording.canary, case.view.recording.held
    begun = canary[column(canary, "started") > 0]
    answered = has_outcome(begun, Outcome.OK)
    stays = column(begun, "ended") - column(begun, "started")
    usual = int(np.median(stays[answered])) if answered.any() else 0
    begins = column(begun, "started")
    at_once = _most_at_once(begins, begins + np.where(answered, stays, usual))
    return at_once + len(np.unique(column(held, "port")))
