"""Text: wrapping, clipping, padding, and escaping foreign characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from loadsim.render.text import clip, flow, left, printable, right, wrap


@given(st.text())
def test_printable_text_cannot_act_on_a_terminal(text: str) -> None:
    """Any text becomes printable characters, and only ASCII if that is wanted."""
    assert printable(text).isprintable()
    assert printable(text, unicode=False).isprintable()
    assert printable(text, unicode=False).isascii()


def test_printable_text_shows_what_it_escapes() -> None:
    """An escape sequence, a line break and a reordering mark are shown escaped; ordinary text is unchanged."""
    assert printable("\x1b[31m\n\u202e") == r"\x1b[31m\n\u202e"
    assert printable("Größe 3 µs, «fine»") == "Größe 3 µs, «fine»"


def test_ascii_replaces_the_characters_of_our_own_sentences() -> None:
    """Dots, dashes and arrows become ASCII; other characters are escaped."""
    assert printable("a · b → c ≥ 3 µs…, 記", unicode=False) == r"a - b -> c >= 3 us..., \u8a18"


@given(st.text(), st.integers(min_value=2, max_value=90), st.integers(min_value=2, max_value=90))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int, first: int) -> None:
    """No line exceeds its width, and every character except white space is still there."""
    lines = wrap(printable(text), width, first=first)
    assert cell_len(lines[0]) <= first
    assert all(cell_len(line) <= width for line in lines[1:])
    assert printable(text).replace(" ", "") == "".join(lines).replace(" ", "")


def test_a_number_stays_with_its_unit() -> None:
    """A line does not break between a number and its unit, nor inside "5 min 28 s"."""
    assert wrap("lasts 5 min 28 s, and then 97 %", 11) == ["lasts", "5 min 28 s,", "and then", "97 %"]
    assert wrap("one 2 s", 5) == ["one", "2 s"]


def test_cells_flow_like_words() -> None:
    """Cells are put on one line while they fit, and a cell that is too long is clipped."""
    assert flow(["aa", "bb", "cccccccccc", "d"], 7) == ["aa   bb", "cccc...", "d"]
    assert flow([], 7) == []


def test_a_clipped_text_shows_that_something_is_missing() -> None:
    """An ellipsis replaces the rest; wide characters are never cut in half."""
    assert clip("abc", 3) == "abc"
    assert clip("abcd", 3, ellipsis="…") == "ab…"
    assert clip("記述子", 4, ellipsis="…") == "記…"
    assert clip("abc", 0) == ""
    assert clip("abcdef", 2) == "ab"


def test_padding_counts_columns() -> None:
    """Wide characters take two columns."""
    assert left("記", 3) + "|" == "記 |"
    assert right("記", 3) + "|" == " 記|"


def test_a_glued_unit_counts_its_space() -> None:
    """Lines with many numbers and units do not exceed the width."""
    text = " ".join(f"{number} ms at fd {2**number}," for number in range(5, 15))
    assert max(len(line) for line in wrap(text, 40)) <= 40
