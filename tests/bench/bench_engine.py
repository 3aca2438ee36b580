"""How fast the engine is, beside an equivalent client in C and beside wrk, and how well it keeps a schedule.

    python tests/bench/bench_engine.py [none-one-core] [none-apart] [http-apart] [http-one-core] [hello-apart] [pacing]

Absolute numbers say little on a shared machine: each case runs both sides in turn, in pairs, and its result is the
median of the pairs' ratios. The server is a small one in C (`server.c`), so that it is never what is measured; gcc
compiles it and the client. The engine records everything, the others nothing. Needs two cores, gcc, and wrk for http.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trio

from loadsim.exchange import Exchange
from loadsim.load.process import driver
from loadsim.record.arrays import records_of
from loadsim.record.events import Outcome
from loadsim.record.journal import Journal
from loadsim.scenario.spec import LoadSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.record.arrays import Records
    from loadsim.record.facts import DriverFacts

HERE = Path(__file__).parent
CLIENT_CPU, OTHER_CPU = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison: what is exchanged, how it closes, on which core the server is, and the ratio to reach."""

    exchange: Exchange
    close: str
    clients: int
    server_cpu: int
    goal: float | None


CASES = {
    "none-one-core": Case(exchange=Exchange.NONE, close="rst", clients=100, server_cpu=CLIENT_CPU, goal=0.85),
    "none-apart": Case(exchange=Exchange.NONE, close="rst", clients=100, server_cpu=OTHER_CPU, goal=0.8),
    "http-one-core": Case(exchange=Exchange.HTTP, close="fin", clients=200, server_cpu=CLIENT_CPU, goal=0.9),
    "http-apart": Case(exchange=Exchange.HTTP, close="fin", clients=200, server_cpu=OTHER_CPU, goal=0.9),
    "hello-apart": Case(exchange=Exchange.HELLO, close="rst", clients=100, server_cpu=OTHER_CPU, goal=None),
}


#: A driver's load, but for what a case says.
PLAIN = LoadSpec(
    share=0,
    processes=1,
    address="127.0.0.1",
    port=0,
    stages=[],
    arrivals="constant",
    clients=0,
    attempts=None,
    duration_s=1.0,
    max_in_flight=10_000,
    hold_s=0.0,
    exchange=Exchange.NONE,
    close="fin",
    connect_timeout_s=5.0,
    reply_timeout_s=5.0,
    sources=1,
    seed=1,
    attempts_path="",
    attempts_capacity=1_000_000,
)


