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
    """Return each predicted number, or "never" (None), with its measured one; what the plan left open is left out."""
    predicted = view.recording.facts.prediction or {}
    never = predicted.get("never", [])
    moments = {
        "EMFILE": ("emfile", numbers.get("emfile.first_at")),
        "queue full": ("queue_full", view.queue_full_at_s),
    }
    rows = [
        Compared(name=name, unit="s", predicted=predicted.get(f"{event}_at_s"), measured=measured)
        for name, (event, measured) in moments.items()
        if predicted.get(f"{event}_at_s") is not None or event in never
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
