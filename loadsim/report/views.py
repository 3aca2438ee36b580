"""Who watches a run, by the name that the command line gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadsim.report.progress import Progress, View, Watcher
    from loadsim.scenario.plan import Plan


class NoView:
    """Nobody watches."""

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Show nothing."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Nothing was taken."""


class NoWatcher:
    """Nobody watches a sweep."""

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Show nothing."""

    def begin_run(self) -> View:
        """Let nobody watch the run either."""
        return NoView()

    def end_run(self, label: str, verdict: str, sentence: str, *, left_s: float) -> None:
        """Show nothing."""


def view(name: str) -> View:
    """Return the view called "live", "plain" or "none"; only the live one imports rich."""
    if name == "live":
        from loadsim.report.live import LiveView  # noqa: PLC0415 -- 0.1 s of rich, for those who watch

        return LiveView()
    if name == "plain":
        from loadsim.report.plain import PlainView  # noqa: PLC0415 -- as above

        return PlainView()
    return NoView()


def watcher(name: str) -> Watcher:
    """Return who watches a sweep: lines under every run's own view, of "plain" lines alone; nobody for "none"."""
    if name == "none":
        return NoWatcher()
    from loadsim.report.rounds import Rounds  # noqa: PLC0415 -- as above

    return Rounds((lambda: view("live")) if name == "live" else NoView)
