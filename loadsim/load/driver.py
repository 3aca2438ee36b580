"""One driver: the process around the engine, with one share of the load.

    python -P -m loadsim.load.driver        standard input is the control channel (`loadsim.control`)

Owns its own limits and its journal. It raises its soft RLIMIT_NOFILE to the hard one and opens no more connections
than that allows, so that its own EMFILE can never look like the server's failure.
"""

from __future__ import annotations

import gc
import json
import math
import os
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from loadsim.control import Channel
from loadsim.errors import LoadsimError
from loadsim.kernel.limits import raise_own_nofile
from loadsim.load.demand import ClosedLoop, OpenLoop
from loadsim.load.engine import Engine
from loadsim.record.events import ATTEMPT
from loadsim.record.journal import Journal
from loadsim.scenario.arrivals import offsets
from loadsim.scenario.spec import LoadSpec
from loadsim.units import NANOSECONDS, format_count

if TYPE_CHECKING:
    from loadsim.load.demand import Demand

#: Descriptors left free beside the connections: the engine's own two, and what the interpreter may open for a moment.
SPARE_FDS = 16


def main() -> None:
    """Serve the control channel until it ends."""
    trio.run(_serve)


async def _serve() -> None:
    async with Channel.of_child() as channel:
        message = await channel.receive()
        if message is None or message["do"] != "prepare":
            return
        spec = LoadSpec.from_json(json.dumps(message["spec"]))
        limits = raise_own_nofile()
        most, clamped = clamp(spec, available=limits.soft - _open_fds() - SPARE_FDS)
        try:
            journal = Journal.create(Path(spec.attempts_path), ATTEMPT, spec.attempts_capacity)
        except LoadsimError as error:
            await channel.send({"event": "failed", "error": str(error)})
            return
        with journal:
            ready = {"pid": os.getpid(), "threads": _threads(), "open_fds": _open_fds(), "clamped": clamped}
            limits_now = {"nofile_soft": limits.soft, "nofile_hard": limits.hard}
            await channel.send({"event": "ready", **ready, **limits_now})
            await _drive(channel, spec, journal, most)


async def _drive(channel: Channel, spec: LoadSpec, journal: Journal, most: int) -> None:
    """Wait for the start, run the engine, and close its sockets when told to or at the end of the channel."""
    start = await channel.receive()
    if start is None or start["do"] != "go":
        return
    with Engine(spec, journal, demand_of(spec, start["start_ns"], most), max_in_flight=most) as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, engine, channel)
            await _obey(channel, engine)
            nursery.cancel_scope.cancel()


async def _run(engine: Engine, channel: Channel) -> None:
    gc.collect()
    gc.freeze()
    gc.disable()  # attempts form no cycles; a collection over 20,000 of them would stall the loop
    wall, cpu = time.monotonic_ns(), time.process_time_ns()
    await engine.run()
    took = {"wall_ns": time.monotonic_ns() - wall, "cpu_ns": time.process_time_ns() - cpu}
    gc.enable()
    await channel.send({"event": "finished", **took})


async def _obey(channel: Channel, engine: Engine) -> None:
    while (message := await channel.receive()) is not None:
        match message["do"]:
            case "stop":
                engine.stop()
            case "freeze":
                engine.freeze()
            case "reset":
                await channel.send({"event": "reset", "closed": engine.reset()})
            case "exit":
                return


def demand_of(spec: LoadSpec, start_ns: int, most: int) -> Demand:
    """Return this driver's share of the schedule; `most` clients at once in a closed loop."""
    if spec.stages:
        whole = offsets(
            spec.stages,
            arrivals=spec.arrivals,
            seed=spec.seed,
            attempts=spec.attempts,
            duration_s=spec.duration_s,
        )
        return OpenLoop(islice(whole, spec.share, None, spec.processes), start_ns=start_ns)
    attempts = None if spec.attempts is None else max(0, math.ceil((spec.attempts - spec.share) / spec.processes))
    end_ns = start_ns + round(spec.duration_s * NANOSECONDS)
    return ClosedLoop(min(spec.clients, most), start_ns=start_ns, end_ns=end_ns, attempts=attempts)


def clamp(spec: LoadSpec, *, available: int) -> tuple[int, str | None]:
    """Return how many connections this driver may have open at once, and a notice if the plan may want more."""
    wanted = spec.clients or min(spec.max_in_flight, _most_in_flight(spec))
    if wanted <= available:
        return min(spec.max_in_flight, available), None
    notice = (
        f"driver {spec.share + 1} of {spec.processes} may need {format_count(wanted)} connections at once, and its hard "
        f"RLIMIT_NOFILE leaves {format_count(available)}: it opens no more; raise the limit (ulimit -Hn), or set "
        f"client.processes to {spec.processes * math.ceil(wanted / max(1, available))}"
    )
    return available, notice


def _most_in_flight(spec: LoadSpec) -> int:
    """Return the most connections that this driver's share of an open loop can have open at once."""
    fastest = max((max(rate_from, rate_to) for _, rate_from, rate_to in spec.stages), default=0.0)
    longest = spec.connect_timeout_s + spec.reply_timeout_s + spec.hold_s
    burst = 1.0 if spec.arrivals == "constant" else 1.5  # of a Poisson schedule over seconds
    planned = spec.attempts if spec.attempts is not None else math.inf
    return math.ceil(min(fastest * longest * burst, planned) / spec.processes)


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 -- names only, once; minus the listing's own


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 -- as above


if __name__ == "__main__":
    main()
