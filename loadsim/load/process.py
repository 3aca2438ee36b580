"""The conductor's side of a driver: tell it when, hear that it has finished.

Owns what is known of it; the process itself is a `kernel.partner`. A driver that dies while the load runs is data, not
an exception.
"""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from loadsim.kernel.partner import partner
from loadsim.record.facts import DriverFacts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from loadsim.kernel.netns import Namespace
    from loadsim.kernel.partner import Partner
    from loadsim.scenario.spec import LoadSpec


class Driver:
    """One driver process that is ready. Every order to one that has died does nothing."""

    def __init__(self, process: Partner, spec: LoadSpec) -> None:
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
    module, what = ("loadsim.load.held", "the held clients") if holds else ("loadsim.load.driver", "a driver")
    async with partner(module, dataclasses.asdict(spec), what=what, namespace=namespace, stderr=stderr_path) as process:
        yield Driver(process, spec)
