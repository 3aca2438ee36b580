"""How many descriptors a server had for its clients, and how fast they went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.analysis.descriptors import leaked_connections, limit_reached
from loadsim.analysis.foreign import kept_at_end
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.rules.case import Case

#: Limits that people set; the first one above the measured limit shows what raising it buys.
_USUAL_LIMITS = (65_536, 1_048_576, 2**30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The descriptors between the server's own and its limit."""

    limit: int
    baseline: int
    each: int  # descriptors per client
    leaked: int
    leak_rate: float  # leaked descriptors per second; 0 = not known
    fill_rate: float  # descriptors per second until the limit was reached; 0 = it was not
    leaked_away: bool  # at least half of the room had leaked when the limit was reached, or all of it in the end

    @classmethod
    def of(cls, case: Case) -> Room:
        """Return the room that a server had."""
        limit, baseline = case.number("fds.limit"), case.number("fds.baseline")
        reached_s = case.numbers.get("fds.limit_at", 0.0)
        each = 1 + int(case.view.setting("server", "extra_fds") or 0)
        early, in_all, leak_rate = _leak_of_requests(case) if leaks_extras(case) else _leak_of_connections(case, each)
        if case.view.recording.facts.server.is_simulated:
            leaked = int(case.numbers.get("fds.leaked", in_all))  # a server that died left nothing to be counted
        else:
            leaked = kept_at_end(case.view.recording)
        all_gone = leaked > 0 and leaked + each > limit - baseline
        return cls(
            limit=limit,
            baseline=baseline,
            each=each,
            leaked=leaked,
            leak_rate=leak_rate,
            fill_rate=(limit - baseline) / reached_s if reached_s > 0 else 0.0,
            leaked_away=case.exhausted and (all_gone or 0 < limit - baseline <= early * 2),
        )

    @property
    def clients(self) -> int:
        """How many clients can be served at once."""
        return max((self.limit - self.baseline) // self.each, 0)

    @property
    def usual_limit(self) -> int:
        """The next higher limit that people set."""
        return next(limit for limit in _USUAL_LIMITS if limit > self.limit or limit == _USUAL_LIMITS[-1])

    def lasts_s(self, limit: int, rate: float) -> float | None:
        """Return how long a limit lasts at this many descriptors per second; None where that is not known."""
        return (limit - self.baseline) / rate if rate > 0 else None


def leaks_extras(case: Case) -> bool:
    """Return whether the server leaks what a request opens besides its connection."""
    return bool(case.view.setting("server", "leak_of") == "extra")


def _leak_of_connections(case: Case, each: int) -> tuple[int, int, float]:
    """Return how many leaked until the limit was reached, how many in all, and how many per second.

    A connection that is never closed keeps what its request opened, too.
    """
    times = case.view.waits.accepted[leaked_connections(case.view)]
    reached = limit_reached(case.view)
    span = (int(times.max()) - case.view.clock.start) / NANOSECONDS if len(times) else 0.0
    early = len(times) if reached is None else int((times <= reached).sum())
    in_all = each * len(times)
    return each * early, in_all, in_all / span if span > 0 else 0.0


def _leak_of_requests(case: Case) -> tuple[int, int, float]:
    """Return the same for what requests opened besides their connection: nothing can leak once the limit is reached."""
    leaked, span = case.number("fds.leaked"), case.numbers.get("fds.limit_at", case.arrivals_s)
    return leaked, leaked, leaked / span if span > 0 else 0.0
