"""What a run leaves when the kernel refuses one of its parts one call, or Ctrl-C comes at any moment of it.

    python tests/bench/check_faults.py [--calls N] [--moments N] [--workers N] [--only PART:CALL]

Each run is one of two seconds, from outside. In one half the n-th call of a kind fails, n = 1 to N, counted from the
moment at which server, driver and canary are ready; strace does it ("hit": that call was made). In the other half the
conductor is interrupted or killed, or another part is killed, at random moments, seeded. Whatever happens, there must
be no traceback, nothing left running, nothing that hangs, and what was recorded must be readable. A run takes about
three seconds; 50 calls and 50 moments are about 700 of them, since parts make fewer calls of a kind. Needs strace.
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
#: From the start of the command to a little after its end. Before that Python itself starts, with its own last words.
SHORTEST_S, LONGEST_S = 0.1, 2.8
#: Who gets which signal at those moments after its own start.
SIGNALLED = ("conductor:SIGINT", "conductor:SIGKILL", "server:SIGKILL", "driver:SIGKILL", "canary:SIGKILL")
#: So many runs in a row may make fewer calls than the number that is to fail, before larger ones are left out.
MISSES = 4
#: Exit codes that a run may end with when something of its own was refused: 1 is a driver that died.
_EXPLAINED = (0, 1, 3)
#: What may be wrong with a run.
_WRONG = ("tracebacks", "orphans", "unreadable", "hangs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run: what was done to it, and what is wrong with what it left; "" where that is nothing."""

    row: str
    case: str
    code: int | None
    hit: bool  # what was to happen did
    wrong: str


def main() -> None:
    """Do it all and print it; the exit status is 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=50, help="the n-th call fails, n from 1 to this")
    parser.add_argument("--moments", type=int, default=50, help="so many moments for each signal")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", help="one row, such as driver:connect")
    asked = parser.parse_args()
    rows = [row for part in PARTS_HURT for call in REFUSALS if asked.only in (None, row := f"{part}:{call}")]
    chance = random.Random(SEED)  # noqa: S311  # no secret
    moments = [chance.uniform(SHORTEST_S, LONGEST_S) for _ in range(0 if asked.only else asked.moments)]
    with ThreadPoolExecutor(asked.workers) as pool:
        failed = refuse_all(rows, asked.calls, pool)
        ended = pool.map(lambda signalled: end(*signalled), product(SIGNALLED, moments))
    sys.exit(show([*failed, *ended]))


def refuse_all(rows: list[str], calls: int, pool: Executor) -> list[Outcome]:
    """Make all runs in which a call fails; a row ends where a run makes fewer calls than that, several times."""
    outcomes: list[Outcome] = []
    misses = Counter[str]()
    for number in range(1, calls + 1):
        rows = [row for row in rows if misses[row] < MISSES]
        for one in pool.map(partial(refuse, number=number), rows):
            misses[one.row] = 0 if one.hit else misses[one.row] + 1
            outcomes.append(one)
    return outcomes


def refuse(row: str, number: int) -> Outcome:
    """Make one run in which one call fails."""
    part, _, call = row.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        left = refused(Path(folder) / "run", part, call, number)
        wrong = wrong_with(left, _EXPLAINED)
    return Outcome(row=row, case=f"{row} {number}", code=left.code, hit=left.hit, wrong=wrong)


def end(row: str, moment_s: float) -> Outcome:
    """Make one run of which a part gets a signal so long after its start, unless that has ended before."""
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
    """Return what is wrong with what a run has left, "" where that is nothing."""
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
    """Print a line for each row, and every run in which something was wrong; return the exit status."""
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
