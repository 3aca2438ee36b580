"""Everything that a run needs, opened in order: namespace, target, drivers, sampler.

Owns the conductor's side of a driver, and the facts that are known before the load.
"""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.errors import DidNotStartError
from loadsim.kernel.limits import own_nofile
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.process.launch import controlled_child
from loadsim.process.netns import private_namespace, shared_namespace
from loadsim.record.facts import DriverFacts, Facts
from loadsim.record.journal import Journal
from loadsim.record.records import SAMPLE
from loadsim.run.sampler import RATE_HZ, Monitor, Sampler
from loadsim.targets.attached import attached
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
    from loadsim.targets import Sources, Target

#: Samples are taken for this much longer than the load can last. Space is reserved for at most an hour (55 MB); any
#: further samples are only counted.
AFTERWARDS_S = 15
SAMPLED_AT_MOST_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that is open while the load runs."""

    plan: Plan
    bundle: Bundle
    namespace: Namespace
    server: Target
    drivers: Sequence[Driver]
    observers: Sequence[Driver]  # the canary, and the held clients
    sources: Sources
    sampler: Sampler
    monitor: Monitor


def open_namespace(scenario: Scenario) -> AbstractAsyncContextManager[Namespace]:
    """Return the network namespace for the scenario, or the shared one with the reason why it has no private one."""
    return shared_namespace() if scenario.network.namespace == "host" else private_namespace(scenario.sysctl)


def not_in_force(scenario: Scenario, namespace: Namespace) -> list[str]:
    """Return a sentence with the remedy for each setting that this host cannot put in force."""
    sentences = list(namespace.not_applied)
    if namespace.kind == "shared" and scenario.sysctl:
        sentences.append(f"[sysctl] needs a private network namespace: {namespace.reason}")
    hard = own_nofile().hard
    if scenario.server.nofile is not None and scenario.server.nofile > hard:
        sentences.append(
            f"server.nofile = {scenario.server.nofile} is above this host's hard limit of {hard}: raise it "
            f"(ulimit -Hn {scenario.server.nofile}, as root), or use --set server.nofile={hard}"
        )
    return sentences


@asynccontextmanager
async def open_setup(plan: Plan, bundle: Bundle, namespace: Namespace) -> AsyncIterator[Setup]:
    """Start server and drivers, and open the sampler; all of them have ended after the block."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_target(plan, bundle, namespace))
        facts, drivers, paths = server.facts, [], []
        for share in range(plan.scenario.client.processes):
            path = bundle.journal_path(f"attempts-{share}")
            spec = plan.load_spec(share, address=facts.address, port=facts.port, attempts_path=str(path))
            stderr = bundle.path / f"driver-{share + 1}.stderr"
            drivers.append(await stack.enter_async_context(driver(spec, namespace=namespace, stderr_path=stderr)))
            paths.append(path)
        observers = [one async for one in _observers(stack, plan, bundle, namespace, facts=server.facts)]
        sources = _sources(server, stack.enter_context(ExitStack()), bundle, namespace)
        samples = Journal.create(bundle.journal_path("samples"), SAMPLE, _samples_capacity(plan))
        sampler = Sampler(stack.enter_context(samples), sources)
        attempts = [stack.enter_context(Journal.attach(path)) for path in paths]
        accepts = stack.enter_context(Journal.attach(bundle.journal_path("accepts")))
        canary = stack.enter_context(Journal.attach(bundle.journal_path("canary"))) if observers else None
        yield Setup(
            plan=plan,
            bundle=bundle,
            namespace=namespace,
            server=server,
            drivers=drivers,
            observers=observers,
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


def first_facts(setup: Setup, degraded: list[str]) -> Facts:
    """Return the facts that are known before the load: enough to read the folder if loadsim is killed."""
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
    """Return the sentences about how the run takes place that are known so far."""
    namespace = setup.namespace
    notices = [*namespace.notices, *(driver.clamped for driver in setup.drivers if driver.clamped)]
    if namespace.kind == "shared" and setup.plan.scenario.network.namespace == "private":
        notices.append(f"counters cover the host, because there is no private network namespace: {namespace.reason}")
    return [*notices, *setup.server.notices, *setup.sampler.notices]


class Driver:
    """One driver process that is ready. Orders to a driver that has died do nothing."""

    def __init__(self, process: ControlledChild, spec: LoadSpec) -> None:
        self.child = process.child
        self._process = process
        self._share = spec.share

    @property
    def clamped(self) -> str | None:
        """A sentence if its own limit reduces the plan, otherwise None."""
        clamped: str | None = self._process.ready["clamped"]
        return clamped

    async def go(self, start_ns: int) -> None:
        """Start the load at this moment of CLOCK_MONOTONIC."""
        await self._process.tell({"do": "go", "start_ns": start_ns})

    async def stop(self) -> None:
        """Start no further attempts; the attempts in flight finish."""
        await self._process.tell({"do": "stop"})

    async def release(self, share: float) -> None:
        """Disconnect this fraction of the connected clients now; their records get the flag RELEASED."""
        await self._process.tell({"do": "release", "share": share})

    async def freeze(self) -> None:
        """Record everything in flight as unfinished now; the sockets stay open."""
        await self._process.tell({"do": "freeze"})

    async def wait_finished(self) -> DriverFacts:
        """Wait until every attempt has ended or was recorded; `exit_status` is set if the driver died instead."""
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
        """Close every open socket of the driver by RST; return their number, 0 if the driver died."""
        answer = await self._process.ask("reset", "reset")
        return int((answer or {}).get("closed", 0))

    async def leave(self) -> None:
        """Ask it to exit and wait for that; it is killed if it does not exit within some seconds."""
        await self._process.leave()


@asynccontextmanager
async def driver(
    spec: LoadSpec, *, namespace: Namespace | None, stderr_path: Path, holds: bool = False
) -> AsyncIterator[Driver]:
    """Start a driver and wait until it is ready; at the end of the block it is asked to exit, or killed.

    `holds` starts the driver of the held clients (`driver.held`). Its standard error goes to `stderr_path`. Raises
    EnvironmentRefusedError, with the remedy, if it cannot start.
    """
    module, what = ("loadsim.driver.held", "the held clients") if holds else ("loadsim.driver.driver", "a driver")
    async with controlled_child(
        module, dataclasses.asdict(spec), what=what, namespace=namespace, stderr=stderr_path
    ) as process:
        yield Driver(process, spec)


def _target(plan: Plan, bundle: Bundle, namespace: Namespace) -> AbstractAsyncContextManager[Target]:
    """Return the server under test: an attached server, the scenario's command, or the simulated server."""
    accepts, failures, sockets = (str(bundle.journal_path(name)) for name in ("accepts", "failures", "sockets"))
    output = {f"{name}_path": bundle.path / f"target.{name}" for name in ("stdout", "stderr")}
    if plan.scenario.server.is_running:
        return attached(
            plan.running_spec(accepts_path=accepts, failures_path=failures, sockets_path=sockets), namespace=namespace
        )
    if plan.scenario.server.command:
        spec = plan.command_spec(accepts_path=accepts, failures_path=failures, sockets_path=sockets)
        return command(spec, namespace=namespace, **output)
    server_spec = plan.server_spec(accepts_path=accepts, failures_path=failures)
    return simulated_server(server_spec, namespace=namespace, **output)


async def _observers(
    stack: AsyncExitStack, plan: Plan, bundle: Bundle, namespace: Namespace, *, facts: ServerFacts
) -> AsyncIterator[Driver]:
    """Start the canary and the held clients, if the scenario has them."""
    canary = plan.scenario.canary
    for name, held in (("canary", 0), ("held", canary.held)) if canary else ():
        if name == "canary" or held:
            path = str(bundle.journal_path(name))
            spec = plan.canary_spec(address=facts.address, port=facts.port, path=path, held=held)
            stderr = bundle.path / f"{name}.stderr"
            observer = driver(spec, namespace=namespace, stderr_path=stderr, holds=held > 0)
            yield await stack.enter_async_context(observer)


def _sources(server: Target, stack: ExitStack, bundle: Bundle, namespace: Namespace) -> Sources:
    try:
        return server.sources(stack, namespace.diag)
    except ProcessGoneError as error:
        last_words = bundle.path / "target.stderr"
        message = f"the server ended before the first client; see {last_words}, and dmesg (out of memory?)"
        raise DidNotStartError(message) from error


def _samples_capacity(plan: Plan) -> int:
    return round(RATE_HZ * (min(plan.length_s, SAMPLED_AT_MOST_S) + AFTERWARDS_S))
