"""[timeline] and [canary]: valid and invalid settings."""

from __future__ import annotations

import pytest

from loadsim.errors import ScenarioError
from loadsim.scenario.toml import load_text, to_toml


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[timeline]\nsteps = [{at = "1s"}]', "a step changes exactly one of nofile, backlog, release"),
        ('[timeline]\nsteps = [{at = "1s", nofile = 8, release = 0.5}]', "a step changes exactly one of"),
        ("[timeline]\nsteps = [{nofile = 8}]", "at is missing"),
        ('[timeline]\nsteps = [{at = "1s", release = 1.5}]', "release must be at most 1"),
        ("[canary]\n[client]\nrate = '1/s'\nexchange = 'none'", "a canary needs an answer"),
        ("[canary]\nheld = 1", "hello answers only once"),
        (
            "[canary]\nheld = 1\n[client]\nrate = '1/s'\nexchange = 'echo'",
            "the server would close the held connections",
        ),
        ("[canary]\n[client]\nrate = '1/s'\nsources = 255", "at most 254 sources are possible"),
        ('[canary]\n[network]\naddress = "::1"', "its own source address"),
        ("[canary]\nevery = '0s'", "must be more than 0s"),
    ],
)
def test_timelines_and_canaries_that_make_no_sense(text: str, says: str) -> None:
    """Each is refused with its place and the remedy."""
    client = "" if "[client]" in text else "\n[client]\nrate = '1/s'\n"
    with pytest.raises(ScenarioError, match=says):
        load_text(f"schema = 1\n{text}{client}")


def test_steps_are_made_in_the_order_of_their_times() -> None:
    """The order in the file does not matter, and the TOML reads back as the same steps."""
    scenario = load_text(
        'schema = 1\n[client]\nrate = "1/s"\n[timeline]\nsteps = [{at = "2s", release = 1.0}, '
        '{at = "1s", nofile = 8}]\n[canary]\n'
    )

    assert [step.change for step in scenario.timeline.ordered] == [("nofile", 8), ("release", 1.0)]
    assert scenario.canary is not None
    assert scenario.canary.every == 0.25
    assert load_text(to_toml(scenario)) == scenario
