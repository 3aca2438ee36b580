"""The decisions of the simulated server: the connections that it leaks, and its reaction to EMFILE.

Pure: functions take times and counts and return decisions; the acceptor executes them.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The longest pause of `backoff`, as in Go's net/http (server.go, Serve: 5 ms doubling to 1 s).
BACKOFF_LIMIT_NS: Final = 1_000_000_000
_FRACTION_BITS = 53  # of a float: every share from 0.5 on is exact, smaller ones to 1e-16


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Chooses a share of things by error diffusion: |chosen - share x seen| < 1 at any time.

    It uses integers, because rounding errors would add up over a long run. `phase` moves the first choice; its unit is
    that of `share`: 1 is 2 ** 53.
    """

    share: int
    phase: int

    @classmethod
    def of(cls, share: float, *, seed: int) -> Self:
        """Return the leak of a share between 0 and 1, its phase drawn from the seed."""
        phase = random.Random(f"leak {seed}").getrandbits(_FRACTION_BITS)  # noqa: S311 - a phase, not a secret
        return cls(share=round(share * (1 << _FRACTION_BITS)), phase=phase)

    def takes(self, number: int) -> bool:
        """Return whether the thing with this number (1, 2, 3 ...) is chosen."""
        upto = self.phase + number * self.share
        return upto >> _FRACTION_BITS != (upto - self.share) >> _FRACTION_BITS


class Action(enum.Enum):
    """A reaction to an accept() that found no free descriptor."""

    WAIT = enum.auto()  # do not call accept() until `Decision.until_ns`
    RETRY = enum.auto()  # call accept() again at once: a level-triggered loop without back-off
    SHED = enum.auto()  # close the reserved descriptor, accept, close, reopen it
    EXIT = enum.auto()  # exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The action now; with WAIT, the time of the next try, or None for the next close of a descriptor."""

    action: Action
    until_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhausted:
    """The input of a policy: the time, `emfile_delay`, and the failures since the last success (from 1)."""

    now_ns: int
    delay_ns: int
    in_a_row: int


def sleep(state: Exhausted) -> Decision:
    """Wait a fixed time: trio and PostgreSQL 0.1 s, nginx 0.5 s, asyncio 1 s."""
    return Decision(action=Action.WAIT, until_ns=state.now_ns + state.delay_ns)


def backoff(state: Exhausted) -> Decision:
    """Wait twice as long each time, at most `BACKOFF_LIMIT_NS`: Go, gevent."""
    limit = max(BACKOFF_LIMIT_NS, state.delay_ns)
    doublings = min(state.in_a_row - 1, limit.bit_length())
    return Decision(action=Action.WAIT, until_ns=state.now_ns + min(state.delay_ns << doublings, limit))


def spin(_: Exhausted) -> Decision:
    """Try again at once, without end: bun, tornado, puma."""
    return Decision(action=Action.RETRY)


def shed(_: Exhausted) -> Decision:
    """Accept and close the waiting clients with a reserved descriptor: libuv, Twisted."""
    return Decision(action=Action.SHED)


def until_close(_: Exhausted) -> Decision:
    """Wait until a connection is closed: memcached, warp."""
    return Decision(action=Action.WAIT)


def leave(_: Exhausted) -> Decision:
    """Exit: deno, Apache's children."""
    return Decision(action=Action.EXIT)


#: `server.on_emfile` -> its policy.
POLICIES: Mapping[str, Callable[[Exhausted], Decision]] = {
    "sleep": sleep,
    "backoff": backoff,
    "spin": spin,
    "shed": shed,
    "until_close": until_close,
    "exit": leave,
}


def next_pause(*, now_ns: int, start_ns: int, every_ns: int) -> int:
    """Return the start of the next pause: the first multiple of `every_ns` after the start that is later than now."""
    elapsed = max(now_ns - start_ns, 0)
    return start_ns + (elapsed // every_ns + 1) * every_ns
