"""The picture of the house, held against the imports of the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "loadsim"

#: Imports point down only; rooms of one line do not import each other.
LAYERS = (
    {"commands"},
    {"run"},
    {"report", "target", "load"},
    {"analysis", "inspect"},
    {"record"},
    {"scenario", "kernel"},
    {"metrics"},
    {"exchange", "units", "errors", "control", "interrupt", "fates"},
)
#: Decided in pure functions: no socket, clock, process, trio or global random.
PURE = ("exchange", "fates", "metrics", "units", "scenario", "analysis", "inspect", "target.policy")
NOT_PURE = {"scenario.toml", "inspect.overview", "inspect.snapshot", "inspect.targets", "inspect.watch"}
IMPURE_MODULES = {"socket", "time", "trio", "subprocess", "select", "selectors", "signal", "threading", "os", "secrets"}

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module given as "record.events"."""
    path = PACKAGE.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text())


def imports_of(module: str) -> set[str]:
    """Return the dotted names that a module imports anywhere in it, also lazily or for types."""
    names = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level_of(room: str) -> int:
    """Return the line of the picture on which a room stands, counted from the top."""
    for level, rooms in enumerate(LAYERS):
        if room in rooms:
            return level
    pytest.fail(f"loadsim/{room} stands in no layer: add it to the picture")


@pytest.mark.parametrize("module", [name for name in MODULES if name not in {"__init__", "__main__"}])
def test_imports_point_down(module: str) -> None:
    """A module imports only from its own room and from the lines below it."""
    room = module.split(".", maxsplit=1)[0]
    upward = []
    for name in imports_of(module):
        parts = name.split(".")
        if parts[0] != "loadsim" or len(parts) < 2 or parts[1] == "__version__":
            continue
        if parts[1] != room and level_of(parts[1]) <= level_of(room):
            upward.append(name)
    assert upward == []


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(PURE) and name not in NOT_PURE])
def test_pure_modules_touch_no_world(module: str) -> None:
    """What decides imports no socket, clock, process, and takes random only as random.Random(seed)."""
    assert {name for name in imports_of(module) if name.split(".")[0] in IMPURE_MODULES} == set()
    unseeded = [
        ast.unparse(node)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random"
    ]
    assert unseeded == []


def test_the_wall_clock_is_read_for_dates_alone() -> None:
    """Every duration and every order comes from CLOCK_MONOTONIC: whoever sets the clock back changes no result."""
    calls = {"time.time", "time.time_ns", "dt.datetime.now", "time.localtime", "time.gmtime"}
    readers = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in calls
    }
    assert readers == {"record.bundle", "record.folder", "report.inspection.watching", "run.conductor"}


def test_every_folder_says_which_question_it_answers() -> None:
    """A folder's docstring lists each of its modules."""
    missing = []
    for folder in (path.parent for path in PACKAGE.glob("*/__init__.py")):
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        missing += [str(path) for path in folder.glob("[!_]*.py") if f"{path.stem} " not in docstring]
    assert missing == []


def test_only_the_live_view_imports_rich() -> None:
    """All renderers draw with `report.drawing`; rich only keeps the lines of the live view in place."""
    assert {module for module in MODULES if any(name.startswith("rich") for name in imports_of(module))} == {
        "report.live"
    }
