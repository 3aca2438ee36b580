"""The time of a snapshot of a process with 19,000 connections, compared with `ss -tanp` on the same table.

    python tests/bench/bench_inspect.py [CONNECTIONS]

Two processes hold the two ends: the table has twice as many sockets. Needs a hard limit of CONNECTIONS + 50
descriptors.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time

from loadsim.inspect.snapshot import take

_DEFAULT = 19_000
#: Opens the given number of connections, prints a line, and holds them.
_CLIENT = """
import resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
print("ready", flush=True)
sys.stdin.read()
"""
_SNAPSHOTS = 3


def main() -> None:
    """Hold the connections, and print both times."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else _DEFAULT
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        command = [sys.executable, "-c", _CLIENT, str(listener.getsockname()[1]), str(number)]
        client = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for _ in range(number):
            stack.enter_context(listener.accept()[0])
        assert client.stdout is not None
        client.stdout.readline()
        for pid, name in ((client.pid, "client"), (os.getpid(), "server")):
            times = [_time_snapshot(pid, number) for _ in range(_SNAPSHOTS)]
            print(f"snapshot of the {name}: {min(times):.2f} s to {max(times):.2f} s")  # noqa: T201
        commands = ([sys.executable, "-m", "loadsim", "inspect", str(client.pid), "--over", "0s"], ["ss", "-tanp"])
        for command in commands:
            print(f"{' '.join(command[-5:])}: {_run(command):.2f} s")  # noqa: T201


def _time_snapshot(pid: int, number: int) -> float:
    begun = time.perf_counter()
    snapshot = take(pid)
    spent = time.perf_counter() - begun
    held = [row for row in snapshot.rows if row.other is not None and row.other.where == "held"]
    assert len(held) == number, f"{len(held)} of {number} connections have both ends"
    return spent


def _run(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
