"""Everything a run needs, opened in the one order that works: namespace, target, drivers, sampler.

Owns the conductor's side of a driver, and what is known of all of them before the load begins.
"""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.errors import DidNotStartError
from loadsim.kernel.limits import own_nofile
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.process.launch import partner
from loadsim.process.netns import private_namespace, shared_namespace
from loadsim.record.facts import DriverFacts, Facts
from loadsim.record.journal import Journal
from loadsim.record.records import SAMPLE
from loadsim.run.sampler import RATE_HZ, Monitor, Sampler
from loadsim.targets.attached import running
from loadsim.targets.command import command
from loadsim.targets.simulated import simulated_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from loadsim.process.launch import ControlledChild, Namespace
    from loadsim.record.facts import ServerFacts
    from loadsim.record.result import Bundle
    from loadsim.scenario.model import Scenario
    from loadsim.scenario.plan import Plan
    from loadsim.scenario.specs import LoadSpec
    from loadsim.targets.target import Sources, Target


class Driver:
    """One driver process that is ready. Every order to one that has died does nothing."""

    def __init__(self, process: ControlledChild, spec: LoadSpec) -> None:
        self.child = process.child
        self._process = process
        self._share = spec.share

    @property
    def clamped(self) -> str | None:
        """What its own limit takes from the plan, a whole sentence; None: nothing."""
        clamped: str | None = self._process.ready["clamped"]
        return clamped

    async def go(self, start_ns: int) -> None:
        """Start the load at this moment of CLOCK_MONOTONIC."""
        await self._process.tell({"do": "go", "start_ns": start_ns})

    async def stop(self) -> None:
        """Start no further attempts; those in flight finish."""
        await self._process.tell({"do": "stop"})

    async def release(self, share: float) -> None:
        """Have this share of the clients that are in leave, now; their records say who did."""
        await self._process.tell({"do": "release", "share": share})

    async def freeze(self) -> None:
        """Book everything in flight as unfinished, now; the sockets stay open."""
        await self._process.tell({"do": "freeze"})

    async def wait_finished(self) -> DriverFacts:
        """Wait until every attempt has ended or was booked; `exit_status` says if the driver died instead."""
        finished = await self._process.hear("finished")
        status = None if finished else await self._process.wait_ended()
        took = finished or {"cpu_ns": 0, "wall_ns": 0}
        return DriverFacts(
            share=self._share,
            pid=self._process.ready["pid"],
            cpu_ns=took["cpu_ns"],
            wall_ns=took["wall_ns"],
            run_wait_ns=took.get("run_wait_ns", -1),
            nofile_soft=self._process.ready["nofile_soft"],
            clamped=self.clamped,
            exit_status=status,
        )

    async def reset(self) -> int:
        """Have it close every socket that is still open by RST; return their number, 0 where it died."""
        answer = await self._process.ask("reset", "reset")
        return int((answer or {}).get("closed", 0))

    async def leave(self) -> None:
        """Let it leave, and wait until it has; one that does not is killed after some seconds."""
        await self._process.leave()


@asynccontextmanager
async def driver(
    spec: LoadSpec, *, namespace: Namespace | None, stderr_path: Path, holds: bool = False
) -> AsyncIterator[Driver]:
    """Start a driver and wait until it is ready; at the end of the block it is told to leave, or killed.

    `holds`: one whose few connections stay and are asked on (`held`). Its standard error goes to `stderr_path`. Raises
    EnvironmentRefusedError, with the remedy, when it cannot start.
    """
    module, what = ("loadsim.driver.held", "the held clients") if holds else ("loadsim.driver.driver", "a driver")
    async with partner(module, dataclasses.asdict(spec), what=what, namespace=namespace, stderr=stderr_path) as process:
        yield Driver(process, spec)


