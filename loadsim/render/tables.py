"""The tables of a run on a terminal: the ledger, latencies, and growth (metrics by number of open descriptors)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.fates import FATES, Outcome, Tone
from loadsim.render.drawing import ALARM, BAD, GOOD, QUIET, STRONG, WARN, Line, bar, line, paragraph
from loadsim.render.text import doubts, left, right, widest, wrap
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.analysis.summary import Band, Summary
    from loadsim.render.drawing import Part, Terminal

_STATISTICS = ("p50", "p90", "p99", "p999", "max")
_FAMILIES = {
    "connect": "from scheduled start",
    "accept_least": "queued, at least",
    "accept": "in the accept queue",
    "reply": "start to first byte",
    "held.reply": "of held connections",
}
_LABEL = 19
_NUMBER = 9
_GAP = 2
_SIGN = 4  # the margin, with a sign for growth points
_ALL = "in all"
_NO_DATA = "-"
_BARS = "longest wait in the queue"
_WIDEST_BAR = 32
#: All columns fit from this width on.
_ROOMY = 100
#: The style of a fate's bar.
_STYLES = {
    Tone.GOOD: GOOD,
    Tone.WARN: WARN,
    Tone.BAD: BAD,
    Tone.PHANTOM: BAD,
    Tone.GENERATOR: WARN,
    Tone.UNKNOWN: QUIET,
}
_FATE = 11
_LEDGER_GAP = 2
_APART = 3  # between the fates (server side) and the outcomes (client side)
_WIDEST_LEDGER_BAR = 28
_BLAMELESS = "0 lost by the generator"


def ledger(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return where the clients ended, with bars, what they saw, and whether the numbers add up."""
    entries = _entries(summary)
    if not entries and not summary.clients:
        return [line("  no client was started"), *_doubts(summary, terminal)]
    columns = _columns(summary, entries, terminal)
    head = line(left(_heading(summary), columns.saw), "what they saw")
    if columns.meaning is not None:
        head = line(head, " " * (columns.meaning - head.width), "meaning of the fate")
    top = max([entry.count or 0 for entry in entries], default=0)
    rows = [_row(entry, columns, top, terminal) for entry in entries]
    return [head, *rows, _sum(summary, columns), *_doubts(summary, terminal)]


