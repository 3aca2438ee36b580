"""The speed of the engine, compared with an equivalent client in C and with wrk, and its accuracy in an open loop.

    python tests/bench/bench_engine.py [CASE...] [--pairs N] [--seconds S] [--eager]

Absolute numbers mean little on a shared machine. Each case therefore runs both programs in turn, in pairs, and its
result is the median ratio of the pairs; every other pair starts with the other program. The server is a small C program
(`server.c`), fast enough not to be the bottleneck. gcc compiles it and the client. The engine records every attempt,
the other programs record nothing. Needs two cores, gcc, and wrk for http.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from loadsim.exchange import Exchange
from loadsim.fates import Outcome
from loadsim.record.journal import Journal
from loadsim.record.recording import records_of
from loadsim.run.setup import driver
from loadsim.scenario.client import Client
from loadsim.scenario.fields import carried
from loadsim.scenario.specs import ClientSettings, LoadSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.record.facts import DriverFacts
    from loadsim.record.recording import Records

HERE = Path(__file__).parent
CLIENT_CPU, OTHER_CPU = 0, 1

#: One driver in a closed loop; a case changes some settings.
PLAIN = LoadSpec(
    **carried(
        Client.model_validate({"clients": 1, "exchange": "none", "connect_timeout": "5s", "reply_timeout": "5s"}),
        ClientSettings,
    ),
    share=0,
    address="127.0.0.1",
    port=0,
    stages=[],
    clients=0,
    duration_s=1.0,
    max_in_flight=10_000,
    first_source=0,
    seed=1,
    attempts_path="",
    attempts_capacity=500_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison: the exchange, how the client closes, the core of the server, and the ratio to reach."""

    exchange: Exchange
    close: str
    clients: int
    server_cpu: int
    goal: float | None = None


CASES = {
    "none-one-core": Case(exchange=Exchange.NONE, close="rst", clients=100, server_cpu=CLIENT_CPU, goal=0.85),
    "none-apart": Case(exchange=Exchange.NONE, close="rst", clients=100, server_cpu=OTHER_CPU, goal=0.8),
    "http-one-core": Case(exchange=Exchange.HTTP, close="fin", clients=200, server_cpu=CLIENT_CPU, goal=0.9),
    "http-apart": Case(exchange=Exchange.HTTP, close="fin", clients=200, server_cpu=OTHER_CPU, goal=0.9),
    "hello-one-core": Case(exchange=Exchange.HELLO, close="rst", clients=100, server_cpu=CLIENT_CPU),
    "hello-apart": Case(exchange=Exchange.HELLO, close="rst", clients=100, server_cpu=OTHER_CPU),
}


