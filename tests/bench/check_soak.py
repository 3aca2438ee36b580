"""Whether memory and descriptors of loadsim stay constant in a long run, and whether its ledger balances.

    python tests/bench/check_soak.py [--minutes N] [--rate N]

Makes one run of the scenario `healthy`, with 2,000 clients a second for ten minutes by default, and samples its
processes once a second. The first minute, or the first fifth of a short run, does not count. After it, the anonymous
memory of conductor, driver and server may grow by at most 2 MB (the journals are files), the descriptors of the
conductor not at all, and those of driver and server, which change with the connections, not from the first fifth to
the last. Do not use the machine meanwhile. The result, half a gigabyte for an hour, goes to a temporary folder.
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
#: The allowed growth: bytes, and descriptors of driver and server (the mean of some hundred samples).
GROWTH_BYTES, GROWTH_FDS = 2 << 20, 8
_PARTS = ("conductor", "driver", "server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One process at one time."""

    at_s: float
    memory: int  # bytes of anonymous pages
    rss: int  # bytes in all
    fds: int


def main() -> None:
    """Run, sample, and print; the exit status is 1 if something grew, or the ledger does not balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=2_000, help="clients a second")
    options = parser.parse_args()
    length_s = options.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"client.rate={options.rate}/s", f"client.duration={length_s:.0f}s"]
        words = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "loadsim", "run", "healthy", "--out", folder, "--ui", "plain", *words]
        stderr_path = Path(folder) / "stderr"
        with stderr_path.open("w") as err, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err) as run:
            samples = watch(run, stderr_path, length_s)
        wrong = [] if run.returncode == 0 else [f"it ended with {run.returncode}: {stderr_path.read_text()[-500:]}"]
        wrong += [one for part in _PARTS for one in growth(part, samples[part], min(60.0, length_s / 5))]
        wrong += imbalance(Path(folder))
    for one in wrong:
        say(f"WRONG: {one}")
    sys.exit(1 if wrong else 0)


def watch(run: subprocess.Popen[bytes], stderr: Path, length_s: float) -> dict[str, list[Sample]]:
    """Return a sample of every process for each second of the load."""
    while not stderr.read_text() and run.poll() is None:  # the first line is printed when all processes are ready
        time.sleep(EVERY_S / 10)
    begun = time.monotonic()
    processes = {part: psutil.Process(pid) for part, pid in parts_of(run.pid).items() if part in _PARTS}
    samples: dict[str, list[Sample]] = {part: [] for part in processes}
    while (at_s := time.monotonic() - begun) < length_s - 1:
        for part, process in processes.items():
            with suppress(psutil.Error):
                memory = process.memory_info()
                anonymous = memory.rss - memory.shared
                samples[part].append(Sample(at_s=at_s, memory=anonymous, rss=memory.rss, fds=process.num_fds()))
        time.sleep(EVERY_S)
    return samples


def growth(part: str, samples: Sequence[Sample], from_s: float) -> list[str]:
    """Print how a process changed from `from_s` on; return the growth that is not allowed."""
    settled = [one for one in samples if one.at_s >= from_s]
    if len(settled) < 5:
        return [f"{part} has only {len(settled)} samples"]
    fifth = len(settled) // 5
    first, last = settled[:fifth], settled[-fifth:]
    memory, fds = ([statistics.mean(getattr(one, what) for one in some) for some in (first, last)] for what in _SEEN)
    most = max(one.rss for one in settled)
    say(
        f"{part:<10} memory {memory[0] / 1e6:6.1f} -> {memory[1] / 1e6:6.1f} MB ({most / 1e6:.1f} with all pages)"
        f"   descriptors {fds[0]:6.1f} -> {fds[1]:6.1f}   {len(settled)} samples"
    )
    wrong = [f"{part} grew by {memory[1] - memory[0]:,.0f} bytes"] if memory[1] - memory[0] > GROWTH_BYTES else []
    if fds[1] - fds[0] > (0 if part == "conductor" else GROWTH_FDS):
        wrong.append(f"{part} has {fds[1] - fds[0]:.1f} descriptors more")
    return wrong


_SEEN = ("memory", "fds")


def imbalance(out: Path) -> list[str]:
    """Print status and ledger of the run; return what does not add up."""
    summaries = [json.loads(path.read_text()) for path in out.glob("2*/summary.json")]
    if not summaries:
        return ["the run left no result"]
    (summary,) = summaries
    metrics, ledger = summary["metrics"], {fate: count for fate, count in summary["ledger"].items() if count}
    say(f"{summary['status']}: {metrics['attempts.count']:,.0f} attempts, {ledger}, balanced: {summary['balanced']}")
    say(f"lag p99 {metrics['generator.lag.p99_s'] * 1e3:.2f} ms, {metrics['generator.cpu']:.2f} cores")
    wrong = [] if summary["balanced"] else [f"the ledger does not balance: {summary['imbalance']}"]
    return wrong + [f"{metrics['fds.leaked']:.0f} descriptors leaked"] * bool(metrics["fds.leaked"])


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
