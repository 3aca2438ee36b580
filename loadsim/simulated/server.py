"""The process of the simulated server: its limits, its listener, its control channel.

Run as `python -P -m loadsim.simulated.server` with a control channel as standard input (`process.control`). It only
prints the last message of a server that its policy ends. When it is ready, only the system calls under test need a new
descriptor: no import, no open().
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.limits import Limits, own_nofile, raise_own_nofile, set_own_nofile
from loadsim.kernel.sockdiag import family_of
from loadsim.process.control import Channel, Message, run_child
from loadsim.record.accept_log import NO_DESCRIPTOR, AcceptLog
from loadsim.record.journal import Journal
from loadsim.record.records import ACCEPT, FAILURE
from loadsim.scenario.specs import ServerSpec
from loadsim.simulated.accepting import ConnectionTaker
from loadsim.simulated.acceptor import Acceptor
from loadsim.simulated.connections import Connections, Service
from loadsim.simulated.policy import Leak
from loadsim.units import nanoseconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: The exit status of the policy `exit`.
DIED = 1
#: errno of a listener that cannot be opened -> the remedy, if there is a better one than another address.
_NO_LISTENER = {
    errno.EADDRNOTAVAIL: "no interface has that address: bring loopback up (ip link set lo up), permit IPv6 on it "
    "(sysctl net.ipv6.conf.lo.disable_ipv6=0), or choose another network.address",
    errno.EAFNOSUPPORT: "this kernel has no IPv6: choose an IPv4 network.address",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A server that listens under its limit and has not accepted a connection yet."""

    acceptor: Acceptor
    log: AcceptLog
    ready: Message


def prepare(spec: ServerSpec, stack: ExitStack) -> Prepared:
    """Open everything that the server needs, lower the limit, and return the prepared server.

    `stack` closes it. Raises EnvironmentRefusedError if this host refuses a part of it.
    """
    soft = _raise_limit(spec)
    accepts = Journal.create(Path(spec.accepts_path), ACCEPT, spec.accepts_capacity)
    failures = Journal.create(Path(spec.failures_path), FAILURE, spec.failures_capacity)
    log = stack.enter_context(AcceptLog(accepts, failures))
    epoll = stack.enter_context(select.epoll())
    listener = _listen(spec)
    taker = ConnectionTaker(listener, log, _leak_of(spec, "connection"))
    connections = Connections(_service_of(spec), log, epoll)
    control = sys.stdin.fileno()
    acceptor = Acceptor(taker, connections, spec, log=log, epoll=epoll, neighbour=control)
    stack.callback(acceptor.close)
    _prewarm(spec.prewarm_fds)
    _start_idle_threads(spec.idle_threads)
    threads = _check_threads(spec)
    log.open_fds = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # minus the one of the listing
    _set_soft_limit(soft if spec.nofile is None else spec.nofile)
    limits, address = own_nofile(), listener.getsockname()
    ready = {
        "event": "ready",
        "pid": os.getpid(),
        "address": address[0],
        "port": address[1],
        "threads": threads,
        "open_fds": log.open_fds,
        "nofile_soft": limits.soft,
        "nofile_hard": limits.hard,
        "backlog": taker.backlog(),
    }
    return Prepared(acceptor=acceptor, log=log, ready=ready)


async def converse(channel: Channel) -> int:
    """Follow the control channel until its end, "exit" or SIGTERM; return the exit status."""
    with ExitStack() as stack, trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave_on_signal, signals, nursery.cancel_scope)
            try:
                return await _follow(channel, stack)
            except trio.BrokenResourceError:  # the conductor has ended
                return 0
            finally:
                nursery.cancel_scope.cancel()
    return 0  # SIGTERM


async def _follow(channel: Channel, stack: ExitStack) -> int:
    """Execute the orders one by one; return the exit status."""
    order = await channel.receive()
    if order is None or order["do"] != "prepare":
        return 0
    try:
        server = prepare(ServerSpec.of(order["spec"]), stack)
    except EnvironmentRefusedError as error:
        await channel.send({"event": "failed", "error": str(error)})
        return 0
    except OSError as error:
        why = f"its hard limit is {own_nofile().hard} open files; raise it (ulimit -Hn, LimitNOFILE=)"
        if error.errno not in NO_DESCRIPTOR:
            why = "remove the restriction of this host or of a seccomp profile"
        words = f"the simulated server cannot prepare itself: {error.strerror}; {why}"
        await channel.send({"event": "failed", "error": words})
        return 0
    gc.freeze()  # the loop makes no cycles, and a collection would be an unplanned pause
    gc.disable()
    await channel.send(server.ready)
    order = await channel.receive()
    if order is not None and order["do"] == "go":
        order = await _serve(channel, server, order["start_ns"])
        if order is None and server.acceptor.dead:
            limits = f"{server.log.open_fds} of {server.ready['nofile_soft']}"
            sys.stderr.write(f"simulated server: accept: {os.strerror(errno.EMFILE)} ({limits}); exiting\n")
            return DIED
    while order is not None and order["do"] != "exit":
        await channel.send(_finish(server, order))
        order = await channel.receive()
    return 0


