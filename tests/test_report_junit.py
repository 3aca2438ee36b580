"""Thresholds as JUnit XML: what fails, what is an error, and that nothing foreign breaks the file."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from report_samples import generator_limited, healthy, too_many_open_files

from loadsim.analysis.summary import Judged, Summary
from loadsim.report.junit import Cell, junit

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
    """Return what the suite says of itself."""
    return suite.get("tests"), suite.get("failures"), suite.get("errors")


def test_a_case_for_each_threshold_and_cell() -> None:
    """Named by the threshold and its cell, with the mean length of its runs."""
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
    """A threshold that failed in any run fails, with what was measured and found."""
    good, bad = expecting(replace(MISSED, ok=True)), expecting(MISSED)
    failure = suite_of("x", Cell(name="", runs=[good, bad, bad]))[0][0]

    assert failure.tag == "failure"
    assert failure.get("message") == "emfile.count == 0: measured 48 in 2 of 3 runs"
    assert "The server leaked every descriptor it was given. (fd-leak)" in (failure.text or "")


def test_what_nobody_knows_is_an_error() -> None:
    """Runs that are inconclusive, or that could not take place, do not pass silently."""
    doubtful = replace(generator_limited(), thresholds=[MET])
    suite = suite_of("x", Cell(name="a", runs=[doubtful]), Cell(name="b", runs=[], refused=["no room; make some"]))

    assert counts(suite) == ("3", "0", "2")
    assert [case[0].get("message") for case in suite if len(case)] == [
        "1 of 1 runs are INCONCLUSIVE",
        "1 runs could not take place",
    ]


def test_runs_that_expect_nothing_are_a_case() -> None:
    """A suite without a case would look like one that did not run."""
    suite = suite_of("x", Cell(name="", runs=[replace(healthy(), thresholds=[])]))

    assert [(case.get("classname"), case.get("name")) for case in suite] == [("x", "runs: HEALTHY")]


def test_foreign_text_breaks_nothing() -> None:
    """Markup is escaped, and what XML cannot hold is replaced."""
    suite = suite_of(EVIL, Cell(name=EVIL, runs=[expecting(replace(MISSED, text=EVIL))]))

    shown = EVIL.replace("\x1b", "\ufffd").replace("\x00", "\ufffd")
    assert suite.get("name") == shown
    assert (suite[0].get("classname"), suite[0].get("name")) == (f"{shown}.{shown}", shown)
