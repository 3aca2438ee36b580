"""How far a result came: the status of a run, the number of complete runs of a sweep.

Reads small JSON files, without numpy and pydantic: `loadsim list` shows hundreds of results at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.errors import RecordingError
from loadsim.record.folder import SWEEP_MARK, VERDICT_MARK, Folder, file_name
from loadsim.record.untrusted import DAMAGE

if TYPE_CHECKING:
    from pathlib import Path

#: One run per second for a day.
MOST_RUNS = 86_400


def status_of(path: Path) -> str:
    """Return the status of a run, "3 of 12 runs" of a sweep, or "verdict"; "" for a run without a summary."""
    if (path / VERDICT_MARK).exists():
        return "verdict"
    if (path / SWEEP_MARK).exists():
        return _runs_of(path)
    try:
        status = Folder(path).read_json("summary.json")["verdict"]
    except (RecordingError, KeyError, TypeError):
        return ""
    return status if isinstance(status, str) else ""


def is_complete(path: Path) -> bool:
    """Return whether a run ended as planned or by an `abort`, and has a summary."""
    try:
        values = Folder(path).read_json("summary.json")
        return values["complete"] is True or values["interrupted"].startswith("aborted")
    except (RecordingError, KeyError, TypeError, AttributeError):
        return False


def run_name(label: str, cell: int, repeat: int) -> str:
    """Return the folder of a run relative to its sweep: "runs/03-backlog-128-2"."""
    return f"runs/{cell + 1:02d}-{file_name(label)}-{repeat + 1}"


def _runs_of(path: Path) -> str:
    try:
        values = Folder(path).read_json(SWEEP_MARK)
        order = values["order"][: MOST_RUNS + 1]
        done = sum(is_complete(path / run_name(values["labels"][cell], cell, repeat)) for cell, repeat in order)
    except (RecordingError, *DAMAGE):
        return ""
    if len(order) > MOST_RUNS:
        return ""
    return f"{done} runs" if done == len(order) else f"{done} of {len(order)} runs"
