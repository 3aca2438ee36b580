"""Read many hostile scenario files, and count the results. Not a test: twenty thousand files take minutes.

    python tests/bench/check_hostile_scenarios.py [--count 20000] [--seed 1]

Memory is limited to 2 GB; a text that needs more causes a traceback.
"""

from __future__ import annotations

import argparse
import collections
import resource
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from hostile_scenarios import SLOW_S, read, texts
from hypothesis import HealthCheck, Phase, given, seed, settings

_MOST_BYTES = 2 << 30


def main() -> None:
    """Read the files, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    seen: collections.Counter[str] = collections.Counter()
    slowest = [0.0]
    with tempfile.TemporaryDirectory() as folder:

        @seed(options.seed)
        @settings(max_examples=options.count, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(texts())
        def each(text: bytes) -> None:
            seen["ran"] += 1
            try:
                result, took_s = read(text, Path(folder))
            except Exception:  # noqa: BLE001 -- any exception is a bug
                seen["tracebacks"] += 1
                sys.stderr.write(f"{text!r}\n{traceback.format_exc()}\n")
                return
            seen["valid" if result == "valid" else "errors"] += 1
            seen["slow"] += took_s > SLOW_S
            slowest[0] = max(slowest[0], took_s)

        each()
    counts = ", ".join(f"{name} {seen[name]:,}" for name in ("ran", "valid", "errors", "tracebacks", "slow"))
    sys.stdout.write(f"{counts}; the slowest took {slowest[0] * 1000:.0f} ms\n")
    sys.exit(bool(seen["tracebacks"] or seen["slow"]))


if __name__ == "__main__":
    main()
