"""A bash script that reproduces the behaviour behind a verdict without loadsim, for a bug report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from loadsim.verdict.trials import AT_START, HANDLER, LOWERED

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.verdict.trials import Probe, TrialPlan

_PORT = 8099
#: One request: with curl for HTTP, with bash for other protocols. The reply must begin with the expected text.
_ASK_HTTP = 'curl -sf -o /dev/null -m 1 "http://127.0.0.1:$PORT$URL"'
_ASK_RAW = (
    '[[ $(timeout 1 bash -c \'exec 3<>/dev/tcp/127.0.0.1/$0; printf %s "$1" >&3; head -c "$2" <&3\' '
    '"$PORT" "$SEND" "$BYTES") == "$EXPECT"* ]]'
)


class _Steps(NamedTuple):
    """The parts of a script that differ between trials, in bash."""

    title: str
    limit: str  # before the server starts
    fill: str
    relief: str


_CONNECT = """\
# clients that connect and send nothing
for i in $(seq $CLIENTS); do (exec 3<>/dev/tcp/127.0.0.1/$PORT; exec sleep 60) 2>/dev/null & clients="$clients $!"; done
"""
_LIMIT = "for p in $pid $(pgrep -P $pid); do prlimit --pid $p --nofile=%s:; done"
_TRIALS = {
    AT_START: _Steps("ulimit -n {nofile}", 'ulimit -n "$NOFILE"', _CONNECT, "leave"),
    LOWERED: _Steps(
        "its limit is lowered to {nofile} while clients are connected",
        'ulimit -n "$ROOMY"',
        _CONNECT + "sleep 2; " + _LIMIT % "$NOFILE" + "\n",
        _LIMIT % "$ROOMY",
    ),
    HANDLER: _Steps(
        "ulimit -n {nofile}, and a handler that leaks",
        'ulimit -Hn "$ROOMY"; ulimit -Sn "$NOFILE"',
        """\
# requests to a handler that leaks descriptors
while :; do curl -s -o /dev/null -m 2 "http://127.0.0.1:$PORT$LEAK"; sleep 0.02; done & clients=$!
""",
        "leave; " + _LIMIT % "$ROOMY",
    ),
}
#: The script after its settings. Every line must be clear to a reader without loadsim.
_SCRIPT = """\
log=$(mktemp); (%(limit)s; exec "${SERVER[@]}") >"$log" 2>&1 &
pid=$!; trap 'kill $pid $clients 2>/dev/null' EXIT
ask() { %(ask)s && echo answered || echo "no answer in 1 s"; }
lives() { kill -0 $pid 2>/dev/null || { echo "the server has ended:"; tail -n 3 "$log"; exit 1; }; }
leave() { [ -z "$clients" ] || { kill $clients; wait $clients; clients=""; } 2>/dev/null; }
cpu() { ps -o cputimes= --pid $pid --ppid $pid | awk '{s += $1} END {print s}'; }
until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do lives; sleep 0.1; done
echo "new client, before:          $(ask)"
%(fill)sfor i in $(seq 50); do [ "$(ls /proc/$pid/fd | wc -l)" -ge "$NOFILE" ] && break; lives; sleep 0.1; done; sleep 1
echo "open descriptors:            $(ls /proc/$pid/fd | wc -l) of $NOFILE"
c=$(cpu); l=$(stat -c %%s "$log")
echo "new client, exhausted:       $(ask)"
sleep 9; lives
echo "CPU in 10 s:                 $(( $(cpu) - c )) s"
echo "log in 10 s:                 $(( $(stat -c %%s "$log") - l )) bytes"
%(relief)s; t=$(date +%%s%%N); ms() { echo $(( ($(date +%%s%%N) - t) / 1000000 )); }
# if it does not answer although descriptors are free, its clients leave after 8 s
until [ "$(ask)" = answered ] || [ "$(ms)" -gt 20000 ]; do lives; [ "$(ms)" -lt 8000 ] || leave; sleep 0.02; done
echo "first answer after relief:   $(ms) ms"
tail -n 3 "$log"
"""


def script(plan: TrialPlan, folder: Path, *, trial: str = AT_START) -> str:
    """Return a bash script of at most 30 lines that exhausts the descriptors of a command and prints the effects.

    `folder` is the working directory of the command, `trial` the name of the trial to reproduce.
    """
    words = " ".join(_word(part) for part in plan.command)
    settings, ask = _talk(plan.probe)
    steps = _TRIALS[trial]
    roomy = "" if trial == AT_START else f" ROOMY={plan.roomy}"
    leak = f" LEAK={shlex.quote(plan.probe.leak_path or '')}" if trial == HANDLER else ""
    filled = {"ask": ask, "limit": steps.limit, "fill": steps.fill, "relief": steps.relief}
    return (
        "#!/usr/bin/env bash\n"
        f"# Runs a server out of descriptors ({steps.title.format(nofile=plan.nofile)}); needs bash, curl, prlimit.\n"
        f"cd {shlex.quote(str(folder))} || exit\n"
        f"PORT=${{PORT:-{plan.port or _PORT}}} NOFILE={plan.nofile} CLIENTS={plan.clients}{roomy}{leak} clients=\n"
        f"{settings}\nSERVER=({words})\n{_SCRIPT % filled}"
    )


def _talk(probe: Probe) -> tuple[str, str]:
    """Return a line of settings, and the command that sends one request."""
    if probe.exchange == "http":
        return f"URL={shlex.quote(probe.path)}", _ASK_HTTP
    send, expect = ("hello\n", "hello\n") if probe.exchange == "echo" else (probe.send or "", probe.expect or "")
    wanted = expect.rstrip("\n")  # $(...) in bash strips newlines at the end
    return f"SEND={_text(send)} EXPECT={_text(wanted)} BYTES={max(len(expect.encode()), 1)}", _ASK_RAW


def _text(text: str) -> str:
    """Return any text as one word of bash, with escapes for control characters."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(one if one.isprintable() and one not in "\\'" else f"\\x{ord(one):02x}" for one in text)
    return f"$'{escaped}'"


def _word(part: str) -> str:
    """Return a word of a command for bash, with the variable PORT in place of {port}."""
    return '"$PORT"'.join(shlex.quote(piece) if piece else "" for piece in part.split("{port}")) or "''"
