"""A look as one JSON document, and the schema that describes it. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loadsim.inspect.closing import closing
from loadsim.inspect.groups import groups_of
from loadsim.inspect.suspects import growth, remedies, suspects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadsim.inspect.choice import Choice
    from loadsim.inspect.model import Row, Snapshot
    from loadsim.inspect.overview import Overview

FORMAT = 1


def document(now: Snapshot, before: Snapshot | None, choice: Choice) -> dict[str, Any]:
    """Return a look for machines; see `inspect_schema`."""
    groups = groups_of(now, before)
    found = suspects(now, groups)
    pace = growth(before, now)
    return {
        "format": FORMAT,
        "process": _process(now),
        "open_fds": now.open_fds,
        "soft": now.soft,
        "hard": now.hard,
        "growth_per_s": pace.per_s if pace is not None else None,
        "time_left_s": pace.left_s(now.room) if pace is not None else None,
        "groups": [asdict(group) for group in groups],
        "suspects": [asdict(one) for one in found],
        "remedies": [{"when": when, "text": text} for when, text in remedies(now, pace, found)],
        "rows": _rows(choice.of(now.rows)),
        "waiting": _rows(choice.of(now.waiting)),
        "knocking": _rows(choice.of(now.knocking)),
        "host": asdict(now.host),
        "other_namespace": bool(now.enter),
        "missing": list(now.missing),
    }


def _process(now: Snapshot) -> dict[str, Any]:
    return asdict(now.process) | {"argv": list(now.process.argv)}


def _rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as plain values; a holder is {pid, name, fd}."""
    return [
        {
            **asdict(row),
            "fds": list(row.fds),
            "closing": closing(row),
            "others": [one._asdict() for one in row.others],
            "other": None
            if row.other is None
            else {**asdict(row.other), "holders": [one._asdict() for one in row.other.holders]},
        }
        for row in rows
    ]


def overview_document(overview: Overview) -> dict[str, Any]:
    """Return all processes and listeners for machines."""
    return {
        "format": FORMAT,
        "processes": [
            {
                "pid": one.process.pid,
                "name": one.process.name,
                "unit": one.process.unit,
                "open_fds": one.open_fds,
                "soft": one.limits.soft,
                "hard": one.limits.hard,
            }
            for one in overview.processes
        ],
        "listeners": [
            {**asdict(one), "holders": [holder._asdict() for holder in one.holders]} for one in overview.listeners
        ],
        "unreadable": overview.unreadable,
    }
