"""What the plan had predicted beside what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.summary import Compared

if TYPE_CHECKING:
    from loadsim.analysis.view import View

#: A gap beyond this share is a finding; below these differences it is the grain of the clock or of the arrivals.
GAP = 0.10
_GRAIN = {"s": 0.05, "": 2.0}


def compare(view: View, numbers: dict[str, float]) -> list[Compared]:
    """Return each predicted number with its measured one; what the plan could not say is left out."""
    predicted = view.recording.facts.prediction or {}
    moments = {
        "EMFILE": (predicted.get("emfile_at_s"), numbers.get("emfile.first_at")),
        "queue full": (predicted.get("queue_full_at_s"), view.queue_full_at_s),
    }
    rows = [
        Compared(name=name, unit="s", predicted=foretold, measured=measured)
        for name, (foretold, measured) in moments.items()
        if foretold is not None
    ]
    for fate, foretold in predicted.get("fates", {}).items():
        measured = numbers.get(f"fate.{fate}", 0)
        if foretold or measured:
            rows.append(Compared(name=fate, unit="", predicted=foretold, measured=measured))
    return rows


def is_gap(row: Compared) -> bool:
    """Return whether prediction and measurement differ by more than 10 %; what never came differs altogether."""
    if row.predicted is None or row.measured is None:
        return row.predicted is not row.measured
    difference = abs(row.predicted - row.measured)
    return difference > max(GAP * max(abs(row.predicted), abs(row.measured)), _GRAIN[row.unit])
