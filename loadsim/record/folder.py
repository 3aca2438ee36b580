"""Folders below `--out`: making, writing and finding them, and reading untrusted ones in bounded memory."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from loadsim import __version__
from loadsim.errors import EnvironmentRefusedError, RecordingError, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A manifest takes 4 kB, the plan of 10,000 runs 200 kB.
LARGEST_TEXT = 16_000_000
#: The exceptions that inconsistent numbers and texts raise anywhere in the analysis.
DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
LATEST = "latest"
#: The file that marks a folder as a result, a sweep, or the runs of a verdict.
RESULT_MARK, SWEEP_MARK, VERDICT_MARK = "manifest.json", "sweep.json", "verdict.json"
_MARKS = (RESULT_MARK, SWEEP_MARK, VERDICT_MARK)
_HIGHEST = 1 << 63
#: The errnos of open() for circular links, sockets, and devices without a driver.
_NO_FILES = (errno.ELOOP, errno.ENODEV, errno.ENXIO)
#: How many names are tried for a new folder: another run of the same second may have the first one.
_NAMES_TRIED = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
#: The largest sweep that is read: one run per second for a day.
MOST_RUNS = 86_400


class Folder:
    """A folder with text and JSON files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_text(self, name: str, text: str) -> None:
        """Replace one text file atomically."""
        with self.writing(name) as file:
            file.write(text.encode())

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Yield a file that replaces `name` at the end of the block; a reader never sees half of it."""
        temporary = self.path / f".{name}.part"
        temporary.unlink(missing_ok=True)  # a planted link would redirect the write to another file
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(self.path / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def write_json(self, name: str, values: Any) -> None:  # noqa: ANN401 -- any JSON value
        """Replace one JSON document atomically."""
        self.write_text(name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:  # noqa: ANN401 -- any JSON value
        """Return one JSON document; raises RecordingError if it is missing or damaged."""
        try:
            return parse_json(read_text(self.path / name))
        except OSError as error:
            raise RecordingError(f"{self.path / name}: {error.strerror}; is it a result folder?") from error
        except ValueError as error:
            raise RecordingError(f"{self.path / name}: is damaged ({error})") from error


def new_folder(out: Path, name: str) -> Path:
    """Make `out/<UTC>-<name>-<4 hex>` and point `out/latest` to it.

    Raises EnvironmentRefusedError if the folder cannot be made.
    """
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    for _ in range(_NAMES_TRIED):
        folder = out / f"{stamp}-{file_name(name)}-{secrets.token_hex(2)}"
        if not folder.exists():
            break
    point_latest(out, make_folder(folder))
    return folder


def make_folder(folder: Path) -> Path:
    """Make a new folder and return it; raises EnvironmentRefusedError if that fails, or if it exists."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentRefusedError(
            f"cannot make the result folder {folder}: {error.strerror}; choose another with --out DIR"
        ) from error
    return folder


