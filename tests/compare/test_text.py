"""A comparison on a terminal: the table, the answer, the differences."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from comparison_samples import backlog_sweep, two_builds
from report_samples import golden

from loadsim.compare.text import render
from loadsim.render.drawing import Terminal

if TYPE_CHECKING:
    from loadsim.compare.comparison import Comparison


def shown(comparison: Comparison, width: int = 80, *, unicode: bool = True) -> str:
    """Return a comparison as plain text."""
    steps = ["loadsim report --open"]
    return render(comparison, Terminal(width=width, color=False, unicode=unicode), saved="results/x", next_steps=steps)


@pytest.mark.parametrize(("name", "sample"), [("sweep", backlog_sweep()), ("compare", two_builds())])
@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_matches_its_golden_file(name: str, sample: Comparison, width: int) -> None:
    """A sweep and a comparison have golden files for two widths."""
    text = shown(sample, width)

    assert golden(f"{name}-{width}.txt", text) == text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("sample", [backlog_sweep(), two_builds()])
def test_no_line_is_too_wide(sample: Comparison, width: int) -> None:
    """Columns that do not fit are left out, the last ones first."""
    assert max(map(len, shown(sample, width).splitlines())) <= width


def test_the_answer_is_marked() -> None:
    """The row of the answer has a mark, and the sentence names its value."""
    lines = shown(backlog_sweep()).splitlines()

    assert [line.split()[1] for line in lines if "▶" in line] == ["256"]
    assert any(line.startswith("ANSWER  backlog 256 is enough") for line in lines)
    assert "  >" in shown(backlog_sweep(), unicode=False)


def test_foreign_text_cannot_act_on_the_terminal() -> None:
    """Control characters in names and sentences are shown escaped."""
    sample = backlog_sweep()
    evil = "\x1b[2J<script>\r"
    groups = [replace(group, label=f"backlog {evil}") for group in sample.groups]
    text = shown(replace(sample, title=evil, description=evil, groups=groups, notices=[evil]))

    assert "\x1b" not in text
    assert "\r" not in text
    assert "\\x1b[2J" in text


def test_gates_are_marked() -> None:
    """Each gate is shown with its mark and the measured change."""
    text = shown(two_builds())

    assert "✓ reply.p99 +10% (-91 % (better))" in text
    assert "✗ queue.max +10% (+64 % (worse))" in text
