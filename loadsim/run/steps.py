"""The steps of a timeline, each made at its time on the live server or its clients, and read back.

Owns how a change is made and what is noted of it. A step that cannot be made is noted as such: the run goes on.
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

#: How long the kernel may take to show what a step has changed: the server has to be scheduled for it.
_READ_BACK_S, _LOOK_S = 0.5, 0.005


async def follow(setup: Setup, start_ns: int, made: list[StepFacts]) -> None:
    """Make every step at its time and note it in `made`; return when the last one is made."""
    for step in setup.plan.scenario.timeline.ordered:
        await trio.sleep(max(0.0, (start_ns - time.monotonic_ns()) / NANOSECONDS + step.at))
        made.append(await _make(setup, step))


async def let_go(setup: Setup, made: Sequence[StepFacts]) -> None:
    """Let everybody leave who would have stayed until a step that is not made any more: it may have been far off."""
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
    """Return whether the server has ended: the kernel may show that before its parent has noted it."""
    for _ in range(round(_READ_BACK_S / _LOOK_S)):
        if setup.server.facts.died:
            return True
        await trio.sleep(_LOOK_S)
    return False


def _set_nofile(pids: Sequence[int], step: Step) -> str | None:
    """Change the limit of all of them but those that have just ended; return what is not as asked, a whole sentence.

    Raises ProcessLookupError where nobody is left.
    """
    asked = int(step.change[1])
    in_force = []
    for pid in pids:
        with suppress(ProcessLookupError):
            in_force.append(set_nofile(pid, asked).soft)
    if not in_force:
        raise ProcessLookupError(errno.ESRCH, "no process of the server is left")
    if min(in_force) < asked:
        return f"nofile = {asked} after {step.at:g} s: the server's own hard limit is {min(in_force)}, and it got that"
    return None


def _value(setup: Setup, change: str) -> float | None:
    """Return what is in force now: the limit, the effective backlog; None where there is nothing to read."""
    sources = setup.sources
    if change == "nofile":
        try:
            return sources.process.limits().soft if sources.process else None
        except ProcessGoneError:
            return None
    listener = sources.listener() if change == "backlog" else None
    return listener.backlog if listener else None


async def _wait_changed(setup: Setup, before: float | None) -> None:
    """Give the server time to be scheduled; a backlog that somaxconn cuts to what it was never changes."""
    for _ in range(round(_READ_BACK_S / _LOOK_S)):
        if _value(setup, "backlog") != before:
            return
        await trio.sleep(_LOOK_S)
