"""A run and a comparison as Markdown: the answer first, foreign text inactive, never too large."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from comparison_samples import backlog_sweep, two_builds
from report_samples import golden, too_many_open_files

from loadsim.compare.files import comparison_markdown
from loadsim.render.markdown import LARGEST_BYTES, run_markdown

EVIL = '<script>"&`|*_[x](http://e.x) @somebody #12 GH-7 \x1b[2J\n# head'


def test_the_summary_of_a_run_matches_its_golden_file() -> None:
    """It has status, sentence, findings, ledger and thresholds, and growth in a fold-out."""
    text = run_markdown(too_many_open_files())

    assert golden("summary-run.md", text) == text
    assert text.splitlines()[0] == "## too-many-open-files: REPRODUCED"


def test_the_summary_of_a_sweep_matches_its_golden_file() -> None:
    """It has the answer, the table with the answer's row in bold, and the costs of smaller values."""
    text = comparison_markdown(backlog_sweep())

    assert golden("summary-sweep.md", text) == text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| **")] == ["| **backlog 256**"]


def test_gates_and_differences_are_listed() -> None:
    """Each gate has its result, and each different fact its value in each group."""
    text = comparison_markdown(two_builds())

    assert "- ❌ queue.max +10%: +64 % (worse)" in text
    assert "| kernel | 6.1.0 | 6.18.44 |" in text


@pytest.mark.parametrize("mark", ["<script", "[x](", "@somebody", "#12", "GH-7", "http://", "\x1b", "\n# head"])
def test_foreign_text_is_only_text(mark: str) -> None:
    """A name makes no HTML, link, mention, reference, heading or escape sequence."""
    run = replace(too_many_open_files(), scenario=EVIL, sentence=EVIL, notices=[EVIL])
    sweep = backlog_sweep()
    groups = [replace(group, label=EVIL) for group in sweep.groups]

    assert mark not in run_markdown(run)
    assert mark not in comparison_markdown(replace(sweep, title=EVIL, groups=groups, notices=[EVIL]))


@pytest.mark.parametrize("begins", ["# x", "- x", "+ x", "1. x", "12) x", "===", "---", ":-", "    # x"])
def test_foreign_text_opens_no_block(begins: str) -> None:
    """A notice or a cost that begins like a heading, list, underline, ruler or code is only a sentence."""
    run = replace(too_many_open_files(), notices=["first", begins])
    sweep = replace(backlog_sweep(), notices=["first", begins])
    quoted = [
        line.removeprefix("> ")
        for text in (run_markdown(run), comparison_markdown(sweep))
        for line in text.splitlines()
        if line.startswith("> ")
    ]

    assert [line for line in quoted if re.match(r"\s|[-+=:#]|\d+[.)]", line)] == []
    assert [line.replace("\\", "") for line in quoted[1::2]] == [begins.strip()] * 2


def test_counters_of_a_shared_namespace_are_marked() -> None:
    """In a shared namespace the heading has an asterisk, and a note explains it."""
    assert "SYNs lost |" in run_markdown(too_many_open_files())
    shared = run_markdown(replace(too_many_open_files(), namespace="shared"))
    assert "SYNs lost\\* |" in shared
    assert "the namespace is shared" in shared


def test_predicted_is_shown_beside_measured() -> None:
    """Both have the same unit and the same number of digits."""
    text = run_markdown(too_many_open_files())

    assert "| EMFILE | 0.280 s | 0.276 s |" in text
    assert "| dropped | 415 | 415 |" in text


def test_better_and_worse_come_before_higher_and_lower() -> None:
    """The list is cut, therefore important differences come first."""
    says = [line.split(" | ")[-1] for line in comparison_markdown(backlog_sweep()).splitlines() if " → " in line]

    assert [one.strip(" |") in {"better", "worse"} for one in says] == sorted(
        (one.strip(" |") in {"better", "worse"} for one in says), reverse=True
    )
    assert says[0].strip(" |") == "better"


def test_a_long_list_is_cut_and_the_next_section_follows() -> None:
    """Many findings do not displace the ledger, and many groups do not displace the answer's row."""
    run = replace(too_many_open_files(), findings=too_many_open_files().findings * 20)
    text = run_markdown(run)
    assert "... and 20 more: see report.html." in text
    assert "| all | 600 | adds up |" in text

    sweep = backlog_sweep()
    answer = replace(sweep.answer, group=99) if sweep.answer else None
    rows = [replace(row, estimates=row.estimates * 20, pairs=[]) for row in sweep.rows]
    text = comparison_markdown(replace(sweep, groups=sweep.groups * 20, rows=rows, answer=answer))
    assert "... and 60 more: see report.html." in text
    assert "| **backlog 4,096** |" in text


def test_a_pipe_in_a_name_makes_no_column() -> None:
    """Every row has as many cells as the heading, for any names."""
    sweep = backlog_sweep()
    groups = [replace(group, label="a|b") for group in sweep.groups]
    rows = [line for line in comparison_markdown(replace(sweep, groups=groups)).splitlines() if line.startswith("| a")]

    assert len(rows) >= 4
    assert all(row.replace("\\|", "").count("|") == len(sweep.columns) + 2 for row in rows[:4])


def test_never_larger_than_a_comment_may_be() -> None:
    """Sections that do not fit are left out, and a sentence refers to the page."""
    sweep = backlog_sweep()
    large = replace(sweep, notices=["ä" * 400] * 20, rows=sweep.rows * 30, groups=[replace(sweep.groups[0])] * 5)
    run = replace(too_many_open_files(), notices=["ä" * 800] * 200, scenario="ä" * 20_000)

    for text in (comparison_markdown(replace(large, notices=["ä" * 800] * 200)), run_markdown(run)):
        assert len(text.encode()) <= LARGEST_BYTES
        assert text.endswith("The rest is left out here: see report.html.\n")
    assert len(comparison_markdown(large).encode()) <= LARGEST_BYTES
