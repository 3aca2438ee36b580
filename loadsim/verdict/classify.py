"""The class of a server and its grade, from what was observed when its descriptors ran out. Pure."""

from __future__ import annotations

import enum
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: A core that is used to this share while nobody new is served is burnt.
BURNS_CORES: Final = 0.6
#: accept() that fails more often than this has no pause in its loop; the servers that pause need 1 to 100 a second.
RETRIES_PER_S: Final = 150.0
#: A loop without a pause fails in at least this share of the tenths of the first second; one that retries once a second
#: but ever more often does not.
BUSY_FROM_THE_START: Final = 0.7
#: Pauses that grow by this factor are a back-off.
GROWS: Final = 3.0
#: Who never has more than this share of what it may have is busy with few clients, and keeps the others waiting.
TAKES_FEW: Final = 0.4
#: New clients are turned away rather than kept waiting from this share on.
MOSTLY: Final = 0.5
#: Where so large a share of the new clients is answered, whoever ran out of descriptors was not alone.
NEARLY_ALL: Final = 0.9
#: A table of which so large a share was seen to be taken was full between two looks, where its process then ended.
NEARLY_FULL: Final = 0.9


class Class(enum.StrEnum):
    """What a server does when its descriptors run out."""

    REFUSES_TO_START = "refuses to start"
    DIES = "dies"
    RESPAWNS = "respawns"
    WEDGES = "wedges"
    SPINS = "spins"
    RUNAWAY = "runaway retries"
    SLEEPS = "sleeps"
    BACKS_OFF = "backs off"
    SHEDS = "sheds"
    WAITS_FOR_A_CLOSE = "waits for a close"
    FAILS = "fails requests"
    OWN_LIMIT = "own limit below"
    NOT_EXHAUSTED = "not exhausted"
    UNCLEAR = "unclear"


