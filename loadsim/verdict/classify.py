"""The class of a server and its grade, from the numbers that were observed when its descriptors ran out. Pure.

Owns the thresholds that separate the classes, what each class means, and what each grade stands for. The first rule
that fits decides in both tables.
"""

from __future__ import annotations

import enum
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: From this many cores on, a server at its limit burns CPU: it serves no new client with it.
BURNS_CORES: Final = 0.6
#: More failures of accept() than this mean a loop without a pause; servers that pause make 1 to 100 calls a second.
RETRIES_PER_S: Final = 150.0
#: A loop without a pause fails in at least this fraction of the tenths of the first second. Retries that start at one a
#: second and multiply do not.
BUSY_FROM_THE_START: Final = 0.7
#: Pauses that grow by this factor are a back-off.
GROWS: Final = 3.0
#: A server that never uses more than this fraction of its limit serves few clients at a time; the others wait.
TAKES_FEW: Final = 0.4
#: From this fraction of the new clients on, an outcome counts as the usual one.
MOSTLY: Final = 0.5
#: Where this fraction of the new clients is answered, other processes of the server still had descriptors.
NEARLY_ALL: Final = 0.9
#: A process that ended with this fraction of its table in use may have filled it between two samples.
NEARLY_FULL: Final = 0.9
#: A log that grows faster fills a disk: 1 GB in less than three hours.
FLOODS_BYTES_PER_S: Final = 100_000.0
#: Recovery within this time is not an outage.
PROMPT_S: Final = 1.0
#: Descriptors that stay open count from more than this number, and more than this fraction of the limit.
SOME_LEFT, SHARE_LEFT = 3, 0.1


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


