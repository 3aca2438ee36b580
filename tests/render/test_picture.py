"""The pictures of a run."""

from __future__ import annotations

import dataclasses

from report_samples import too_many_open_files

from loadsim.analysis.summary import Mark
from loadsim.render.drawing import Terminal
from loadsim.render.picture import LETTERS, fd_table, picture, sparkline, time_axis

TERMINAL = Terminal(width=80, color=False, unicode=True)


def drawn(values: list[int | None], limit: int | None, columns: int) -> str:
    """Return a sparkline as text."""
    return sparkline(values, limit, columns, TERMINAL).plain


def table(fd_map: str, width: int = 80) -> list[str]:
    """Return the picture of an fd table as lines."""
    terminal = Terminal(width=width, color=False, unicode=True)
    return [text.plain for text in fd_table(dataclasses.replace(too_many_open_files(), fd_map=fd_map), terminal)]


def test_only_the_limit_has_the_last_level() -> None:
    """Zero has the lowest level, every other value is above it, and only the limit fills the cell."""
    assert drawn([0, 1, 10, 40, 99, 100, 101], 100, 7) == "▁▂▂▄▇██"


def test_without_a_limit_the_largest_value_is_the_highest() -> None:
    """Values are drawn against each other."""
    assert drawn([0, 5, 9], None, 3) == "▁▅█"
    assert drawn([0, 0, 0], None, 3) == "▁▁▁"


def test_missing_samples_are_blank() -> None:
    """A gap in the samples is a gap in the picture."""
    assert drawn([1, None, 1], 1, 3) == "█ █"


def test_a_peak_survives_narrow_columns() -> None:
    """The largest value of each step is drawn, therefore a short burst stays visible; few values are stretched."""
    assert drawn([0, 0, 0, 9, 0, 0, 0, 0], 9, 4) == "▁█▁▁"
    assert drawn([0, 9], 9, 4) == "▁▁██"


def test_a_time_axis_has_round_labels() -> None:
    """Steps are 1, 2 or 5 times a power of ten of seconds, then round minutes and hours."""
    assert time_axis(3.0, 30) == "0 s       1         2"
    assert time_axis(1.2, 30) == "0 s         0.5          1"
    assert time_axis(1300.0, 30) == "0 min         10            20"
    assert time_axis(11 * 3600.0, 33) == "0 h            5              10"
    assert time_axis(0.0, 30) == "0 s"


def test_marks_that_meet_stand_side_by_side() -> None:
    """Two marks at almost the same time keep their order and are both explained."""
    timeline = dataclasses.replace(
        too_many_open_files().timeline, marks=[Mark(at_s=0.02, label="second"), Mark(at_s=0.0, label="first")]
    )
    lines = [text.plain for text in picture(dataclasses.replace(too_many_open_files(), timeline=timeline), TERMINAL)]
    assert lines[-1] == " " * 14 + "12    1 first (0 us)   2 second (20 ms)"


def test_a_small_fd_table_is_one_row() -> None:
    """Letters form groups of eight, with a legend; free ones at the end are left out."""
    assert [table("fffesseLE.W....")[1], table("fffesseLE.W")[2][:13]] == ["  fffesseL E.W", "  L listening"]


def test_a_larger_fd_table_has_numbered_rows() -> None:
    """Each row of 64 begins with the number of its first descriptor; a narrow terminal gets 32."""
    assert [row[:7] for row in table("E" * 130)[1:4]] == ["    0  ", "   64  ", "  128  "]
    assert [row[:6] for row in table("E" * 70, width=60)[1:4]] == ["   0  ", "  32  ", "  64  "]


def test_above_512_descriptors_a_letter_stands_for_several() -> None:
    """The letter shows the most frequent kind, and a note gives the number of descriptors."""
    lines = table("E" * 300 + "W" * 700)
    assert (
        "".join(lines[1:9]).replace(" ", "").translate({ord(digit): None for digit in "0123456789,"})
        == "E" * 16 * 9 + "E" * 6 + "W" * 350
    )
    assert "  one letter stands for 2 descriptors and shows the most frequent kind" in lines


def test_every_letter_of_an_fd_map_has_a_meaning() -> None:
    """All letters of `record.facts` are in the legend."""
    assert set("LEWTfpets.") == set(LETTERS)


def test_an_unknown_limit_is_left_out() -> None:
    """A table is drawn without its limit; an empty table is not drawn."""
    lines = [text.plain for text in fd_table(dataclasses.replace(too_many_open_files(), metrics={}), TERMINAL)]
    assert lines[0] == "  the fd table at the end"
    assert table("....") == []


def test_a_peak_without_a_limit_is_only_a_number() -> None:
    """Beside the picture is the peak, with its limit if that is known; an unknown peak is left out."""
    base = too_many_open_files()
    timeline = dataclasses.replace(base.timeline, fd_limit=None, marks=[])
    lines = [
        text.plain for text in picture(dataclasses.replace(base, timeline=timeline, metrics={"fds.max": 64}), TERMINAL)
    ]
    assert lines[1].endswith("  64")
    assert lines[2].endswith("█  ")
