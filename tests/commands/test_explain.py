"""`loadsim explain` on a terminal."""

from __future__ import annotations

import pytest
from report_samples import golden
from rich.cells import cell_len

from loadsim.analysis.findings.registry import Explanation, explain, ids
from loadsim.commands.explain import render, render_index
from loadsim.render.drawing import Terminal

LEAK = Explanation(
    id="fd-leak",
    kind="finding",
    means="The server opens descriptors that it never closes: connections whose client has left.",
    look_at="`ls /proc/PID/fd | wc -l` twice, a minute apart; and the picture of open fds: a leak is a line that never "
    "comes down.",
    do='Close the socket when recv() returns b"", and on every error path.',
)


def shown(explanation: Explanation, *, width: int = 80, color: bool = False) -> str:
    """Return the text of an explanation."""
    return render(explanation, Terminal(width=width, color=color, unicode=True))


def test_an_explanation_is_printed() -> None:
    """The text shows the meaning, the place to look at, and the remedy."""
    text = shown(LEAK)
    assert golden("explain-80.txt", text) == text


def test_commands_stand_out() -> None:
    """Commands to type have their own colour."""
    assert "\x1b[36m`ls /proc/PID/fd | wc -l`\x1b[0m" in shown(LEAK, color=True)


def test_empty_parts_are_left_out() -> None:
    """A label without a text is not printed."""
    text = shown(Explanation(id="x", kind="metric", means="A number.", look_at="", do=""))
    assert "LOOK AT" not in text
    assert "DO" not in text


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_everything_that_can_be_explained_fits(width: int) -> None:
    """No line of an explanation or of the index is wider than the terminal."""
    texts = [shown(known, width=width) for name in ids() if (known := explain(name)) is not None]
    for text in (*texts, render_index(Terminal(width=width, color=False, unicode=False))):
        assert max(cell_len(line) for line in text.splitlines()) <= width


def test_the_index_has_every_name_once() -> None:
    """The index lists findings, fates, outcomes and metrics, without the metrics that count a fate or an outcome."""
    words = render_index(Terminal(width=120, color=False, unicode=True)).split()
    names = [name for name in ids() if not name.startswith(("fate.", "outcome."))]
    assert [name for name in names if words.count(name) != 1 and name not in {"metric", "outcome"}] == []
