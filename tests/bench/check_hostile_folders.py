"""Read 2,000 damaged result folders, and one folder for each text in a result.

    python tests/bench/check_hostile_folders.py [COUNT]

The exit status is 0 if no folder causes a traceback, is slow, hangs, or has a text that acts.
"""

from __future__ import annotations

import collections
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from hostile_folders import HUNG_S, KEPT, KINDS, SLOW_S, Answer, ask, damaged, tainted_report, texts_in

import loadsim.commands.report
import loadsim.compare.collect
import loadsim.verdict.run  # noqa: F401 -- imported once for all children

_COMMANDS = (["report"], ["report", "--json"], ["compare"])


def check(count: int) -> collections.Counter[str]:
    """Read `count` damaged folders with the seeds 0, 1, 2 ...; print the harmful ones, and return the counts."""
    counted: collections.Counter[str] = collections.Counter()
    for seed in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            folder, done = damaged(seed, Path(scratch))
            command, *options = _COMMANDS[seed % len(_COMMANDS)]
            others = [str(KEPT / folder.name.partition("-")[2])] if command == "compare" else []
            told = ask([command, str(folder), *others, *options, "--out", scratch], Path(scratch))
            _count(counted, told, f"{seed}: {done}", obeyed=[])
    return counted


def check_texts() -> collections.Counter[str]:
    """Read each kept folder once per text, replaced by one that acts where it is not escaped; return the counts."""
    counted: collections.Counter[str] = collections.Counter()
    for kind in KINDS:
        for path, keys in texts_in(KEPT / kind):
            with tempfile.TemporaryDirectory() as scratch:
                told, obeyed = tainted_report(kind, path, keys, Path(scratch))
                _count(counted, told, f"{path}: {keys}", obeyed=obeyed)
    return counted


def _count(counted: collections.Counter[str], told: Answer, what: str, *, obeyed: list[str]) -> None:
    harms = {
        "tracebacks": "Traceback" in told.text or told.code not in (0, 2),
        "slow": told.took_s > SLOW_S,
        "hung": told.took_s >= HUNG_S,
        "obeyed": bool(obeyed),
    }
    counted["ran"] += 1
    counted[f"exit {told.code}"] += 1
    for name, holds in harms.items():
        counted[name] += holds
    if any(harms.values()):
        says = f"{what}: exit {told.code} after {told.took_s:.1f} s {obeyed}"
        sys.stdout.write(f"{says}\n{told.text[-1500:]}\n")


if __name__ == "__main__":
    both = {"damaged": check(int(sys.argv[1]) if len(sys.argv) > 1 else 2000), "texts": check_texts()}
    for what, seen in both.items():
        sys.stdout.write(f"{what}: " + ", ".join(f"{name} {number}" for name, number in seen.items()) + "\n")
    sys.exit(any(seen[name] for seen in both.values() for name in ("tracebacks", "slow", "hung", "obeyed")))
