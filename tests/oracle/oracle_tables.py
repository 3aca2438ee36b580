"""The tables of a result beside its metrics: margins, rows and totals, thresholds, and payloads."""

from __future__ import annotations

import operator
import re
from collections import Counter
from typing import TYPE_CHECKING

from oracle_bounds import Bounds
from oracle_join import joined
from oracle_records import CANARY, HELD, OUTCOMES, SHED, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle_records import Recorded

#: A number of a table: its name, the shown value, and the true value.
Checked = tuple[str, float | None, float | Bounds | None]

_OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_UNITS = {"": 1.0, "%": 0.01, "us": 1e-6, "ms": 1e-3, "s": 1.0, "/s": 1.0}
_THRESHOLD = re.compile(r"([\w.]+) (==|!=|<=|>=|<|>) ([\d.]+) ?(\S*)")


def tables_of(recorded: Recorded) -> Iterator[Checked]:
    """Yield every number of the tables."""
    yield from _margins(recorded)
    yield from _growth(recorded)
    yield from _shown_total(recorded)
    yield from _thresholds(recorded)
    yield from _payloads(recorded)


def _margins(recorded: Recorded) -> Iterator[Checked]:
    summary, count = recorded.summary, len(recorded.attempts)
    outcomes = Counter(OUTCOMES[code] for code in recorded.attempts["outcome"])
    yield "ledger, sum of fates", sum(summary["ledger"].values()), count
    yield "ledger, sum of outcomes", sum(summary["outcomes"].values()), count
    by_outcome: Counter[str] = Counter()
    for fate, row in summary["fate_by_outcome"].items():
        yield f"ledger, {fate}", sum(row.values()), summary["ledger"][fate]
        yield f"fate.{fate} beside the ledger", recorded.metrics[f"fate.{fate}"], summary["ledger"][fate]
        by_outcome.update(row)
    for outcome, number in outcomes.items():
        yield f"ledger, {outcome}", by_outcome[outcome], number
        yield f"outcomes, {outcome}", summary["outcomes"][outcome], number
    yield "balanced", float(summary["balanced"]), 1


def _growth(recorded: Recorded) -> Iterator[Checked]:
    """Yield the sums of the rows by descriptors, and the accepted clients of each row."""
    rows, metrics = recorded.summary["growth"], recorded.metrics
    if not rows:
        return
    own = [one for one in joined(recorded) if one.is_of_attempt and not one.is_after_end]
    shed = sum(bool(one.flags & SHED) for one in own)
    yield "growth, sum of accepted", sum(row["accepted"] for row in rows), Bounds(low=len(own) - shed, high=len(own))
    yield "growth, sum of emfile", sum(row["emfile"] or 0 for row in rows), metrics["emfile.count"]
    if all(row["overflows"] is not None for row in rows):
        yield "growth, sum of overflows", sum(row["overflows"] for row in rows), metrics["listen.overflows"]
    for row in rows:
        within = [one for one in own if row["fds_from"] <= one.open_fds <= row["fds_to"]]
        unshed = sum(not one.flags & SHED for one in within)
        yield f"growth, accepted in {row['label']}", row["accepted"], Bounds(low=unshed, high=len(within))
        if row["accept_max_s"] is not None and "accept.max_s" in metrics:
            yield (
                f"growth, accept max in {row['label']}",
                row["accept_max_s"],
                Bounds(low=0, high=metrics["accept.max_s"]),
            )


def _shown_total(recorded: Recorded) -> Iterator[Checked]:
    """Yield the printed totals under the rows by descriptors, against the sums of the rows."""
    lines = recorded.report.splitlines()
    heads = [line for line in lines if "as the table grew" in line]
    totals = [line for line in lines if line.strip().startswith("in all ")]
    rows = recorded.summary["growth"]
    if not heads or not totals or not rows:
        return
    numbers = [int(one.replace(",", "")) for one in re.findall(r"(?<![\d.])[\d,]+(?![\d.,]| ?[um]?s\b)", totals[0])]
    yield "growth, printed total of accepted", numbers[0], sum(row["accepted"] for row in rows)
    for at, (head, key) in enumerate((("SYNs lost", "overflows"), ("EMFILE", "emfile")), start=1):
        if "EMFILE  SYNs lost" in heads[0] and len(numbers) > 2:
            yield f"growth, printed total of {head}", numbers[-at], sum(row[key] or 0 for row in rows)


def _thresholds(recorded: Recorded) -> Iterator[Checked]:
    for threshold in recorded.summary["thresholds"]:
        match = _THRESHOLD.fullmatch(threshold["text"])
        assert match is not None, threshold
        name, sign, number, unit = match.groups()
        value = recorded.metrics.get(name, recorded.metrics.get(name + "_s"))
        is_met = value is not None and _OPERATORS[sign](value, float(number) * _UNITS[unit])
        yield f"threshold {threshold['text']}", float(threshold["ok"]), float(is_met)


def _payloads(recorded: Recorded) -> Iterator[Checked]:
    """Yield how many served echo attempts have exactly one accept record with their payload and 4-tuple."""
    client = recorded.settings["client"]
    if client["exchange"] != "echo" or client["request"] != "whole":
        return
    named = Counter(
        (int(row["payload"]), source_of(row["peer"]), int(row["port"]))
        for row in recorded.accepts
        if row["payload"] and source_of(row["peer"]) not in (CANARY, HELD)
    )
    served = recorded.attempts[recorded.attempts["outcome"] == OUTCOMES.index("ok")]
    once = sum(named[int(row["number"]), int(row["source"]), int(row["port"])] == 1 for row in served)
    yield "payload, attempts served and named once", once, len(served)
