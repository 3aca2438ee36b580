"""What changes while a run goes on, and who watches from outside whether the server is up: [timeline] and [canary]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadsim.scenario.quantities import Duration, PositiveDuration, Timeout
from loadsim.scenario.tables import Contradiction, Table, key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What a step may change, each with what it is called.
CHANGES = ("nofile", "backlog", "release")
_MOST_STEPS = 100


class Step(Table):
    """One change: when, and exactly one of what."""

    at: Duration = key(..., description="When, from the start of the load.")
    nofile: int | None = key(None, ge=1, le=2**30, description="RLIMIT_NOFILE of the live server from then on.")
    backlog: int | None = key(
        None, ge=0, le=2**31 - 1, description="listen() again with this backlog; the simulated server alone can."
    )
    release: float | None = key(None, gt=0, le=1, description="So large a share of the clients that are in leaves.")

    @property
    def change(self) -> tuple[str, float]:
        """What changes, and to what."""
        return next((name, value) for name in CHANGES if (value := getattr(self, name)) is not None)

    @classmethod
    def clashes(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Yield a step that changes nothing, or two things at once."""
        named = [name for name in CHANGES if given.get(name) is not None]
        if len(named) != 1:
            says = f"a step changes exactly one of {', '.join(CHANGES)}; write two steps with the same at for two"
            yield Contradiction(tuple(named[1:2]), says)


class Timeline(Table):
    """`[timeline]`: what changes during the run."""

    steps: tuple[Step, ...] = key(
        (), strict=False, max_length=_MOST_STEPS, description='Such as [{at = "2s", nofile = 1024}].'
    )

    @property
    def ordered(self) -> list[Step]:
        """The steps in the order in which they are made."""
        return sorted(self.steps, key=lambda step: step.at)

    @property
    def last_s(self) -> float:
        """When the last step is made; 0 where there is none."""
        return max((step.at for step in self.steps), default=0.0)

    def of(self, change: str) -> list[float]:
        """Return what one setting is changed to, step by step."""
        return [value for step in self.ordered for name, value in (step.change,) if name == change]


class Canary(Table):
    """`[canary]`: an independent client that asks again and again whether the server is up."""

    every: PositiveDuration = key("250ms", description="How often it connects, exchanges one request and leaves.")
    timeout: Timeout = key("1s", description="Its patience, for the connection and again for the reply.")
    held: int = key(
        0,
        ge=0,
        le=100,
        description="Connections that it opens at the start, keeps, and asks on as often; not under hello.",
    )
    linger: Duration = key("3s", description="It goes on for so long after the last client and the last step.")
    patience: Duration = key(
        "0s", description="Where nobody answered it in that time: how long it waits for that, to linger as long again."
    )
