"""The scenarios that come with loadsim: their paths and descriptions. Light, for `list` and shell completion."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple


class Shipped(NamedTuple):
    """A scenario that comes with loadsim."""

    name: str
    path: Path
    summary: str  # its description


def shipped_folder() -> Path:
    """Return the folder of the shipped scenarios: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "scenarios"
    return inside if inside.is_dir() else package.parent / "scenarios"


def shipped_paths() -> list[Path]:
    """Return the files of the shipped scenarios, sorted by name."""
    return sorted(shipped_folder().glob("*.toml"))


def shipped() -> list[Shipped]:
    """Return the shipped scenarios with their descriptions, sorted by name."""
    found = []
    for path in shipped_paths():
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        found.append(Shipped(path.stem, path, str(data.get("description", ""))))
    return found
