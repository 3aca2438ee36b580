"""Folders below `--out`, results and sweeps alike: how one is made, written to, found and read.

Every file is whole or not there. Must not know what stands in one (`bundle`, `sweep`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from loadsim.errors import EnvironmentRefusedError, RecordingError
from loadsim.record.untrusted import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

LATEST = "latest"
#: Files that make a folder a result, a sweep of results, and the runs of a verdict.
RESULT_MARK, SWEEP_MARK, VERDICT_MARK = "manifest.json", "sweep.json", "verdict.json"
_MARKS = (RESULT_MARK, SWEEP_MARK, VERDICT_MARK)
#: Names that are tried for a new folder: another run may have taken one in the same second.
_NAMES_TRIED = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Folder:
    """One folder of files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_text(self, name: str, text: str) -> None:
        """Write one text file, as `writing`."""
        with self.writing(name) as file:
            file.write(text.encode())

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Give a file to write to, so that a reader sees the old or the new one of this name, never half of it."""
        temporary = self.path / f".{name}.part"
        temporary.unlink(missing_ok=True)  # a link that was put here would lead what is written to another file
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(self.path / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def write_json(self, name: str, values: Any) -> None:  # noqa: ANN401 -- whatever json.dumps takes
        """Write one JSON document."""
        self.write_text(name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:  # noqa: ANN401 -- whatever the file holds
        """Return one JSON document; raises RecordingError where there is none."""
        try:
            return parse_json(read_text(self.path / name))
        except OSError as error:
            raise RecordingError(f"{self.path / name}: {error.strerror}; is it a result folder?") from error
        except ValueError as error:
            raise RecordingError(f"{self.path / name}: is damaged ({error})") from error


def new_folder(out: Path, name: str) -> Path:
    """Make `out/<UTC>-<name>-<4 hex>` and point `out/latest` to it.

    Raises EnvironmentRefusedError where that is not possible.
    """
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    for _ in range(_NAMES_TRIED):
        folder = out / f"{stamp}-{file_name(name)}-{secrets.token_hex(2)}"
        if not folder.exists():
            break
    point_latest(out, make_folder(folder))
    return folder


def make_folder(folder: Path) -> Path:
    """Make a folder that is not there yet, and return it; raises EnvironmentRefusedError where that is not possible."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentRefusedError(
            f"cannot make the result folder {folder}: {error.strerror}; choose another with --out DIR"
        ) from error
    return folder


def file_name(text: str) -> str:
    """Return a text as a part of file names: letters, digits, dots, hyphens and underscores, at most 60."""
    return _UNSAFE.sub("-", text).strip("-.")[:60] or "run"


def point_latest(out: Path, folder: Path) -> None:
    """Let `out/latest` name this folder; a file system without links is left without it."""
    temporary = out / f".{LATEST}-{os.getpid()}"
    try:
        temporary.symlink_to(folder.name)
        temporary.replace(out / LATEST)
    except OSError:
        temporary.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder that holds nothing; `latest` beside it then names the newest that holds something."""
    shutil.rmtree(folder, ignore_errors=True)
    latest = folder.parent / LATEST
    if latest.is_symlink() and latest.readlink().name == folder.name:
        latest.unlink(missing_ok=True)
        if left := results(folder.parent):
            point_latest(folder.parent, left[-1])


def find(run: str, out: Path) -> Path:
    """Return the folder that RUN names, of a result or a sweep: a path, a unique prefix of its name, or "latest".

    Raises RecordingError naming the candidates where there is none, or more than one.
    """
    for path in (out / run, Path(run)):
        if _is_result(path):
            return path.resolve()
    names = [path.name for path in results(out)]
    matching = [name for name in names if name.startswith(run)]
    if len(matching) == 1:
        return out / matching[0]
    asked = json.dumps(run)  # whatever was typed, on one line
    if matching:
        raise RecordingError(f"{asked} names {len(matching)} results: {', '.join(matching[:5])}; give more letters")
    no_folder = "" if run == LATEST else f"{asked} is no folder of a result, and "
    if not names:
        raise RecordingError(f"{no_folder}there is no result in {out} yet; make one: loadsim run too-many-open-files")
    raise RecordingError(f'{no_folder}no result in {out} is called {asked}; the newest is {names[-1]} ("latest")')


def results(out: Path) -> list[Path]:
    """Return the folders of results and sweeps in `out`, oldest first; raises RecordingError where it is forbidden."""
    try:
        marked = [path.parent for mark in _MARKS for path in out.glob(f"*/{mark}")]
        return sorted(path for path in marked if not path.is_symlink())
    except OSError as error:
        raise _unreadable(error) from error


def _is_result(path: Path) -> bool:
    try:
        return any((path / mark).exists() for mark in _MARKS)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> RecordingError:
    return RecordingError(f"cannot look into {error.filename}: {error.strerror}; choose another folder with --out DIR")
