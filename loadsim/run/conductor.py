"""The order of a run, above all of its end: any other order changes the fates.

Takes no latency time stamps, does not interpret numbers (`analysis`) and does not draw (`render`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.judge import summary_of
from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.limits import host_facts
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.kernel.sockdiag import TCP_STATES
from loadsim.kernel.timing import giving_way
from loadsim.record.facts import DriverFacts, EndState
from loadsim.record.result import Bundle
from loadsim.render.files import write_files
from loadsim.run.host import observe_host, permit
from loadsim.run.setup import first_facts, not_in_force, notices_of, open_namespace, open_setup
from loadsim.run.signals import Interruption
from loadsim.run.steps import follow, release_rest
from loadsim.scenario.plan import make_plan
from loadsim.scenario.predict import SETTLE_AT_MOST_S, SETTLED_S, settled_at
from loadsim.scenario.thresholds import judge
from loadsim.scenario.toml import to_toml
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    import signal
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from loadsim.analysis.summary import Summary
    from loadsim.record.facts import Facts, StepFacts
    from loadsim.record.recording import Records
    from loadsim.render.progress import Display
    from loadsim.run.host import Options
    from loadsim.run.setup import Driver, Setup
    from loadsim.scenario.model import Scenario
    from loadsim.targets import Sources

#: Time between the order to start and the first intended start: every process has read the order by then.
LEAD_NS = 50_000_000
#: Time between two updates of the live view and checks of `abort`.
WATCH_S = 0.25
#: Time between two counts of the descriptors, until they no longer change.
SETTLE_STEP_S = 0.02
#: SETTLED_S and SETTLE_AT_MOST_S for a server that may close descriptors later (a garbage collection, a batch of
#: closes), while it has more of them than before the load.
UNKNOWN_SETTLED_S, UNKNOWN_SETTLE_AT_MOST_S = 1.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that has been saved; `signal` is what interrupted it."""

    folder: Path
    summary: Summary
    signal: signal.Signals | None


async def run(scenario: Scenario, options: Options, display: Display) -> Finished:
    """Run a scenario to its end, save it, and return its folder and its summary.

    Raises ScenarioError if the load is not permitted, EnvironmentRefusedError if this host or the target cannot run it
    or the kernel refuses a resource to loadsim, NotBegunError after a signal before the first client. Under load, the
    first signal lets the attempts in flight end; a second one raises QuitError and leaves the journals as they are.
    """
    permit(scenario, options)
    early = Interruption()
    with early.explaining_errors():
        async with early.handling_signals():
            bundle, facts = await _record(scenario, options, display, early)
        summary = _summarise(bundle, facts, options.argv)
    return Finished(folder=bundle.path, summary=summary, signal=early.signal)


async def _record(scenario: Scenario, options: Options, display: Display, early: Interruption) -> tuple[Bundle, Facts]:
    """Open everything and run the load; return the result folder and the facts of the run."""
    async with open_namespace(scenario) as namespace:
        plan = make_plan(scenario, observe_host(scenario, namespace.sysctls))
        degraded = not_in_force(scenario, namespace)
        if degraded and not options.allow_degraded:
            raise EnvironmentRefusedError("\n".join([*degraded, "or run it without them: --allow-degraded"]))
        bundle = Bundle(options.folder) if options.folder else Bundle.create(options.out, scenario.name)
        early.folder = bundle.path
        bundle.write_text("scenario.resolved.toml", to_toml(scenario))
        bundle.write_json("host.json", host_facts())
        async with open_setup(plan, bundle, namespace) as setup:
            display.begin(plan, hint=namespace.enter_hint)
            try:
                with giving_way():  # sampling must not delay a client or an accept()
                    return bundle, await _perform(
                        setup, first_facts(setup, degraded), options.argv, display, early=early
                    )
            finally:
                display.end()


