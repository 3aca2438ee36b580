"""The order of a run, above all of its end: any other order rewrites the fates.

Stamps no latency, decides nothing about numbers (`analysis`), draws nothing (`report`).
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from loadsim.analysis.judge import summary_of
from loadsim.analysis.view import View as Analysed
from loadsim.errors import EnvironmentRefusedError, LoadsimError
from loadsim.kernel.limits import host_facts
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.kernel.scheduler import giving_way
from loadsim.kernel.sockdiag import TCP_STATES
from loadsim.record.bundle import Bundle
from loadsim.record.facts import DriverFacts, EndState
from loadsim.report.files import write_files
from loadsim.run.stage import first_facts, not_in_force, notices_of, observe_host, on_stage, open_namespace
from loadsim.scenario.plan import make_plan
from loadsim.scenario.predict import SETTLE_AT_MOST_S, SETTLED_S
from loadsim.scenario.thresholds import judge
from loadsim.scenario.writing import to_toml
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from loadsim.analysis.summary import Summary
    from loadsim.load.process import Driver
    from loadsim.record.arrays import Records
    from loadsim.record.facts import Facts
    from loadsim.report.progress import View
    from loadsim.run.stage import Stage
    from loadsim.scenario.model import Scenario

#: Time between the order to start and the first intended start: every process has read the order by then.
LEAD_NS = 50_000_000
#: How often the view is updated and `abort` is judged.
WATCH_S = 0.25
#: How often the descriptors are counted until they no longer change.
SETTLE_STEP_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about how to run, besides the scenario."""

    out: Path
    argv: Sequence[str] = ()
    allow_degraded: bool = False
    folder: Path | None = None  # the result folder, made already, of a run that is one of many; None: a new one


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that has been saved; `signal` is what interrupted it."""

    folder: Path
    summary: Summary
    signal: signal.Signals | None


class QuitError(LoadsimError):
    """A second signal: quit at once. The journals hold what was recorded."""

    def __init__(self, number: signal.Signals, folder: Path) -> None:
        super().__init__(f"quit; what was recorded is in {folder}: loadsim report {folder.name}")
        self.exit_code = 128 + number


class _Interruption:
    """What ended a run early: the first signal or abort threshold."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.signal: signal.Signals | None = None
        self.quit: signal.Signals | None = None


async def run(scenario: Scenario, options: Options, view: View) -> Finished:
    """Run a scenario to its end, save it, and return where and what it means.

    Raises EnvironmentRefusedError where this host or the target cannot run it. A first SIGINT or SIGTERM lets the
    attempts in flight end; a second one raises QuitError with the journals left as they are.
    """
    async with open_namespace(scenario) as namespace:
        plan = make_plan(scenario, observe_host(scenario, namespace.sysctls))
        degraded = not_in_force(scenario, namespace)
        if degraded and not options.allow_degraded:
            raise EnvironmentRefusedError("\n".join([*degraded, "or run it all the same with --allow-degraded"]))
        bundle = Bundle(options.folder) if options.folder else Bundle.create(options.out, scenario.name)
        bundle.write_text("scenario.resolved.toml", to_toml(scenario))
        bundle.write_json("host.json", host_facts())
        async with on_stage(plan, bundle, namespace) as stage:
            view.begin(plan, hint=namespace.enter_hint)
            try:
                with giving_way():  # sampling is never worth a late client or a late accept()
                    facts, interruption = await _perform(stage, first_facts(stage, degraded), options.argv, view)
            finally:
                view.end()
    facts = replace(facts, lost_records=bundle.merge_journals())
    bundle.write_manifest(facts, options.argv)
    analysed = Analysed.of(bundle.read())
    summary = summary_of(analysed)
    bundle.write_json("summary.json", summary.to_json())
    write_files(bundle, analysed, summary)
    return Finished(folder=bundle.path, summary=summary, signal=interruption)


