"""What `loadsim check` prints of a sweep: its cells, how long it takes, whether its repeats can tell anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.check import plain_time
from loadsim.report.drawing import GOOD, QUIET, STRONG, WARN, Line, Terminal, both_ends, line, paint, paragraph
from loadsim.report.text import left, right, widest
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from loadsim.analysis.outlook import Outlook


def render(outlook: Outlook, terminal: Terminal) -> str:
    """Return what is known of a sweep before it starts, as text that ends in a newline."""
    facts = f"{some(outlook.runs, 'run')}, about {format_duration(outlook.expected_s)}"
    lines = both_ends(line((terminal.printable(outlook.scenario), STRONG)), line((facts, QUIET)), terminal)
    lines += [*paragraph(outlook.description, terminal, style=QUIET), line()]
    name = widest([cell.label for cell in outlook.cells])
    lines.append(line((f"  {left('cells', name)}   one run   EMFILE at   queue full at", QUIET)))
    for cell in outlook.cells:
        times = (cell.expected_s, cell.emfile_at_s, cell.queue_full_at_s)
        run, emfile, full = ("-" if time is None else plain_time(time) for time in times)
        label = left(terminal.printable(cell.label), name)
        lines.append(line(f"  {label}{right(run, 10)}{right(emfile, 12)}{right(full, 16)}"))
    lines.append(line((f"  {outlook.repeat} x each, shuffled; times are predicted, - where nothing is", QUIET)))
    lines += [line(), *_power(outlook, terminal)]
    for cell in outlook.cells:
        for warning in cell.warnings:
            lines += paragraph(f"{cell.label}: {warning.sentence}", terminal, mark="! ", mark_style=WARN)
            lines += paragraph(warning.remedy, terminal, margin="  ", mark="-> ", mark_style=GOOD)
    return paint(lines, terminal)


def _power(outlook: Outlook, terminal: Terminal) -> list[Line]:
    """Return whether so many repeats can tell the cells apart."""
    if len(outlook.cells) == 1:
        return [line(("one cell: its runs show how much is chance; nothing is compared", QUIET))]
    if outlook.can_tell:
        return [line((f"{outlook.repeat} runs of each can tell any two cells apart", GOOD))]
    says = (
        f"cannot tell: {outlook.repeats_needed} repeats needed, {outlook.repeat} planned. With fewer, no difference is"
    )
    says += f" large enough to be told from chance between {len(outlook.cells)} cells."
    warned = paragraph(says, terminal, mark="! ", mark_style=WARN)
    return [
        *warned,
        *paragraph(
            f"--repeat {outlook.repeats_needed}, or fewer cells", terminal, margin="  ", mark="-> ", mark_style=GOOD
        ),
    ]
