"""The verdict on real servers, beside what was measured of them before; prints the table of the README.

    python tests/bench/check_verdicts.py [NAME...] [--bin FOLDER] [--repeat N]

The servers stand in `servers.toml`. Python ones come from a virtual environment: --bin names its bin folder, without it
one is made and filled. nginx, redis, memcached and node are Debian's. What is not installed is left out, and said.
About a minute each. No test: what is compared changes with versions, and counting EMFILE needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

PASS = [sys.executable, "-m", "loadsim", "verdict", "--ui", "none", "--json"]
HERE = Path(__file__).parent
#: How far from before a card may be and still agree: points of CPU, and a factor of the failures a second.
CPU_POINTS, FACTOR = 15, 2


def main() -> None:
    """Pass the verdicts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--repeat", default="1")
    asked = parser.parse_args()
    known = tomllib.loads((HERE / "servers.toml").read_text())
    chosen = {name: known[name] for name in asked.names or known}
    bin_ = asked.bin or install({server["package"] for server in chosen.values() if "package" in server})
    say("| server | class | grade | CPU | EMFILE | log | first answer | as before |", "|---" * 8 + "|")
    different = [name for name, server in chosen.items() if not check(name, server, bin_, asked.repeat)]
    sys.exit(f"not as before: {', '.join(different)}" if different else 0)


def say(*lines: str) -> None:
    """Print lines at once."""
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


def install(packages: set[str]) -> Path:
    """Make a virtual environment with these packages and return its bin folder."""
    folder = Path(tempfile.mkdtemp(prefix="servers-"))
    venv.create(folder, with_pip=True)
    if packages:
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *sorted(packages)], check=True)
    return folder / "bin"


def check(name: str, server: dict[str, Any], bin_: Path, repeat: str) -> bool:
    """Pass one verdict, print its row, and return whether it agrees with what is known, or could not be had."""
    if (program := server.get("program")) and not shutil.which(program):
        say(f"| {name} | {program} is not installed |")
        return True
    places = {"{bin}": str(bin_), "{here}": str(HERE / "servers")}
    command = [_filled(word, places) for word in server["command"]]
    with tempfile.TemporaryDirectory() as out:
        passed = subprocess.run(
            [*PASS, "--out", out, "--repeat", repeat, *server.get("options", ()), "--", *command],
            capture_output=True,
            text=True,
            check=False,
        )
    if passed.returncode:
        say(f"| {name} | {passed.stderr.strip().splitlines()[-1]} |")
        return False
    card = json.loads(passed.stdout)
    first = next(run for run in card["runs"] if run["class"] == card["verdict"]["class"])
    doubts = list(differences(card["verdict"], first, server))
    cells = [
        card["verdict"]["class"],
        card["verdict"]["grade"],
        "-" if first["cpu_cores"] is None else f"{100 * first['cpu_cores']:.0f} %",
        "not visible" if first["emfile_per_s"] is None else f"{first['emfile_per_s']:,.1f}/s",
        "-" if first["log_bytes_per_s"] is None else f"{first['log_bytes_per_s'] / 1000:,.1f} kB/s",
        "never" if first["recovery_s"] is None else f"{first['recovery_s']:.2f} s",
        "; ".join(doubts) or "yes",
    ]
    say(f"| {name} | {' | '.join(cells)} |")
    return not doubts


def differences(verdict: dict[str, Any], seen: dict[str, Any], server: dict[str, Any]) -> list[str]:
    """Return in what a card is not as before."""
    found = []
    if verdict["class"] not in server["class"]:
        found.append(f"was {' or '.join(server['class'])}")
    if "cpu" in server and abs(100 * (seen["cpu_cores"] or 0) - server["cpu"]) > CPU_POINTS:
        found.append(f"CPU was {server['cpu']} %")
    rate = seen["emfile_per_s"]
    if "emfile" in server and rate is not None and not 1 / FACTOR <= rate / server["emfile"] <= FACTOR:
        found.append(f"EMFILE was {server['emfile']}/s")
    back = -1 if seen["recovery_s"] is None else seen["recovery_s"]
    if "back" in server and not server["back"][0] <= back <= server["back"][1]:
        found.append(f"was back after {server['back'][0]} to {server['back'][1]} s")
    return found


def _filled(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


if __name__ == "__main__":
    main()
