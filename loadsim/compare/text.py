"""A comparison on a terminal, and a sweep before it starts and while it runs."""

from __future__ import annotations

import contextlib
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.compare.comparison import Says, median, medians
from loadsim.compare.statistics import pairs_of, repeats_needed
from loadsim.render.drawing import (
    ALARM,
    BAD,
    GOOD,
    QUIET,
    STRONG,
    WARN,
    Line,
    Terminal,
    both_ends,
    joined,
    line,
    paint,
    paragraph,
)
from loadsim.render.terminal import LABEL, labelled
from loadsim.render.text import clip, left, printable, right, widest, wrap
from loadsim.scenario.sweep import AROUND_A_RUN_S, short
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TextIO

    from loadsim.compare.comparison import Column, Comparison, Difference, Pair, Row
    from loadsim.render.progress import Display
    from loadsim.scenario.plan import Plan
    from loadsim.scenario.sweep import Matrix
    from loadsim.scenario.warnings import PlanWarning

_STYLES = {Says.BETTER: GOOD, Says.WORSE: BAD, Says.HIGHER: WARN, Says.LOWER: WARN}
_GAP = 2
#: Further differences are only counted.
_MOST_ROWS = 20
#: Columns of a line of `SweepLines`, and of the label in it.
_LINE, _CELL = 78, 22


def render(
    comparison: Comparison,
    terminal: Terminal,
    *,
    saved: str | None = None,
    next_steps: Sequence[str] = (),
) -> str:
    """Return a comparison as text that ends in a newline; no line is wider than the terminal.

    `saved` is its folder, None if nothing was written. Text may hold any character: control characters are shown
    escaped.
    """
    sections = [
        _head(comparison, terminal),
        _notices(comparison, terminal),
        _differences("settings that differ", comparison.settings, terminal),
        _differences("hosts that differ", comparison.hosts, terminal),
        _table(comparison, terminal),
        _answer(comparison, terminal),
        _differing(comparison, terminal),
        [*_gates(comparison, terminal), *_ends(saved, next_steps, terminal)],
    ]
    return paint(joined(sections), terminal)