#: What each class means. Other programs are not named here: their behaviour changes with their version.
MEANINGS: Final = {
    Class.REFUSES_TO_START: "it does not start under this limit",
    Class.DIES: "it exits when accept() fails",
    Class.RESPAWNS: "worker processes exit and are replaced",
    Class.WEDGES: "it never answers again, although descriptors are free",
    Class.SPINS: "it retries accept() at once, without a pause",
    Class.RUNAWAY: "each failed retry starts more retries",
    Class.SLEEPS: "it pauses for a fixed time after each failure",
    Class.BACKS_OFF: "its pauses grow after each failure",
    Class.SHEDS: "it accepts new clients and closes them at once",
    Class.WAITS_FOR_A_CLOSE: "it retries accept() when a connection closes",
    Class.FAILS: "it accepts new clients and answers them with an error: their requests find no free descriptor",
    Class.OWN_LIMIT: "it limits its connections itself and stays below the descriptor limit",
    Class.NOT_EXHAUSTED: "its descriptors did not run out",
    Class.UNCLEAR: "too little is visible to name a class",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The numbers of one run; times in seconds, None where a number is not known."""

    trial: str  # "limit at start" | "lowered live" | "leak in handler"
    leaks: bool = False  # the trial made its handler leak: descriptors that stay open are expected
    refusal: str | None = None  # why it never listened
    exhausted_s: float = 0.0  # how long it was kept at its limit
    exit_status: int | None = None  # of a server that exited during the run
    workers: int = 0  # processes that held the listener when the load began; 0 = not known
    restarts: int = 0  # workers, or their replacements, that exited while others continued
    fds_max: int | None = None
    fd_limit: int | None = None
    cpu_cores: float | None = None  # while exhausted
    emfile: int | None = None  # failed accept() calls, from the first one to the relief
    emfile_per_s: float | None = None  # while exhausted
    busy_share: float | None = None  # tenths of the first second after the first failure in which accept() failed
    first_pause_s: float | None = None  # median of the first pauses between two failures
    last_pause_s: float | None = None  # median of the last ones
    log_bytes_per_s: float | None = None  # while exhausted
    talks: bool = True  # a canary or a held connection was answered at any time
    new_ok: int = 0  # outcomes of the canaries that started while it was exhausted: answered
    new_silent: int = 0  # connected, no answer
    new_unreachable: int = 0  # no answer to the SYN
    new_turned_away: int = 0  # refused, reset, or closed without an answer
    new_failed: int = 0  # answered with an error
    held: int = 0  # connections that were open before it was exhausted, and sent requests
    held_cut: int = 0
    held_unanswered: int = 0
    held_late_s: float | None = None  # the longest wait for an answer on one of them while exhausted
    watched_s: float = 0.0  # from the relief to the end of the run
    recovery_s: float | None = None  # from the relief to the first good answer; None: it never recovered
    needs_close: bool = False  # a higher limit did not help; recovery_s then counts from the moment clients left
    leftover_fds: int | None = None  # descriptors open at the end, beyond those before the load

    @property
    def new(self) -> int:
        """Canaries that started while it was exhausted."""
        return self.new_ok + self.new_silent + self.new_unreachable + self.new_turned_away + self.new_failed

    @property
    def full(self) -> bool:
        """Whether it used all descriptors of its limit."""
        return self._took(1.0)

    @property
    def ran_out(self) -> bool:
        """Whether it ran out of descriptors; a process that exited at once may show only a nearly full table."""
        return bool(self.emfile) or self.fds_max is None or self._took(NEARLY_FULL)

    def _took(self, share: float) -> bool:
        return self.fds_max is not None and self.fd_limit is not None and self.fds_max >= share * self.fd_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The class and grade of a command."""

    class_: Class
    because: str  # one clause with the numbers that decided
    trial: str  # the trial that showed the class
    grade: str  # "A" to "F"; "-" where nothing can be graded
    rule: str  # the meaning of the grade


def judge(seen: Sequence[Observed]) -> Verdict:
    """Return the verdict on all runs of a command; the first trial that exhausts it decides the class."""
    classified = [(one.trial, *classify(one)) for one in seen]
    trial = next((trial for trial, class_, _ in classified if class_ is not Class.NOT_EXHAUSTED), seen[0].trial)
    class_ = statistics.mode(class_ for of, class_, _ in classified if of == trial)
    because = next(why for of, one, why in classified if of == trial and one is class_)
    grade, rule = _grade(seen)
    return Verdict(class_=class_, because=because, trial=trial, grade=grade, rule=rule)


def classify(seen: Observed) -> tuple[Class, str]:
    """Return the class of one run, and a clause with the numbers that decided."""
    for class_, holds, because in _CLASSES:
        if holds(seen):
            return class_, because(seen)
    rate, cores = seen.emfile_per_s, seen.cpu_cores or 0.0
    if rate is None:
        because_of_cpu = f"it used {100 * cores:.0f} % CPU, and failures of accept() are not visible"
        return (Class.SPINS if cores >= BURNS_CORES else Class.UNCLEAR), because_of_cpu
    per_worker = rate / max(seen.workers, 1)  # several workers that pause fail as often as one that does not
    return _class_of_loop(seen, rate, cores) if per_worker > RETRIES_PER_S else _class_of_pauses(seen, rate)


def _class_of_loop(seen: Observed, rate: float, cores: float) -> tuple[Class, str]:
    because = f"it retried accept() {format_count(round(rate))} times a second at {100 * cores:.0f} % CPU"
    if seen.busy_share is None or seen.busy_share >= BUSY_FROM_THE_START:
        return Class.SPINS, because
    return Class.RUNAWAY, because + ", after few retries in the first second"


def _class_of_pauses(seen: Observed, rate: float) -> tuple[Class, str]:
    """Return the class of a server with few failures of accept(), or with failures only at the beginning."""
    failed = f"accept() failed {some(seen.emfile or 0, 'time')}"
    if seen.last_pause_s is None or rate * seen.exhausted_s < 1:
        return Class.WAITS_FOR_A_CLOSE, f"{failed}, and was not tried again before a connection closed"
    first, last = seen.first_pause_s or seen.last_pause_s, seen.last_pause_s
    if last >= GROWS * first:
        grew = f"{failed}, and the pauses between grew from {format_duration(first)} to {format_duration(last)}"
        return Class.BACKS_OFF, grew
    return Class.SLEEPS, f"{failed}, {format_duration(last)} apart"


def _was_not_exhausted(seen: Observed) -> bool:
    """Return whether it served new clients as before, or never served enough at a time to use up its descriptors."""
    if seen.emfile or seen.full:
        failed_no_more = (seen.emfile_per_s or 0.0) * seen.exhausted_s < 1 and seen.emfile is not None
        return failed_no_more and bool(seen.new) and seen.new_ok / seen.new >= NEARLY_ALL
    goes_on = bool(seen.new) and seen.new_ok / seen.new >= MOSTLY
    return goes_on or (
        seen.emfile == 0 and seen.fds_max is not None and seen.fds_max < TAKES_FEW * (seen.fd_limit or 0)
    )


def _usage(seen: Observed) -> str:
    fds, limit = seen.fds_max, seen.fd_limit
    return "an unknown number of" if fds is None or limit is None else f"{format_count(fds)} of {format_count(limit)}"


def _in_fullest(seen: Observed) -> str:
    return f" in the fullest of its {seen.workers} processes" if seen.workers > 1 else ""


def _exit(status: int) -> str:
    return f"it exited with status {status}" if status >= 0 else f"it was killed by signal {-status}"


def _within(watched_s: float) -> str:
    return f" within {format_duration(watched_s)}" if watched_s else ""


#: Class, condition and clause; the first row that fits decides. A server that fits none retries accept().
_CLASSES: Final[tuple[tuple[Class, Callable[[Observed], bool], Callable[[Observed], str]], ...]] = (
    (Class.REFUSES_TO_START, lambda one: one.refusal is not None, lambda one: one.refusal or ""),
    (
        Class.DIES,
        lambda one: one.exit_status is not None and one.ran_out,
        lambda one: _exit(one.exit_status or 0),
    ),
    (
        Class.UNCLEAR,
        lambda one: one.exit_status is not None,
        lambda one: f"{_exit(one.exit_status or 0)} with {_usage(one)} descriptors, apparently for another reason",
    ),
    (
        Class.RESPAWNS,
        lambda one: one.restarts > 0 and one.ran_out,
        lambda one: f"{some(one.restarts, 'worker')} exited and {'were' if one.restarts > 1 else 'was'} replaced",
    ),
    (
        Class.UNCLEAR,
        lambda one: not one.talks,
        lambda _: "no canary was answered, not even before: tell loadsim how to talk to it (--path, --send or --echo)",
    ),
    (
        Class.NOT_EXHAUSTED,
        _was_not_exhausted,
        lambda one: (
            f"it used {_usage(one)} descriptors{_in_fullest(one)}, and answered {one.new_ok} of {one.new} new clients"
        ),
    ),
    (
        Class.WEDGES,
        lambda one: one.recovery_s is None,
        lambda one: f"it answered no new client{_within(one.watched_s)} after descriptors were freed",
    ),
    (
        Class.OWN_LIMIT,
        lambda one: one.emfile == 0 and not one.full,
        lambda one: f"it stayed at {_usage(one)} descriptors, and accept() never failed",
    ),
    (
        Class.SHEDS,
        lambda one: one.new > 0 and one.new_turned_away / one.new >= MOSTLY,
        lambda one: f"it turned away {one.new_turned_away} of {one.new} new clients at once",
    ),
    (
        Class.FAILS,
        lambda one: one.new > 0 and one.new_failed / one.new >= MOSTLY,
        lambda one: f"it answered {one.new_failed} of {one.new} new clients with an error",
    ),
)


def _grade(seen: Sequence[Observed]) -> tuple[str, str]:
    """Return the grade and its rule: the worst run decides, and every cost is listed."""
    graded = [one for one in seen if _can_be_graded(one)]
    if not graded:
        return "-", "nothing to grade: its descriptors did not run out, or too little was visible"
    for grade, rule, holds in _FAULTS:
        if any(holds(one) for one in graded):
            return grade, rule
    costs = [text for cost in _COSTS if (text := next(filter(None, map(cost, graded)), None))]
    if costs:
        return ("C" if len(costs) == 1 else "D"), f"survives, but {_listed(costs)}"
    slowest = max(one.recovery_s or 0.0 for one in graded)
    if slowest > PROMPT_S:
        return "B", f"costs nothing, keeps serving connected clients, recovers in {format_duration(slowest)}"
    return "A", "costs nothing, keeps serving connected clients, recovers within a second"


def _can_be_graded(seen: Observed) -> bool:
    """Return whether a run shows how the server behaves at its limit."""
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
    return f"keeps connected clients waiting for {format_duration(late)}" if late > PROMPT_S else None


def _leaves_open(seen: Observed) -> str | None:
    left = 0 if seen.leaks else seen.leftover_fds or 0
    is_much = left > max(SOME_LEFT, SHARE_LEFT * (seen.fd_limit or 0))
    return f"keeps {format_count(left)} unused descriptors open" if is_much else None


def _needs_close(seen: Observed) -> str | None:
    return "recovers only when a client leaves: a higher limit does not help" if seen.needs_close else None


#: The costs of surviving, in words; None: the run does not have that cost. One cost is a C, two or more are a D.
_COSTS: Final[tuple[Callable[[Observed], str | None], ...]] = (_burns, _floods, _is_late, _leaves_open, _needs_close)
#: Grade, rule, and the condition on any run; the first that fits decides. Better grades follow from cost and recovery.
_FAULTS: Final[tuple[tuple[str, str, Callable[[Observed], bool]], ...]] = (
    ("F", "does not start", lambda one: one.refusal is not None),
    ("F", "dies", lambda one: one.exit_status is not None),
    ("F", "never recovers", lambda one: one.recovery_s is None),
    ("E", "loses workers and their clients", lambda one: one.restarts > 0 and one.ran_out),
    ("E", "stops answering connected clients", lambda one: one.held > one.held_cut and one.held_unanswered > 0),
    ("E", "disconnects connected clients", lambda one: one.held_cut > 0),
)
