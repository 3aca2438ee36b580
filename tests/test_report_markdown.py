"""A run and a comparison as Markdown: the answer first, nothing foreign active, never too large."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparison_samples import backlog_sweep, two_builds
from report_samples import golden, too_many_open_files

from loadsim.report.markdown import LARGEST_BYTES, comparison_markdown, run_markdown

EVIL = '<script>"&`|*_[x](http://e.x) @somebody #12 \x1b[2J\n# head'


def test_a_run_as_it_was_last_looked_at() -> None:
    """Verdict and sentence, findings, the ledger, thresholds, growth in a fold-out."""
    text = run_markdown(too_many_open_files())

    assert golden("summary-run.md", text) == text
    assert text.splitlines()[0] == "## too-many-open-files: REPRODUCED"


def test_a_sweep_as_it_was_last_looked_at() -> None:
    """The answer, the table with its row in bold, what less costs."""
    text = comparison_markdown(backlog_sweep())

    assert golden("summary-sweep.md", text) == text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| **")] == ["| **backlog 256**"]


def test_gates_and_differences_are_told() -> None:
    """Whether a rule was broken, and between what."""
    text = comparison_markdown(two_builds())

    assert "- ❌ queue.max +10%: +64 % (worse)" in text
    assert "| kernel | 6.1.0 | 6.18.44 |" in text


@pytest.mark.parametrize("mark", ["<script", "[x](", "@somebody", "#12", "http://", "\x1b", "\n# head"])
def test_foreign_text_is_only_text(mark: str) -> None:
    """No HTML, link, mention, reference, heading or escape sequence comes out of a name."""
    run = replace(too_many_open_files(), scenario=EVIL, sentence=EVIL, notices=[EVIL])
    sweep = backlog_sweep()
    groups = [replace(group, label=EVIL) for group in sweep.groups]

    assert mark not in run_markdown(run)
    assert mark not in comparison_markdown(replace(sweep, title=EVIL, groups=groups, notices=[EVIL]))


def test_a_pipe_in_a_name_makes_no_column() -> None:
    """Cells of a table are as many as its headings, whatever stands in them."""
    sweep = backlog_sweep()
    groups = [replace(group, label="a|b") for group in sweep.groups]
    rows = [line for line in comparison_markdown(replace(sweep, groups=groups)).splitlines() if line.startswith("| a")]

    assert len(rows) >= 4
    assert all(row.replace("\\|", "").count("|") == len(sweep.columns) + 2 for row in rows[:4])


def test_never_larger_than_a_comment_may_be() -> None:
    """What does not fit is left out, with a sentence that says where it is."""
    sweep = backlog_sweep()
    large = replace(sweep, notices=["ä" * 400] * 20, rows=sweep.rows * 30, groups=[replace(sweep.groups[0])] * 5)
    run = replace(too_many_open_files(), findings=too_many_open_files().findings * 200)

    for text in (comparison_markdown(replace(large, notices=["ä" * 400] * 200)), run_markdown(run)):
        assert len(text.encode()) <= LARGEST_BYTES
        assert text.endswith("The rest is left out here: see report.html.\n")
    assert len(comparison_markdown(large).encode()) <= LARGEST_BYTES
