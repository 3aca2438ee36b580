"""The differences from the oracle that are known: where, how large, and why. Each entry goes when its fault is mended.

A difference beyond its bound is a new one. `tests/bench/check_oracle.py` prints how often each entry was needed; an
entry that hundreds of runs do not need is deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oracle_records import RESET_BY_CLIENT, SHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from oracle_bounds import Bounds
    from oracle_records import Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One kind of difference: a pattern of names, the runs that can have it, and its bound."""

    numbers: str
    when: Callable[[Recorded], bool]
    within: Callable[[float | None, Bounds | None, Recorded], bool]
    why: str

    def covers(self, name: str, shown: float | None, bounds: Bounds | None, recorded: Recorded) -> bool:
        """Return whether a difference is of this kind."""
        return (
            re.fullmatch(self.numbers, name) is not None
            and self.when(recorded)
            and self.within(shown, bounds, recorded)
        )


def _always(_: Recorded) -> bool:
    return True


def _any(_: float | None, __: Bounds | None, ___: Recorded) -> bool:
    return True


def _off_by(most: float) -> Callable[[float | None, Bounds | None, Recorded], bool]:
    """Return whether a value is at most this far from its bounds."""

    def within(shown: float | None, bounds: Bounds | None, _: Recorded) -> bool:
        if bounds is None or shown is None:  # 0 and absent say the same of a time
            value = shown if bounds is None else bounds.low
            return value is not None and value <= most
        return bounds.low - most <= shown <= bounds.high + most

    return within


def _steps(change: str) -> Callable[[Recorded], bool]:
    return lambda recorded: any(step["change"] == change for step in recorded.facts["steps"])


def _has_canary(recorded: Recorded) -> bool:
    return recorded.settings["canary"] is not None


def _few_ports(recorded: Recorded) -> bool:
    """Return whether clients reuse ports: one 4-tuple then stands for several connections."""
    sysctls = recorded.settings["sysctl"]
    resets = (recorded.attempts["flags"] & RESET_BY_CLIENT).any()
    return bool(resets) or "net.ipv4.ip_local_port_range" in sysctls


def _stands_still(recorded: Recorded) -> bool:
    """Return whether the server can change nothing for 0.2 s and go on after that."""
    server = recorded.settings["server"]
    return bool(server["pause"] or (server["close_after"] or 0) > 0.1 or server["accept_delay"] > 0.05)


def _some(shown: float | None, bounds: Bounds | None, recorded: Recorded) -> bool:
    """Return whether a count is off by a few clients of its run."""
    return _off_by(3 + 0.05 * len(recorded.attempts))(shown, bounds, recorded)


def _sheds(recorded: Recorded) -> bool:
    return bool((recorded.accepts["flags"] & SHED).any())


def _known(
    numbers: str,
    when: Callable[[Recorded], bool],
    within: Callable[[float | None, Bounds | None, Recorded], bool],
    why: str,
) -> Known:
    return Known(numbers=numbers, when=when, within=within, why=why)


#: Numbers that are known to differ.
NUMBERS = (
    _known(
        r"emfile\.rate",
        _always,
        _any,
        "the time at the limit is from the first to the last failure, at least 0.1 s, not from accepts and closes",
    ),
    _known(r"queue\.full_share", _steps("backlog"), _any, "a backlog that a step changes is read once"),
    _known(
        r"growth, printed total of accepted",
        _sheds,
        _any,
        "the rows count clients that were shed, their total does not",
    ),
    _known(r"fds\.leaked", _stands_still, _any, "a server that stands still for 0.2 s is taken for settled"),
    _known(r"fds\.limit_at_s", _always, _any, "a sample that shows the limit before an accept record does is not used"),
    _known(r"fds\.(limit|max)", _always, _any, "not the lowest limit, and not the largest record, in some runs"),
    _known(
        r"recovery\..*", _always, _any, "a canary is judged before the next step of any kind, or of the steps that help"
    ),
    _known(
        r"fate\.(accepted|shed|queued|phantom|orphaned)|join\.foreign|accept\.(samples|waiting)",
        _few_ports,
        _some,
        "clients of a reused 4-tuple are taken for connections from elsewhere",
    ),
    _known(
        r"held\.(count|cut)", _has_canary, _any, "held connections are counted by port, and unconnected ones share 0"
    ),
    _known(
        r"attempts\.(delayed|late)",
        _few_ports,
        _any,
        "a SYN that is repeated within milliseconds met an old connection of the same 4-tuple: no SYN was lost",
    ),
)

#: Contradictions that are known: a pattern of the line, and why it still stands.
CONTRADICTIONS = (
    (r"syn-delay, .*", "a repeated SYN counts as lost, also when it was repeated within milliseconds"),
    (r"emfile-spin, .*", "a spin is recognized by its rate of failures, without CPU time and policy"),
    (r"prediction: .* never, .*", "a prediction is made without a margin"),
    (r"queue-overflow, although queue\.(max|full_share) is .*", "a backlog that a step changes is read once"),
    (r"foreign-accepts, .*", "clients of a reused 4-tuple are taken for connections from elsewhere"),
    (r"settings-degraded, .*", "a step after the end of a server is called a setting that was not in force"),
)

#: Numbers in sentences that are known to be wrong or to come from nothing in summary.json.
SENTENCES = (
    (r"slow-accept: .* %.*", "the share of the pauses that the acceptor caused: the oracle does not tell their causes"),
)


def why_known(line: str, table: Iterable[tuple[str, str]]) -> str | None:
    """Return why a line is known; None for a new one."""
    return next((why for pattern, why in table if re.fullmatch(pattern, line)), None)
