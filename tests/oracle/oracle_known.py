"""The differences from the oracle that are known: where, how large, and why. Each entry goes when its fault is mended.

A difference beyond its bound is a new one. `tests/bench/check_oracle.py` prints how often each entry was needed; an
entry that hundreds of runs do not need is deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from oracle_records import RESET_BY_CLIENT, SHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from oracle_metrics import Bounds
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


def _until_judged(shown: float | None, _: Bounds | None, recorded: Recorded) -> bool:
    """Return whether CPU time per second is right over the time until the judgement, instead of the load."""
    known = recorded.samples[recorded.samples["cpu_ns"] >= 0]
    times, spent = known["time"].astype(float), known["cpu_ns"].astype(float)
    begin = recorded.facts["start_ns"]
    cores = (spent[-1] - np.interp(begin, times, spent)) / (times[-1] - begin)
    return shown is not None and bool(abs(shown - cores) < 0.02 + 0.1 * cores)


def _clipped(shown: float | None, bounds: Bounds | None, recorded: Recorded) -> bool:
    """Return whether a row holds more than its own records by at most those below the first row."""
    below = int((recorded.accepts["open_fds"] < recorded.summary["growth"][0]["fds_from"]).sum())
    return shown is not None and bounds is not None and bounds.low <= shown <= bounds.high + below


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


def _holds(recorded: Recorded) -> bool:
    return _has_canary(recorded) and recorded.settings["canary"]["held"] > 0


def _some(shown: float | None, bounds: Bounds | None, recorded: Recorded) -> bool:
    """Return whether a count is off by a few clients of its run."""
    return _off_by(3 + 0.05 * len(recorded.attempts))(shown, bounds, recorded)


def _few_held(shown: float | None, bounds: Bounds | None, recorded: Recorded) -> bool:
    extras = recorded.settings["server"]["extra_fds"]
    return _off_by(recorded.settings["canary"]["held"] + extras * len(recorded.held))(shown, bounds, recorded)


def _sheds(recorded: Recorded) -> bool:
    return bool((recorded.accepts["flags"] & SHED).any())


def _has_woken(recorded: Recorded) -> bool:
    return bool((recorded.attempts["flags"] & 2).any())


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
    _known(
        r"growth, accepted in .*",
        _always,
        _clipped,
        "records with no more descriptors than the baseline are counted in the first row, which begins above it",
    ),
    _known(
        r"fds\.baseline",
        _always,
        lambda shown, bounds, _: shown is not None and bounds is not None and shown > bounds.high,
        "a sample is stamped before it is read: on a busy host the last one before the start shows the first clients",
    ),
    _known(r"fds\.leaked", _stands_still, _any, "a server that stands still for 0.2 s is taken for settled"),
    _known(
        r"fds\.leaked",
        _holds,
        _few_held,
        "a connection that its client still holds, or what its requests opened, counts as leaked",
    ),
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
    _known(r"canary\..*", _has_canary, _any, "a canary that failed at its own limits counts against the server"),
    _known(
        r"attempts\.(delayed|late)",
        _few_ports,
        _any,
        "a SYN that is repeated within milliseconds met an old connection of the same 4-tuple: no SYN was lost",
    ),
    _known(
        r"server\.cpu",
        _always,
        _until_judged,
        "CPU time per second is taken until the judgement, which is later than the end of the load",
    ),
    _known(
        r"server\.cpu",
        lambda recorded: recorded.has_exited,
        _off_by(0.5),
        "CPU time per second of a server that ended is of the few samples before that",
    ),
    _known(
        r"accept\.waiting(_max_s)?",
        lambda recorded: recorded.has_exited,
        _any,
        "clients that were queued when the listener died are still counted as waiting",
    ),
    _known(
        r"accept\.(pause|waiting)_max_s",
        _has_canary,
        _off_by(0.008),
        "the wait of canaries and held clients is the age of their socket (+-4 ms), not from their records",
    ),
    _known(
        r"queue\.max",
        _has_canary,
        lambda shown, bounds, recorded: (
            shown is not None and bounds is not None and shown >= bounds.low - 1 - recorded.settings["canary"]["held"]
        ),
        "canaries and held clients are not counted in the queue",
    ),
    _known(
        r"generator\.limited",
        lambda recorded: len(recorded.attempts) < 100,
        _off_by(1),
        "below 100 attempts there is no p90 of the lag, and a generator that is late is not recognized",
    ),
    _known(
        r"accept\.uncertainty_s",
        _has_woken,
        lambda shown, bounds, _: shown is not None and bounds is not None and shown < bounds.low,
        "it leaves out the clients whose connect() did not end in the call, whose latencies are counted",
    ),
)

#: Contradictions that are known: a pattern of the line, and why it still stands.
CONTRADICTIONS = (
    (r"syn-delay, .*", "a repeated SYN counts as lost, also when it was repeated within milliseconds"),
    (r"fd-leak, .*", "a server that stands still, or died while it served, is taken for one that leaks"),
    (r"emfile-spin, .*", "a spin is recognized by its rate of failures, without CPU time and policy"),
    (r"prediction: .* never, .*", "a prediction is made without a margin"),
    (r"queue-overflow, although queue\.(max|full_share) is .*", "a backlog that a step changes is read once"),
    (r"slow-accept, although more .*", "canaries and held clients are waiting clients, but not clients that came"),
    (r"fd-limit, although the limit .*", "the advice counts clients, and not what else takes or keeps descriptors"),
    (r"queue-overflow, although the backlog .*", "the advice is computed for the backlog before a step"),
    (r"foreign-accepts, .*", "clients of a reused 4-tuple are taken for connections from elsewhere"),
    (r"settings-degraded, .*", "a step after the end of a server is called a setting that was not in force"),
    (r"outage, although it ends before .*", "an outage that lasts to the end is measured to the last canary"),
)

#: Numbers in sentences that are known to be wrong or to come from nothing in summary.json.
SENTENCES = (
    (
        r'slow-accept: .* in "The server stopped .*',
        "pauses at the descriptor limit are left out, and it does not say so",
    ),
    (r"slow-accept: .* %.*", "the share is of the time of arrival, but the sentence calls it a share of the load"),
)


def why_known(line: str, table: Iterable[tuple[str, str]]) -> str | None:
    """Return why a line is known; None for a new one."""
    return next((why for pattern, why in table if re.fullmatch(pattern, line)), None)
