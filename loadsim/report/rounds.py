"""A sweep as it goes: a line for each run that has ended, and the time that is left; the run itself has its view."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from loadsim.report.text import clip, printable
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from loadsim.report.progress import View

_WIDEST = 78
_LABEL = 22


class Rounds:
    """Lines on standard error."""

    def __init__(self, view: Callable[[], View], stream: TextIO | None = None) -> None:
        """`view` gives who watches each single run."""
        self._view = view
        self._stream = sys.stderr if stream is None else stream
        self._runs = 0
        self._ended = 0

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Say what is about to run."""
        self._runs, self._ended = runs, 0
        self._print(f"{printable(name, unicode=False)}: {some(runs, 'run')}, about {format_duration(expected_s)}")

    def begin_run(self) -> View:
        """Return who watches the next run."""
        return self._view()

    def end_run(self, label: str, verdict: str, sentence: str, *, left_s: float) -> None:
        """Print how a run ended, and how long the others will take."""
        self._ended += 1
        place = f"[{self._ended:>{len(str(self._runs))}}/{self._runs}]"
        left = f"{format_duration(left_s)} left" if left_s > 0 else "done"
        head = f"{place} {clip(printable(label, unicode=False), _LABEL):<{_LABEL}} {verdict:<12} "
        self._print(head + clip(printable(sentence, unicode=False), _WIDEST - len(head) - len(left) - 2) + f"  {left}")

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # whoever read our progress has gone; the sweep is worth more
            print(text, file=self._stream, flush=True)
