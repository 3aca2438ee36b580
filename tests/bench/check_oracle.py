"""Compare random runs with the oracle, which recomputes their results from the records.

    python tests/bench/check_oracle.py [--seed N] [--count N] [--first N] [--workers N] [--out DIR]
    python tests/bench/check_oracle.py --replay DIR

Prints a line for each difference: the scenario, the name of the number, the shown value and the value from the records.
The folder of such a run is kept, with a scenario.toml to run again; `--replay` compares a kept folder without a run.
Known differences (tests/oracle/oracle_known.py) are counted by their reason. A run takes about two seconds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

from oracle_known import CONTRADICTIONS, NUMBERS, SENTENCES
from oracle_records import read
from oracle_runs import Checked, checked, run


def main() -> None:
    """Make the runs and print the differences; the exit status is 1 if one of them is new."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the number of the first scenario")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, default=None, help="where folders of runs with differences are kept")
    parser.add_argument("--replay", type=Path, help="a kept folder")
    options = parser.parse_args()
    if options.replay:
        results = {options.replay: _replayed(options.replay)}
    else:
        out = options.out or Path(tempfile.mkdtemp(prefix="loadsim-oracle-"))
        folders = [out / f"{options.seed}-{number}" for number in range(options.first, options.first + options.count)]
        with ThreadPoolExecutor(options.workers) as pool:
            results = dict(zip(folders, pool.map(_made, folders), strict=True))
    sys.exit(_show(results))


def _made(folder: Path) -> Checked:
    """Make one run; its folder stays if it has a new difference."""
    seed, _, number = folder.name.partition("-")
    try:
        result = checked(run(int(seed), int(number), folder))
    except (AssertionError, ValueError, LookupError) as error:
        result = Checked(new=[f"no result: {error!r}"])
    if result.new:
        for line in result.new:
            _say(f"{folder / 'scenario.toml'}: {line}")
    else:
        shutil.rmtree(folder)
    return result


def _replayed(folder: Path) -> Checked:
    result = checked(read((folder / "latest").resolve(), (folder / "report.txt").read_text()))
    for line in [*result.new, *(f"known: {line}" for _, line in result.known)]:
        _say(line)
    return result


def _show(results: dict[Path, Checked]) -> int:
    """Print the known differences by reason, and the number of runs with new ones; return the exit status."""
    needed = Counter(why for result in results.values() for why in {why for why, _ in result.known})
    reasons = [known.why for known in NUMBERS] + [why for _, why in (*CONTRADICTIONS, *SENTENCES)]
    for why in dict.fromkeys(reasons):
        _say(f"{needed[why]:>6} runs, known: {why}")
    new = sum(bool(result.new) for result in results.values())
    _say(f"{len(results):>6} runs, {new} with a new difference")
    return 1 if new else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