def main() -> None:
    """Run the cases named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CASES, "pacing"]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(names)}; default: all")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run; wrk takes whole seconds")
    parser.add_argument(
        "--eager", action="store_true", help="let the C client read TCP_INFO after connect(), as the engine does"
    )
    options = parser.parse_args()
    if unknown := set(options.cases) - set(names):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="loadsim-bench-") as folder:
        bench = Bench(Path(folder), seconds=options.seconds, eager=options.eager)
        for name in options.cases or names:
            if name == "pacing":
                bench.pace()
            else:
                bench.compare(name, CASES[name], options.pairs)


class Bench:
    """The programs to compare, compiled into a folder."""

    def __init__(self, folder: Path, *, seconds: float, eager: bool) -> None:
        self._folder = folder
        self._seconds = seconds
        self._eager = ["eager"] if eager else []
        for name in ("server", "client"):
            subprocess.run([tool("gcc"), "-O2", "-Wall", "-o", folder / name, HERE / f"{name}.c"], check=True)

    def compare(self, name: str, case: Case, pairs: int) -> None:
        """Print the connections per second of both programs, pair by pair, and the median ratio."""
        rival, measure = ("wrk", self._wrk) if case.exchange is Exchange.HTTP else ("C", self._client)
        show(f"{name}: {case.exchange}, close {case.close}, {case.clients} clients, {self._seconds:g} s a run")
        show(f"  {'loadsim':>10} {rival:>10}   ratio")
        ratios = []
        with self._server(case.exchange, case.server_cpu) as port:
            for pair in range(pairs):
                order = (self._engine, measure) if pair % 2 else (measure, self._engine)
                measured = {program: program(case, port) for program in order}
                ours, theirs = measured[self._engine], measured[measure]
                ratios.append(ours / theirs)
                show(f"  {ours:>10,.0f} {theirs:>10,.0f}   {ratios[-1]:.3f}")
        goal = "" if case.goal is None else f" (to reach: {case.goal})"
        show(f"  median of {pairs}: {statistics.median(ratios):.3f}{goal}\n")

    def pace(self, rate: float = 2000.0, seconds: float = 10.0) -> None:
        """Print how late the engine is in an open loop, and how much of a core it uses."""
        with self._server(Exchange.HELLO, OTHER_CPU) as port:
            settings = {"exchange": Exchange.HELLO, "stages": [[seconds, rate, rate]], "duration_s": seconds}
            records, facts = self._drive(port, **settings)
        lag = (records["started"].astype(np.int64) - records["intended"].astype(np.int64)) / 1e6
        p50, p99, most = np.percentile(lag, [50, 99, 100])
        show(f"pacing: open loop, {rate:,.0f}/s for {seconds:g} s, hello: {len(records):,} attempts")
        show(f"  lag p50 {p50:.3f} ms, p99 {p99:.3f} ms (to reach: 0.5), max {most:.2f} ms")
        show(f"  {facts.cpu_ns / facts.wall_ns:.2f} of a core (to reach: 0.5)\n")

    def _engine(self, case: Case, port: int) -> float:
        """Return the connections per second of one driver in a closed loop."""
        settings = {"exchange": case.exchange, "close": case.close, "clients": case.clients}
        records, _ = self._drive(port, **settings, duration_s=self._seconds)
        good = np.isin(records["outcome"], [Outcome.OK, Outcome.CONNECTED])
        if not good.all():
            show(f"  {(~good).sum()} of {len(records)} attempts failed")
        return float(good.sum() / (records["ended"].max() - records["intended"].min()) * 1e9)

    def _drive(self, port: int, **settings: Any) -> tuple[Records, DriverFacts]:  # noqa: ANN401  # any field of the spec
        """Run one driver to its end and return its records."""
        path = self._folder / "attempts"
        path.unlink(missing_ok=True)
        spec = replace(PLAIN, port=port, attempts_path=str(path), **settings)

        async def run() -> DriverFacts:
            async with driver(spec, namespace=None, stderr_path=self._folder / "stderr") as one:
                await one.go(time.monotonic_ns() + 50_000_000)
                return await one.wait_finished()

        with on_cpu(CLIENT_CPU):
            facts = trio.run(run)
        with Journal.attach(path) as journal:
            return records_of(journal), facts

    def _client(self, case: Case, port: int) -> float:
        """Return the connections per second of the C client."""
        values = [port, case.clients, self._seconds, case.exchange, case.close, *self._eager]
        connections, seconds, _ = output_of([self._folder / "client", *values]).split()
        return int(connections) / float(seconds)

    def _wrk(self, case: Case, port: int) -> float:
        """Return the requests per second that wrk counts."""
        options = ["-t1", f"-c{case.clients}", f"-d{max(1, round(self._seconds))}", "-H", "Connection: close"]
        output = output_of([tool("wrk"), *options, f"http://127.0.0.1:{port}/"])
        return float(next(line.split()[1] for line in output.splitlines() if line.startswith("Requests/sec:")))

    @contextmanager
    def _server(self, exchange: Exchange, cpu: int) -> Iterator[int]:
        """Run the C server on a core and yield its port."""
        command = [str(self._folder / "server"), str(exchange)]
        with on_cpu(cpu):
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with server:
            assert server.stdin is not None
            assert server.stdout is not None
            yield int(server.stdout.readline())
            server.stdin.close()


def output_of(command: list[object]) -> str:
    """Run a command on the core of the clients and return its output."""
    with on_cpu(CLIENT_CPU):
        ran = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True)
    return ran.stdout


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Bind this process and its new children to a core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tool(name: str) -> str:
    """Return the path of a program; exits where it is not installed."""
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not installed: install it, or run only cases that do not need it")
    return path


def show(line: str) -> None:
    """Print a line at once: a case takes half a minute."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
