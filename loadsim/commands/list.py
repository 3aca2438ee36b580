"""`loadsim list`: the scenarios that can be run, then the results that can be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import click

from loadsim.commands import options, output
from loadsim.render.drawing import ALARM, NAME, QUIET, STATUSES, STRONG, Line, Terminal, both_ends, line, paint
from loadsim.render.text import left, widest, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Listed(Protocol):
    """A scenario with a one-line summary."""

    @property
    def name(self) -> str:
        """The name that `loadsim run` takes."""

    @property
    def summary(self) -> str:
        """One sentence about what it shows."""


@click.command("list", cls=options.Command, short_help="List scenarios and results.")
@options.OUT
def command(*, out: Path) -> None:
    """List the shipped scenarios, then the results in --out with their status, the newest last.

    The status of a sweep is its number of runs.

    \b
    Exit status:
      0  they were listed
      2  the folder could not be read, or the command line is wrong

    \b
    Examples:
      loadsim list
      loadsim list --out ci-results
    """
    with output.explained():
        from loadsim.record.folder import results, status_of
        from loadsim.scenario.shipped import shipped

        found = [(path.name, status_of(path)) for path in results(out)]
        output.put(render(shipped(), found, output.terminal()))


def render(scenarios: Sequence[Listed], results: Sequence[tuple[str, str]], terminal: Terminal) -> str:
    """Return scenarios, then results as (name, status) in the order given; the status of an unfinished run is ""."""
    lines = _title("scenarios", "loadsim run NAME", terminal)
    lines += [text for one in scenarios for text in _scenario(one, scenarios, terminal)]
    lines += [line(), *_title("results", "loadsim report NAME", terminal)]
    lines += [_result(name, status, terminal) for name, status in results]
    if not results:
        lines.append(line(("  none yet", QUIET)))
    return paint(lines, terminal)


def _title(title: str, command: str, terminal: Terminal) -> list[Line]:
    return both_ends(line((title, STRONG)), line((f"[{command}]", QUIET)), terminal)


def _scenario(one: Listed, scenarios: Sequence[Listed], terminal: Terminal) -> list[Line]:
    names = min(widest([other.name for other in scenarios]), terminal.edge // 2)
    name = terminal.clip(one.name, names)
    first, *more = wrap(terminal.prose(one.summary), terminal.edge - names - 4)
    return [
        line("  ", (left(name, names), NAME), "  ", first),
        *(line(" " * (names + 4), text) for text in more),
    ]


def _result(name: str, status: str, terminal: Terminal) -> Line:
    shown = terminal.printable(status) or "no status"
    style = STATUSES.get(status, ALARM if status else QUIET)
    return line("  ", (left(shown, 12), style), "  ", terminal.printable(name))
