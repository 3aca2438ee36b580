"""The architecture as rules: which folder imports which, what each process loads, and what a pure module may do."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "loadsim"
DOCS = [PACKAGE.parent / "CONTRIBUTING.md", *(PACKAGE.parent / "docs").rglob("*.md")]

#: Imports point down only. Folders of one line do not import each other.
LAYERS = (
    {"commands"},
    {"compare", "verdict", "inspect"},
    {"run"},
    {"render", "targets", "driver", "simulated"},
    {"analysis"},
    {"record"},
    {"scenario", "process"},
    {"kernel"},
    {"metrics"},
    {"exchange", "fates", "units", "errors", "early_signals"},
)
#: `inspect` starts on a host in trouble: of the layers below it uses these.
INSPECT_USES = {"kernel", "render.drawing", "render.text", "errors", "units", "inspect"}

#: Programs of their own -> what they must not load: a thread of numpy in the server stalls the growth of its fd table,
#: and `inspect` has to start within a tenth of a second.
PROCESSES = {
    "simulated.server": {"numpy", "pydantic", "rich", "click", "psutil", "tree_sitter", "hdrh"},
    "driver.driver": {"numpy", "pydantic", "rich", "click", "psutil", "tree_sitter", "hdrh"},
    "driver.held": {"numpy", "pydantic", "rich", "click", "psutil", "tree_sitter", "hdrh"},
    "process.holder": {"numpy", "pydantic", "rich", "click", "psutil", "tree_sitter", "hdrh", "trio"},
    "process.supervisor": {"numpy", "pydantic", "rich", "click", "psutil", "tree_sitter", "hdrh", "trio"},
    "commands.inspect": {"numpy", "pydantic", "rich", "tree_sitter", "hdrh", "trio"},
}
#: The folders of these processes import the standard library, trio, each other, and these modules of ours.
PROCESS_FOLDERS = ("simulated", "driver")
SHARED_WITH_PROCESSES = {
    "errors",
    "exchange",
    "fates",
    "units",
    "kernel.libc",
    "kernel.limits",
    "kernel.procfs",
    "kernel.sockdiag",
    "kernel.timing",
    "process.control",
    "record.accept_log",
    "record.journal",
    "record.records",
    "scenario.arrivals",
    "scenario.specs",
}

#: Values in, values out: no file, socket, clock, process or unseeded random.
PURE = ("exchange", "metrics", "units", "scenario", "analysis", "simulated.policy", "inspect", "compare", "verdict")
NOT_PURE = {
    "scenario.shipped",
    "scenario.toml",
    "inspect.overview",
    "inspect.snapshot",
    "inspect.targets",
    "inspect.watch",
    "compare.collect",
    "compare.files",
    "compare.folder",
    "compare.sweep",
    "compare.text",
    "verdict.run",
}
#: Calls with an effect, by how they are written. A pure name such as signal.Signals(9).name is none.
EFFECTS = ("open", "print", "input", "time.", "socket.", "subprocess.", "trio.", "select.", "selectors.", "threading.")
EFFECT_METHODS = {
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "mkdir",
    "unlink",
    "rmdir",
    "touch",
    "iterdir",
}
PURE_OS = {"os.fspath", "os.strerror", "os.path.relpath", "os.path.basename", "os.path.join", "os.path.commonpath"}

MOST_MODULES = 150
MOST_LINES = 500

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def path_of(module: str) -> Path:
    """Return the file of a module given as "record.records"."""
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def names_in(module: str, nodes: list[ast.stmt] | None = None) -> set[str]:
    """Return the dotted names that statements of a module import; of all of it, lazily and for types too."""
    names = set()
    for node in ast.walk(tree_of(module)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names: set[str]) -> set[str]:
    """Return the modules of this package among dotted names, without the package's name."""
    inside = {name.removeprefix("loadsim.") for name in names if name.startswith("loadsim.")}
    modules = {name if name in MODULES else name.rpartition(".")[0] for name in inside}
    return modules - {"", "__version__"}


def folder_of(module: str) -> str:
    """Return the first folder of a module, or the module at the top."""
    return module.split(".", maxsplit=1)[0]


def level_of(folder: str) -> int:
    """Return the line of the picture on which a folder stands, counted from the top."""
    for level, folders in enumerate(LAYERS):
        if folder in folders:
            return level
    pytest.fail(f"loadsim/{folder} stands in no layer: add it to the picture")


@pytest.mark.parametrize("module", [name for name in MODULES if name not in {"__init__", "__main__"}])
def test_imports_point_down(module: str) -> None:
    """A module imports only from its own folder and from the lines below it."""
    folder = folder_of(module)
    upward = [
        name
        for name in ours(names_in(module))
        if folder_of(name) != folder and level_of(folder_of(name)) <= level_of(folder)
    ]
    assert upward == []


