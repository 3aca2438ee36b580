"""One driver: the process around the engine, with its share of the load.

Run as `python -P -m loadsim.driver.driver` with a control channel as standard input (`process.control`). Owns its
limits and its journal. It raises its soft RLIMIT_NOFILE to the hard limit and opens no more connections than that
allows, because its own EMFILE must never look like a failure of the server.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from loadsim.driver.engine import Engine
from loadsim.driver.schedule import ClosedLoop, OpenLoop
from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.limits import raise_own_nofile
from loadsim.kernel.procfs import own_run_wait_ns
from loadsim.process.control import Channel, Message, run_child
from loadsim.record.journal import Journal
from loadsim.record.records import ATTEMPT
from loadsim.scenario.arrivals import offsets
from loadsim.scenario.specs import LoadSpec
from loadsim.units import NANOSECONDS, format_count

if TYPE_CHECKING:
    from loadsim.driver.schedule import Schedule

#: The main function of a client process. Its arguments: channel, spec, journal, the most connections at once.
Role = Callable[[Channel, LoadSpec, Journal, int], Awaitable[None]]
#: Descriptors that are not used for connections: two of the engine, and some for the interpreter's short needs.
SPARE_FDS = 16


def main() -> None:
    """Serve the control channel until it ends."""
    run_child(serve, _drive)


async def serve(role: Role) -> None:
    """Prepare as the first order says, then call `role`."""
    async with Channel.of_child() as channel:
        order = await channel.receive()
        if order is None or order["do"] != "prepare":
            return
        spec = LoadSpec.of(order["spec"])
        try:
            most, ready = prepare(spec)
            journal = Journal.create(Path(spec.attempts_path), ATTEMPT, spec.attempts_capacity)
        except EnvironmentRefusedError as error:
            await send(channel, {"event": "failed", "error": str(error)})
            return
        with journal:
            await send(channel, ready)
            await role(channel, spec, journal, most)


def prepare(spec: LoadSpec) -> tuple[int, Message]:
    """Raise the limits; return the most connections at once, and the "ready" message for the conductor.

    Raises EnvironmentRefusedError if this process has more than one thread.
    """
    limits = raise_own_nofile()
    fds, threads = _count("/proc/self/fd") - 1, _count("/proc/self/task")  # minus the descriptor of the listing
    if threads > 1:
        raise EnvironmentRefusedError(
            f"a driver has {threads} threads, which stall its fd table; remove the cause of threads in every Python "
            "process (sitecustomize, .pth files, LD_PRELOAD)"
        )
    most, clamped = clamp(spec, available=limits.soft - fds - SPARE_FDS)
    return most, {
        "event": "ready",
        "pid": os.getpid(),
        "threads": threads,
        "open_fds": fds,
        "nofile_soft": limits.soft,
        "nofile_hard": limits.hard,
        "clamped": clamped,
    }


async def _drive(channel: Channel, spec: LoadSpec, journal: Journal, most: int) -> None:
    """Follow orders until "exit" or the end of the channel, then close the open connections by RST."""
    order = await channel.receive()
    started = order is not None and order["do"] == "go"
    start_ns = order["start_ns"] if order is not None and started else time.monotonic_ns()
    with Engine(spec, journal, schedule_of(spec, start_ns, most), max_in_flight=most) as engine:
        if not started:  # interrupted before its start: finish without attempts
            engine.stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, engine, channel, start_ns)
            while order is not None and order["do"] != "exit":
                await _obey(order, engine, channel)
                order = await channel.receive()
            nursery.cancel_scope.cancel()


async def _obey(order: Message, engine: Engine, channel: Channel) -> None:
    match order["do"]:
        case "stop":
            engine.stop()
        case "freeze":
            engine.freeze()
        case "release":
            engine.release(order["share"])
        case "reset":
            await send(channel, {"event": "reset", "closed": engine.reset()})


async def send(channel: Channel, message: Message) -> None:
    """Send a message, unless the conductor has ended."""
    with contextlib.suppress(trio.BrokenResourceError):  # the next `receive` returns None
        await channel.send(message)


async def _run(engine: Engine, channel: Channel, start_ns: int) -> None:
    """Run the load, then report its end and its CPU time."""
    gc.collect()
    gc.freeze()  # attempts form no cycles; a collection over 20,000 of them stalls the loop
    gc.disable()
    cpu, waited = time.process_time_ns(), own_run_wait_ns()
    await engine.run()
    spent = {
        "cpu_ns": time.process_time_ns() - cpu,
        "wall_ns": max(1, time.monotonic_ns() - start_ns),
        "run_wait_ns": -1 if waited < 0 else own_run_wait_ns() - waited,
    }
    await send(channel, {"event": "finished", **spent})


def schedule_of(spec: LoadSpec, start_ns: int, most: int) -> Schedule:
    """Return this driver's share of the schedule; a closed loop has at most `most` clients."""
    if spec.stages:
        arrivals = offsets(
            spec.stages, arrivals=spec.arrivals, seed=spec.seed, attempts=spec.attempts, duration_s=spec.duration_s
        )
        return OpenLoop(islice(arrivals, spec.share, None, spec.processes), start_ns=start_ns)
    attempts = None if spec.attempts is None else max(0, math.ceil((spec.attempts - spec.share) / spec.processes))
    end_ns = start_ns + round(spec.duration_s * NANOSECONDS)
    return ClosedLoop(min(spec.clients, most), start_ns=start_ns, end_ns=end_ns, attempts=attempts)


def clamp(spec: LoadSpec, *, available: int) -> tuple[int, str | None]:
    """Return the most connections that this driver may open at once, and a notice if the plan may need more."""
    wanted = min(spec.max_in_flight, spec.clients or _most_in_flight(spec))
    if wanted <= available:
        return min(spec.max_in_flight, available), None
    notice = (
        f"driver {spec.share + 1} of {spec.processes} may need {format_count(wanted)} connections at once, and its "
        f"hard RLIMIT_NOFILE leaves {format_count(available)}: it opens no more; raise that limit (ulimit -Hn), or set "
        f"client.processes to {spec.processes * math.ceil(wanted / max(1, available))}"
    )
    return max(1, available), notice


def _most_in_flight(spec: LoadSpec) -> int:
    """Return the most connections that this driver's share of an open loop can have open at once."""
    fastest = max((max(rate_from, rate_to) for _, rate_from, rate_to in spec.stages), default=0.0)
    longest = spec.connect_timeout_s + spec.reply_timeout_s + spec.hold_s
    burst = 1.0 if spec.arrivals == "constant" else 1.5  # of a Poisson schedule, over times of a second or more
    planned = math.inf if spec.attempts is None else spec.attempts
    return math.ceil(min(fastest * longest * burst, planned) / spec.processes)


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


if __name__ == "__main__":
    main()
