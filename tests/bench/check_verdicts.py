"""The verdict on real servers, compared with earlier measurements; prints the table of the README.

    python tests/bench/check_verdicts.py [NAME...] [--bin FOLDER] [--repeat N]

`servers.toml` lists the servers. Python servers need a virtual environment: --bin names its bin folder; without --bin a
new one is filled. nginx, redis, memcached and node come from Debian. A server that is not installed is reported and
skipped. A verdict takes about a minute. Not a test: results change with versions, and counting EMFILE needs root.
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

VERDICT = [sys.executable, "-m", "loadsim", "verdict", "--ui", "none", "--json"]
HERE = Path(__file__).parent
#: Allowed differences from earlier measurements: points of CPU, and a factor of the failures a second.
CPU_POINTS, FACTOR = 15, 2


def main() -> None:
    """Run the verdicts and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--repeat", default="1")
    options = parser.parse_args()
    known = tomllib.loads((HERE / "servers.toml").read_text())
    chosen = {name: known[name] for name in options.names or known}
    bin_ = options.bin or install({server["package"] for server in chosen.values() if "package" in server})
    say("| server | class | grade | CPU | EMFILE | log | first answer | as before |", "|---" * 8 + "|")
    different = [name for name, server in chosen.items() if not check(name, server, bin_, options.repeat)]
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
    """Print the row of one verdict; return whether it agrees with `servers.toml`, or the server is not installed."""
    if (program := server.get("program")) and not shutil.which(program):
        say(f"| {name} | {program} is not installed |")
        return True
    places = {"{bin}": str(bin_), "{here}": str(HERE / "servers")}
    command = [_filled(word, places) for word in server["command"]]
    with tempfile.TemporaryDirectory() as out:
        ran = subprocess.run(
            [*VERDICT, "--out", out, "--repeat", repeat, *server.get("options", ()), "--", *command],
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        say(f"| {name} | {ran.stderr.strip().splitlines()[-1]} |")
        return False
    card = json.loads(ran.stdout)
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
    """Return the differences from earlier measurements."""
    found = []
    if verdict["class"] not in server["class"]:
        found.append(f"was {' or '.join(server['class'])}")
    if "cpu" in server and abs(100 * (seen["cpu_cores"] or 0) - server["cpu"]) > CPU_POINTS:
        found.append(f"CPU was {server['cpu']} %")
    rate = seen["emfile_per_s"]
    if "emfile" in server and rate is not None and not 1 / FACTOR <= rate / server["emfile"] <= FACTOR:
        found.append(f"EMFILE was {server['emfile']}/s")
    recovery_s = -1 if seen["recovery_s"] is None else seen["recovery_s"]
    if "back" in server and not server["back"][0] <= recovery_s <= server["back"][1]:
        found.append(f"recovered after {server['back'][0]} to {server['back'][1]} s")
    return found


def _filled(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


if __name__ == "__main__":
    main()
