"""Several groups of runs on a terminal: what was not the same, one table, the answer, what differs, what was decided.

The table comes before the answer, since it is the evidence; the last lines are what a terminal still shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.comparison import Says
from loadsim.report.figures import median, medians
from loadsim.report.findings import LABEL, labelled
from loadsim.report.look import ALARM, BAD, GOOD, QUIET, STRONG, WARN, Look, both_ends, line, paint
from loadsim.report.prose import marked
from loadsim.report.text import clip, left, printable, right, widest, wrap
from loadsim.scenario.sweep import short
from loadsim.units import format_duration, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from loadsim.analysis.comparison import Column, Comparison, Difference, Pair, Row

_STYLES = {Says.BETTER: GOOD, Says.WORSE: BAD, Says.HIGHER: WARN, Says.LOWER: WARN}
_GAP = 2
_MOST_ROWS = 20


def render(
    comparison: Comparison,
    *,
    width: int,
    color: bool,
    unicode: bool,
    saved: str | None = None,
    next_steps: Sequence[str] = (),
) -> str:
    """Return a comparison as text that ends in a newline and is nowhere wider than `width`.

    `saved` is its folder, None where nothing was written. Foreign text may hold any character: what could act on a
    terminal is shown escaped.
    """
    look = Look(width=width, color=color, unicode=unicode)
    sections = [
        _head(comparison, look),
        _notices(comparison, look),
        _differences("settings that differ", comparison.settings, look),
        _differences("hosts that differ", comparison.hosts, look),
        _table(comparison, look),
        _answer(comparison, look),
        _differing(comparison, look),
        [*_gates(comparison, look), *_ends(saved, next_steps, look)],
    ]
    lines: list[Text] = []
    for section in sections:
        if section:
            lines += [line(), *section] if lines else section
    return paint(lines, look)


def _line(text: str) -> str:
    return text.replace("\n", " ")


def _clean(text: str, look: Look) -> str:
    return printable(_line(text), unicode=look.unicode)


def _head(comparison: Comparison, look: Look) -> list[Text]:
    runs = sum(len(group.runs) for group in comparison.groups)
    load = f"load {format_duration(comparison.duration_s)}"
    facts = [some(runs, "run"), f"{some(len(comparison.groups), 'group')}", load]
    if comparison.kind == "sweep":
        swept = f"{len(comparison.groups)} x {comparison.repeat}"
        facts = [f"{some(runs, 'run')}: {swept}, shuffled", load, "medians"]
    name = clip(_clean(comparison.title, look), look.edge, ellipsis=look.glyphs.ellipsis)
    lines = both_ends(line((name, STRONG)), line((look.glyphs.dot.join(facts), QUIET)), look)
    said = _clean(comparison.description, look)
    return lines + [line((text, QUIET)) for text in (wrap(said, look.edge) if said else [])]


def _notices(comparison: Comparison, look: Look) -> list[Text]:
    return [text for notice in comparison.notices for text in marked("! ", WARN, _line(notice), look, margin="  ")]


# the table


def _table(comparison: Comparison, look: Look) -> list[Text]:
    """Return a line for each group under the headings, the answer's marked; columns that find no room are left out."""
    heading = short(comparison.axes[0]) if len(comparison.axes) == 1 else "cell" if comparison.axes else "runs"
    names = [_clean(_name(comparison, index), look) for index in range(len(comparison.groups))]
    names = [clip(name, max(look.edge // 2, 12), ellipsis=look.glyphs.ellipsis) for name in names]
    columns = [(column, medians(comparison, column)) for column in comparison.columns]
    width = widest([heading, *names])
    shown: list[tuple[Column, list[str], int]] = []
    room = look.edge - 4 - width
    for column, cells in columns:
        wide = widest([column.heading, *cells])
        if room < wide + _GAP:
            break
        room -= wide + _GAP
        shown.append((column, cells, wide))
    spread = min(room // max(len(shown), 1), 3)
    gap = " " * (_GAP + spread)
    lines = [line("    ", right(heading, width), *(gap + right(column.heading, wide) for column, _, wide in shown))]
    lines[0].stylize(QUIET)
    chosen = comparison.answer.group if comparison.answer else None
    for index, name in enumerate(names):
        style = STRONG if index == chosen else ""
        row = line(
            ("  > " if not look.unicode else "  ▶ ", GOOD) if index == chosen else "    ", (right(name, width), style)
        )
        for _, cells, wide in shown:
            row.append(gap + right(cells[index], wide), style)
        lines.append(row)
    return lines + _legends([column for column, _, _ in shown], look)


def _name(comparison: Comparison, index: int) -> str:
    """Return what a group is called under the heading of its axis."""
    label = comparison.groups[index].label
    return label.removeprefix(short(comparison.axes[0]) + " ") if len(comparison.axes) == 1 else label


def _legends(columns: Sequence[Column], look: Look) -> list[Text]:
    told = [f"{column.heading}: {column.legend}" for column in columns if column.legend]
    return [line(("    " + text, QUIET)) for text in wrap("; ".join(told), look.edge - 4)] if told else []


# the answer


def _answer(comparison: Comparison, look: Look) -> list[Text]:
    answer = comparison.answer
    if answer is None:
        return []
    first, *more = wrap(_clean(answer.sentence, look), look.edge - 8)
    lines = [line(("ANSWER  ", STRONG), (first, STRONG)), *(line(" " * 8, (text, STRONG)) for text in more)]
    for text in answer.evidence:
        lines += [line("  ", part) for part in wrap(_clean(text, look), look.edge - 2)]
    for text in answer.costs:
        lines += marked("! ", WARN, _line(text), look, margin="  ")
    for text in answer.advice:
        lines += marked("-> ", GOOD, _line(text), look, margin="  ")
    return lines


# what differs


def _differing(comparison: Comparison, look: Look) -> list[Text]:
    """Return what two neighbours differ in, in words: the answer and what stands before it, or the two of a pair."""
    counted = [pair for row in comparison.rows for pair in row.pairs]
    if not counted:
        return []
    if comparison.kind == "sweep":
        return _neighbours(comparison, look)
    said = {says: sum(pair.says is says for pair in counted) for says in Says}
    told = ", ".join(f"{count} {says}" for says, count in said.items() if count)
    lines = [line(("WHAT DIFFERS", STRONG), (f"   {told}", QUIET))]
    rows = [(row, pair) for row in comparison.rows for pair in row.pairs if pair.says in _STYLES]
    name = widest([row.metric for row, _ in rows])
    for row, pair in rows[:_MOST_ROWS]:
        lines.append(_difference(comparison, row, pair, name))
    if len(rows) > _MOST_ROWS:
        lines.append(line((f"  and {len(rows) - _MOST_ROWS} more, in the report", QUIET)))
    return lines


def _difference(comparison: Comparison, row: Row, pair: Pair, width: int) -> Text:
    values = f"{median(row, pair.a):>12}  ->  {median(row, pair.b):<12}"
    change = "from 0" if pair.effect is None else f"{100 * pair.effect:+,.0f} %"
    says = (left(pair.says, 8), _STYLES[pair.says])
    if len(comparison.groups) > 2:  # which of them is worth more than by how much
        return line("  ", left(row.metric, width), values, says, (f"  {comparison.groups[pair.b].label}", QUIET))
    return line("  ", left(row.metric, width), values, right(change, 8), "  ", says)


def _neighbours(comparison: Comparison, look: Look) -> list[Text]:
    """Return how the answer differs from the group before it in the metrics of the table."""
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
    text = f"{after} beside {before}: {', '.join(words)}"
    return [line(("  " + part, QUIET)) for part in wrap(_clean(text, look), look.edge - 2)] if words else []


def _differences(title: str, differences: Sequence[Difference], look: Look) -> list[Text]:
    if not differences:
        return []
    lines = [line((title, STRONG))]
    for one in differences:
        text = f"{one.name}: {' | '.join(one.values)}"
        lines += [line("  ", part) for part in wrap(_clean(text, look), look.edge - 2)]
    return lines


def _gates(comparison: Comparison, look: Look) -> list[Text]:
    glyphs = look.glyphs
    texts: list[Text] = []
    for gate in comparison.gates:
        mark = (glyphs.met, GOOD) if gate.ok else (glyphs.missed, ALARM)
        texts.append(line("gate".ljust(LABEL) if not texts else " " * LABEL, mark, f" {gate.text} ({gate.measured})"))
    return texts


def _ends(saved: str | None, steps: Sequence[str], look: Look) -> list[Text]:
    return [
        *(labelled("saved in", [_clean(saved, look)]) if saved else []),
        *labelled("next", [_clean(step, look) for step in steps]),
    ]