#: What each class means, and who else is in it (measured or read in their source).
MEANINGS: Final = {
    Class.REFUSES_TO_START: "it does not come up under this limit",
    Class.DIES: "it ends when accept() fails; like deno",
    Class.RESPAWNS: "workers end and others take their place; like Apache and gunicorn's sync workers",
    Class.WEDGES: "there is room again, and it never answers; like gunicorn's threads",
    Class.SPINS: "accept() is tried again at once, for ever; like bun, tornado, puma, waitress, http.server",
    Class.RUNAWAY: "each retry starts more of them; like asyncio 3.11 to 3.13 (cpython #151615)",
    Class.SLEEPS: "a fixed pause after each failure; like trio (0.1 s), nginx (0.5 s), asyncio as meant (1 s)",
    Class.BACKS_OFF: "pauses that grow after each failure; like Go and gevent",
    Class.SHEDS: "new clients are accepted and closed at once; like node, uvloop and Twisted",
    Class.WAITS_FOR_A_CLOSE: "accept() is tried again when a connection closes; like memcached",
    Class.FAILS: "new clients are let in and told of an error: what they need has no descriptor",
    Class.OWN_LIMIT: "it counts its connections and stays below the limit; like redis and lighttpd",
    Class.NOT_EXHAUSTED: "its descriptors did not run out",
    Class.UNCLEAR: "too little is visible to tell",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One run of a command out of descriptors, as numbers; times in seconds, None where nothing is known."""

    trial: str  # "limit at start" | "lowered live" | "leak in handler"
    leaks: bool = False  # its handler was made to lose descriptors: what is left over at the end is no wonder
    refusal: str | None = None  # it never came to listen: why
    exhausted_s: float = 0.0  # how long it was kept at its limit
    exit_status: int | None = None  # it ended by itself
    workers: int = 0  # processes that held the listener when the load began; 0 = not known
    restarts: int = 0  # those of them, and of who took their place, that ended while others went on
    fds_max: int | None = None
    fd_limit: int | None = None
    cpu_cores: float | None = None  # while exhausted
    emfile: int | None = None  # accept() calls that failed, from the first to the relief
    emfile_per_s: float | None = None  # while exhausted
    busy_share: float | None = None  # tenths of the first second after the first failure in which accept() failed
    first_pause_s: float | None = None  # the usual one of the first pauses between two failures
    last_pause_s: float | None = None  # the usual one at the end
    log_bytes_per_s: float | None = None  # while exhausted
    talks: bool = True  # a canary, or a connection that was in before, was answered at any time
    new_ok: int = 0  # canaries that set out while it was exhausted, by what they saw
    new_silent: int = 0  # connected, no answer
    new_unreachable: int = 0  # no answer to the SYN
    new_turned_away: int = 0  # refused, reset, or closed without an answer
    new_failed: int = 0  # told of an error
    held: int = 0  # connections that were in when it was exhausted, and asked on
    held_cut: int = 0
    held_unanswered: int = 0
    held_late_s: float | None = None  # the longest wait for an answer on one of them while exhausted
    watched_s: float = 0.0  # from the relief to the end of the run
    recovery_s: float | None = None  # from the relief to the first good answer; None: it never came back
    needs_close: bool = False  # a higher limit did not help; that is the time from when the clients had left
    leftover_fds: int | None = None  # descriptors more than before, once all was quiet

    @property
    def new(self) -> int:
        """Canaries that set out while it was exhausted."""
        return self.new_ok + self.new_silent + self.new_unreachable + self.new_turned_away + self.new_failed

    @property
    def full(self) -> bool:
        """Whether it had all the descriptors that it may have."""
        return self._took(1.0)

    @property
    def ran_out(self) -> bool:
        """Whether it was out of descriptors, as far as one can tell of a process that may have ended at once."""
        return bool(self.emfile) or self.fds_max is None or self._took(NEARLY_FULL)

    def _took(self, share: float) -> bool:
        return self.fds_max is not None and self.fd_limit is not None and self.fds_max >= share * self.fd_limit


def classify(seen: Observed) -> tuple[Class, str]:
    """Return the class of one run, and the sentence with the numbers that decided; the first row that fits."""
    for class_, holds, because in _CLASSES:
        if holds(seen):
            return class_, because(seen)
    rate, cores = seen.emfile_per_s, seen.cpu_cores or 0.0
    if rate is None:
        says = f"{100 * cores:.0f} % CPU, and failures of accept() are not visible"
        return (Class.SPINS if cores >= BURNS_CORES else Class.UNCLEAR), says
    each = rate / max(seen.workers, 1)  # several that pause fail as often as one that does not
    return _of_a_loop(seen, rate, cores) if each > RETRIES_PER_S else _of_a_pause(seen, rate)


def _of_a_loop(seen: Observed, rate: float, cores: float) -> tuple[Class, str]:
    says = f"accept() failed {format_count(round(rate))} times a second, at {100 * cores:.0f} % CPU"
    busy = seen.busy_share is None or seen.busy_share >= BUSY_FROM_THE_START
    return (Class.SPINS if busy else Class.RUNAWAY), says + ("" if busy else ", after a second with hardly any")


def _of_a_pause(seen: Observed, rate: float) -> tuple[Class, str]:
    """Return the class of a server whose accept() fails now and then, or only at the beginning."""
    failed = f"accept() failed {some(seen.emfile or 0, 'time')}"
    if seen.last_pause_s is None or rate * seen.exhausted_s < 1:
        return Class.WAITS_FOR_A_CLOSE, f"{failed}, and not again before a connection closed"
    first, last = seen.first_pause_s or seen.last_pause_s, seen.last_pause_s
    if last >= GROWS * first:
        return Class.BACKS_OFF, f"{failed}: after {format_duration(first)} at first, {format_duration(last)} at last"
    return Class.SLEEPS, f"{failed}, {format_duration(last)} apart"


def _was_not_exhausted(seen: Observed) -> bool:
    """Whether all went on as before, or it never took so many clients that its descriptors could run out."""
    if seen.emfile or seen.full:
        missed_no_more = (seen.emfile_per_s or 0.0) * seen.exhausted_s < 1 and seen.emfile is not None
        return missed_no_more and bool(seen.new) and seen.new_ok / seen.new >= NEARLY_ALL
    goes_on = bool(seen.new) and seen.new_ok / seen.new >= MOSTLY
    return goes_on or (
        seen.emfile == 0 and seen.fds_max is not None and seen.fds_max < TAKES_FEW * (seen.fd_limit or 0)
    )


def _of(seen: Observed) -> str:
    fds, limit = seen.fds_max, seen.fd_limit
    return "an unknown number of" if fds is None or limit is None else f"{format_count(fds)} of {format_count(limit)}"


def _each(seen: Observed) -> str:
    return f" in the fullest of its {seen.workers} processes" if seen.workers > 1 else ""


def _status(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"


def _within(watched_s: float) -> str:
    return f" within {format_duration(watched_s)}" if watched_s else ""


#: Class, what it takes, and the sentence; the first that fits. Who is in none of them has an accept loop that goes on.
_CLASSES: Final[tuple[tuple[Class, Callable[[Observed], bool], Callable[[Observed], str]], ...]] = (
    (Class.REFUSES_TO_START, lambda one: one.refusal is not None, lambda one: one.refusal or ""),
    (
        Class.DIES,
        lambda one: one.exit_status is not None and one.ran_out,
        lambda one: f"it ended by itself: {_status(one.exit_status or 0)}",
    ),
    (
        Class.UNCLEAR,
        lambda one: one.exit_status is not None,
        lambda one: (
            f"it ended by itself ({_status(one.exit_status or 0)}) with {_of(one)} descriptors: for another "
            "reason, it seems"
        ),
    ),
    (
        Class.RESPAWNS,
        lambda one: one.restarts > 0 and one.ran_out,
        lambda one: f"{one.restarts} of its processes ended and were replaced",
    ),
    (
        Class.UNCLEAR,
        lambda one: not one.talks,
        lambda _: "no canary was answered, not even before: say how one talks to it",
    ),
    (
        Class.NOT_EXHAUSTED,
        _was_not_exhausted,
        lambda one: (
            f"it had {_of(one)} descriptors{_each(one)}, and {one.new_ok} of {one.new} new clients were answered"
        ),
    ),
    (
        Class.WEDGES,
        lambda one: one.recovery_s is None,
        lambda one: f"no new client was answered{_within(one.watched_s)} after there was room again",
    ),
    (
        Class.OWN_LIMIT,
        lambda one: one.emfile == 0 and not one.full,
        lambda one: f"it stayed at {_of(one)} descriptors, and accept() never failed",
    ),
    (
        Class.SHEDS,
        lambda one: one.new > 0 and one.new_turned_away / one.new >= MOSTLY,
        lambda one: f"{one.new_turned_away} of {one.new} new clients were turned away at once",
    ),
    (
        Class.FAILS,
        lambda one: one.new > 0 and one.new_failed / one.new >= MOSTLY,
        lambda one: f"{one.new_failed} of {one.new} new clients were told of an error",
    ),
)


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
    trial: str  # in which it was seen
    grade: str  # "A" to "F"
    rule: str  # what the grade stands for, in words


def judge(seen: Sequence[Observed]) -> Verdict:
    """Return the verdict on a command from all its runs; the first way that exhausts it names the class."""
    told = [(one.trial, *classify(one)) for one in seen]
    trial = next((trial for trial, class_, _ in told if class_ is not Class.NOT_EXHAUSTED), seen[0].trial)
    class_ = statistics.mode(class_ for of, class_, _ in told if of == trial)
    because = next(why for of, one, why in told if of == trial and one is class_)
    grade, rule = _grade(seen)
    return Verdict(class_=class_, because=because, trial=trial, grade=grade, rule=rule)


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