def _summarise(bundle: Bundle, facts: Facts, argv: Sequence[str]) -> Summary:
    """Save the records, then the summary, then every file that can be made from them again."""
    bundle.write_manifest(replace(facts, lost_records=bundle.merge_journals()), argv)
    analysed = Dataset.of(bundle.read())
    summary = summary_of(analysed)
    bundle.write_json("summary.json", summary.to_json())
    write_files(bundle, analysed, summary)
    return summary


async def _perform(setup: Setup, facts: Facts, argv: Sequence[str], display: Display, *, early: Interruption) -> Facts:
    """Run the load and take the snapshot of the fates; return the facts of the run."""
    start_ns = time.monotonic_ns() + LEAD_NS
    facts = replace(facts, start_ns=start_ns, start_unix_s=time.time() + LEAD_NS / NANOSECONDS)
    setup.bundle.write_manifest(facts, argv)
    early.begin(setup.drivers)
    steps: list[StepFacts] = []
    lost: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setup.sampler.run)
        nursery.start_soon(setup.server.wait_exited)  # records the time if it dies
        nursery.start_soon(_watch, setup, display, early, start_ns)
        await setup.server.go(start_ns)
        drivers = await _wait_load(setup, start_ns, steps=steps, lost=lost, early=early)
        load_end_ns = time.monotonic_ns()
        fds_end = await _wait_settled(setup, start_ns)
        await setup.server.freeze()
        judged_ns = time.monotonic_ns()
        end = _snapshot(setup, fds_end)
        setup.sampler.stop()
        for driver in (*setup.drivers, *setup.observers):
            await driver.reset()
        await setup.server.drain()
        await setup.server.leave()
        nursery.cancel_scope.cancel()
    reason = early.reason or _death_of_a_driver(drivers)
    return replace(
        facts,
        complete=reason is None,
        interrupted=reason,
        load_end_ns=load_end_ns,
        judged_ns=judged_ns,
        server=setup.server.facts,
        notices=notices_of(setup),
        drivers=drivers,
        end=end,
        steps=steps,
        degraded=[*facts.degraded, *(step.refused for step in steps if step.refused and not step.target_ended)],
        watchers_lost=lost,
    )


async def _wait_load(
    setup: Setup, start_ns: int, *, steps: list[StepFacts], lost: list[str], early: Interruption
) -> list[DriverFacts]:
    """Start the load; return when every driver has finished or died, every step is made, and the canary has stopped.

    Adds each step to `steps`, and a sentence to `lost` for each observer that died.
    """
    facts: list[DriverFacts] = []

    async def wait_one(driver: Driver) -> None:
        facts.append(await driver.wait_finished())

    async def take_steps() -> None:
        await _unless_stopped(early, partial(follow, setup, start_ns, steps))
        await release_rest(setup, steps)

    for driver in (*setup.drivers, *setup.observers):
        await driver.go(start_ns)
    async with trio.open_nursery() as nursery:
        for driver in setup.drivers:
            nursery.start_soon(wait_one, driver)
        nursery.start_soon(take_steps)
    lost += await _stop_observers(setup, early)
    return sorted(facts, key=lambda driver: driver.share)


async def _unless_stopped(early: Interruption, act: Callable[[], Awaitable[None]]) -> None:
    """Call `act`; cancel it if the run ends early."""
    async with trio.open_nursery() as nursery:

        async def cut_short() -> None:
            await early.stopped.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(cut_short)
        await act()
        nursery.cancel_scope.cancel()


async def _stop_observers(setup: Setup, early: Interruption) -> list[str]:
    """Let the canary linger, then stop it; return a sentence for each observer that died before."""
    await _unless_stopped(early, partial(_linger, setup))
    lost = []
    for what, observer in zip(("the canary", "the held clients"), setup.observers, strict=False):
        await observer.stop()
        status = (await observer.wait_finished()).exit_status
        if status is not None:
            lost.append(
                f"{what} ended with status {status} before the end of the run; see its .stderr file in the result"
            )
    return lost


