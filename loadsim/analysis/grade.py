"""What the way in which a server runs out of descriptors is worth: a grade, and the verdict on all its runs.

A pure function over recorded numbers, as `verdict`, whose classes it grades. Owns what counts as a cost.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadsim.analysis.verdict import BURNS_CORES, Class, classify
from loadsim.units import format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadsim.analysis.verdict import Observed

#: A log that grows faster than this fills a disk: 1 GB in less than three hours.
FLOODS_BYTES_PER_S: Final = 100_000.0
#: A server that is back within this has no outage worth the name.
PROMPT_S: Final = 1.0
#: Descriptors that are left over are worth a word above this number, and this share of the limit.
SOME_LEFT, SHARE_LEFT = 3, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of a command."""

    class_: Class
    because: str  # one sentence with the numbers that decided
    way: str  # in which it was seen
    grade: str  # "A" to "F"
    rule: str  # what the grade stands for, in words


def judge(seen: Sequence[Observed]) -> Verdict:
    """Return the verdict on a command from all its runs; the first way that exhausts it names the class."""
    told = [(one.way, *classify(one)) for one in seen]
    way = next((way for way, class_, _ in told if class_ is not Class.NOT_EXHAUSTED), seen[0].way)
    class_ = statistics.mode(class_ for of, class_, _ in told if of == way)
    because = next(why for of, one, why in told if of == way and one is class_)
    grade, rule = _grade(seen)
    return Verdict(class_=class_, because=because, way=way, grade=grade, rule=rule)


def _grade(seen: Sequence[Observed]) -> tuple[str, str]:
    """Return the grade, and its rule: the worst of all runs counts, and all that it costs."""
    tried = [one for one in seen if _is_telling(one)]
    if not tried:
        return "-", "nothing to grade: its descriptors did not run out, or too little was seen of it"
    for grade, rule, holds in _FAULTS:
        if any(holds(one) for one in tried):
            return grade, rule
    costs = [text for cost in _COSTS if (text := next(filter(None, map(cost, tried)), None))]
    if costs:
        return ("C" if len(costs) == 1 else "D"), f"survives, but {_listed(costs)}"
    slowest = max(one.recovery_s or 0.0 for one in tried)
    if slowest > PROMPT_S:
        return "B", f"costs nothing, and is back {format_duration(slowest)} after there is room"
    return "A", "costs nothing, serves who is in, and is back within a second"


def _is_telling(seen: Observed) -> bool:
    """Whether a run says how it behaves at its limit."""
    class_, _ = classify(seen)
    ended = seen.refusal is not None or seen.exit_status is not None
    return class_ is not Class.NOT_EXHAUSTED and not (class_ is Class.UNCLEAR and (ended or not seen.talks))


def _listed(costs: Sequence[str]) -> str:
    *first, last = costs
    return f"{', '.join(first)} and {last}" if first else last


def _burns(seen: Observed) -> str | None:
    cores = seen.cpu_cores or 0.0
    if cores >= BURNS_CORES:
        return "burns a core"
    return f"burns {100 * cores:.0f} % of a core" if classify(seen)[0] in {Class.SPINS, Class.RUNAWAY} else None


def _floods(seen: Observed) -> str | None:
    return "fills the disk" if (seen.log_bytes_per_s or 0.0) >= FLOODS_BYTES_PER_S else None


def _is_late(seen: Observed) -> str | None:
    late = seen.held_late_s or 0.0
    return f"keeps who is in waiting for {format_duration(late)}" if late > PROMPT_S else None


def _hoards(seen: Observed) -> str | None:
    left = 0 if seen.leaks else seen.leftover_fds or 0
    some = left > max(SOME_LEFT, SHARE_LEFT * (seen.fd_limit or 0))
    return f"keeps {format_count(left)} descriptors that nobody uses" if some else None


def _is_deaf(seen: Observed) -> str | None:
    return "comes back only when a client leaves: a higher limit does not help" if seen.needs_close else None


#: What a survivor costs, in words; None: not that. One of these is a C, two are a D.
_COSTS: Final[tuple[Callable[[Observed], str | None], ...]] = (_burns, _floods, _is_late, _hoards, _is_deaf)
#: Grade, its rule, and what earns it in any run; the first that fits. What is better follows from cost and recovery.
_FAULTS: Final[tuple[tuple[str, str, Callable[[Observed], bool]], ...]] = (
    ("F", "does not come up", lambda one: one.refusal is not None),
    ("F", "dies", lambda one: one.exit_status is not None),
    ("F", "never comes back by itself", lambda one: one.recovery_s is None),
    ("E", "loses workers, and with them who was in", lambda one: one.restarts > 0 and one.ran_out),
    ("E", "leaves those alone who are in", lambda one: one.held > one.held_cut and one.held_unanswered > 0),
    ("E", "cuts off who is in", lambda one: one.held_cut > 0),
)