def point_latest(out: Path, folder: Path) -> None:
    """Point the link `out/latest` to this folder, if the file system has links."""
    temporary = out / f".{LATEST}-{os.getpid()}"
    try:
        temporary.symlink_to(folder.name)
        temporary.replace(out / LATEST)
    except OSError:
        temporary.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder without results, and point `latest` to the newest one that is left."""
    shutil.rmtree(folder, ignore_errors=True)
    latest = folder.parent / LATEST
    if latest.is_symlink() and latest.readlink().name == folder.name:
        latest.unlink(missing_ok=True)
        if left := results(folder.parent):
            point_latest(folder.parent, left[-1])


def file_name(text: str) -> str:
    """Return a text as part of a file name: at most 60 letters, digits, dots, hyphens and underscores."""
    return _UNSAFE.sub("-", text).strip("-.")[:60] or "run"


def run_name(label: str, cell: int, repeat: int) -> str:
    """Return the folder of a run, relative to its sweep: "runs/03-backlog-128-2"."""
    return f"runs/{cell + 1:02d}-{file_name(label)}-{repeat + 1}"


def find(run: str, out: Path) -> Path:
    """Return the result or sweep that RUN names by a path, a unique prefix of its name, or "latest".

    Raises RecordingError, with the candidates, unless exactly one matches.
    """
    for path in (out / run, Path(run)):
        if _is_result(path):
            return path.resolve()
    names = [path.name for path in results(out)]
    matching = [name for name in names if name.startswith(run)]
    if len(matching) == 1:
        return out / matching[0]
    typed = json.dumps(run)  # escaped, on one line
    if matching:
        raise RecordingError(
            f"{typed} matches {len(matching)} results: {', '.join(matching[:5])}; type more of the name"
        )
    if not names:
        missing = "No result" if run == LATEST else f"No result named {typed}"
        raise RecordingError(
            f"{missing} in {out} (it has no results). Create one with: loadsim run too-many-open-files"
        )
    raise RecordingError(f'No result named {typed} in {out}. The newest is {names[-1]} ("latest").')


def results(out: Path) -> list[Path]:
    """Return the folders of results and sweeps in `out`, oldest first; raises RecordingError if it is unreadable."""
    try:
        marked = [path.parent for mark in _MARKS for path in out.glob(f"*/{mark}")]
        return sorted(path for path in marked if not path.is_symlink())
    except OSError as error:
        raise _unreadable(error) from error


def status_of(path: Path) -> str:
    """Return the status of a run, "3 of 12 runs" for a sweep, or "verdict"; "" for a run without a summary."""
    if (path / VERDICT_MARK).exists():
        return "verdict"
    if (path / SWEEP_MARK).exists():
        return _runs_of(path)
    try:
        summary = Folder(path).read_json("summary.json")
        status = summary["status"] if "status" in summary else summary["verdict"]  # format 1
    except (RecordingError, KeyError, TypeError):
        return ""
    return status if isinstance(status, str) else ""


def is_complete(path: Path) -> bool:
    """Return whether a run has a summary and ended as planned or by an `abort` threshold."""
    try:
        values = Folder(path).read_json("summary.json")
        return values["complete"] is True or values["interrupted"].startswith("aborted")
    except (RecordingError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading without blocking.

    Raises OSError if open() fails, ValueError if the path is not a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILES:
            raise ValueError("not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("not a regular file")
    with open(fd, "rb") as file:  # noqa: PTH123 -- Path.open() does not take a descriptor
        yield file


def read_text(path: Path) -> str:
    """Return the text of a file; raises OSError if it cannot be read, ValueError if it is too large or not UTF-8."""
    with opened(path) as file:
        raw = file.read(LARGEST_TEXT + 1)
    if len(raw) > LARGEST_TEXT:
        raise ValueError(f"more than {LARGEST_TEXT:,} bytes")
    return raw.decode()


def parse_json(text: str) -> Any:  # noqa: ANN401 -- any JSON value
    """Return a JSON document; raises ValueError for NaN, infinity and integers beyond 64 bits."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def raise_if_newer(path: Path, values: Any, known: int) -> None:  # noqa: ANN401 -- any JSON value
    """Raise RecordingError if a document has a newer format than the `known` one."""
    written = values.get("format") if isinstance(values, dict) else None
    if isinstance(written, int) and written > known:
        says = f"has format {written}, this loadsim {__version__} reads up to {known}; upgrade loadsim"
        raise RecordingError(f"{path}: {says}")


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Turn the exceptions of inconsistent data into a RecordingError that names the path."""
    try:
        yield
    except (*DAMAGE, ScenarioError) as error:
        says = f"its contents are inconsistent ({type(error).__name__}: {str(error)[:200]})"
        remedy = "run it again; if this folder was not edited, report a loadsim bug"
        raise RecordingError(f"{path}: is damaged: {says}; {remedy}") from error


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _whole(text: str) -> int:
    if not -_HIGHEST <= (value := int(text)) < _HIGHEST:
        raise ValueError(f"{text[:20]}... is too large")
    return value


def _is_result(path: Path) -> bool:
    try:
        return any((path / mark).exists() for mark in _MARKS)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> RecordingError:
    return RecordingError(f"cannot read {error.filename}: {error.strerror}; choose another folder with --out DIR")


def _runs_of(path: Path) -> str:
    try:
        values = Folder(path).read_json(SWEEP_MARK)
        order = values["order"][: MOST_RUNS + 1]
        done = sum(is_complete(path / run_name(values["labels"][cell], cell, repeat)) for cell, repeat in order)
    except (RecordingError, *DAMAGE):
        return ""
    if len(order) > MOST_RUNS:
        return ""
    return f"{done} runs" if done == len(order) else f"{done} of {len(order)} runs"
