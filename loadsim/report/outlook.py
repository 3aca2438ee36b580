"""What `loadsim check` prints of a sweep: its cells, how long it takes, whether its repeats can tell anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.report.check import plain_time
from loadsim.report.look import GOOD, QUIET, STRONG, WARN, Look, both_ends, line, paint
from loadsim.report.prose import marked, wrapped
from loadsim.report.text import left, printable, right, widest
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from rich.text import Text

    from loadsim.analysis.outlook import Outlook


def render(outlook: Outlook, *, width: int, color: bool, unicode: bool) -> str:
    """Return what is known of a sweep before it starts, as text that ends in a newline."""
    look = Look(width=width, color=color, unicode=unicode)
    facts = f"{some(outlook.runs, 'run')}, about {format_duration(outlook.expected_s)}"
    lines = both_ends(line((printable(outlook.scenario, unicode=unicode), STRONG)), line((facts, QUIET)), look)
    lines += [*wrapped(outlook.description, look, indent=0), line()]
    name = widest([cell.label for cell in outlook.cells])
    lines.append(line((f"  {left('cells', name)}   one run   EMFILE at   queue full at", QUIET)))
    for cell in outlook.cells:
        times = (cell.expected_s, cell.emfile_at_s, cell.queue_full_at_s)
        run, emfile, full = ("-" if time is None else plain_time(time) for time in times)
        label = left(printable(cell.label, unicode=unicode), name)
        lines.append(line(f"  {label}{right(run, 10)}{right(emfile, 12)}{right(full, 16)}"))
    lines.append(line((f"  {outlook.repeat} x each, shuffled; times are predicted, - where nothing is", QUIET)))
    lines += [line(), *_power(outlook, look)]
    for cell in outlook.cells:
        for warning in cell.warnings:
            lines += marked("! ", WARN, f"{cell.label}: {warning.sentence}", look, margin="")
            lines += marked("-> ", GOOD, warning.remedy, look, margin="  ")
    return paint(lines, look)


def _power(outlook: Outlook, look: Look) -> list[Text]:
    """Return whether so many repeats can tell the cells apart."""
    if len(outlook.cells) == 1:
        return [line(("one cell: its runs show how much is chance; nothing is compared", QUIET))]
    if outlook.can_tell:
        return [line((f"{outlook.repeat} runs of each can tell any two cells apart", GOOD))]
    says = (
        f"cannot tell: {outlook.repeats_needed} repeats needed, {outlook.repeat} planned. With fewer, no difference is"
    )
    says += f" large enough to be told from chance between {len(outlook.cells)} cells."
    warned = marked("! ", WARN, says, look, margin="")
    return [*warned, *marked("-> ", GOOD, f"--repeat {outlook.repeats_needed}, or fewer cells", look, margin="  ")]