async def _serve(channel: Channel, server: Prepared, start_ns: int) -> Message | None:
    """Accept and serve until the next order and return it; None if the channel or, by its policy, the server ended."""
    order: Message | None = None

    async def accept() -> None:
        await server.acceptor.run(start_ns)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        while (order := await channel.receive()) is not None and order["do"] == "listen":
            server.acceptor.listen(order["backlog"])
        nursery.cancel_scope.cancel()
    return order


def _finish(server: Prepared, order: Message) -> Message:
    """Execute an order after the server has stopped accepting, and return the answer."""
    if order["do"] == "drain":
        raise_own_nofile()  # the test is over, and a server without a free descriptor must drain too
        return {"event": "drained", "after_end": server.acceptor.drain()}
    log = server.log
    totals = log.totals()
    return {
        "event": "frozen",
        "open_fds": log.open_fds,
        "accepted": totals["accepted"],
        "closed": totals["closed"],
    }


async def _leave_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


def _raise_limit(spec: ServerSpec) -> int:
    """Raise the soft limit to the hard one for the preparations; return the old soft limit."""
    before = own_nofile()
    for name, wanted in (("nofile", spec.nofile or 0), ("prewarm_fds", spec.prewarm_fds)):
        if wanted > before.hard:
            raise EnvironmentRefusedError(
                f"server.{name} = {wanted:,} is above the hard limit of {before.hard:,} open files; "
                f"lower server.{name}, or raise the hard limit (ulimit -Hn, LimitNOFILE=)"
            )
    raise_own_nofile()
    return before.soft


def _set_soft_limit(soft: int) -> None:
    hard = own_nofile().hard
    try:
        set_own_nofile(Limits(soft=soft, hard=hard))
    except (ValueError, OSError) as error:
        raise EnvironmentRefusedError(
            f"cannot set RLIMIT_NOFILE to {soft:,} under a hard limit of {hard:,}: {error}; "
            "fs.nr_open must not be below the hard limit (sysctl fs.nr_open)"
        ) from error


def _listen(spec: ServerSpec) -> socket.SocketType:
    """Return a non-blocking listener of the C type."""
    with ExitStack() as undo:
        try:
            listener = socket.SocketType(family_of(spec.address), socket.SOCK_STREAM, 0)
            undo.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.settimeout(0)
            listener.bind((spec.address, spec.port))
            listener.listen(spec.backlog)
        except OSError as error:
            remedy = _NO_LISTENER.get(error.errno or 0, "choose another network.address, or port 0 for any free port")
            where = f"{spec.address} port {spec.port}"
            raise EnvironmentRefusedError(f"cannot listen on {where}: {error.strerror}; {remedy}") from error
        undo.pop_all()
    return listener


def _service_of(spec: ServerSpec) -> Service:
    return Service(
        exchange=spec.exchange,
        expected=spec.expect,
        close_after_ns=None if spec.close_after_s is None else nanoseconds(spec.close_after_s),
        extra_fds=spec.extra_fds,
        extra_leak=_leak_of(spec, "extra"),
    )


def _leak_of(spec: ServerSpec, what: str) -> Leak | None:
    """Return the leak of connections or extra descriptors; None: they do not leak."""
    return Leak.of(spec.leak, seed=spec.seed) if spec.leak_of == what and spec.leak else None


def _prewarm(fds: int) -> None:
    """Make the kernel grow the descriptor table now; it never shrinks."""
    if fds > 0 and fds - 1 > sys.stderr.fileno():
        with contextlib.suppress(OSError):
            os.fstat(fds - 1)
            return  # the number is in use, so the table is large enough
        os.close(os.dup2(sys.stderr.fileno(), fds - 1, inheritable=False))


def _start_idle_threads(count: int) -> None:
    """Start threads that only share the descriptor table."""
    for _ in range(count):
        forever = threading.Lock()
        forever.acquire()
        threading.Thread(target=forever.acquire, daemon=True).start()


def _check_threads(spec: ServerSpec) -> int:
    """Return the number of threads; raises EnvironmentRefusedError if it is not the requested one."""
    threads = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads:"))
    count = int(threads.split()[1])
    if count != 1 + spec.idle_threads:
        raise EnvironmentRefusedError(
            f"the simulated server has {count} threads instead of {1 + spec.idle_threads}, and each shares its "
            "descriptor table; remove the cause of threads in every Python process (a .pth file, sitecustomize)"
        )
    return count


async def _main() -> int:
    async with Channel.of_child() as channel:
        return await converse(channel)


if __name__ == "__main__":
    run_child(_main)
