"""A script that shows the same without loadsim, to paste into a bug report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What follows the settings. Every line is one that a stranger can read.
_SCRIPT = """\
( ulimit -n $NOFILE; exec "${SERVER[@]}" ) >server.log 2>&1 &
pid=$!; trap 'kill $pid $clients 2>/dev/null' EXIT
ask() { curl -s -o /dev/null -m 1 "http://127.0.0.1:$PORT$PATH_" && echo answered || echo "no answer in 1 s"; }
cpu() { ps -o cputimes= --pid $pid --ppid $pid | awk '{s += $1} END {print s}'; }
until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do sleep 0.1; done
echo "new client, before:          $(ask)"
# clients that connect and say nothing
for i in $(seq $CLIENTS); do (exec 3<>/dev/tcp/127.0.0.1/$PORT; exec sleep 60) 2>/dev/null & clients="$clients $!"; done
sleep 3
echo "open descriptors:            $(ls /proc/$pid/fd | wc -l) of $NOFILE"
c=$(cpu); l=$(stat -c %s server.log)
echo "new client, exhausted:       $(ask)"
sleep 9
echo "CPU in 10 s:                 $(( $(cpu) - c )) s"
echo "log in 10 s:                 $(( $(stat -c %s server.log) - l )) bytes"
kill $clients; wait $clients 2>/dev/null; clients=""; t=$(date +%s%N)
until [ "$(ask)" = answered ] || [ $(( $(date +%s%N) - t )) -gt 20000000000 ]; do sleep 0.02; done
echo "first answer after relief:   $(( ($(date +%s%N) - t) / 1000000 )) ms"
tail -n 3 server.log
"""


def script(command: Sequence[str], *, nofile: int, clients: int, path: str) -> str:
    """Return a bash script of at most 30 lines that runs a command out of descriptors and says what happens."""
    words = " ".join(_word(part) for part in command)
    return (
        "#!/usr/bin/env bash\n"
        f"# Runs a server out of file descriptors (ulimit -n {nofile}); needs bash, curl, ps. About 20 s.\n"
        f"PORT=${{PORT:-8099}} NOFILE={nofile} CLIENTS={clients} PATH_={shlex.quote(path)} clients=\n"
        f"SERVER=({words})\n{_SCRIPT}"
    )


def _word(part: str) -> str:
    """Return a word of a command for bash, {port} as the variable that holds it."""
    return '"$PORT"'.join(shlex.quote(piece) if piece else "" for piece in part.split("{port}")) or "''"
