"""Lines on a terminal: its abilities, styles, bars, clipping."""

from __future__ import annotations

import io
import os
import pty
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadsim.render.drawing import (
    ALARM,
    BAD,
    GOOD,
    NAME,
    Glyphs,
    Terminal,
    bar,
    both_ends,
    gauge,
    joined,
    line,
    paint,
    paragraph,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

GLYPHS: Glyphs = Terminal(width=80, color=False, unicode=True).glyphs
PLAIN = Terminal(width=80, color=False, unicode=True)


@contextmanager
def terminal(encoding: str = "utf-8") -> Iterator[TextIO]:
    """Yield a stream that is a terminal."""
    controller, tty = pty.openpty()
    try:
        with os.fdopen(tty, "w", encoding=encoding) as stream:
            yield stream
    finally:
        os.close(controller)


@pytest.mark.parametrize(
    ("environ", "color", "unicode"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, True),
        ({"TERM": "linux"}, True, False),
    ],
)
def test_a_terminal_is_detected(environ: dict[str, str], *, color: bool, unicode: bool) -> None:
    """NO_COLOR (unless empty), a dumb terminal and the Linux console are respected."""
    with terminal() as stream:
        shown = Terminal.of(stream, environ)
    assert (color, unicode) == (shown.color, shown.unicode)


def test_an_encoding_without_blocks_gets_ascii() -> None:
    """Characters that the stream cannot encode are not drawn."""
    with terminal("latin-1") as stream:
        assert not Terminal.of(stream, {"TERM": "xterm"}).unicode


def test_a_pipe_gets_80_columns_without_colour() -> None:
    """COLUMNS and FORCE_COLOR override that."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert Terminal(width=80, color=False, unicode=True) == Terminal.of(stream, {})
    assert Terminal(width=132, color=True, unicode=True) == Terminal.of(stream, {"COLUMNS": "132", "FORCE_COLOR": "1"})
    assert Terminal.of(stream, {"COLUMNS": "0"}).width == 80


def test_a_terminal_that_does_not_know_its_width_gets_80_columns() -> None:
    """A new pseudo-terminal has 0 columns."""
    with terminal() as stream:
        assert Terminal.of(stream, {}).width == 80


@given(st.floats(min_value=0, max_value=1), st.integers(min_value=0, max_value=60))
def test_a_gauge_is_as_wide_as_it_should_be(share: float, width: int) -> None:
    """The bar and its track together take the width, for any share."""
    assert width == len(gauge(share, width, GLYPHS))


def test_a_bar_shows_every_share_above_zero() -> None:
    """A millionth is a sliver, zero is empty, one is full, and more than one is full too."""
    assert [bar(share, 4, GLYPHS) for share in (1e-6, 0.0, 1.0, 7.0, 0.625)] == ["▏", "", "████", "████", "██▌"]
    assert [bar(share, 4, Terminal(width=80, color=False, unicode=False).glyphs) for share in (1e-6, 0.6)] == [
        "#",
        "##",
    ]


def test_two_ends_that_would_meet_take_two_lines() -> None:
    """The right end stays at the edge."""
    assert [text.width for text in both_ends(line("a"), line("b"), PLAIN)] == [78]
    long = both_ends(line("a" * 60), line("b" * 30), PLAIN)
    assert [text.plain for text in long] == ["a" * 60, " " * 48 + "b" * 30]


def test_a_wide_line_is_clipped_with_an_ellipsis() -> None:
    """A line never exceeds the terminal, in Unicode and in ASCII."""
    assert paint([line("abcdef")], Terminal(width=3, color=False, unicode=True)) == "ab…\n"
    assert paint([line("abcdef")], Terminal(width=3, color=False, unicode=False)) == "...\n"
    assert paint([line("  ")], PLAIN) == "\n"


def test_lines_end_where_they_can_be_read() -> None:
    """The edge is two columns before the end of the terminal, and at most at column 118."""
    assert [Terminal(width=width, color=False, unicode=True).edge for width in (10, 80, 120, 300)] == [38, 78, 118, 118]


def test_a_style_is_one_escape_sequence_around_its_part() -> None:
    """Without colour only the text is left; blanks at the end are dropped in both cases."""
    one = line("a ", ("b", ALARM), ("", BAD), line(("c  ", NAME)), "  ")
    assert paint([one], Terminal(width=80, color=True, unicode=True)) == "a \x1b[1;31mb\x1b[0m\x1b[36mc\x1b[0m\n"
    assert paint([one], PLAIN) == "a bc\n"


def test_a_line_is_shortened_across_its_parts() -> None:
    """Parts before the edge keep their styles; the ellipsis has none."""
    shown = paint([line(("abc", BAD), ("def", GOOD), "ghi")], Terminal(width=5, color=True, unicode=True))
    assert shown == "\x1b[31mabc\x1b[0m\x1b[32md\x1b[0m…\n"


def test_painted_text_cannot_act_on_the_terminal() -> None:
    """Control characters that a renderer left in are escaped when the line is painted."""
    assert paint([line("\x1b[2J", ("a\nb", BAD))], PLAIN) == "\\x1b[2Ja\\nb\n"


def test_a_paragraph_hangs_behind_its_mark() -> None:
    """Further lines are indented by margin and mark; line breaks are spaces; an empty text has no line."""
    narrow = Terminal(width=40, color=False, unicode=True)
    shown = paragraph("one\n" + "word " * 8, narrow, margin="  ", mark="! ", mark_style=BAD)
    assert [text.plain for text in shown] == ["  ! one word word word word word word", "    word word"]
    assert paragraph("", narrow, mark="! ") == []


def test_sections_without_lines_leave_no_gap() -> None:
    """There is one empty line between two sections."""
    assert [text.plain for text in joined([[], [line("a")], [], [line("b")], []])] == ["a", "", "b"]
