"""Who watches a run, by the name that the command line gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadsim.report.progress import Progress, View
    from loadsim.scenario.plan import Plan


class NoView:
    """Nobody watches."""

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Show nothing."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Nothing was taken."""


def view(name: str) -> View:
    """Return the view called "live", "plain" or "none"; only the live one imports rich."""
    if name == "live":
        from loadsim.report.live import LiveView  # noqa: PLC0415 -- 0.1 s of rich, for those who watch

        return LiveView()
    if name == "plain":
        from loadsim.report.plain import PlainView  # noqa: PLC0415 -- as above

        return PlainView()
    return NoView()
