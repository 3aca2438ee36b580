"""A script that shows the same without loadsim, to paste into a bug report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.scenario.ways import Probe, Trial

_PORT = 8099
#: How one asks: in HTTP with curl, in anything else by hand. What comes back is compared as far as it is expected.
_ASK_HTTP = 'curl -sf -o /dev/null -m 1 "http://127.0.0.1:$PORT$URL"'
_ASK_BY_HAND = (
    '[[ $(timeout 1 bash -c \'exec 3<>/dev/tcp/127.0.0.1/$0; printf %s "$1" >&3; head -c "$2" <&3\' '
    '"$PORT" "$SEND" "$BYTES") == "$EXPECT"* ]]'
)
#: What follows the settings. Every line is one that a stranger can read.
_SCRIPT = """\
log=$(mktemp); (ulimit -n "$NOFILE"; exec "${SERVER[@]}") >"$log" 2>&1 &
pid=$!; trap 'kill $pid $clients 2>/dev/null' EXIT
ask() { %s && echo answered || echo "no answer in 1 s"; }
lives() { kill -0 $pid 2>/dev/null || { echo "the server has ended:"; tail -n 3 "$log"; exit 1; }; }
cpu() { ps -o cputimes= --pid $pid --ppid $pid | awk '{s += $1} END {print s}'; }
until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do lives; sleep 0.1; done
echo "new client, before:          $(ask)"
# clients that connect and say nothing
for i in $(seq $CLIENTS); do (exec 3<>/dev/tcp/127.0.0.1/$PORT; exec sleep 60) 2>/dev/null & clients="$clients $!"; done
for i in $(seq 50); do [ "$(ls /proc/$pid/fd | wc -l)" -ge "$NOFILE" ] && break; lives; sleep 0.1; done; sleep 1
echo "open descriptors:            $(ls /proc/$pid/fd | wc -l) of $NOFILE"
c=$(cpu); l=$(stat -c %%s "$log")
echo "new client, exhausted:       $(ask)"
sleep 9; lives
echo "CPU in 10 s:                 $(( $(cpu) - c )) s"
echo "log in 10 s:                 $(( $(stat -c %%s "$log") - l )) bytes"
kill $clients; wait $clients 2>/dev/null; clients=""; t=$(date +%%s%%N)
until [ "$(ask)" = answered ] || [ $(( $(date +%%s%%N) - t )) -gt 20000000000 ]; do lives; sleep 0.02; done
echo "first answer after relief:   $(( ($(date +%%s%%N) - t) / 1000000 )) ms"
tail -n 3 "$log"
"""


def script(trial: Trial, folder: Path) -> str:
    """Return a bash script of at most 30 lines that runs a command out of descriptors and says what happens.

    `folder` is where the command was started.
    """
    words = " ".join(_word(part) for part in trial.command)
    settings, ask = _talk(trial.probe)
    return (
        "#!/usr/bin/env bash\n"
        f"# Runs a server out of file descriptors (ulimit -n {trial.nofile}); needs bash, curl, ps. About 20 s.\n"
        f"cd {shlex.quote(str(folder))} || exit\n"
        f"PORT=${{PORT:-{trial.port or _PORT}}} NOFILE={trial.nofile} CLIENTS={trial.clients} clients=\n"
        f"{settings}\nSERVER=({words})\n{_SCRIPT % ask}"
    )


def _talk(probe: Probe) -> tuple[str, str]:
    """Return a line of settings, and the command that asks once."""
    if probe.exchange == "http":
        return f"URL={shlex.quote(probe.path)}", _ASK_HTTP
    send, expect = ("hello\n", "hello\n") if probe.exchange == "echo" else (probe.send or "", probe.expect or "")
    wanted = expect.rstrip("\n")  # bash takes the ends of lines away
    return f"SEND={_text(send)} EXPECT={_text(wanted)} BYTES={max(len(expect.encode()), 1)}", _ASK_BY_HAND


def _text(text: str) -> str:
    """Return any text as one word of bash, its control characters as escapes."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(one if one.isprintable() and one not in "\\'" else f"\\x{ord(one):02x}" for one in text)
    return f"$'{escaped}'"


def _word(part: str) -> str:
    """Return a word of a command for bash, {port} as the variable that holds it."""
    return '"$PORT"'.join(shlex.quote(piece) if piece else "" for piece in part.split("{port}")) or "''"