@pytest.mark.parametrize("module", [name for name in MODULES if folder_of(name) == "inspect"])
def test_inspect_needs_little(module: str) -> None:
    """The whole of `inspect` stands on the kernel and on the drawing layer."""
    used = ours(names_in(module))
    assert {name for name in used if name not in INSPECT_USES and folder_of(name) not in INSPECT_USES} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if folder_of(name) in PROCESS_FOLDERS])
def test_processes_under_measurement_import_named_modules(module: str) -> None:
    """The simulated server and the driver import the standard library, trio, and a list of modules of ours."""
    used = {name for name in ours(names_in(module)) if folder_of(name) != folder_of(module)}
    assert used <= SHARED_WITH_PROCESSES


def loaded_by(module: str) -> dict[str, str]:
    """Return every foreign package that importing a module loads, with the module of ours that asks for it."""
    seen: set[str] = set()
    waiting, foreign = {module}, dict[str, str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        at_once = names_in(name, statements_at_import(tree_of(name).body))
        foreign |= {one.split(".")[0]: name for one in at_once if not one.startswith("loadsim")}
        parents = {name.rpartition(".")[0]} - {""}
        waiting |= (ours(at_once) | parents) - seen
    return foreign


def statements_at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements that run when a module is imported, without those for type checkers."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.If):
            if ast.unparse(node.test) != "TYPE_CHECKING":
                found += statements_at_import([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            found += statements_at_import(node.body)
        else:
            found.append(node)
    return found


@pytest.mark.parametrize("module", PROCESSES)
def test_each_process_loads_little(module: str) -> None:
    """No process under measurement loads a library whose threads or start-up time would be measured."""
    assert {name: by for name, by in loaded_by(module).items() if name in PROCESSES[module]} == {}


def test_no_module_imports_itself_in_a_circle() -> None:
    """The graph of imports has no circle, also not through imports for types."""
    graph = {module: ours(names_in(module)) & set(MODULES) for module in MODULES}
    circles, done = [], set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            circles.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for name in sorted(graph[module] - {module}):
                walk(name, (*path, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())
    assert circles == []


def test_the_package_stays_small_enough_to_know() -> None:
    """There are at most 150 modules, and none is longer than 500 lines."""
    modules = [module for module in MODULES if path_of(module).name != "__init__.py"]
    long = {
        module: lines for module in MODULES if (lines := len(path_of(module).read_text().splitlines())) > MOST_LINES
    }
    assert len(modules) <= MOST_MODULES
    assert long == {}


def effects_in(module: str) -> list[str]:
    """Return the calls of a module that touch the world, as they are written."""
    found = []
    for node in ast.walk(tree_of(module)):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        name = call.rpartition(".")[2]
        touches = call in EFFECTS or call.startswith(tuple(one for one in EFFECTS if one.endswith(".")))
        os_call = call.startswith("os.") and call not in PURE_OS
        drawn = call.startswith(("random.", "secrets.")) and not call.startswith("random.Random")
        if (
            touches
            or os_call
            or drawn
            or ("." in call and name in EFFECT_METHODS)
            or call.endswith((".now", ".utcnow"))
        ):
            found.append(call)
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(PURE) and name not in NOT_PURE])
def test_pure_modules_touch_no_world(module: str) -> None:
    """A decision opens no file, reads no clock, starts no process, and draws only from random.Random(seed)."""
    assert effects_in(module) == []


def test_the_wall_clock_is_read_only_for_dates() -> None:
    """Every duration and every order comes from CLOCK_MONOTONIC: setting the clock back changes no result."""
    calls = {"time.time", "time.time_ns", "dt.datetime.now", "time.localtime", "time.gmtime"}
    readers = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in calls
    }
    assert readers == {"record.folder", "record.result", "inspect.watch", "run.conductor"}


def test_every_folder_lists_its_modules() -> None:
    """A folder's docstring says which question it answers and lists each of its modules."""
    missing = []
    for folder in (path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE):
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        missing += [str(path) for path in folder.glob("[!_]*.py") if f"    {path.stem} " not in docstring]
    assert missing == []


#: A dotted name in backticks, in a docstring, a comment or a page.
NAMED = re.compile(r"`(?:loadsim[./])?([a-z_]+(?:[./][a-z_]+)+)(?:\.py)?(?:\(\))?`")


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *DOCS], ids=lambda path: path.stem)
def test_every_module_that_is_named_exists(path: Path) -> None:
    """A docstring, a comment or a page names no module that has been moved or renamed."""
    folders = {folder_of(module) for module in MODULES if "." in module}
    gone = []
    for name in NAMED.findall(path.read_text(encoding="utf-8")):
        if name.endswith((".toml", ".json")):
            continue
        parts = re.split("[./]", name.removesuffix(".py"))
        if parts[0] in folders and ".".join(parts) not in MODULES and ".".join(parts[:-1]) not in MODULES:
            gone.append(name)
    assert gone == []
