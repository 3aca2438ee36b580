"""The ledger on a terminal: where every client ended, beside what it saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.metrics import FATES
from loadsim.report.look import ALARM, BAD, GOOD, QUIET, WARN, bar, line
from loadsim.report.text import left, right, widest, wrap
from loadsim.units import format_count, format_duration, some

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text

    from loadsim.analysis.summary import Summary
    from loadsim.report.look import Look

#: Fate -> the colour of its bar, and what became of the client in a few words.
FATE_WORDS = {
    "accepted": (GOOD, "accept() returned it"),
    "shed": (WARN, "accepted, closed at once"),
    "queued": (WARN, "still in the accept queue"),
    "orphaned": (BAD, "queued when the listener died"),
    "phantom": (BAD, "no socket at the server"),
    "aborted": (BAD, "reset at the full queue"),
    "half_open": (BAD, "the SYN-ACK never arrived"),
    "dropped": (BAD, "its SYNs went unanswered"),
    "refused": (BAD, "nobody listened"),
    "local": (WARN, "never left the generator"),
    "not_started": (WARN, "never left the plan"),
    "unknown": (QUIET, "the server was not seen whole"),
}
#: Outcome -> what the client saw; {connect} and {reply} are " in 2 s", or nothing where the time-out is not known.
OUTCOME_WORDS = {
    "ok": "ok",
    "connected": "connected, as planned",
    "error": "an error for a reply",
    "eof": "end of stream, no reply",
    "reset": "connection reset, no reply",
    "refused": "connection refused",
    "connect_timeout": "no answer to connect{connect}",
    "reply_timeout": '"connected", then no reply{reply}',
    "local": "the generator's own limit",
    "not_started": "never began",
    "unfinished": "no answer before the end",
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


def ledger(summary: Summary, look: Look) -> list[Text]:
    """Return where the clients ended, with bars, beside what they saw, and whether it adds up."""
    entries = _entries(summary)
    if not entries and not summary.clients:
        return [line("  no client was started"), *_doubts(summary, look)]
    columns = _columns(summary, entries, look)
    head = line(left(_heading(summary), columns.saw), "what they saw")
    if columns.meaning is not None:
        head.append(" " * (columns.meaning - head.cell_len) + "what became of them")
    top = max([entry.count or 0 for entry in entries], default=0)
    rows = [_row(entry, columns, top, look) for entry in entries]
    return [head, *rows, _sum(summary, columns), *_doubts(summary, look)]


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
    return {outcome: words.format(**said) for outcome, words in OUTCOME_WORDS.items()}


def _columns(summary: Summary, entries: list[_Entry], look: Look) -> _Columns:
    """Share the width out: numbers and words first, then the meanings, and the rest for the bars."""
    count = widest([format_count(n) for n in (summary.clients, *summary.ledger.values(), *summary.outcomes.values())])
    head = len(_heading(summary)) + _APART
    bars = 2 + _FATE + _GAP + count + _GAP
    words = count + _GAP + widest([_BLAMELESS, *(entry.words for entry in entries)])
    meanings = _GAP + widest([meaning for _, meaning in FATE_WORDS.values()])
    room = look.edge - bars - _APART - words
    meant = room - meanings >= max(head - bars, _FATE)
    width = min(room - meanings if meant else room, _WIDEST_BAR)
    saw = max(bars + max(width, 0) + _APART, head)
    return _Columns(count=count, bar=max(width, 0), saw=saw, meaning=saw + words + _GAP if meant else None)


def _row(entry: _Entry, columns: _Columns, top: int, look: Look) -> Text:
    style, meaning = FATE_WORDS.get(entry.fate, (WARN, ""))
    row = line()
    if entry.count is not None:
        row.append(f"  {left(entry.fate.replace('_', ' '), _FATE + _GAP)}")
        row.append(right(format_count(entry.count), columns.count) + " " * _GAP)
        row.append(bar(entry.count / top, columns.bar, look.glyphs), style)
    if entry.saw is not None:
        row.append(" " * (columns.saw - row.cell_len))
        row.append(f"{right(format_count(entry.saw), columns.count)}  {entry.words}")
    if entry.count is not None and columns.meaning is not None:
        row.append(" " * (columns.meaning - row.cell_len) + meaning, QUIET)
    return row


def _sum(summary: Summary, columns: _Columns) -> Text:
    """Return the line under both columns: the attempts of the plan, and whether every one of them is accounted for."""
    total = right(format_count(summary.clients), columns.count)
    row = line(" " * (2 + _FATE + _GAP), total + " " * _GAP)
    if summary.balanced:
        row.append("adds up", QUIET)
    else:
        row.append("DOES NOT ADD UP", ALARM)
    blameless = not summary.ledger.get("local") and not summary.ledger.get("not_started")
    row.append(" " * max(columns.saw - row.cell_len, _GAP) + total)
    return row.append(" " * _GAP + _BLAMELESS, QUIET) if blameless else row


def _doubts(summary: Summary, look: Look) -> list[Text]:
    """Return what does not add up, and the accepts that the join could not place."""
    doubts = list(summary.imbalance)
    if summary.foreign:
        doubts.append(f"{format_count(summary.foreign)} foreign: accepted connections that no attempt explains")
    if summary.ambiguous:
        doubts.append(
            f"{format_count(summary.ambiguous)} ambiguous: accepted connections that fit several attempts equally well"
        )
    lines = []
    for doubt in doubts:
        first, *more = wrap(doubt, look.edge - 4)
        lines += [line("  ", ("! ", ALARM), first), *(line("    ", text) for text in more)]
    return lines
