"""The order of a run, above all of its end: any other order rewrites the fates.

Stamps no latency, decides nothing about numbers (`analysis`), draws nothing (`report`).
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
from loadsim.run.steps import follow, let_go
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
    from loadsim.targets.target import Sources

#: Time between the order to start and the first intended start: every process has read the order by then.
LEAD_NS = 50_000_000
#: How often the view is updated and `abort` is judged.
WATCH_S = 0.25
#: How often the descriptors are counted until they no longer change.
SETTLE_STEP_S = 0.02
#: The same two times for a server of which it is not known when it stands still (a garbage collection, a batch of
#: closes), as long as it has more descriptors than before the load.
UNKNOWN_SETTLED_S, UNKNOWN_SETTLE_AT_MOST_S = 1.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that has been saved; `signal` is what interrupted it."""

    folder: Path
    summary: Summary
    signal: signal.Signals | None


async def run(scenario: Scenario, options: Options, display: Display) -> Finished:
    """Run a scenario to its end, save it, and return where and what it means.

    Raises ScenarioError where the load would go where nobody permitted it, EnvironmentRefusedError where this host or
    the target cannot run it, also where the kernel refuses loadsim itself something meanwhile, NotBegunError where a
    signal came before the first client. Under load the first one lets the attempts in flight end; a second one raises
    QuitError with the journals left as they are.
    """
    permit(scenario, options)
    early = Interruption()
    with early.telling():
        async with early.heeding():
            bundle, facts = await _record(scenario, options, display, early)
        summary = _summarise(bundle, facts, options.argv)
    return Finished(folder=bundle.path, summary=summary, signal=early.signal)


async def _record(scenario: Scenario, options: Options, display: Display, early: Interruption) -> tuple[Bundle, Facts]:
    """Set the stage and let the load run; return where the records are and what is known of the whole run."""
    async with open_namespace(scenario) as namespace:
        plan = make_plan(scenario, observe_host(scenario, namespace.sysctls))
        degraded = not_in_force(scenario, namespace)
        if degraded and not options.allow_degraded:
            raise EnvironmentRefusedError("\n".join([*degraded, "or run it all the same with --allow-degraded"]))
        bundle = Bundle(options.folder) if options.folder else Bundle.create(options.out, scenario.name)
        early.folder = bundle.path
        bundle.write_text("scenario.resolved.toml", to_toml(scenario))
        bundle.write_json("host.json", host_facts())
        async with open_setup(plan, bundle, namespace) as setup:
            display.begin(plan, hint=namespace.enter_hint)
            try:
                with giving_way():  # sampling is never worth a late client or a late accept()
                    return bundle, await _perform(
                        setup, first_facts(setup, degraded), options.argv, display, early=early
                    )
            finally:
                display.end()


def _summarise(bundle: Bundle, facts: Facts, argv: Sequence[str]) -> Summary:
    """Save what was recorded, then what it means, then every file that can be made again."""
    bundle.write_manifest(replace(facts, lost_records=bundle.merge_journals()), argv)
    analysed = Dataset.of(bundle.read())
    summary = summary_of(analysed)
    bundle.write_json("summary.json", summary.to_json())
    write_files(bundle, analysed, summary)
    return summary


async def _perform(setup: Setup, facts: Facts, argv: Sequence[str], display: Display, *, early: Interruption) -> Facts:
    """Let the load run and judge it; return the facts of the whole run."""
    start_ns = time.monotonic_ns() + LEAD_NS
    facts = replace(facts, start_ns=start_ns, start_unix_s=time.time() + LEAD_NS / NANOSECONDS)
    setup.bundle.write_manifest(facts, argv)
    early.begin(setup.drivers)
    steps: list[StepFacts] = []
    lost: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setup.sampler.run)
        nursery.start_soon(setup.server.wait_exited)  # notes the moment, should it die
        nursery.start_soon(_watch, setup, display, early, start_ns)
        await setup.server.go(start_ns)
        drivers = await _wait_load(setup, start_ns, steps=steps, lost=lost, early=early)
        load_end_ns = time.monotonic_ns()
        fds_end = await _wait_settled(setup, start_ns)
        await setup.server.freeze()
        judged_ns = time.monotonic_ns()
        end = _look(setup, fds_end)
        setup.sampler.stop()
        for driver in (*setup.drivers, *setup.watchers):
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
        degraded=[*facts.degraded, *(one.refused for one in steps if one.refused and not one.target_ended)],
        watchers_lost=lost,
    )


