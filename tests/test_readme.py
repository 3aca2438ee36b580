"""The README's tables say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadsim.fates import Fate, Outcome
from loadsim.metrics import METRICS
from loadsim.scenario.client import Client
from loadsim.scenario.model import Network
from loadsim.scenario.server import Server
from loadsim.scenario.shipped import shipped
from loadsim.scenario.toml import load_text_matrix

README = (Path(__file__).parent.parent / "README.md").read_text()


def rows_of(head: str) -> dict[str, str]:
    """Return the last cell of each row by the first, of the table that begins with this head."""
    lines = README[README.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("` "): row[-1] for row in cells}


def test_every_fate_is_explained() -> None:
    """The table of fates is that of the code, in its order."""
    assert list(rows_of("fate").items()) == [(fate.id, fate.row.means) for fate in Fate]


def test_every_outcome_is_explained() -> None:
    """The table of outcomes is that of the code, in its order."""
    assert list(rows_of("outcome").items()) == [(outcome.id, outcome.row.means) for outcome in Outcome]


def test_every_single_metric_is_defined() -> None:
    """The table of metrics has every metric that belongs to no family, with its definition."""
    families = (
        "connect.",
        "connect_service.",
        "accept.p",
        "accept.m",
        "accept_least.",
        "reply.",
        "held.reply.",
        "fate.",
        "outcome.",
    )
    single = {name: m.definition for name, m in METRICS.items() if not name.startswith(families)}
    single["accept.pause_max"] = METRICS["accept.pause_max"].definition
    table = {name: meaning for name, meaning in rows_of("metric").items() if "{" not in name and "<" not in name}
    assert table == single


def test_every_shipped_scenario_is_listed() -> None:
    """The table of scenarios has their names and their own sentences."""
    assert rows_of("scenario") == {one.name: one.summary for one in shipped()}


def example() -> str:
    """Return the scenario that the README shows."""
    return README.split("```toml\n")[1].split("```")[0]


def test_the_example_is_a_valid_scenario() -> None:
    """The README's example loads, with the value of its threshold in seconds."""
    matrix = load_text_matrix(example())
    assert matrix.scenario.thresholds.expect[0].value == pytest.approx(0.05)
    assert [cell.label for cell in matrix.cells][:2] == ["backlog 8, hold 0s", "backlog 128, hold 0s"]


def test_the_example_shows_every_key() -> None:
    """Every key of every table stands in the example."""
    text = example()
    keys = [name for table in (Server, Client, Network) for name in table.model_fields]
    assert [key for key in keys if f"{key} = " not in text] == []
