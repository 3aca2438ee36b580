"""Each fate and each outcome has one row, complete and consistent."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from loadsim.fates import FATES, OUTCOMES, Fate, Outcome, Pattern, Tone
from loadsim.metrics import METRICS


def test_codes_match_recorded_files() -> None:
    """Records hold these codes, and a code is never reused for another member."""
    assert {outcome.id: int(outcome) for outcome in Outcome} == {
        "ok": 1,
        "connected": 2,
        "error": 3,
        "eof": 4,
        "reset": 5,
        "refused": 6,
        "connect_timeout": 7,
        "reply_timeout": 8,
        "local": 9,
        "not_started": 10,
        "unfinished": 0,
    }
    assert [int(fate) for fate in Fate] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("one", [*Fate, *Outcome], ids=lambda one: f"{type(one).__name__}-{one.name}")
def test_a_row_can_be_shown_everywhere(one: Fate | Outcome) -> None:
    """It has a meaning that completes a sentence, a short text, and a metric with the same direction."""
    kind = "fate" if isinstance(one, Fate) else "outcome"
    assert one.row.means
    assert not one.row.means.endswith(".")
    assert 0 < len(one.row.words.format(connect=" in 20 s", reply=" in 20 s")) <= 40
    assert METRICS[f"{kind}.{one.id}"].better == one.row.better
    assert all(text == "" or text.endswith((".", "?")) for text in (one.row.look_at, one.row.do))


def test_rows_are_found_by_their_public_names() -> None:
    """`summary.json` and metrics use these names."""
    assert FATES["not_started"] is Fate.NOT_STARTED
    assert OUTCOMES["reply_timeout"] is Outcome.REPLY_TIMEOUT


def test_the_page_has_every_colour_and_pattern() -> None:
    """The style sheet has a rule for each tone and each pattern except the plain one, and no others."""
    css = files("loadsim.render.html").joinpath("assets/page.css").read_text()
    assert set(re.findall(r"\.tone-([a-z]+)", css)) == set(Tone)
    assert set(re.findall(r"\.pattern-([a-z]+)", css)) == set(Pattern) - {"plain"}


def test_fates_of_one_colour_have_different_patterns() -> None:
    """Readers can distinguish them without colours, except for the fates of the load generator."""
    looks = [(fate.row.tone, fate.row.pattern) for fate in Fate if fate.row.tone is not Tone.GENERATOR]
    doubled = {look for look in looks if looks.count(look) > 1}
    assert doubled == {(Tone.BAD, Pattern.FALLING)}  # `orphaned` and `dropped`
