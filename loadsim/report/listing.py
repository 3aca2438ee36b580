"""`loadsim list`: the scenarios that can be run, then the results that can be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadsim.report.look import ALARM, NAME, QUIET, STRONG, Look, both_ends, line, paint
from loadsim.report.terminal import VERDICTS
from loadsim.report.text import clip, left, printable, widest, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text


class Listed(Protocol):
    """A scenario with its one-line summary."""

    @property
    def name(self) -> str:
        """Under which it can be run."""

    @property
    def summary(self) -> str:
        """What it shows, in one sentence."""


def render(
    scenarios: Sequence[Listed], results: Sequence[tuple[str, str]], *, width: int, color: bool, unicode: bool
) -> str:
    """Return scenarios, then results as (name, verdict), newest last as they come; a verdict of "" was not reached."""
    look = Look(width=width, color=color, unicode=unicode)
    lines = _title("scenarios", "loadsim run NAME", look)
    lines += [text for one in scenarios for text in _scenario(one, scenarios, look)]
    lines += [line(), *_title("results", "loadsim report NAME", look)]
    lines += [_result(name, verdict, look) for name, verdict in results]
    if not results:
        lines.append(line(("  none yet", QUIET)))
    return paint(lines, look)


def _title(title: str, command: str, look: Look) -> list[Text]:
    return both_ends(line((title, STRONG)), line((f"[{command}]", QUIET)), look)


def _scenario(one: Listed, scenarios: Sequence[Listed], look: Look) -> list[Text]:
    names = min(widest([other.name for other in scenarios]), look.edge // 2)
    name = clip(printable(one.name, unicode=look.unicode), names, ellipsis=look.glyphs.ellipsis)
    first, *more = wrap(printable(one.summary.replace("\n", " "), unicode=look.unicode), look.edge - names - 4)
    return [
        line("  ", (left(name, names), NAME), "  ", first),
        *(line(" " * (names + 4), text) for text in more),
    ]


def _result(name: str, verdict: str, look: Look) -> Text:
    said = printable(verdict, unicode=look.unicode) or "no verdict"
    style = VERDICTS.get(verdict, QUIET if not verdict else ALARM)
    return line("  ", (left(said, 12), style), "  ", printable(name, unicode=look.unicode))