async def _perform(stage: Stage, facts: Facts, argv: Sequence[str], view: View) -> tuple[Facts, signal.Signals | None]:
    """Let the load run and judge it; return the facts of the whole run and the signal that interrupted it."""
    early = _Interruption()
    start_ns = time.monotonic_ns() + LEAD_NS
    facts = replace(facts, start_ns=start_ns, start_unix_s=time.time() + LEAD_NS / NANOSECONDS)
    stage.bundle.write_manifest(facts, argv)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            nursery.start_soon(stage.sampler.run)
            nursery.start_soon(stage.server.wait_exited)  # notes the moment, should it die
            nursery.start_soon(_watch, stage, view, early, start_ns)
            nursery.start_soon(_heed, stage, signals, early, nursery.cancel_scope)
            await stage.server.go(start_ns)
            drivers = await _wait_load(stage, start_ns)
            load_end_ns = time.monotonic_ns()
            fds_end = await _wait_settled(stage)
            await stage.server.freeze()
            judged_ns = time.monotonic_ns()
            end = _look(stage, fds_end)
            stage.sampler.stop()
            for driver in stage.drivers:
                await driver.reset()
            await stage.server.drain()
            await stage.server.leave()
            nursery.cancel_scope.cancel()
    if early.quit:
        raise QuitError(early.quit, stage.bundle.path)
    reason = early.reason or _death_of_a_driver(drivers)
    return replace(
        facts,
        complete=reason is None,
        interrupted=reason,
        load_end_ns=load_end_ns,
        judged_ns=judged_ns,
        server=stage.server.facts,
        notices=notices_of(stage),
        drivers=drivers,
        end=end,
    ), early.signal


async def _wait_load(stage: Stage, start_ns: int) -> list[DriverFacts]:
    """Start the load and wait until every driver has finished or died."""
    facts: list[DriverFacts] = []

    async def wait_one(driver: Driver) -> None:
        facts.append(await driver.wait_finished())

    for driver in stage.drivers:
        await driver.go(start_ns)
    async with trio.open_nursery() as nursery:
        for driver in stage.drivers:
            nursery.start_soon(wait_one, driver)
    return sorted(facts, key=lambda one: one.share)


def _death_of_a_driver(drivers: Sequence[DriverFacts]) -> str | None:
    dead = [one for one in drivers if one.exit_status is not None]
    return "; ".join(f"driver {one.share + 1} ended with status {one.exit_status}" for one in dead) or None


async def _watch(stage: Stage, view: View, early: _Interruption, start_ns: int) -> None:
    """Update the view, and stop the load when an `abort` threshold is true."""
    while True:
        await trio.sleep(WATCH_S)
        view.update(stage.monitor.progress((time.monotonic_ns() - start_ns) / NANOSECONDS))
        metrics = stage.monitor.metrics()
        met = [one.text for one in stage.plan.scenario.thresholds.abort if judge(one, metrics).ok]
        if met and early.reason is None:
            early.reason = f"aborted: {met[0]}"
            for driver in stage.drivers:
                await driver.stop()


async def _heed(stage: Stage, signals: AsyncIterator[int], early: _Interruption, scope: trio.CancelScope) -> None:
    """Stop the load at the first signal, quit at the second."""
    async for number in signals:
        if early.signal is not None:
            early.quit = signal.Signals(number)
            scope.cancel()
            return
        early.signal = signal.Signals(number)
        early.reason = early.signal.name
        for driver in stage.drivers:
            await driver.stop()


async def _wait_settled(stage: Stage) -> int | None:
    """Wait until the number of the server's descriptors no longer changes, and return it; None: it is gone."""
    since = begun = trio.current_time()
    last = None
    try:
        while trio.current_time() - begun < SETTLE_AT_MOST_S:
            now = stage.sources.process.open_fds()
            if now != last:
                last, since = now, trio.current_time()
            elif trio.current_time() - since >= SETTLED_S:
                break
            await trio.sleep(SETTLE_STEP_S)
    except ProcessGoneError:
        return None
    return last


def _look(stage: Stage, fds_end: int | None) -> EndState:
    """Return what the kernel shows while the server no longer accepts and every socket still exists."""
    sources, port = stage.sources, stage.server.facts.port
    sockets = stage.namespace.diag.dump(port=port)
    at_server = sockets[sockets["local_port"] == port]
    at_client = sockets[sockets["remote_port"] == port]
    listener = sources.listener()
    try:
        open_fds, fd_size, fd_map = sources.process.open_fds(), sources.process.fd_size(), sources.table.map()
    except ProcessGoneError:
        open_fds, fd_size, fd_map = None, None, ""
    return EndState(
        queue=listener.queue if listener else None,
        server_states=_by_state(at_server),
        client_states=_by_state(at_client),
        open_fds=open_fds,
        fds_end=fds_end,
        fd_map=fd_map,
        fd_size=fd_size,
    )


def _by_state(sockets: Records) -> dict[str, int]:
    numbers = sockets["state"].tolist()
    return {name: numbers.count(number) for number, name in TCP_STATES.items() if number in numbers}
