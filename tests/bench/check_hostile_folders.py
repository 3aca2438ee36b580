"""Read 2,000 damaged result folders and print what came of it: `python tests/bench/check_hostile_folders.py [COUNT]`.

Exit status: 0 none made a traceback, was slow or hung.
"""

from __future__ import annotations

import collections
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from hostile_folders import HUNG_S, SLOW_S, ask, damaged

import loadsim.cli.reading
import loadsim.run.gather
import loadsim.run.verdict  # noqa: F401 -- once for all children

_COMMANDS = (["report"], ["report", "--json"], ["compare"])


def check(count: int) -> collections.Counter[str]:
    """Read so many damaged folders, seeded 0, 1, 2 ...; print each that did harm, and return how many did what."""
    counted: collections.Counter[str] = collections.Counter()
    for seed in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            folder, done = damaged(seed, Path(scratch))
            command, *options = _COMMANDS[seed % len(_COMMANDS)]
            told = ask([command, str(folder), *options, "--out", scratch], Path(scratch))
            counted["ran"] += 1
            counted[f"exit {told.code}"] += 1
            harms = {
                "tracebacks": "Traceback" in told.text or told.code not in (0, 2),
                "slow": told.took_s > SLOW_S,
                "hung": told.took_s >= HUNG_S,
            }
            for name, holds in harms.items():
                counted[name] += holds
            if any(harms.values()):
                sys.stdout.write(f"{seed}: {done}: exit {told.code} after {told.took_s:.1f} s\n{told.text[-1500:]}\n")
    return counted


if __name__ == "__main__":
    seen = check(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    sys.stdout.write(", ".join(f"{name} {number}" for name, number in seen.items()) + "\n")
    sys.exit(bool(seen["tracebacks"] or seen["slow"] or seen["hung"]))