def latencies(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return percentiles of connecting, the accept queue and the reply; no lines if none was measured."""
    known = {
        family: [summary.metrics.get(f"{family}.{statistic}_s") for statistic in _STATISTICS] for family in _FAMILIES
    }
    shown = [i for i in range(len(_STATISTICS)) if any(values[i] is not None for values in known.values())]
    if not shown:
        return []
    heads = "".join(right(_STATISTICS[i], _NUMBER) for i in shown)
    lines = [line(left("  how long it took", _LABEL), (heads, QUIET))]
    meanings = {name: text for name, text in _FAMILIES.items() if any(value is not None for value in known[name])}
    if "accept_least" in meanings:
        meanings["accept"] = "queued, at most"
    explained = _LABEL + len(heads) + _GAP + widest(list(meanings.values())) <= terminal.edge
    for family in _FAMILIES:
        if family in meanings:
            times = "".join(right(_time(known[family][i]), _NUMBER) for i in shown)
            meaning = " " * _GAP + meanings[family] if explained else ""
            lines.append(line(left(f"  {family}", _LABEL), times, (meaning, QUIET)))
        if family == "accept":
            lines += _waiting(summary.metrics)
    return lines


def growth(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return metrics by number of open descriptors, a line per band; no lines without bands."""
    if not summary.growth:
        return []
    columns = [column for column in _COLUMNS if terminal.edge >= _ROOMY or not column.wide]
    bands = [[_number(getattr(band, column.field), column) for column in columns] for band in summary.growth]
    totals = [_number(summary.metrics.get(column.metric), column) for column in columns]
    needed = [widest(cells) for cells in zip(_heads(columns, summary), totals, *bands, strict=True)]
    label = max(widest([_ALL, *(band.label for band in summary.growth)]), _LABEL - _SIGN)
    widths = [max(width + _GAP, _NUMBER) for width in needed]
    room = terminal.edge - _SIGN - label - sum(widths)
    if room < 0:
        widths = [width + 1 for width in needed]
    table = _Table(
        columns=columns,
        widths=widths,
        label=label,
        bar=min(room - _GAP, _WIDEST_BAR) if room >= _GAP + len(_BARS) else 0,
        longest_s=max(band.accept_max_s or 0.0 for band in summary.growth),
        limit=summary.metrics.get("fds.limit"),
    )

    heads = table.joined(_heads(columns, summary))
    bars = " " * _GAP + _BARS if table.bar else ""
    lines = [line(left("  as the table grew", _SIGN + label), (heads, QUIET), (bars, QUIET))]
    lines += [_band(band, cells, table, terminal) for band, cells in zip(summary.growth, bands, strict=True)]
    if len(bands) > 1:
        lines.append(line((" " * _SIGN + right(_ALL, label) + table.joined(totals), QUIET)))
    return lines + _notes(summary, terminal)


def style_and_words(fate: str) -> tuple[str, str]:
    """Return the style of a fate's bar and its short meaning, empty for a fate that this version does not know."""
    known = FATES.get(fate)
    return (_STYLES[known.row.tone], known.row.words) if known is not None else (WARN, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One line: a fate and one of its outcomes. The fate's count is on its first line only."""

    fate: str
    count: int | None
    saw: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where the columns of the ledger begin, and how wide they are; `meaning` is None if it does not fit."""

    count: int
    bar: int
    saw: int
    meaning: int | None


def _heading(summary: Summary) -> str:
    return f"  where the {some(summary.clients, 'client')} ended"


def _entries(summary: Summary) -> list[_Entry]:
    """Return a line for each fate and outcome that occurred, the commonest outcome of a fate first."""
    words = _outcome_words(summary.settings)
    entries = []
    for fate in dict.fromkeys((*FATES, *summary.ledger)):
        count: int | None = summary.ledger.get(fate, 0)
        if not count:
            continue
        saw = sorted(summary.fate_by_outcome.get(fate, {}).items(), key=lambda item: -item[1])
        for outcome, clients in saw:
            entries.append(_Entry(fate=fate, count=count, saw=clients, words=words.get(outcome, outcome)))
            count = None
        if not saw:
            entries.append(_Entry(fate=fate, count=count, saw=None, words=""))
    return entries


def _outcome_words(settings: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    client = settings.get("client", {})
    limits = {"connect": client.get("connect_timeout"), "reply": client.get("reply_timeout")}
    durations = {
        name: f" in {format_duration(limit).replace('.0 ', ' ')}" if isinstance(limit, int | float) else ""
        for name, limit in limits.items()
    }
    return {outcome.id: outcome.row.words.format(**durations) for outcome in Outcome}


def _columns(summary: Summary, entries: list[_Entry], terminal: Terminal) -> _Columns:
    """Share out the width: numbers and words first, then the meanings; bars get the rest."""
    count = widest([format_count(n) for n in (summary.clients, *summary.ledger.values(), *summary.outcomes.values())])
    head = len(_heading(summary)) + _APART
    bars = 2 + _FATE + _LEDGER_GAP + count + _LEDGER_GAP
    words = count + _LEDGER_GAP + widest([_BLAMELESS, *(entry.words for entry in entries)])
    meanings = _LEDGER_GAP + widest([fate.row.words for fate in FATES.values()])
    room = terminal.edge - bars - _APART - words
    explained = room - meanings >= max(head - bars, _FATE)
    width = min(room - meanings if explained else room, _WIDEST_LEDGER_BAR)
    saw = max(bars + max(width, 0) + _APART, head)
    return _Columns(count=count, bar=max(width, 0), saw=saw, meaning=saw + words + _LEDGER_GAP if explained else None)


def _row(entry: _Entry, columns: _Columns, top: int, terminal: Terminal) -> Line:
    style, meaning = style_and_words(entry.fate)
    row = line()
    if entry.count is not None:
        name = left(entry.fate.replace("_", " "), _FATE + _LEDGER_GAP)
        count = right(format_count(entry.count), columns.count)
        row = line("  ", name, count, " " * _LEDGER_GAP, (bar(entry.count / top, columns.bar, terminal.glyphs), style))
    if entry.saw is not None:
        saw = right(format_count(entry.saw), columns.count)
        row = line(row, " " * (columns.saw - row.width), f"{saw}  {entry.words}")
    if entry.count is not None and columns.meaning is not None:
        row = line(row, (" " * (columns.meaning - row.width) + meaning, QUIET))
    return row


def _sum(summary: Summary, columns: _Columns) -> Line:
    """Return the line under both columns: the number of clients, and whether each is accounted for."""
    total = right(format_count(summary.clients), columns.count)
    status = ("adds up", QUIET) if summary.balanced else ("DOES NOT ADD UP", ALARM)
    row = line(" " * (2 + _FATE + _LEDGER_GAP), total, " " * _LEDGER_GAP, status)
    blameless = not summary.ledger.get("local") and not summary.ledger.get("not_started")
    row = line(row, " " * max(columns.saw - row.width, _LEDGER_GAP), total)
    return line(row, (" " * _LEDGER_GAP + _BLAMELESS, QUIET)) if blameless else row


def _doubts(summary: Summary, terminal: Terminal) -> list[Line]:
    return [
        text
        for doubt in doubts(summary)
        for text in paragraph(doubt, terminal, margin="  ", mark="! ", mark_style=ALARM)
    ]


def _waiting(metrics: Mapping[str, float]) -> list[Line]:
    """Return how many clients still wait: percentiles of accepted connections only are survivor bias."""
    waiting, longest = metrics.get("accept.waiting"), metrics.get("accept.waiting_max_s")
    if not waiting:
        return []
    up_to = f", up to {format_duration(longest)}" if longest is not None else ""
    if "server.exit" in metrics:
        still = f"{format_count(waiting)} still waited in the accept queue when the server exited{up_to}"
    else:
        verb = "waits" if waiting == 1 else "wait"
        still = f"{format_count(waiting)} still {verb} in the accept queue" + (f"{up_to} so far" if up_to else "")
    return [line("    ", (f"and {still}", WARN))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column of the growth table: its field in a band, and the metric for the last line."""

    head: str
    field: str
    metric: str
    time: bool = False
    loss: bool = False  # a number other than 0 is a loss
    counter: bool = False  # the kernel counts it per network namespace
    wide: bool = False  # left out on narrow terminals


_COLUMNS = [
    _Column(head="accepted", field="accepted", metric="accept.samples"),
    _Column(head="wait p50", field="accept_p50_s", metric="accept.p50_s", time=True),
    _Column(head="p99", field="accept_p99_s", metric="accept.p99_s", time=True, wide=True),
    _Column(head="max", field="accept_max_s", metric="accept.max_s", time=True),
    _Column(head="pause", field="pause_max_s", metric="accept.pause_max_s", time=True),
    _Column(head="EMFILE", field="emfile", metric="emfile.count", loss=True),
    _Column(head="SYNs lost", field="overflows", metric="listen.overflows", loss=True, counter=True),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The growth table's columns and their widths."""

    columns: list[_Column]
    widths: list[int]
    label: int
    bar: int  # 0: does not fit
    longest_s: float  # the time of a full bar
    limit: float | None  # the fd limit

    def joined(self, cells: Sequence[str]) -> str:
        """Return the cells of one line, flush right."""
        return "".join(right(cell, width) for cell, width in zip(cells, self.widths, strict=True))


def _heads(columns: Sequence[_Column], summary: Summary) -> list[str]:
    """Return the heads of the columns; counters of a shared namespace have an asterisk."""
    shared = summary.namespace == "shared"
    return [column.head + ("*" if shared and column.counter else "") for column in columns]


def _band(band: Band, cells: Sequence[str], table: _Table, terminal: Terminal) -> Line:
    sign = terminal.glyphs.grown if band.growth_point else ""
    parts: list[Part] = [
        ("  ", ""),
        (left(sign, _SIGN - 2), WARN),
        (right(band.label, table.label), STRONG if band.fds_from == table.limit else ""),
    ]
    for column, width, cell in zip(table.columns, table.widths, cells, strict=True):
        nothing = cell in {"0", _NO_DATA}
        parts.append((right(cell, width), QUIET if nothing else ALARM if column.loss else ""))
    if table.bar and band.accept_max_s:
        parts.append((" " * _GAP + bar(band.accept_max_s / table.longest_s, table.bar, terminal.glyphs), WARN))
    return line(*parts)


def _notes(summary: Summary, terminal: Terminal) -> list[Line]:
    notes = []
    if any(band.growth_point for band in summary.growth):
        notes.append(f"{terminal.glyphs.grown} the kernel enlarged the fd table on entering this band")
    if summary.namespace == "shared":
        notes.append("* this listener's drops only, an ACK counts twice: the namespace is shared")
    return [line("  ", (text, QUIET)) for note in notes for text in wrap(note, terminal.edge - 2)]


def _number(value: float | None, column: _Column) -> str:
    if value is None:
        return _NO_DATA
    return _time(value) if column.time else format_count(value)


def _time(value: float | None) -> str:
    return _NO_DATA if value is None else format_duration(value)
