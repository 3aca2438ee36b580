"""The steps of a timeline, each made at its time on the live server or its clients, and read back.

Owns how a change is made and recorded. The run continues after a step that cannot be made.
"""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from loadsim.kernel.limits import set_nofile
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.record.facts import StepFacts
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.run.setup import Setup
    from loadsim.scenario.model import Step

#: The longest time until the kernel shows a change, for which it has to schedule the server, and the time between two
#: readings.
_READ_BACK_S, _POLL_S = 0.5, 0.005


async def follow(setup: Setup, start_ns: int, made: list[StepFacts]) -> None:
    """Make every step at its time and add it to `made`; return after the last one."""
    for step in setup.plan.scenario.timeline.ordered:
        await trio.sleep(max(0.0, (start_ns - time.monotonic_ns()) / NANOSECONDS + step.at))
        made.append(await _make(setup, step))


async def release_rest(setup: Setup, made: Sequence[StepFacts]) -> None:
    """Release all clients if a later step would have done so: the run ended early, and that step may be far off."""
    if any(step.change[0] == "release" for step in setup.plan.scenario.timeline.ordered[len(made) :]):
        for driver in setup.drivers:
            await driver.release(1.0)


async def _make(setup: Setup, step: Step) -> StepFacts:
    change, asked = step.change
    before = _value(setup, change)
    refused, ended = None, False
    done_ns = time.monotonic_ns()
    try:
        if change == "nofile":
            refused = _set_nofile(setup.server.pids(), step)
        elif change == "backlog":
            await setup.server.listen(int(asked))
            await _wait_changed(setup, before)
        else:
            for driver in setup.drivers:
                await driver.release(asked)
    except (OSError, ValueError) as error:
        ended = isinstance(error, ProcessLookupError) and await _has_ended(setup)
        refused = f"{change} = {asked:g} after {step.at:g} s could not be set: {error}"
    return StepFacts(
        change=change,
        asked=asked,
        done_ns=done_ns,
        before=before,
        after=_value(setup, change),
        refused=refused,
        target_ended=ended,
    )


async def _has_ended(setup: Setup) -> bool:
    """Return whether the server has ended; the kernel may show that before its parent has noticed."""
    for _ in range(round(_READ_BACK_S / _POLL_S)):
        if setup.server.facts.died:
            return True
        await trio.sleep(_POLL_S)
    return False


def _set_nofile(pids: Sequence[int], step: Step) -> str | None:
    """Change the limit of the processes that still exist; return a sentence if one got less than asked.

    Raises ProcessLookupError if none exists any more.
    """
    asked = int(step.change[1])
    in_force = []
    for pid in pids:
        with suppress(ProcessLookupError):
            in_force.append(set_nofile(pid, asked).soft)
    if not in_force:
        raise ProcessLookupError(errno.ESRCH, "the server has no process any more")
    if min(in_force) < asked:
        return f"nofile = {asked} after {step.at:g} s: limited to {min(in_force)}, the server's own hard limit"
    return None


def _value(setup: Setup, change: str) -> float | None:
    """Return the limit or the backlog in force now; None if it cannot be read."""
    sources = setup.sources
    if change == "nofile":
        try:
            return sources.process.limits().soft if sources.process else None
        except ProcessGoneError:
            return None
    listener = sources.listener() if change == "backlog" else None
    return listener.backlog if listener else None


async def _wait_changed(setup: Setup, before: float | None) -> None:
    """Wait until the backlog changes; it never does if somaxconn cuts it to the old value."""
    for _ in range(round(_READ_BACK_S / _POLL_S)):
        if _value(setup, "backlog") != before:
            return
        await trio.sleep(_POLL_S)
