"""The process between the conductor and a command: it starts the command, adopts its descendants, and ends them all.

Runs without site-packages. A descendant that detaches, in any session, becomes a child of this process
(PR_SET_CHILD_SUBREAPER); ECHILD from waitpid() therefore means that none is left. It outlives a killed conductor just
long enough to end the command: the end of the control channel, its standard input, is the order to do so.

    conductor -> here    {"do": "start"}, {"do": "end", "grace_s": 3.0}
    here -> conductor    {"event": "started", "pid": N} or {"event": "failed", "step": "exec", "code": 2}
                         {"event": "exited", "status": N, "at_ns": N}    the command itself
                         {"event": "empty", "at_ns": N}                  the command and all its descendants
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows it as signal only
import contextlib
import json
import os
import select
import time

from loadsim.kernel import libc
from loadsim.process import enter

_CONTROL = 0
_ORDER_BYTES = 4096


def main(arguments: list[str]) -> None:
    """Wait for the order to start, run the command, and end with it: USER_FD NET_FD SOFT HARD COMMAND..."""
    libc.adopt_orphans()
    wakeup, woken = os.pipe()
    for end in (wakeup, woken):
        os.set_blocking(end, False)  # it is positional-only
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    if not os.read(_CONTROL, _ORDER_BYTES):
        return
    command = _start(arguments)
    if command:
        _attend(command, wakeup)


def _start(arguments: list[str]) -> int:
    """Start the command and return its pid; report a command that cannot be executed and return 0."""
    report, answer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(parent, answer, arguments)
    os.close(answer)
    refused = b""
    while piece := os.read(report, _ORDER_BYTES):
        refused += piece
    os.close(report)
    if refused:
        step, _, code = refused.decode().partition(" ")
        _report({"event": "failed", "step": step, "code": int(code)})
        return 0
    _report({"event": "started", "pid": pid})
    return pid


def _become(parent: int, answer: int, arguments: list[str]) -> None:
    """Execute the command in a new session, without the right to raise a hard limit; never returns."""
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)
        libc.drop_capability(libc.CAP_SYS_RESOURCE)
        enter.main([str(parent), str(answer), *arguments])
    finally:
        os._exit(enter.NOT_EXECUTED)


def _attend(command: int, wakeup: int) -> None:
    """Report the ends of the command and of the tree; end the tree when ordered to, or when the conductor ends."""
    poll = select.poll()
    for fd in (_CONTROL, wakeup):
        poll.register(fd, select.POLLIN)
    deadline = None
    orders = b""
    while not _reap(command):
        ready = dict(poll.poll(None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))))
        if wakeup in ready:
            os.read(wakeup, _ORDER_BYTES)
        if _CONTROL in ready:
            order = _read()
            if not order:
                _kill_all(command)
                return
            orders += order
            if b"\n" in orders:
                deadline = time.monotonic() + json.loads(orders)["grace_s"]
                _ask_all_to_end()
                orders = b""
        if deadline is not None and time.monotonic() >= deadline:
            _kill_all(command)
            break
    _report({"event": "empty", "at_ns": time.monotonic_ns()})


def _reap(command: int) -> bool:
    """Reap ended processes; return whether none is left."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return False
            if pid == command:
                ended = {"status": os.waitstatus_to_exitcode(status), "at_ns": time.monotonic_ns()}
                _report({"event": "exited", **ended})
    except ChildProcessError:
        return True


def _ask_all_to_end() -> None:
    # stopped processes need SIGCONT before they can handle SIGTERM
    for number in (_signal.SIGTERM, _signal.SIGCONT):
        for pid in _descendants(os.getpid()):
            _send(pid, number)


def _kill_all(command: int) -> None:
    """Kill until none is left: children of killed processes become ours, and are killed next."""
    while not _reap(command):
        for pid in _descendants(os.getpid()):
            _send(pid, _signal.SIGKILL)
        time.sleep(0.002)


def _descendants(pid: int) -> list[int]:
    from loadsim.kernel.procfs import descendants  # noqa: PLC0415  # its imports take 10 ms, harmless here

    return descendants(pid)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended, or belongs to another user; then waitpid() waits for it
        os.kill(pid, number)


def _read() -> bytes:
    try:
        return os.read(_CONTROL, _ORDER_BYTES)
    except OSError:  # a conductor that ended with unread messages resets the channel
        return b""


def _report(message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the conductor has ended; `_read` finds that out too
        os.write(_CONTROL, json.dumps(message).encode() + b"\n")
