"""Reads scenarios (files, `extends`, overrides) and writes a resolved scenario as TOML.

Beside `shipped`, the only module of this folder that touches the file system.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadsim.errors import ScenarioError
from loadsim.scenario.fields import SPELLED
from loadsim.scenario.layers import Layer, merge, override, read_layer
from loadsim.scenario.messages import nearest, problem_of, spell
from loadsim.scenario.problems import Problem, Source, render
from loadsim.scenario.shipped import shipped_folder, shipped_paths
from loadsim.scenario.sweep import Matrix, expand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.scenario.layers import Override
    from loadsim.scenario.model import Scenario


#: Bytes. A scenario is a page of text; a larger file is a mistake, such as /dev/zero.
_LARGEST_FILE = 100_000
#: Parents, grandparents and so on of a scenario.
_MOST_PARENTS = 16
#: Errors that are printed: finding the place of each one reads the whole text.
_MOST_SHOWN = 100
#: Types of errors that are reliable only with a complete chain of parents.
_NEEDS_ALL_LAYERS = frozenset({"missing", "contradiction"})


class _UnreadableError(Exception):
    """A file cannot be read; the message is a sentence with the remedy."""


def load(path_or_name: str, overrides: Sequence[Override] = ()) -> Scenario:
    """Return the one scenario of a file, as `load_matrix` does; raises ScenarioError if the file sweeps."""
    return _single(load_matrix(path_or_name, overrides))


def load_matrix(path_or_name: str, overrides: Sequence[Override] = (), *, allow_outside: bool = False) -> Matrix:
    """Return all cells of a file, or of the shipped scenario of that name, with "key=value" overrides applied.

    Its parents must lie in its own folder or below, unless `allow_outside`. Raises ScenarioError with the text of all
    errors.
    """
    path = find(path_or_name)
    try:
        return _resolved(_Chain(path, _read(path), allow_outside=allow_outside), overrides)
    except _UnreadableError as error:
        raise ScenarioError(str(error)) from None


def load_text(text: str, overrides: Sequence[Override] = (), *, name: str = "built-in") -> Scenario:
    """Return the one scenario in a text; `name` is used as its path, also to find its parents."""
    return _single(load_text_matrix(text, overrides, name=name))


def load_text_matrix(text: str, overrides: Sequence[Override] = (), *, name: str = "built-in") -> Matrix:
    """Return all cells of a text, as `load_matrix` does."""
    return _resolved(_Chain(Path(name), text.encode()), overrides)


def _single(matrix: Matrix) -> Scenario:
    if matrix.axes:
        chosen = " ".join(f"--set {name}={values[0]}" for name, values in matrix.axes.items())
        raise ScenarioError(f"{matrix.scenario.name} sweeps {', '.join(matrix.axes)}: choose one value with {chosen}")
    return matrix.scenario


def _resolved(chain: _Chain, overrides: Sequence[Override]) -> Matrix:
    """Return the cells of the files and overrides; raises ScenarioError with the text of all errors."""
    given = [override(each) if isinstance(each, str) else each.layer() for each in overrides]
    problems = [*chain.problems, *(found for found in given if isinstance(found, Problem))]
    layers = [*chain.layers, *(layer for layer in given if isinstance(layer, Layer))]
    more = 0
    if not chain.broken:
        matrix = expand({"name": chain.name, **merge(layers)})
        if not isinstance(matrix, Matrix):
            errors = [e for e in matrix if chain.complete or e["type"] not in _NEEDS_ALL_LAYERS]
            problems += [problem_of(error, layers) for error in errors[:_MOST_SHOWN]]
            more = max(0, len(errors) - _MOST_SHOWN)
        elif not problems:
            return matrix
    order = [*chain.sources, *(found.source for found in given)]
    text = render(sorted(problems, key=lambda each: (order.index(each.source), each.span)))
    rest = f"; {more:,} more are not shown: fix these first" if more else ""
    raise ScenarioError(text + rest)


def find(path_or_name: str) -> Path:
    """Return the path of a scenario: a file, or the shipped scenario of that name; the file wins.

    A path that is neither is returned unchanged; reading it raises the error.
    """
    if not _is_file(Path(path_or_name)):
        for known in shipped_paths():
            if known.stem == path_or_name:
                return known
    return Path(path_or_name)


class _Chain:
    """A file and its parents, eldest first, as far as they could be read.

    `broken`: a file is not TOML, so values cannot be checked. `complete`: no parent is missing.
    """

    def __init__(self, path: Path, text: bytes, *, allow_outside: bool = False) -> None:
        self.name = _name_after(path)
        self._inside = None if allow_outside else path.parent.resolve()
        self.paths: list[Path] = []
        self.sources: list[Source] = []
        self.layers: list[Layer] = []
        self.problems: list[Problem] = []
        self.broken = False
        self.complete = True
        self._add(path, text)
        while not self.broken and self.complete and "extends" in self.layers[0].data:
            self._add_parent(self.layers[0])

    def _add(self, path: Path, text: bytes) -> None:
        layer = read_layer(_shown(path), text)
        self.sources.insert(0, layer.source)
        if isinstance(layer, Problem):
            self.problems.append(layer)
            self.broken = True
        else:
            self.layers.insert(0, layer)
            self.paths.insert(0, path)

    def _add_parent(self, child: Layer) -> None:
        named = child.data["extends"]
        if not isinstance(named, str) or not named:
            self._stop(child, f'extends must be the path of a file, such as "base.toml", found {spell(named)}')
            return
        folder = self.paths[0].parent
        if "\0" in named:
            self._stop(child, "extends must be the path of a file, and a path cannot contain NUL: remove it")
            return
        path = _parent_path(folder, named)
        if path.resolve() in [known.resolve() for known in self.paths]:
            self._stop(child, f"extends leads in a circle back to {_shown(path)}: remove one extends")
            return
        if len(self.paths) > _MOST_PARENTS:
            self._stop(child, f"extends has more than {_MOST_PARENTS} parents in a row: merge some of them")
            return
        if self._is_outside(path):
            sentence = f"extends leaves the folder of the scenario: {_shown(path)}"
            self._stop(child, f"{sentence}; pass --allow-outside if you trust that file, or copy it beside this one")
            return
        try:
            self._add(path, _read(path))
        except _UnreadableError as error:
            near = nearest(named, [each.name for each in folder.glob("*.toml")])
            self._stop(child, str(error), f'"{near}"' if near else None)

    def _is_outside(self, path: Path) -> bool:
        """Return whether a parent, with links resolved, is outside of the scenario's folder and the shipped ones."""
        allowed = () if self._inside is None else (self._inside, shipped_folder().resolve())
        return bool(allowed) and not any(path.resolve().is_relative_to(folder) for folder in allowed)

    def _stop(self, child: Layer, sentence: str, hint: str | None = None) -> None:
        span = child.places[("extends",)].value
        self.problems.append(Problem(source=child.source, span=span, sentence=sentence, hint=hint))
        self.complete = False


