"""`loadsim list`: the scenarios that can be run, then the results that can be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadsim.report.drawing import ALARM, NAME, QUIET, STRONG, Line, Terminal, both_ends, line, paint
from loadsim.report.terminal import VERDICTS
from loadsim.report.text import left, widest, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence


class Listed(Protocol):
    """A scenario with its one-line summary."""

    @property
    def name(self) -> str:
        """Under which it can be run."""

    @property
    def summary(self) -> str:
        """What it shows, in one sentence."""


def render(scenarios: Sequence[Listed], results: Sequence[tuple[str, str]], terminal: Terminal) -> str:
    """Return scenarios, then results as (name, verdict), newest last as they come; a verdict of "" was not reached."""
    lines = _title("scenarios", "loadsim run NAME", terminal)
    lines += [text for one in scenarios for text in _scenario(one, scenarios, terminal)]
    lines += [line(), *_title("results", "loadsim report NAME", terminal)]
    lines += [_result(name, verdict, terminal) for name, verdict in results]
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


def _result(name: str, verdict: str, terminal: Terminal) -> Line:
    said = terminal.printable(verdict) or "no verdict"
    style = VERDICTS.get(verdict, QUIET if not verdict else ALARM)
    return line("  ", (left(said, 12), style), "  ", terminal.printable(name))
