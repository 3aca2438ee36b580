"""Thresholds as JUnit XML: failures, errors, and foreign text."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from report_samples import generator_limited, healthy, too_many_open_files

from loadsim.analysis.summary import Judged, Summary
from loadsim.render.junit import Cell, junit

MET = Judged(text="emfile.count > 0", ok=True, measured="48")
MISSED = Judged(text="emfile.count == 0", ok=False, measured="48")
EVIL = '<script>"&\x1b[2J\x00'


def suite_of(title: str, *cells: Cell) -> ET.Element:
    """Return the test suite, read back."""
    root = ET.fromstring(junit(title, cells))  # noqa: S314 -- written by the code under test
    assert root.tag == "testsuites"
    return root[0]


def expecting(*thresholds: Judged) -> Summary:
    """Return a run with these thresholds."""
    return replace(too_many_open_files(), thresholds=list(thresholds))


def counts(suite: ET.Element) -> tuple[str | None, str | None, str | None]:
    """Return the numbers of tests, failures and errors in the attributes of the suite."""
    return suite.get("tests"), suite.get("failures"), suite.get("errors")


def test_a_case_for_each_threshold_and_cell() -> None:
    """A case is named by its threshold and cell, and its time is the mean of the runs."""
    run = expecting(MET, MISSED)
    suite = suite_of("sweep", Cell(name="backlog 1", runs=[run, run]), Cell(name="backlog 8", runs=[run]))

    cases = [(case.get("classname"), case.get("name"), len(case)) for case in suite]
    assert cases == [
        ("sweep.backlog 1", "emfile.count > 0", 0),
        ("sweep.backlog 1", "emfile.count == 0", 1),
        ("sweep.backlog 8", "emfile.count > 0", 0),
        ("sweep.backlog 8", "emfile.count == 0", 1),
    ]
    assert counts(suite) == ("4", "2", "0")
    assert (suite[0].get("time"), suite.get("time")) == ("5.100", "15.300")


def test_a_failure_says_in_how_many_runs() -> None:
    """A threshold that was missed in any run fails, with the measured values and the findings."""
    good, bad = expecting(replace(MISSED, ok=True)), expecting(MISSED)
    failure = suite_of("x", Cell(name="", runs=[good, bad, bad]))[0][0]

    assert failure.tag == "failure"
    assert failure.get("message") == "emfile.count == 0: measured 48 in 2 of 3 runs"
    assert "The server leaked every descriptor it was given. (fd-leak)" in (failure.text or "")


def test_a_failure_lists_every_number_and_finding_once() -> None:
    """Runs that failed in different ways are all described."""
    other = replace(expecting(replace(MISSED, measured="12")), findings=generator_limited().findings[:1])
    failure = suite_of("x", Cell(name="", runs=[expecting(MISSED), other, expecting(MISSED)]))[0][0]
    found = [*too_many_open_files().findings, *generator_limited().findings[:1]]

    assert failure.get("message") == "emfile.count == 0: measured 48, 12 in 3 of 3 runs"
    assert (failure.text or "").splitlines() == [f"{one.title} ({one.id})" for one in found]


@pytest.mark.parametrize("ok", [True, False])
def test_a_threshold_of_an_inconclusive_run_is_an_error(ok: bool) -> None:  # noqa: FBT001 -- a parameter
    """An inconclusive run counts neither as passed nor as failed."""
    doubtful = replace(generator_limited(), thresholds=[replace(MET, ok=ok)])
    suite = suite_of("x", Cell(name="", runs=[expecting(MET), doubtful]))

    assert counts(suite) == ("1", "0", "1")
    assert [(case.get("name"), case[0].tag, case[0].get("message")) for case in suite] == [
        ("emfile.count > 0", "error", "INCONCLUSIVE in 1 of 2 runs")
    ]
    assert suite[0][0].text == doubtful.sentence


def test_a_failure_stays_a_failure_beside_an_inconclusive_run() -> None:
    """A conclusive run decides; the inconclusive ones are not counted as failed."""
    doubtful = replace(generator_limited(), thresholds=[MISSED])
    failure = suite_of("x", Cell(name="", runs=[doubtful, expecting(MISSED), doubtful]))[0][0]

    assert (failure.tag, failure.get("message")) == ("failure", "emfile.count == 0: measured 48 in 1 of 3 runs")


def test_missing_runs_are_errors() -> None:
    """Refused runs give each of their reasons once; a cell without runs is an error too."""
    run = expecting(MET)
    suite = suite_of(
        "x",
        Cell(name="a", runs=[], refused=["no room; make some"]),
        Cell(name="b", runs=[run], refused=["no port", "no fd", "no port"]),
        Cell(name="c", runs=[]),
    )

    assert counts(suite) == ("4", "0", "3")
    assert [(case.get("classname"), case[0].get("message"), case[0].text) for case in suite if len(case)] == [
        ("x.a", "1 run could not start", "no room; make some"),
        ("x.b", "3 runs could not start", "no fd\nno port"),
        ("x.c", "no run was made: the sweep is not complete", None),
    ]


def test_runs_without_thresholds_are_a_case() -> None:
    """An empty suite would look as if it did not run; the name of the case does not depend on the status."""
    calm, doubtful = (replace(run, thresholds=[]) for run in (healthy(), generator_limited()))
    suite = suite_of("x", Cell(name="", runs=[calm]), Cell(name="b", runs=[calm, doubtful]))

    assert [(case.get("classname"), case.get("name")) for case in suite] == [("x", "runs"), ("x.b", "runs")]
    assert (counts(suite), suite[1][0].tag) == (("2", "0", "1"), "error")
    assert suite[0].findtext("system-out") == f"HEALTHY: {calm.sentence}"


def test_foreign_text_breaks_nothing() -> None:
    """Markup is escaped, and characters that XML forbids are replaced."""
    suite = suite_of(EVIL, Cell(name=EVIL, runs=[expecting(replace(MISSED, text=EVIL))]))

    shown = EVIL.replace("\x1b", "\ufffd").replace("\x00", "\ufffd")
    assert suite.get("name") == shown
    assert (suite[0].get("classname"), suite[0].get("name")) == (f"{shown}.{shown}", shown)