async def _wait_load(
    setup: Setup, start_ns: int, *, steps: list[StepFacts], lost: list[str], early: Interruption
) -> list[DriverFacts]:
    """Start the load; return when every driver has finished or died, every step is made, and the canary is done.

    `steps` gets those that were made, `lost` a sentence for each watcher that died.
    """
    facts: list[DriverFacts] = []

    async def wait_one(driver: Driver) -> None:
        facts.append(await driver.wait_finished())

    async def take_steps() -> None:
        await _unless_stopped(early, partial(follow, setup, start_ns, steps))
        await let_go(setup, steps)

    for driver in (*setup.drivers, *setup.watchers):
        await driver.go(start_ns)
    async with trio.open_nursery() as nursery:
        for driver in setup.drivers:
            nursery.start_soon(wait_one, driver)
        nursery.start_soon(take_steps)
    lost += await _dismiss(setup, early)
    return sorted(facts, key=lambda one: one.share)


async def _unless_stopped(early: Interruption, act: Callable[[], Awaitable[None]]) -> None:
    """Do this, until something ends the run early."""
    async with trio.open_nursery() as nursery:

        async def cut_short() -> None:
            await early.stopped.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(cut_short)
        await act()
        nursery.cancel_scope.cancel()


async def _dismiss(setup: Setup, early: Interruption) -> list[str]:
    """Let the canary go on for a while, then wait for its last answers; return who did not live to give them."""
    await _unless_stopped(early, partial(_linger, setup))
    lost = []
    for what, watcher in zip(("the canary", "the held clients"), setup.watchers, strict=False):
        await watcher.stop()
        status = (await watcher.wait_finished()).exit_status
        if status is not None:
            lost.append(f"{what} ended with status {status} before the run did: the .stderr of the result says why")
    return lost


async def _linger(setup: Setup) -> None:
    """Let the canary go on; where nobody answered it meanwhile, wait for that with its patience, and linger again."""
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
    dead = [one for one in drivers if one.exit_status is not None]
    return "; ".join(f"driver {one.share + 1} ended with status {one.exit_status}" for one in dead) or None


async def _watch(setup: Setup, display: Display, early: Interruption, start_ns: int) -> None:
    """Update the view, and stop the load when an `abort` threshold is true."""
    while True:
        await trio.sleep(WATCH_S)
        display.update(setup.monitor.progress((time.monotonic_ns() - start_ns) / NANOSECONDS))
        metrics = setup.monitor.metrics()
        met = [one.text for one in setup.plan.scenario.thresholds.abort if judge(one, metrics).ok]
        if met and early.reason is None:
            await early.stop_load(f"aborted: {met[0]}")


async def _wait_settled(setup: Setup, start_ns: int) -> int | None:
    """Wait until the number of the server's descriptors no longer changes, and return it; None: it is not seen."""
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
    """Return when descriptors that last changed at this time have settled, and how long to wait for that at most."""
    server = setup.plan.scenario.server
    if server.is_simulated:
        return settled_at(server, changed), SETTLE_AT_MOST_S + server.pause
    if fds <= setup.server.facts.baseline_fds:
        return changed + SETTLED_S, SETTLE_AT_MOST_S
    return changed + UNKNOWN_SETTLED_S, UNKNOWN_SETTLE_AT_MOST_S


def _look(setup: Setup, fds_end: int | None) -> EndState:
    """Return what the kernel shows while the server no longer accepts and every socket still exists."""
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
    """Return how many are open, and one letter for each, as far as that can be seen."""
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
