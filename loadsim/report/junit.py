"""Thresholds as JUnit XML, which every CI shows: one test case for each threshold and cell.

Owns the shape of the file; must not judge: what failed was decided by `analysis`.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.analysis.summary import Summary

#: What XML 1.0 cannot hold, not even escaped (https://www.w3.org/TR/xml/#charsets).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Runs with the same settings."""

    name: str  # "backlog 128"; "" where there is only one
    runs: Sequence[Summary]
    refused: Sequence[str] = ()  # why a run could not take place: whole sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One test case; `problem` is the element that says what is wrong with it: its tag, a sentence, and details."""

    name: str
    classname: str
    time_s: float
    problem: tuple[str, str, str] | None = None


def junit(title: str, cells: Sequence[Cell]) -> str:
    """Return one test suite with a case for each threshold of each cell, or for its runs where it expects nothing.

    A threshold that failed in any run is a failure. Runs that are INCONCLUSIVE, or could not take place, are errors:
    nobody knows whether their thresholds hold, and a case that is skipped would look like one that need not pass.
    """
    cases = [case for cell in cells for case in _cases(title, cell)]
    suite = ET.Element("testsuite", name=_clean(title), tests=str(len(cases)))
    for kind, plural in (("failure", "failures"), ("error", "errors")):
        suite.set(plural, str(sum(case.problem is not None and case.problem[0] == kind for case in cases)))
    suite.set("time", f"{sum(run.duration_s for cell in cells for run in cell.runs):.3f}")
    for case in cases:
        element = ET.SubElement(suite, "testcase", name=_clean(case.name), classname=_clean(case.classname))
        element.set("time", f"{case.time_s:.3f}")
        if case.problem is not None:
            tag, sentence, details = case.problem
            ET.SubElement(element, tag, message=_clean(sentence)).text = _clean(details)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _cases(title: str, cell: Cell) -> Iterator[_Case]:
    classname = f"{title}.{cell.name}" if cell.name else title
    time_s = statistics.fmean(run.duration_s for run in cell.runs) if cell.runs else 0.0
    if cell.refused:
        problem = ("error", f"{len(cell.refused)} runs could not take place", "\n".join(sorted(set(cell.refused))))
        yield _Case(name="takes place", classname=classname, time_s=0.0, problem=problem)
    doubtful = [run for run in cell.runs if run.verdict == _INCONCLUSIVE]
    if doubtful:
        problem = ("error", f"{len(doubtful)} of {len(cell.runs)} runs are {_INCONCLUSIVE}", doubtful[0].sentence)
        yield _Case(name="is conclusive", classname=classname, time_s=time_s, problem=problem)
    for place, threshold in enumerate(cell.runs[0].thresholds if cell.runs else ()):
        problem_of = _broken(cell.runs, place)
        yield _Case(name=threshold.text, classname=classname, time_s=time_s, problem=problem_of)
    if cell.runs and not cell.runs[0].thresholds and not doubtful:
        yield _Case(name=f"runs: {cell.runs[0].verdict}", classname=classname, time_s=time_s)


def _broken(runs: Sequence[Summary], place: int) -> tuple[str, str, str] | None:
    """Return what is wrong with a threshold: in how many runs it failed, and what those found."""
    failed = [run for run in runs if not run.thresholds[place].ok]
    if not failed:
        return None
    one = failed[0].thresholds[place]
    found = [f"{finding.title} ({finding.id})" for finding in failed[0].findings]
    return "failure", f"{one.text}: measured {one.measured} in {len(failed)} of {len(runs)} runs", "\n".join(found)


def _clean(text: str) -> str:
    """Return text that XML can hold: control characters as the replacement character."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
