"""The remains of runs with one failed system call, or with a signal at a random time.

    python tests/bench/check_faults.py [--calls N] [--moments N] [--workers N] [--only PART:CALL]

Each run lasts two seconds. In one half, strace makes the n-th call of a kind fail, n = 1 to N, counted from the moment
at which server, driver and canary are ready ("hit" means that the call was made). In the other half, the conductor gets
SIGINT or SIGKILL, or another process gets SIGKILL, at seeded random times. No run may print a traceback, leave a
process behind, or hang, and its records must be readable. A run takes about three seconds; 50 calls and 50 times are
about 700 runs, since most processes make fewer calls of a kind. Needs strace.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from faulty_runs import PARTS_HURT, REFUSALS, hurt_run, parts_of, refused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from faulty_runs import Left

SEED = 7
#: From the start of loadsim in the process to shortly after its end. Python prints its own messages before that.
SHORTEST_S, LONGEST_S = 0.1, 2.8
#: The processes and their signals, at those times after the start of the process.
SIGNALLED = ("conductor:SIGINT", "conductor:SIGKILL", "server:SIGKILL", "driver:SIGKILL", "canary:SIGKILL")
#: After this many runs in a row without the n-th call, larger n are left out.
MISSES = 4
#: Allowed exit codes of a run with a failed call; 1 means that a driver died.
_EXPLAINED = (0, 1, 3)
#: The kinds of damage.
_WRONG = ("tracebacks", "orphans", "unreadable", "hangs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run: its fault, and the damage; "" for none."""

    row: str
    case: str
    code: int | None
    hit: bool  # whether the call or the signal happened
    wrong: str


def main() -> None:
    """Make all runs and print them; the exit status is 1 if any run was damaged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50, help="the n-th call fails, n from 1 to this")
    parser.add_argument("--moments", type=int, default=50, help="times for each signal")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", help="one row, such as driver:connect")
    options = parser.parse_args()
    rows = [row for part in PARTS_HURT for call in REFUSALS if options.only in (None, row := f"{part}:{call}")]
    chance = random.Random(SEED)  # noqa: S311  # no secret
    moments = [chance.uniform(SHORTEST_S, LONGEST_S) for _ in range(0 if options.only else options.moments)]
    with ThreadPoolExecutor(options.workers) as pool:
        failed = refuse_all(rows, options.calls, pool)
        ended = pool.map(lambda signalled: end(*signalled), product(SIGNALLED, moments))
    sys.exit(show([*failed, *ended]))


def refuse_all(rows: list[str], calls: int, pool: Executor) -> list[Outcome]:
    """Make all runs with a failed call; a row ends after several runs in a row without the n-th call."""
    outcomes: list[Outcome] = []
    misses = Counter[str]()
    for number in range(1, calls + 1):
        rows = [row for row in rows if misses[row] < MISSES]
        for one in pool.map(partial(refuse, number=number), rows):
            misses[one.row] = 0 if one.hit else misses[one.row] + 1
            outcomes.append(one)
    return outcomes


def refuse(row: str, number: int) -> Outcome:
    """Make one run with one failed call."""
    part, _, call = row.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        left = refused(Path(folder) / "run", part, call, number)
        wrong = wrong_with(left, _EXPLAINED)
    return Outcome(row=row, case=f"{row} {number}", code=left.code, hit=left.hit, wrong=wrong)


def end(row: str, moment_s: float) -> Outcome:
    """Make one run; one process gets a signal `moment_s` after its start, unless it has ended before."""
    part, _, name = row.partition(":")
    number = signal.Signals[name]
    with tempfile.TemporaryDirectory() as folder, hurt_run(Path(folder)) as run:
        pid = run.wait_part(part)
        time.sleep(moment_s)
        hit = run.process.poll() is None and part in parts_of(run.pid)
        if hit:
            os.kill(pid, number)
        left = run.wait_end()
        wrong = wrong_with(left, (0, 128 + number, -number) if part == "conductor" else _EXPLAINED)
    return Outcome(row=row, case=f"{row} at {moment_s:.3f} s", code=left.code, hit=hit, wrong=wrong)


def wrong_with(left: Left, codes: Iterable[int]) -> str:
    """Return the damage of a run, "" for none."""
    wrong = [f"tracebacks: {left.tracebacks}"] if left.tracebacks else []
    wrong += [f"orphans: {left.orphans}"] if left.orphans else []
    wrong += ["hangs"] if left.code is None else [] if left.code in codes else [f"exit code {left.code}"]
    try:
        if left.begun:
            left.report()
        elif left.code == 0:
            wrong.append("unreadable: no result")
    except (AssertionError, ValueError) as error:
        wrong.append(f"unreadable: {error}")
    return "; ".join(wrong + ([left.stderr] if wrong else []))


def show(outcomes: list[Outcome]) -> int:
    """Print a line for each row, and every damaged run; return the exit status."""
    heads = ("runs", "hit", *_WRONG)
    say(f"{'what failed':<22}" + "".join(f"{head:>12}" for head in heads) + "  exit codes")
    names = list(dict.fromkeys(one.row for one in outcomes))
    for name in [*names, "all"]:
        these = [one for one in outcomes if name in (one.row, "all")]
        counts = (
            len(these),
            sum(one.hit for one in these),
            *(sum(word in one.wrong for one in these) for word in _WRONG),
        )
        codes = ", ".join(f"{code}: {count}" for code, count in Counter(one.code for one in these).most_common())
        say(f"{name:<22}" + "".join(f"{count:>12}" for count in counts) + f"  {codes}")
    wrong = [one for one in outcomes if one.wrong]
    for one in wrong:
        say(f"\n{one.case}: {one.wrong}")
    return 1 if wrong else 0


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