async def _linger(setup: Setup) -> None:
    """Wait while the canary lingers; if none was answered, wait for an answer up to its patience, and linger again."""
    if (canary := setup.plan.scenario.canary) is None:
        return
    before = setup.monitor.answered()
    await trio.sleep(canary.linger)
    if setup.monitor.answered() > before:
        return
    for _ in range(math.ceil(canary.patience / WATCH_S)):
        if setup.server.facts.died:
            return
        await trio.sleep(WATCH_S)
        if setup.monitor.answered() > before:
            await trio.sleep(canary.linger)
            return


def _death_of_a_driver(drivers: Sequence[DriverFacts]) -> str | None:
    dead = [driver for driver in drivers if driver.exit_status is not None]
    return "; ".join(f"driver {driver.share + 1} ended with status {driver.exit_status}" for driver in dead) or None


async def _watch(setup: Setup, display: Display, early: Interruption, start_ns: int) -> None:
    """Update the live view, and stop the load when an `abort` threshold is met."""
    while True:
        await trio.sleep(WATCH_S)
        display.update(setup.monitor.progress((time.monotonic_ns() - start_ns) / NANOSECONDS))
        metrics = setup.monitor.metrics()
        met = [one.text for one in setup.plan.scenario.thresholds.abort if judge(one, metrics).ok]
        if met and early.reason is None:
            await early.stop_load(f"aborted: {met[0]}")


async def _wait_settled(setup: Setup, start_ns: int) -> int | None:
    """Wait until the number of the server's descriptors no longer changes, and return it; None: not visible."""
    process = setup.sources.process
    if process is None:
        await trio.sleep(SETTLED_S)
        return None
    begun = changed = _elapsed_s(start_ns)
    last = None
    try:
        while True:
            fds, now = process.open_fds(), _elapsed_s(start_ns)
            if fds != last:
                last, changed = fds, now
            settled, at_most = _settled_at(setup, fds, changed)
            if now >= min(settled, begun + at_most):
                return last
            await trio.sleep(SETTLE_STEP_S)
    except ProcessGoneError:
        return None


def _elapsed_s(start_ns: int) -> float:
    return (time.monotonic_ns() - start_ns) / NANOSECONDS


def _settled_at(setup: Setup, fds: int, changed: float) -> tuple[float, float]:
    """Return when descriptors that last changed at this time have settled, and the longest time to wait for it."""
    server = setup.plan.scenario.server
    if server.is_simulated:
        return settled_at(server, changed), SETTLE_AT_MOST_S + server.pause
    if fds <= setup.server.facts.baseline_fds:
        return changed + SETTLED_S, SETTLE_AT_MOST_S
    return changed + UNKNOWN_SETTLED_S, UNKNOWN_SETTLE_AT_MOST_S


def _snapshot(setup: Setup, fds_end: int | None) -> EndState:
    """Return the kernel's state while the server no longer accepts and every socket still exists."""
    sources, port = setup.sources, setup.server.facts.port
    sockets = setup.namespace.diag.dump(port=port)
    at_server = sockets[sockets["local_port"] == port]
    listener = sources.listener()
    open_fds, fd_map = _descriptors(sources)
    return EndState(
        queue=listener.queue if listener else None,
        server_states=_by_state(at_server),
        open_fds=open_fds,
        fds_end=fds_end,
        fd_map=fd_map,
    )


def _descriptors(sources: Sources) -> tuple[int | None, str]:
    """Return the number of open descriptors and one letter for each, None and "" if they are not visible."""
    if sources.process is None:
        return None, ""
    try:
        fd_map = "" if sources.table is None else sources.table.map()
        return sources.process.open_fds(), fd_map
    except ProcessGoneError:
        return None, ""


def _by_state(sockets: Records) -> dict[str, int]:
    numbers = sockets["state"].tolist()
    return {name: numbers.count(number) for number, name in TCP_STATES.items() if number in numbers}