def after_comparison(comparison: Comparison, folder: Path | None) -> list[str]:
    """Return commands to try after a sweep or a comparison: resume it, open its page."""
    if folder is None:
        return []
    unfinished = [] if comparison.complete else [f"loadsim run {shlex.quote(str(folder))} --resume"]
    return [*unfinished, f"loadsim report {shlex.quote(str(folder))} --open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPreview:
    """One cell before it runs."""

    label: str
    expected_s: float  # of one run
    queue_full_at_s: float | None  # predicted; None: never, or no prediction
    emfile_at_s: float | None  # the same
    warnings: list[PlanWarning]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPreview:
    """A sweep before it starts."""

    scenario: str
    description: str
    cells: list[CellPreview]
    repeat: int
    runs: int
    expected_s: float  # of all runs
    repeats_needed: int  # runs per cell to find a difference between any two cells

    @property
    def can_tell(self) -> bool:
        """Whether there are enough repeats to tell a large difference from chance."""
        return self.repeat >= self.repeats_needed


def preview_of(matrix: Matrix, plans: Sequence[Plan]) -> SweepPreview:
    """Return the preview of a sweep; `plans` has the plan of each cell."""
    cells = [
        CellPreview(
            label=cell.label,
            expected_s=plan.expected_s,
            queue_full_at_s=plan.prediction.queue_full_at_s,
            emfile_at_s=plan.prediction.emfile_at_s,
            warnings=list(plan.warnings),
        )
        for cell, plan in zip(matrix.cells, plans, strict=True)
    ]
    count = len(cells)
    return SweepPreview(
        scenario=matrix.scenario.name,
        description=matrix.scenario.description,
        cells=cells,
        repeat=matrix.repeat,
        runs=count * matrix.repeat,
        expected_s=matrix.repeat * sum(cell.expected_s + AROUND_A_RUN_S for cell in cells),
        repeats_needed=repeats_needed(len(pairs_of(count))) if count > 1 else 1,
    )


class SweepLines:
    """Prints a line for each run of a sweep, by default on standard error."""

    def __init__(self, display: Callable[[], Display], stream: TextIO | None = None) -> None:
        """Show each run with a new `display()`."""
        self._display = display
        self._stream = sys.stderr if stream is None else stream
        self._runs = 0
        self._ended = 0

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Print the name of the sweep, the number of runs and the expected time."""
        self._runs, self._ended = runs, 0
        self._print(f"{printable(name, unicode=False)}: {some(runs, 'run')}, about {format_duration(expected_s)}")

    def begin_run(self) -> Display:
        """Return the display of the next run."""
        return self._display()

    def end_run(self, label: str, status: str, sentence: str, *, left_s: float) -> None:
        """Print how a run ended, and how long the remaining runs will take."""
        self._ended += 1
        place = f"[{self._ended:>{len(str(self._runs))}}/{self._runs}]"
        left = f"{format_duration(left_s)} left" if left_s > 0 else "done"
        head = f"{place} {clip(printable(label, unicode=False), _CELL):<{_CELL}} {status:<12} "
        self._print(head + clip(printable(sentence, unicode=False), _LINE - len(head) - len(left) - 2) + f"  {left}")

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the reader is gone; that must not end the sweep
            print(text, file=self._stream, flush=True)


def _head(comparison: Comparison, terminal: Terminal) -> list[Line]:
    runs = sum(len(group.runs) for group in comparison.groups)
    load = f"load {format_duration(comparison.duration_s)}"
    facts = [some(runs, "run"), f"{some(len(comparison.groups), 'group')}", load]
    if comparison.kind == "sweep":
        swept = f"{len(comparison.groups)} x {comparison.repeat}"
        facts = [f"{some(runs, 'run')}: {swept}, shuffled", load, "medians"]
    name = terminal.clip(comparison.title.replace("\n", " "), terminal.edge)
    lines = both_ends(line((name, STRONG)), line((terminal.glyphs.dot.join(facts), QUIET)), terminal)
    return lines + paragraph(comparison.description, terminal, style=QUIET)


def _notices(comparison: Comparison, terminal: Terminal) -> list[Line]:
    return [
        text
        for notice in comparison.notices
        for text in paragraph(notice, terminal, margin="  ", mark="! ", mark_style=WARN)
    ]


def _table(comparison: Comparison, terminal: Terminal) -> list[Line]:
    """Return a line for each group, with the one of the answer marked; columns that do not fit are left out."""
    heading = short(comparison.axes[0]) if len(comparison.axes) == 1 else "cell" if comparison.axes else "runs"
    names = [terminal.prose(_name(comparison, index)) for index in range(len(comparison.groups))]
    names = [terminal.clip(name, max(terminal.edge // 2, 12)) for name in names]
    columns = [(column, medians(comparison, column)) for column in comparison.columns]
    width = widest([heading, *names])
    shown: list[tuple[Column, list[str], int]] = []
    room = terminal.edge - 4 - width
    for column, cells in columns:
        wide = widest([column.heading, *cells])
        if room < wide + _GAP:
            break
        room -= wide + _GAP
        shown.append((column, cells, wide))
    spread = min(room // max(len(shown), 1), 3)
    gap = " " * (_GAP + spread)
    heads = "".join(gap + right(column.heading, wide) for column, _, wide in shown)
    lines = [line(("    " + right(heading, width) + heads, QUIET))]
    chosen = comparison.answer.group if comparison.answer else None
    for index, name in enumerate(names):
        style = STRONG if index == chosen else ""
        mark = ("  ▶ " if terminal.unicode else "  > ", GOOD) if index == chosen else ("    ", "")
        row = [mark, (right(name, width), style)]
        for _, cells, wide in shown:
            row.append((gap + right(cells[index], wide), style))
        lines.append(line(*row))
    return lines + _legends([column for column, _, _ in shown], terminal)


def _name(comparison: Comparison, index: int) -> str:
    """Return the name of a group: its value if one setting is swept, else its label."""
    label = comparison.groups[index].label
    return label.removeprefix(short(comparison.axes[0]) + " ") if len(comparison.axes) == 1 else label


def _legends(columns: Sequence[Column], terminal: Terminal) -> list[Line]:
    legends = "; ".join(f"{column.heading}: {column.legend}" for column in columns if column.legend)
    return paragraph(legends, terminal, margin="    ", style=QUIET)


def _answer(comparison: Comparison, terminal: Terminal) -> list[Line]:
    answer = comparison.answer
    if answer is None:
        return []
    first, *more = wrap(terminal.prose(answer.sentence), terminal.edge - 8)
    lines = [line(("ANSWER  ", STRONG), (first, STRONG)), *(line(" " * 8, (text, STRONG)) for text in more)]
    for text in answer.evidence:
        lines += [line("  ", part) for part in wrap(terminal.prose(text), terminal.edge - 2)]
    for text in answer.costs:
        lines += paragraph(text, terminal, margin="  ", mark="! ", mark_style=WARN)
    for text in answer.advice:
        lines += paragraph(text, terminal, margin="  ", mark="-> ", mark_style=GOOD)
    return lines


def _differing(comparison: Comparison, terminal: Terminal) -> list[Line]:
    """Return the differences: in a sweep between the answer and the group before it, else in all pairs."""
    counted = [pair for row in comparison.rows for pair in row.pairs]
    if not counted:
        return []
    if comparison.kind == "sweep":
        return _neighbours(comparison, terminal)
    counts = {says: sum(pair.says is says for pair in counted) for says in Says}
    totals = ", ".join(f"{count} {says}" for says, count in counts.items() if count)
    lines = [line(("WHAT DIFFERS", STRONG), (f"   {totals}", QUIET))]
    rows = [(row, pair) for row in comparison.rows for pair in row.pairs if pair.says in _STYLES]
    name = widest([row.metric for row, _ in rows])
    for row, pair in rows[:_MOST_ROWS]:
        lines.append(_difference(comparison, row, pair, name))
    if len(rows) > _MOST_ROWS:
        lines.append(line((f"  and {len(rows) - _MOST_ROWS} more: see report.html", QUIET)))
    return lines


def _difference(comparison: Comparison, row: Row, pair: Pair, width: int) -> Line:
    values = f"{median(row, pair.a):>12}  ->  {median(row, pair.b):<12}"
    change = "from 0" if pair.effect is None else f"{100 * pair.effect:+,.0f} %"
    says = (left(pair.says, 8), _STYLES[pair.says])
    if len(comparison.groups) > 2:  # there is room for the label or the change, and the label is worth more
        return line("  ", left(row.metric, width), values, says, (f"  {comparison.groups[pair.b].label}", QUIET))
    return line("  ", left(row.metric, width), values, right(change, 8), "  ", says)


def _neighbours(comparison: Comparison, terminal: Terminal) -> list[Line]:
    """Return how the answer differs from the group before it in the columns of the table."""
    chosen = comparison.answer.group if comparison.answer else None
    if not chosen:
        return []
    words = []
    for column in comparison.columns:
        row = comparison.row(column.metric)
        pair = next((one for one in row.pairs if (one.a, one.b) == (chosen - 1, chosen)), None) if row else None
        if pair is not None:
            words.append(f"{column.heading} {pair.says}")
    before, after = _name(comparison, chosen - 1), _name(comparison, chosen)
    text = f"{after} compared with {before}: {', '.join(words)}"
    return [line(("  " + part, QUIET)) for part in wrap(terminal.prose(text), terminal.edge - 2)] if words else []


def _differences(title: str, differences: Sequence[Difference], terminal: Terminal) -> list[Line]:
    if not differences:
        return []
    lines = [line((title, STRONG))]
    for one in differences:
        text = f"{one.name}: {' | '.join(one.values)}"
        lines += [line("  ", part) for part in wrap(terminal.prose(text), terminal.edge - 2)]
    return lines


def _gates(comparison: Comparison, terminal: Terminal) -> list[Line]:
    glyphs = terminal.glyphs
    lines: list[Line] = []
    for gate in comparison.gates:
        mark = (glyphs.met, GOOD) if gate.ok else (glyphs.missed, ALARM)
        label = " " * LABEL if lines else "gate".ljust(LABEL)
        lines.append(line(label, mark, f" {gate.text} ({gate.measured})"))
    return lines


def _ends(saved: str | None, steps: Sequence[str], terminal: Terminal) -> list[Line]:
    return [
        *(labelled("saved in", [terminal.prose(saved)]) if saved else []),
        *labelled("next", [terminal.prose(step) for step in steps]),
    ]
