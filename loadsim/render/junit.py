"""Thresholds as JUnit XML, which every CI shows: one test case for each threshold and cell.

Owns the shape of the file; must not judge: what failed was decided by `analysis`.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from loadsim.units import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.analysis.summary import Summary

#: What XML 1.0 cannot hold, not even escaped (https://www.w3.org/TR/xml/#charsets), and what commands a terminal: C1
#: and the overrides of text direction.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Runs with the same settings."""

    name: str  # "backlog 128"; "" where there is only one
    runs: Sequence[Summary]
    refused: Sequence[str] = ()  # why a run could not take place: whole sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """What is wrong with a case: the element that says so ("failure" or "error"), a sentence, and details."""

    tag: str
    sentence: str
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One test case; `said` is what it has to say although nothing is wrong."""

    name: str
    classname: str
    time_s: float
    problem: _Problem | None = None
    said: str = ""


def junit(title: str, cells: Sequence[Cell]) -> str:
    """Return one test suite with a case for each threshold of each cell, or for its runs where it expects nothing.

    A threshold that failed in any run is a failure. It is an error where a run is INCONCLUSIVE, and so is a cell of
    which a run could not take place, or none did: nobody knows whether the threshold holds. A case that is skipped
    would look like one that need not pass.
    """
    cases = [case for cell in cells for case in _cases(title, cell)]
    suite = ET.Element("testsuite", name=_clean(title), tests=str(len(cases)))
    for tag, plural in (("failure", "failures"), ("error", "errors")):
        suite.set(plural, str(sum(case.problem is not None and case.problem.tag == tag for case in cases)))
    suite.set("time", f"{sum(run.duration_s for cell in cells for run in cell.runs):.3f}")
    suite.extend(map(_element, cases))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _element(case: _Case) -> ET.Element:
    element = ET.Element("testcase", name=_clean(case.name), classname=_clean(case.classname))
    element.set("time", f"{case.time_s:.3f}")
    if case.problem is not None:
        problem = ET.SubElement(element, case.problem.tag, message=_clean(case.problem.sentence))
        problem.text = _clean(case.problem.details)
    if case.said:
        ET.SubElement(element, "system-out").text = _clean(case.said)
    return element


def _cases(title: str, cell: Cell) -> Iterator[_Case]:
    classname = f"{title}.{cell.name}" if cell.name else title
    time_s = statistics.fmean(run.duration_s for run in cell.runs) if cell.runs else 0.0
    if cell.refused or not cell.runs:
        yield _Case(name="takes place", classname=classname, time_s=0.0, problem=_absent(cell))
    texts = dict.fromkeys(one.text for run in cell.runs for one in run.thresholds)
    for text in texts:
        yield _Case(name=text, classname=classname, time_s=time_s, problem=_broken(cell.runs, text))
    if cell.runs and not texts:
        statuses = "\n".join(f"{run.status}: {run.sentence}" for run in cell.runs)
        yield _Case(name="runs", classname=classname, time_s=time_s, problem=_doubt(cell.runs), said=statuses)


def _absent(cell: Cell) -> _Problem:
    """Return why runs are missing: they were refused, or the sweep ended before the first of them."""
    if not cell.refused:
        return _Problem(tag="error", sentence="no run took place: the sweep is not complete")
    sentence = f"{some(len(cell.refused), 'run')} could not take place"
    return _Problem(tag="error", sentence=sentence, details="\n".join(sorted(set(cell.refused))))


def _broken(runs: Sequence[Summary], text: str) -> _Problem | None:
    """Return what is wrong with a threshold: in how many runs it failed, and what those found; else what is in doubt.

    A run that is INCONCLUSIVE is not believed either way.
    """
    failed: list[Summary] = []
    measured: dict[str, None] = {}
    for run in runs:
        missed = [one.measured for one in run.thresholds if one.text == text and not one.ok]
        if missed and run.status != _INCONCLUSIVE:
            failed.append(run)
            measured |= dict.fromkeys(missed)
    if not failed:
        return _doubt(runs)
    sentence = f"{text}: measured {', '.join(measured)} in {len(failed)} of {some(len(runs), 'run')}"
    found = dict.fromkeys(f"{finding.title} ({finding.id})" for run in failed for finding in run.findings)
    return _Problem(tag="failure", sentence=sentence, details="\n".join(found))


def _doubt(runs: Sequence[Summary]) -> _Problem | None:
    """Return why nothing can be said of these runs; None where all of them can be judged."""
    doubtful = [run.sentence for run in runs if run.status == _INCONCLUSIVE]
    if not doubtful:
        return None
    sentence = f"{_INCONCLUSIVE} in {len(doubtful)} of {some(len(runs), 'run')}"
    return _Problem(tag="error", sentence=sentence, details="\n".join(dict.fromkeys(doubtful)))


def _clean(text: str) -> str:
    """Return text that XML can hold: control characters as the replacement character."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
