"""The ledger on a terminal: where every client ended, beside what it saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.fates import FATES, Outcome, Tone
from loadsim.report.drawing import ALARM, BAD, GOOD, QUIET, WARN, Line, bar, line, paragraph
from loadsim.report.text import left, right, widest
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadsim.analysis.summary import Summary
    from loadsim.report.drawing import Terminal

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
_GAP = 2
_APART = 3  # between what the server did and what the clients saw
_WIDEST_BAR = 28
_BLAMELESS = "0 lost by the generator"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One line: a fate and one of its outcomes; further outcomes of the same fate have no count of their own."""

    fate: str
    count: int | None
    saw: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where the columns of the ledger begin, and how wide they are; `meaning` is None where it finds no room."""

    count: int
    bar: int
    saw: int
    meaning: int | None


def ledger(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return where the clients ended, with bars, beside what they saw, and whether it adds up."""
    entries = _entries(summary)
    if not entries and not summary.clients:
        return [line("  no client was started"), *_doubts(summary, terminal)]
    columns = _columns(summary, entries, terminal)
    head = line(left(_heading(summary), columns.saw), "what they saw")
    if columns.meaning is not None:
        head = line(head, " " * (columns.meaning - head.width), "what became of them")
    top = max([entry.count or 0 for entry in entries], default=0)
    rows = [_row(entry, columns, top, terminal) for entry in entries]
    return [head, *rows, _sum(summary, columns), *_doubts(summary, terminal)]


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
    said = {
        name: f" in {format_duration(limit).replace('.0 ', ' ')}" if isinstance(limit, int | float) else ""
        for name, limit in limits.items()
    }
    return {outcome.id: outcome.row.words.format(**said) for outcome in Outcome}


def style_and_words(fate: str) -> tuple[str, str]:
    """Return the style of a fate's bar, and its few words; a fate that this version does not know has none."""
    known = FATES.get(fate)
    return (_STYLES[known.row.tone], known.row.words) if known is not None else (WARN, "")


def _columns(summary: Summary, entries: list[_Entry], terminal: Terminal) -> _Columns:
    """Share the width out: numbers and words first, then the meanings, and the rest for the bars."""
    count = widest([format_count(n) for n in (summary.clients, *summary.ledger.values(), *summary.outcomes.values())])
    head = len(_heading(summary)) + _APART
    bars = 2 + _FATE + _GAP + count + _GAP
    words = count + _GAP + widest([_BLAMELESS, *(entry.words for entry in entries)])
    meanings = _GAP + widest([fate.row.words for fate in FATES.values()])
    room = terminal.edge - bars - _APART - words
    meant = room - meanings >= max(head - bars, _FATE)
    width = min(room - meanings if meant else room, _WIDEST_BAR)
    saw = max(bars + max(width, 0) + _APART, head)
    return _Columns(count=count, bar=max(width, 0), saw=saw, meaning=saw + words + _GAP if meant else None)


def _row(entry: _Entry, columns: _Columns, top: int, terminal: Terminal) -> Line:
    style, meaning = style_and_words(entry.fate)
    row = line()
    if entry.count is not None:
        name = left(entry.fate.replace("_", " "), _FATE + _GAP)
        count = right(format_count(entry.count), columns.count)
        row = line("  ", name, count, " " * _GAP, (bar(entry.count / top, columns.bar, terminal.glyphs), style))
    if entry.saw is not None:
        saw = right(format_count(entry.saw), columns.count)
        row = line(row, " " * (columns.saw - row.width), f"{saw}  {entry.words}")
    if entry.count is not None and columns.meaning is not None:
        row = line(row, (" " * (columns.meaning - row.width) + meaning, QUIET))
    return row


def _sum(summary: Summary, columns: _Columns) -> Line:
    """Return the line under both columns: the attempts of the plan, and whether every one of them is accounted for."""
    total = right(format_count(summary.clients), columns.count)
    verdict = ("adds up", QUIET) if summary.balanced else ("DOES NOT ADD UP", ALARM)
    row = line(" " * (2 + _FATE + _GAP), total, " " * _GAP, verdict)
    blameless = not summary.ledger.get("local") and not summary.ledger.get("not_started")
    row = line(row, " " * max(columns.saw - row.width, _GAP), total)
    return line(row, (" " * _GAP + _BLAMELESS, QUIET)) if blameless else row


def _doubts(summary: Summary, terminal: Terminal) -> list[Line]:
    """Return what does not add up, and the accepts that the join could not place."""
    doubts = list(summary.imbalance)
    if summary.foreign:
        doubts.append(f"{format_count(summary.foreign)} foreign: accepted connections that no attempt explains")
    if summary.ambiguous:
        doubts.append(
            f"{format_count(summary.ambiguous)} ambiguous: accepted connections that fit several attempts equally well"
        )
    return [text for doubt in doubts for text in paragraph(doubt, terminal, margin="  ", mark="! ", mark_style=ALARM)]
