"""Thresholds as JUnit XML, for CI: one test case for each threshold and cell.

Owns the shape of the file. Does not judge: `analysis` decides which thresholds are met.
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

#: Characters that XML 1.0 forbids even escaped (https://www.w3.org/TR/xml/#charsets), and characters that control a
#: terminal: C1 and the overrides of text direction.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Runs with the same settings."""

    name: str  # "backlog 128"; "" for the only cell
    runs: Sequence[Summary]
    refused: Sequence[str] = ()  # why runs could not start: sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """The reason why a test case does not pass."""

    tag: str  # the XML element: "failure" or "error"
    sentence: str
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One test case."""

    name: str
    classname: str
    time_s: float
    problem: _Problem | None = None
    output: str = ""


def junit(title: str, cells: Sequence[Cell]) -> str:
    """Return one test suite with a case for each threshold of each cell, and one case for a cell without thresholds.

    A threshold that was missed in any conclusive run is a failure. It is an error if a run is INCONCLUSIVE. A cell with
    a run that could not start, or without runs, has a case with an error: whether its thresholds hold is unknown, and
    a skipped case would look as if it did not have to pass.
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
    if case.output:
        ET.SubElement(element, "system-out").text = _clean(case.output)
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
        yield _Case(name="runs", classname=classname, time_s=time_s, problem=_doubt(cell.runs), output=statuses)


def _absent(cell: Cell) -> _Problem:
    """Return why runs are missing: they were refused, or the sweep ended before the first of them."""
    if not cell.refused:
        return _Problem(tag="error", sentence="no run was made: the sweep is not complete")
    sentence = f"{some(len(cell.refused), 'run')} could not start"
    return _Problem(tag="error", sentence=sentence, details="\n".join(sorted(set(cell.refused))))


def _broken(runs: Sequence[Summary], text: str) -> _Problem | None:
    """Return in how many runs a threshold was missed, with the findings of those runs; else the doubt about the runs.

    An INCONCLUSIVE run counts neither way.
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
    """Return why these runs cannot be judged; None if all can."""
    doubtful = [run.sentence for run in runs if run.status == _INCONCLUSIVE]
    if not doubtful:
        return None
    sentence = f"{_INCONCLUSIVE} in {len(doubtful)} of {some(len(runs), 'run')}"
    return _Problem(tag="error", sentence=sentence, details="\n".join(dict.fromkeys(doubtful)))


def _clean(text: str) -> str:
    """Return text with forbidden characters replaced."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