#: Samples are taken for this much longer than the load can last; space is reserved for an hour (55 MB) at most, and
#: what finds none is counted.
AFTERWARDS_S = 15
SAMPLED_AT_MOST_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that is on stage while the load runs."""

    plan: Plan
    bundle: Bundle
    namespace: Namespace
    server: Target
    drivers: Sequence[Driver]
    watchers: Sequence[Driver]  # the canary, and who asks on the connections that it holds
    sources: Sources
    sampler: Sampler
    monitor: Monitor


def open_namespace(scenario: Scenario) -> AbstractAsyncContextManager[Namespace]:
    """Return the network namespace in which the scenario wants to run, or the shared one with the reason why."""
    return shared_namespace() if scenario.network.namespace == "host" else private_namespace(scenario.sysctl)


def not_in_force(scenario: Scenario, namespace: Namespace) -> list[str]:
    """Return what was asked for and cannot be had, whole sentences with the remedy."""
    sentences = list(namespace.not_applied)
    if namespace.kind == "shared" and scenario.sysctl:
        sentences.append(f"[sysctl] needs a network namespace of its own: {namespace.reason}")
    hard = own_nofile().hard
    if scenario.server.nofile is not None and scenario.server.nofile > hard:
        sentences.append(
            f"server.nofile = {scenario.server.nofile} is above this host's hard limit of {hard}: raise that "
            f"(ulimit -Hn {scenario.server.nofile}, as root), or --set server.nofile={hard}"
        )
    return sentences


@asynccontextmanager
async def open_setup(plan: Plan, bundle: Bundle, namespace: Namespace) -> AsyncIterator[Setup]:
    """Start server, drivers and the sampler's readings; all of them have ended when the block is left."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_target(plan, bundle, namespace))
        facts, drivers, paths = server.facts, [], []
        for share in range(plan.scenario.client.processes):
            path = bundle.journal_path(f"attempts-{share}")
            spec = plan.load_spec(share, address=facts.address, port=facts.port, attempts_path=str(path))
            stderr = bundle.path / f"driver-{share + 1}.stderr"
            drivers.append(await stack.enter_async_context(driver(spec, namespace=namespace, stderr_path=stderr)))
            paths.append(path)
        watchers = [one async for one in _watchers(stack, plan, bundle, namespace, facts=server.facts)]
        sources = _sources(server, stack.enter_context(ExitStack()), bundle, namespace)
        samples = Journal.create(bundle.journal_path("samples"), SAMPLE, _samples_capacity(plan))
        sampler = Sampler(stack.enter_context(samples), sources)
        attempts = [stack.enter_context(Journal.attach(path)) for path in paths]
        accepts = stack.enter_context(Journal.attach(bundle.journal_path("accepts")))
        canary = stack.enter_context(Journal.attach(bundle.journal_path("canary"))) if watchers else None
        yield Setup(
            plan=plan,
            bundle=bundle,
            namespace=namespace,
            server=server,
            drivers=drivers,
            watchers=watchers,
            sources=sources,
            sampler=sampler,
            monitor=Monitor(
                attempts=attempts,
                accepts=accepts,
                canary=canary,
                sampler=sampler,
                shared=namespace.kind == "shared",
                emfile_seen=server.facts.emfile_seen,
            ),
        )


def _sources(server: Target, stack: ExitStack, bundle: Bundle, namespace: Namespace) -> Sources:
    try:
        return server.sources(stack, namespace.diag)
    except ProcessGoneError as error:
        last_words = bundle.path / "target.stderr"
        says = f"the server ended before the first client; see {last_words}, and dmesg (out of memory?)"
        raise DidNotStartError(says) from error


async def _watchers(
    stack: AsyncExitStack, plan: Plan, bundle: Bundle, namespace: Namespace, *, facts: ServerFacts
) -> AsyncIterator[Driver]:
    """Start the canary, and beside it whoever holds connections for it."""
    canary = plan.scenario.canary
    for name, held in (("canary", 0), ("held", canary.held)) if canary else ():
        if name == "canary" or held:
            path = str(bundle.journal_path(name))
            spec = plan.canary_spec(address=facts.address, port=facts.port, path=path, held=held)
            stderr = bundle.path / f"{name}.stderr"
            sweep_display = driver(spec, namespace=namespace, stderr_path=stderr, holds=held > 0)
            yield await stack.enter_async_context(sweep_display)


def _samples_capacity(plan: Plan) -> int:
    return round(RATE_HZ * (min(plan.length_s, SAMPLED_AT_MOST_S) + AFTERWARDS_S))


def _target(plan: Plan, bundle: Bundle, namespace: Namespace) -> AbstractAsyncContextManager[Target]:
    """Return what is under test: a server that runs, the scenario's command, or the simulated server."""
    accepts, failures, sockets = (str(bundle.journal_path(name)) for name in ("accepts", "failures", "sockets"))
    output = {f"{name}_path": bundle.path / f"target.{name}" for name in ("stdout", "stderr")}
    if plan.scenario.server.is_running:
        return running(
            plan.running_spec(accepts_path=accepts, failures_path=failures, sockets_path=sockets), namespace=namespace
        )
    if plan.scenario.server.command:
        spec = plan.command_spec(accepts_path=accepts, failures_path=failures, sockets_path=sockets)
        return command(spec, namespace=namespace, **output)
    server_spec = plan.server_spec(accepts_path=accepts, failures_path=failures)
    return simulated_server(server_spec, namespace=namespace, **output)


def first_facts(setup: Setup, degraded: list[str]) -> Facts:
    """Return what is known before the load: enough to read the folder should nobody come back to it."""
    scenario, namespace = setup.plan.scenario, setup.namespace
    return Facts(
        scenario=scenario.name,
        description=scenario.description,
        seed=scenario.seed,
        settings=scenario.settings(),
        complete=False,
        interrupted="loadsim was killed, or failed, before its end",
        start_ns=0,
        load_end_ns=0,
        judged_ns=0,
        server=setup.server.facts,
        drivers=[],
        namespace=namespace.kind,
        degraded=degraded,
        notices=notices_of(setup),
        sysctls=dict(namespace.sysctls),
        prediction=dataclasses.asdict(setup.plan.prediction),
    )


def notices_of(setup: Setup) -> list[str]:
    """Return what a reader should know of how the run takes place, as far as that shows by now: whole sentences."""
    namespace = setup.namespace
    notices = [*namespace.notices, *(driver.clamped for driver in setup.drivers if driver.clamped)]
    if namespace.kind == "shared" and setup.plan.scenario.network.namespace == "private":
        notices.append(f"counters are those of the whole host: no network namespace of its own ({namespace.reason})")
    return [*notices, *setup.server.notices, *setup.sampler.notices]