def main() -> None:
    """Run the cases named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[*CASES, "pacing", []], help="default: all")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run; wrk takes whole seconds")
    parser.add_argument("--eager", action="store_true", help="let the C client ask TCP_INFO after connect(), as we do")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loadsim-bench-") as temporary:
        bench = Bench(Path(temporary), seconds=options.seconds, eager=options.eager)
        for name in options.case or [*CASES, "pacing"]:
            if name == "pacing":
                bench.pace()
            elif CASES[name].exchange is Exchange.HTTP and not shutil.which("wrk"):
                print(f"{name}: skipped, wrk is not installed")
            else:
                bench.compare(name, CASES[name], options.pairs)


class Bench:
    """The programs to compare, in a folder of their own."""

    def __init__(self, folder: Path, *, seconds: float, eager: bool) -> None:
        self._folder = folder
        self._seconds = seconds
        self._eager = ["eager"] if eager else []
        for name in ("server", "client"):
            subprocess.run(["gcc", "-O2", "-Wall", "-o", folder / name, HERE / f"{name}.c"], check=True)

    def compare(self, name: str, case: Case, pairs: int) -> None:
        """Print the connections per second of both sides, pair by pair, and the median ratio."""
        rival = "wrk" if case.exchange is Exchange.HTTP else "C"
        print(f"{name}: {case.exchange}, close {case.close}, {case.clients} clients, {self._seconds:g} s a run")
        print(f"  {'loadsim':>10} {rival:>10}   ratio")
        ratios = []
        with self._server(case.exchange, case.server_cpu) as port:
            for _ in range(pairs):
                ours = self._engine(case, port)
                theirs = self._wrk(case, port) if rival == "wrk" else self._client(case, port)
                ratios.append(ours / theirs)
                print(f"  {ours:>10,.0f} {theirs:>10,.0f}   {ratios[-1]:.3f}", flush=True)
        goal = "" if case.goal is None else f", to reach: {case.goal}"
        print(f"  median of {pairs}: {statistics.median(ratios):.3f}{goal}\n")

    def pace(self, rate: float = 2000.0, seconds: float = 10.0) -> None:
        """Print how far the engine is behind an open loop's schedule, and what it takes of a core."""
        with self._server(Exchange.HELLO, OTHER_CPU) as port:
            records, facts = self._drive(
                port, exchange=Exchange.HELLO, stages=[[seconds, rate, rate]], duration_s=seconds
            )
        lag = (records["started"] - records["intended"]) / 1e6
        p50, p99, most = np.percentile(lag, [50, 99, 100])
        core = facts.cpu_ns / facts.wall_ns
        print(f"pacing: open loop, {rate:,.0f}/s for {seconds:g} s, hello: {len(records):,} attempts")
        print(f"  lag p50 {p50:.3f} ms, p99 {p99:.3f} ms (to reach: 0.5), max {most:.2f} ms")
        print(f"  {core:.2f} of a core (to reach: 0.5)\n")

    def _engine(self, case: Case, port: int) -> float:
        """Return the connections per second of one driver in a closed loop."""
        records, _ = self._drive(
            port, exchange=case.exchange, close=case.close, clients=case.clients, duration_s=self._seconds
        )
        good = (records["outcome"] == Outcome.OK) | (records["outcome"] == Outcome.CONNECTED)
        if not good.all():
            print(f"  {(~good).sum()} of {len(records)} attempts failed")
        return float(good.sum() / (records["ended"].max() - records["intended"].min()) * 1e9)

    def _drive(self, port: int, **settings: object) -> tuple[Records, DriverFacts]:
        path = self._folder / "attempts"
        path.unlink(missing_ok=True)
        spec = replace(PLAIN, port=port, attempts_path=str(path), **settings)

        async def run() -> DriverFacts:
            with on_cpu(CLIENT_CPU):  # inherited by the driver
                starting = driver(spec, namespace=None, stderr_path=self._folder / "stderr")
                one = await starting.__aenter__()
            try:
                await one.go(time.monotonic_ns() + 50_000_000)
                return await one.wait_finished()
            finally:
                await starting.__aexit__(None, None, None)

        facts = trio.run(run)
        with Journal.attach(path) as journal:
            return records_of(journal), facts

    def _client(self, case: Case, port: int) -> float:
        """Return the connections per second of the C client."""
        values = [port, case.clients, self._seconds, case.exchange, case.close, *self._eager]
        said = self._run([self._folder / "client", *values])
        connections, seconds, _ = said.split()
        return int(connections) / float(seconds)

    def _wrk(self, case: Case, port: int) -> float:
        """Return the requests per second that wrk counts."""
        seconds = max(1, round(self._seconds))
        options = ["-t1", f"-c{case.clients}", f"-d{seconds}", "-H", "Connection: close"]
        said = self._run(["wrk", *options, f"http://127.0.0.1:{port}/"])
        return float(next(line.split()[1] for line in said.splitlines() if line.startswith("Requests/sec:")))

    def _run(self, command: list[object]) -> str:
        with on_cpu(CLIENT_CPU):
            ran = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True)
        return ran.stdout

    @contextmanager
    def _server(self, exchange: Exchange, cpu: int) -> Iterator[int]:
        """Run the C server on a core and yield its port."""
        with on_cpu(cpu):
            server = subprocess.Popen(
                [self._folder / "server", exchange], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        with server:
            assert server.stdout is not None
            yield int(server.stdout.readline())
            assert server.stdin is not None
            server.stdin.close()


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Bind this process to a core; what it starts meanwhile stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    main()
