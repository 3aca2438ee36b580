"""Whether loadsim stays as it is over a long run: memory, descriptors, and the ledger at its end.

    python tests/bench/check_soak.py [--minutes N] [--rate N]

One run of the scenario `healthy`, 2,000 clients a second for ten minutes by default, looked at once a second. After a
first part, a minute or a fifth of the time, the memory of conductor, driver and server (anonymous pages: what they
allocate; the journals are files) may grow by 2 MB at most, the conductor's descriptors not at all, and those of driver
and server, which come and go with the connections, not from the first fifth to the last. Leave the machine alone
meanwhile. The result, half a gigabyte for an hour, goes to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from faulty_runs import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY_S = 1.0
#: How much may change: bytes, and descriptors of those that hold connections (the mean of some hundred looks).
GROWTH_BYTES, GROWTH_FDS = 2 << 20, 8
_PARTS = ("conductor", "driver", "server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One process at one moment."""

    at_s: float
    memory: int  # bytes of anonymous pages
    rss: int  # bytes in all
    fds: int


def main() -> None:
    """Run, watch, and print; the exit status is 1 where something grew, or the ledger does not balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=2_000, help="clients a second")
    asked = parser.parse_args()
    length_s = asked.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"client.rate={asked.rate}/s", f"client.duration={length_s:.0f}s"]
        words = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "loadsim", "run", "healthy", "--out", folder, "--ui", "plain", *words]
        said = Path(folder) / "stderr"
        with said.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as run:
            looks = watch(run, said, length_s)
        wrong = [] if run.returncode == 0 else [f"it ended with {run.returncode}: {said.read_text()[-500:]}"]
        wrong += [one for part in _PARTS for one in growth(part, looks[part], min(60.0, length_s / 5))]
        wrong += imbalance(Path(folder))
    for one in wrong:
        say(f"WRONG: {one}")
    sys.exit(1 if wrong else 0)


def watch(run: subprocess.Popen[bytes], said: Path, length_s: float) -> dict[str, list[Look]]:
    """Look at every part once a second while the load lasts."""
    while not said.read_text() and run.poll() is None:  # its first line: all are ready
        time.sleep(EVERY_S / 10)
    begun = time.monotonic()
    processes = {part: psutil.Process(pid) for part, pid in parts_of(run.pid).items() if part in _PARTS}
    looks: dict[str, list[Look]] = {part: [] for part in processes}
    while (at_s := time.monotonic() - begun) < length_s - 1:
        for part, process in processes.items():
            with suppress(psutil.Error):
                memory = process.memory_info()
                anonymous = memory.rss - memory.shared
                looks[part].append(Look(at_s=at_s, memory=anonymous, rss=memory.rss, fds=process.num_fds()))
        time.sleep(EVERY_S)
    return looks


def growth(part: str, looks: Sequence[Look], from_s: float) -> list[str]:
    """Print how a part changed after its first time; return what grew that may not."""
    settled = [look for look in looks if look.at_s >= from_s]
    if len(settled) < 5:
        return [f"{part} was seen {len(settled)} times only"]
    fifth = len(settled) // 5
    first, last = settled[:fifth], settled[-fifth:]
    memory, fds = ([statistics.mean(getattr(one, what) for one in some) for some in (first, last)] for what in _SEEN)
    most = max(look.rss for look in settled)
    say(
        f"{part:<10} memory {memory[0] / 1e6:6.1f} -> {memory[1] / 1e6:6.1f} MB ({most / 1e6:.1f} with all pages)"
        f"   descriptors {fds[0]:6.1f} -> {fds[1]:6.1f}   {len(settled)} looks"
    )
    wrong = [f"{part} grew by {memory[1] - memory[0]:,.0f} bytes"] if memory[1] - memory[0] > GROWTH_BYTES else []
    if fds[1] - fds[0] > (0 if part == "conductor" else GROWTH_FDS):
        wrong.append(f"{part} has {fds[1] - fds[0]:.1f} descriptors more")
    return wrong


_SEEN = ("memory", "fds")


def imbalance(out: Path) -> list[str]:
    """Print what the run itself says; return what does not add up."""
    summaries = [json.loads(path.read_text()) for path in out.glob("2*/summary.json")]
    if not summaries:
        return ["there is no result"]
    (summary,) = summaries
    metrics, ledger = summary["metrics"], {fate: count for fate, count in summary["ledger"].items() if count}
    say(f"{summary['verdict']}: {metrics['attempts.count']:,.0f} attempts, {ledger}, balanced: {summary['balanced']}")
    say(f"lag p99 {metrics['generator.lag.p99_s'] * 1e3:.2f} ms, {metrics['generator.cpu']:.2f} cores")
    wrong = [] if summary["balanced"] else [f"the ledger does not balance: {summary['imbalance']}"]
    return wrong + [f"{metrics['fds.leaked']:.0f} descriptors leaked"] * bool(metrics["fds.leaked"])


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
