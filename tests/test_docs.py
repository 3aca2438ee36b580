"""The README and the documentation say what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from loadsim.commands import NAMES
from loadsim.scenario.client import Client
from loadsim.scenario.model import Canary, Network, Timeline
from loadsim.scenario.server import Server
from loadsim.scenario.toml import load_text_matrix

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLE = (ROOT / "docs" / "reference" / "example.toml").read_text(encoding="utf-8")


def test_generated_pages_are_current() -> None:
    """scripts/reference.py would change no page."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    stale = [path.name for path, text in reference.current().items() if path.read_text(encoding="utf-8") != text]
    assert stale == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of this repository."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_page_is_listed() -> None:
    """docs/README.md links to each page of the documentation."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_the_front_door_is_short() -> None:
    """The README has at most 250 lines and a row for each command."""
    assert len(README.splitlines()) <= 250
    assert [name for name in NAMES if f"`loadsim {name}" not in README] == []


def test_the_example_is_a_valid_scenario() -> None:
    """The example of the reference loads, with the value of its threshold in seconds."""
    matrix = load_text_matrix(EXAMPLE)
    assert matrix.scenario.thresholds.expect[0].value == pytest.approx(0.05)
    assert [cell.label for cell in matrix.cells][:2] == ["backlog 8, hold 0s", "backlog 128, hold 0s"]


def test_the_example_shows_every_key() -> None:
    """Every key of every table stands in the example."""
    keys = [name for table in (Server, Client, Network, Timeline, Canary) for name in table.model_fields]
    assert [key for key in keys if f"{key} = " not in EXAMPLE] == []
