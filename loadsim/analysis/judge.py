"""The whole analysis of one run: turns its dataset into a summary with a status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.descriptors import bands_of
from loadsim.analysis.findings.case import Case, Kind
from loadsim.analysis.findings.registry import diagnose, doubted
from loadsim.analysis.host import busy_sentence
from loadsim.analysis.metrics import compare, in_json, measure
from loadsim.analysis.series import timeline_of
from loadsim.analysis.summary import Judged, Summary
from loadsim.scenario import thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.findings.registry import Diagnosed
    from loadsim.record.recording import Recording


def summary_of(data: Dataset) -> Summary:
    """Return the summary of a run."""
    recording, facts = data.recording, data.recording.facts
    numbers = measure(data)
    case = Case(data=data, numbers=numbers, prediction=compare(data, numbers))
    found = diagnose(case)
    metrics = in_json(numbers)
    judged = judge(data.setting("thresholds", "expect") or (), metrics)
    found = doubted(case, found, [thresholds.parse(one.text).metric for one in judged if not one.ok])
    ledger = data.ledger
    return Summary(
        scenario=facts.scenario,
        description=facts.description,
        seed=facts.seed,
        complete=facts.complete,
        interrupted=facts.interrupted,
        duration_s=data.clock.load_s,
        clients=case.number("attempts.count"),
        status=status(found, judged),
        sentence=opening_sentence(found, judged),
        metrics=metrics,
        ledger=ledger.fates(),
        outcomes=ledger.outcomes(),
        fate_by_outcome=ledger.cells(),
        balanced=not ledger.imbalance,
        imbalance=ledger.imbalance,
        foreign=ledger.join.foreign,
        ambiguous=ledger.join.ambiguous,
        growth=bands_of(data, case.number("fds.baseline"), case.number("fds.max")),
        findings=[one.finding for one in found],
        thresholds=judged,
        prediction=case.prediction,
        timeline=timeline_of(data, numbers),
        fd_map=facts.end.fd_map if facts.end else "",
        notices=_notices(recording, numbers),
        settings=facts.settings,
        namespace=facts.namespace,
    )


def judge(expectations: Sequence[str], metrics: dict[str, float]) -> list[Judged]:
    """Return whether each expectation was met; metrics have the keys of `summary.json`."""
    judged = []
    for text in expectations:
        result = thresholds.judge(thresholds.parse(text), metrics)
        judged.append(Judged(text=text, ok=result.ok, measured=result.measured))
    return judged


def status(found: Sequence[Diagnosed], judged: Sequence[Judged]) -> str:
    """Return the first word of a result. A run with a doubt is never called failed, reproduced or healthy."""
    if any(one.kind is Kind.DOUBT for one in found):
        return "INCONCLUSIVE"
    if not all(one.ok for one in judged):
        return "FAILED"
    return "REPRODUCED" if any(one.kind is Kind.FAULT for one in found) else "HEALTHY"


def opening_sentence(found: Sequence[Diagnosed], judged: Sequence[Judged]) -> str:
    """Return the sentence after the status: the first expectation that was not met, else the first finding."""
    missed = [one for one in judged if not one.ok]
    if missed and found[0].kind is not Kind.DOUBT:
        more = f", and {len(missed) - 1} more" if len(missed) > 1 else ""
        return f"Expected {missed[0].text}, measured {missed[0].measured}{more}."
    return found[0].headline


def _notices(recording: Recording, numbers: dict[str, float]) -> list[str]:
    """Return the notices about a busy host, from the run itself, and about records that were only counted."""
    busy = busy_sentence(numbers)
    lost = recording.facts.lost_records
    notices = [
        f"{count:,} {journal.removesuffix('s')} records found no space: numbers from them are lower bounds."
        for journal, count in lost.items()
        if count and journal in ("failures", "samples")
    ]
    return [*([busy] if busy else []), *recording.facts.notices, *notices]
