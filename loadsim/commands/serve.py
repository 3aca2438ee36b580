"""`loadsim serve`: only the simulated server, for people and other load generators, with a line per event.

The server process prints nothing. These lines are read from its journals while it runs, the same source as the numbers
of a recorded run.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import signal
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, Protocol

import click

from loadsim import early_signals
from loadsim.commands import options, output
from loadsim.errors import ScenarioError
from loadsim.record.journal import HEADER_BYTES, Journal
from loadsim.record.records import ACCEPT, AcceptFlag
from loadsim.units import NANOSECONDS, format_count, format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.record.facts import ServerFacts
    from loadsim.scenario.model import Scenario
    from loadsim.scenario.specs import ServerSpec
    from loadsim.targets.simulated import Server

#: How often the journals are read.
READ_EVERY_S: Final = 0.05
#: Accepts with a line of their own per reading; further ones are counted in one line.
LINES_PER_READING: Final = 20
#: Failures are counted over this time: at most two lines per second.
FAILURES_S: Final = 0.5
#: Accepts that fit into the journal, 16 MB; further ones are only counted.
CAPACITY: Final = 262_144

_NOTES = (
    (AcceptFlag.SHED, "shed: closed unserved"),
    (AcceptFlag.FAILED, "its handler found no free descriptor"),
    (AcceptFlag.LEAKED, "never closed"),
)
_FAILED = (("emfile_accept", "accept()"), ("emfile_handler", "the handler"))
_IDLE = ("emfile_idle", "accept() on an empty queue")
#: The scenario of `loadsim serve` without SCENARIO; only the exchange of [client] matters.
_PLAIN_SERVER = 'schema = 1\nname = "serve"\n[server]\nclose_after = "client"\n[client]\nrate = "1/s"\n'


@click.command("serve", cls=options.Command, short_help="Run only the simulated server.")
@click.argument("scenario", type=options.ScenarioName(), required=False)
@options.SET_ONE
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="The port on which the server listens; 0 is any free one.",
)
@click.option("--bind", metavar="ADDRESS", help="The address on which it listens, instead of loopback.")
def command(*, scenario: str | None, overrides: tuple[str, ...], port: int, bind: str | None) -> None:
    """Run only the simulated server, for people and other load generators. Ctrl-C ends it.

    It listens on loopback in the host's network namespace unless --bind says otherwise; other hosts may reach it there.
    Without SCENARIO, it greets each client and leaks nothing.

    \b
    Exit status:
      0  it was ended by Ctrl-C or SIGTERM, or ended itself
      2  the command line or the scenario is wrong
      3  this host could not run it

    \b
    Examples:
      loadsim serve --set server.nofile=64 --set server.leak=1
      loadsim serve too-many-open-files --port 9999
      loadsim serve --bind 0.0.0.0 --port 9999
    """
    with output.explained():
        import trio

        from loadsim.scenario.toml import load, load_text

        loaded = load(scenario, overrides) if scenario else load_text(_PLAIN_SERVER, overrides)
        early_signals.begin()
        with tempfile.TemporaryDirectory(prefix="loadsim-") as folder:
            spec = spec_of(loaded, port, Path(folder), bind=bind)
            trio.run(serve, spec, click.echo)


def spec_of(scenario: Scenario, port: int, folder: Path, *, bind: str | None = None) -> ServerSpec:
    """Return the spec of a scenario's simulated server; its journals go to `folder`.

    It listens on `bind` instead of loopback. Raises ScenarioError for a scenario with another server, and for a `bind`
    that is not a numeric address.
    """
    from loadsim.run.host import observe_host
    from loadsim.scenario.plan import make_plan

    if not scenario.server.is_simulated:
        raise ScenarioError(
            "serve runs the simulated server, and this scenario uses another one; use loadsim run instead"
        )
    plan = make_plan(scenario, observe_host(scenario))
    journals = {f"{name}_path": str(folder / f"{name}.journal") for name in ("accepts", "failures")}
    spec = plan.server_spec(**journals, port=port)
    return spec if bind is None else dataclasses.replace(spec, address=_numeric(bind))


def _numeric(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ScenarioError(f'--bind "{address}" is not a numeric address; write one such as 0.0.0.0') from None


async def serve(spec: ServerSpec, out: Callable[[str], None]) -> None:
    """Run the server of the spec until Ctrl-C, SIGTERM or its own end; `out` gets one line at a time.

    Its journals, standard output and standard error go to the folder of `spec.accepts_path`.
    """
    import trio

    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.targets.simulated import simulated_server

    spec = dataclasses.replace(spec, accepts_capacity=max(spec.accepts_capacity, CAPACITY))
    folder = Path(spec.accepts_path).parent
    files = {"stdout_path": folder / "server.stdout", "stderr_path": folder / "server.stderr"}
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with simulated_server(spec, namespace=None, **files) as server:
            with ExitStack() as stack:
                accepts = stack.enter_context(Journal.attach(Path(spec.accepts_path)))
                queue = KernelQueue(stack.enter_context(SockDiag()), server.facts)
                narrator = Narrator(accepts, server.facts, queue=queue)
                _print(out, narrator.opening())
                start_ns = monotonic_ns()
                await server.go(start_ns)
                await _follow(server, narrator, signals, out)
                _print(out, narrator.closing(start_ns))
                if server.exited is not None:
                    _print(out, _last_words(server.exited, files["stderr_path"]))


async def _follow(server: Server, narrator: Narrator, signals: AsyncIterator[int], out: Callable[[str], None]) -> None:
    """Print events until a signal arrives or the server ends, including the last ones."""
    import trio

    async with trio.open_nursery() as nursery:

        async def stop_on_signal() -> None:
            async for _ in signals:
                nursery.cancel_scope.cancel()

        async def stop_on_exit() -> None:
            await server.wait_exited()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop_on_signal)
        nursery.start_soon(stop_on_exit)
        while True:
            await trio.sleep(READ_EVERY_S)
            _print(out, narrator.news(monotonic_ns()))
    _print(out, narrator.news(monotonic_ns(), final=True))


def _print(out: Callable[[str], None], lines: Iterator[str]) -> None:
    for line in lines:
        out(line)


def _last_words(status: int, stderr: Path) -> Iterator[str]:
    how = f"with status {status}" if status >= 0 else f"of {signal.Signals(-status).name}"
    yield f"the server died {how}"
    yield from stderr.read_text(errors="replace").splitlines()


class Queue(Protocol):
    """An accept queue with a length."""

    def length(self) -> int:
        """Return the number of waiting clients."""
        ...


class KernelQueue:
    """The accept queue of the server, read from the kernel."""

    def __init__(self, diag: SockDiag, facts: ServerFacts) -> None:
        self._diag = diag
        self._facts = facts

    def length(self) -> int:
        """Return the number of waiting clients, 0 when the listener is gone."""
        state = self._diag.listener(self._facts.address, self._facts.port)
        return state.queue if state else 0


class Narrator:
    """Describes the records that were added to a server's journal since the last reading."""

    def __init__(self, accepts: Journal, facts: ServerFacts, *, queue: Queue) -> None:
        self._accepts = accepts
        self._facts = facts
        self._queue = queue
        self._described = 0  # records
        self._counted: Mapping[str, int] = dict.fromkeys(accepts.index, 0)  # counters at the last line about failures
        self._failures_at = 0
        self._start_ns = monotonic_ns()

    def opening(self) -> Iterator[str]:
        """Describe where it listens and how to inspect it."""
        facts = self._facts
        where = _address(facts.address, facts.port)
        yield f"simulated server on {where}, pid {facts.pid}"
        free = max(facts.nofile_soft - facts.baseline_fds, 0)
        yield (
            f"{facts.baseline_fds} of {format_count(facts.nofile_soft)} descriptors are open, "
            f"{format_count(free)} free; the accept queue holds {format_count(facts.queue_capacity or 0)}"
        )
        yield f"inspect  ls -l /proc/{facts.pid}/fd     ss -tan 'sport = :{facts.port}'     Ctrl-C ends it"

    def news(self, now: int, *, final: bool = False) -> Iterator[str]:
        """Describe accepts one by one up to a limit, count the others, and count failures at most twice a second."""
        used = self._accepts.used
        fresh = range(self._described, used)
        self._described = used
        for slot in fresh[:LINES_PER_READING]:
            yield self._accept(slot)
        if len(fresh) > LINES_PER_READING:
            yield f"{self._since(now)}  accept   {format_count(len(fresh) - LINES_PER_READING)} more"
        if final or now - self._failures_at >= FAILURES_S * NANOSECONDS:
            yield from self._failures(now)

    def closing(self, start_ns: int) -> Iterator[str]:
        """Describe the totals."""
        total = {name: self._accepts.read(name) for name in self._accepts.index}
        took = format_duration((monotonic_ns() - start_ns) / NANOSECONDS)
        still = total["accepted"] - total["closed"]
        yield ""
        yield (
            f"{took}: {format_count(total['accepted'])} accepted, {format_count(total['closed'])} closed, "
            f"{format_count(still)} still open"
        )
        if total["shed"]:
            yield f"{format_count(total['shed'])} of them shed: accepted and closed unserved"
        for name, where in (*_FAILED, _IDLE):
            if total[name]:
                yield f"{_times(total[name])} {where} found no free descriptor (EMFILE)"
        if waiting := self._queue.length():
            yield f"{format_count(waiting)} waiting in the accept queue: connected, never served"
        if self._accepts.lost:
            yield f"{format_count(self._accepts.lost)} of them were only counted: the journal was full"

    def _accept(self, slot: int) -> str:
        """Describe one accept."""
        values = ACCEPT.struct.unpack_from(self._accepts.buffer, HEADER_BYTES + slot * ACCEPT.size)
        record = dict(zip((name for name, _ in ACCEPT.fields), values, strict=True))
        family, length = (socket.AF_INET6, 16) if any(record["peer"][4:]) else (socket.AF_INET, 4)
        peer = _address(socket.inet_ntop(family, record["peer"][:length]), record["port"])
        notes = "".join(f"   {note}" for flag, note in _NOTES if record["flags"] & flag)
        limit = format_count(self._facts.nofile_soft)
        open_fds = f"{format_count(record['open_fds'])} of {limit} open"
        return f"{self._since(record['accepted'])}  accept   fd {record['fd']:<5}  {open_fds}   from {peer}{notes}"

    def _failures(self, now: int) -> Iterator[str]:
        """Describe how often something found no free descriptor since the last such line."""
        total = {name: self._accepts.read(name) for name in self._accepts.index}
        waiting = self._queue.length()
        for name, where in _FAILED:
            if more := total[name] - self._counted[name]:
                self._failures_at = now
                yield (
                    f"{self._since(now)}  EMFILE   {where} found no free descriptor, {_times(more)}; "
                    f"{format_count(waiting)} waiting in the queue"
                )
        self._counted = total

    def _since(self, then: int) -> str:
        return f"{max(then - self._start_ns, 0) / NANOSECONDS:9.3f} s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{format_count(count)} times"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
