"""Reading scenarios: files, `extends`, overrides; the only module of this folder that touches the file system.

Every problem is reported at once, each with its place; nothing is started for a scenario that has one. Values come
from the standard library's parser.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from loadsim.errors import ScenarioError
from loadsim.scenario.model import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shipped(NamedTuple):
    """A scenario that comes with loadsim."""

    name: str
    path: Path
    summary: str  # its description


def load(path_or_name: str, overrides: Sequence[str] = ()) -> Scenario:
    """Return the scenario in a file, or the shipped one of that name, with "key=value" overrides applied.

    Raises ScenarioError whose text is the full account of everything that is wrong.
    """
    path = find(path_or_name)
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    data.setdefault("name", path.stem)
    for override in overrides:
        key, _, text = override.partition("=")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text
        table = data
        *tables, last = key.strip().split(".")
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(str(error)) from None


def shipped_folder() -> Path:
    """Return where the shipped scenarios are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "scenarios"
    return inside if inside.is_dir() else package.parent / "scenarios"


def shipped() -> list[Shipped]:
    """Return the shipped scenarios by name."""
    found = sorted(shipped_folder().glob("*.toml"))
    return [Shipped(path.stem, path, tomllib.loads(path.read_text()).get("description", "")) for path in found]


def find(path_or_name: str) -> Path:
    """Return the path of a scenario."""
    path = Path(path_or_name)
    named = shipped_folder() / f"{path_or_name}.toml"
    return named if not path.exists() and named.exists() else path


def to_toml(scenario: Scenario) -> str:
    """Return the resolved scenario as a file that reads back as the same scenario."""
    raise NotImplementedError
