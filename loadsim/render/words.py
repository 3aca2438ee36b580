"""Sentences and numbers of a summary that terminal, page and Markdown share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.units import format_count

if TYPE_CHECKING:
    from loadsim.analysis.summary import Compared, Summary

#: Shown for a missing number.
NOTHING = "-"


def both(one: Compared, *, nothing: str = NOTHING) -> tuple[str, str]:
    """Return the predicted and the measured number in the same unit; a missing time is "never"."""
    pair = (one.predicted, one.measured)
    if one.unit != "s":
        predicted, measured = (nothing if value is None else format_count(value) for value in pair)
        return predicted, measured
    largest = max(abs(value) for value in pair if value is not None)
    digits = 3 if largest < 10 else 2 if largest < 100 else 0
    predicted, measured = ("never" if value is None else f"{value:,.{digits}f} s" for value in pair)
    return predicted, measured


def doubts(summary: Summary) -> list[str]:
    """Return what does not add up, and the accepted connections that the join could not assign."""
    sentences = list(summary.imbalance)
    if summary.foreign:
        sentences.append(f"{format_count(summary.foreign)} foreign: accepted connections that match no attempt.")
    if summary.ambiguous:
        sentences.append(
            f"{format_count(summary.ambiguous)} ambiguous: accepted connections that match several attempts."
        )
    return sentences


def interruption(summary: Summary) -> list[str]:
    """Return the notice about a run that did not end as planned; empty for a complete run."""
    if summary.complete:
        return []
    cause = f" ({summary.interrupted})" if summary.interrupted else ""
    return [f"The run was interrupted{cause}. The numbers cover the time until then."]
