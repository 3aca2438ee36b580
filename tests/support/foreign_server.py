"""A server for the tests of commands, with the misbehaviour that its arguments choose.

Run as `python foreign_server.py PORT WORD...`. It uses only the standard library and does not know loadsim. It sends no
greeting and keeps each connection until its client leaves, in one thread and one loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import selectors
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Misbehave as the words choose, then serve."""
    port, words = int(sys.argv[1]), sys.argv[2:]
    for word in words:
        if word in BEFORE:
            BEFORE[word]()
    address = "0.0.0.0" if "everywhere" in words else "127.0.0.1"  # noqa: S104 -- in its own network namespace
    listener = socket.create_server((address, port + ("elsewhere" in words)), backlog=64)
    if "forks" in words:
        for _ in range(2):
            if os.fork() == 0:
                break
    if "respawns" in words:
        respawn()
    if "forks_each" in words:
        serve_by_children(listener)
    serve(listener, spins=1000 if "spins" in words else None, pauses_after=10 if "pauses" in words else None)


def respawn() -> None:
    """Fork a worker that ends after a short time, then the next one; return only in a worker."""
    for _ in range(100):
        worker = os.fork()
        if worker == 0:
            threading.Timer(0.1, os._exit, [1]).start()
            return
        os.waitpid(worker, 0)


def serve_by_children(listener: socket.socket) -> None:
    """Fork a child for each client; it ends when the client leaves."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            while client.recv(1024):
                pass
            os._exit(0)
        client.close()


def report_limit() -> None:
    """Try to raise the hard limit, and print the result."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        os.write(1, b"raised\n")
    except (ValueError, OSError):
        os.write(1, b"refused\n")


def detach() -> None:
    """Become a daemon in its own session, with init as its parent."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def flood() -> None:
    """Write at most 25 MB per second."""
    line = b"accept: Too many open files\n" * 1000
    while True:
        os.write(2, line)
        time.sleep(len(line) / 25e6)


def serve(listener: socket.socket, *, spins: int | None, pauses_after: int | None) -> None:
    """Accept connections and keep them. After `pauses_after` connections, pause once.

    Without a free descriptor, try again at once; after `spins` failures, print their number and stop accepting.
    """
    listener.settimeout(0)
    missed = accepted = 0
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not listener:
                    selector.unregister(key.fileobj)
                    key.data.close()
                    continue
                try:
                    client, _ = listener.accept()
                except OSError as error:
                    if error.errno != errno.EMFILE:
                        continue
                    missed += 1
                    if spins is None:
                        time.sleep(0.01)
                    elif missed == spins:
                        os.write(1, b"EMFILE %d\n" % missed)
                        selector.unregister(listener)
                else:
                    selector.register(client, selectors.EVENT_READ, client)
                    accepted += 1
                    if accepted == pauses_after:
                        time.sleep(0.3)


#: Word -> an action before listening.
BEFORE: dict[str, Callable[[], object]] = {
    "exits": lambda: sys.exit("no configuration found"),
    "hangs": lambda: time.sleep(60),
    "ignores": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "raises": report_limit,
    "lowers": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    "detaches": detach,
    "floods": lambda: threading.Thread(target=flood, daemon=True).start(),
    "dies": lambda: threading.Timer(0.9, os._exit, [7]).start(),
}

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