def _parent_path(folder: Path, named: str) -> Path:
    """Return the path of a parent: relative to its child, or the name of a shipped scenario."""
    beside = folder / named
    by_name = find(named)
    return beside if _is_file(beside) or by_name == Path(named) else by_name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, with a NUL, in an unreadable folder: reading it raises the error
        return False


def _read(path: Path) -> bytes:
    """Return the bytes of a file; raises _UnreadableError with the reason and the remedy."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise _UnreadableError(_not_found(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _UnreadableError(f"{_shown(path)} cannot be read ({reason}): name a file that you may read") from None
    if len(text) > _LARGEST_FILE:
        raise _UnreadableError(
            f"{_shown(path)} is larger than {_LARGEST_FILE:,} bytes: name a scenario, which is a page of text"
        )
    return text


def _not_found(path: Path) -> str:
    names = [known.stem for known in shipped_paths()]
    near = nearest(path.stem, names)
    remedy = f"did you mean {near}?" if near else "loadsim list shows the shipped ones"
    return f"{_decoded(path)} is neither a file nor a shipped scenario; {remedy}"


def _shown(path: Path) -> str:
    """Return a path for a message: relative if it is below the working directory."""
    absolute = Path(os.path.normpath(path.absolute()))
    short = absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
    return _decoded(short)


def _decoded(path: Path) -> str:
    """Return a path as printable text, because a file name may be any bytes."""
    return os.fsencode(path).decode(errors="replace")


def _name_after(path: Path) -> str:
    """Return the default name of a scenario: the name of its file without characters that a name cannot have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "unnamed"


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def to_toml(scenario: Scenario, matrix: Matrix | None = None) -> str:
    """Return the scenario as TOML, with the table [sweep] of a matrix; keys without a value are left out."""
    values = scenario.model_dump(mode="json", by_alias=True, exclude_none=True, context=SPELLED)
    if scenario.server.close_after is None:
        values["server"]["close_after"] = "client"
    if matrix is not None:
        exclude = {"exclude": list(matrix.exclude)} if matrix.exclude else {}
        values["sweep"] = {
            **{name: list(tried) for name, tried in matrix.axes.items()},
            "repeat": matrix.repeat,
            **exclude,
        }
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = _pairs({name: value for name, value in values.items() if name not in tables})
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_pairs(table)] if table else []
    return "\n".join(lines) + "\n"


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in table.items()]


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _value(value: object) -> str:
    """Return a value as TOML; a table becomes an inline one."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(_pairs(value))}}}"
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def _text(text: str) -> str:
    """Return a TOML basic string: a JSON string with DEL escaped, which JSON does not do."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
