"""Folders below `--out`: how one is made, written, found, and read in bounded space when somebody else made it."""

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
_HIGHEST = 1 << 63
#: What numbers and texts that do not fit together end in, wherever they meet.
DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

#: What open() says of links that go round in a circle, and of sockets and devices that nobody is behind.
_NO_FILES = (errno.ELOOP, errno.ENODEV, errno.ENXIO)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading, without waiting.

    Raises OSError where it may not be opened, ValueError where it is something else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILES:
            raise ValueError("it is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("it is no regular file")
    with open(fd, "rb") as file:  # noqa: PTH123 -- there is no path that could be opened so
        yield file


def read_text(path: Path) -> str:
    """Return a text file; raises OSError where it cannot be read, ValueError where it is too large or no UTF-8."""
    with opened(path) as file:
        raw = file.read(LARGEST_TEXT + 1)
    if len(raw) > LARGEST_TEXT:
        raise ValueError(f"more than {LARGEST_TEXT:,} bytes")
    return raw.decode()


def parse_json(text: str) -> Any:  # noqa: ANN401 -- whatever the text holds
    """Return a JSON document of numbers that can be computed with; raises ValueError otherwise."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def raise_if_newer(path: Path, values: Any, known: int) -> None:  # noqa: ANN401 -- whatever a file holds
    """Raise RecordingError where a document names another format than the `known` one and those before it."""
    written = values.get("format") if isinstance(values, dict) else None
    if isinstance(written, int) and written > known:
        says = f"has format {written}, this loadsim {__version__} reads up to {known}; upgrade loadsim"
        raise RecordingError(f"{path}: {says}")


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Turn what comes of numbers that do not fit together into RecordingError, with the folder that they are from."""
    try:
        yield
    except (*DAMAGE, ScenarioError) as error:
        says = f"what it holds does not fit together ({type(error).__name__}: {str(error)[:200]})"
        remedy = "make the run anew, or, where nobody has touched it, report this as a mistake of loadsim"
        raise RecordingError(f"{path}: is damaged: {says}; {remedy}") from error


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _whole(text: str) -> int:
    if not -_HIGHEST <= (value := int(text)) < _HIGHEST:
        raise ValueError(f"{text[:20]}... is too large a number")
    return value


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


#: One run per second for a day.
MOST_RUNS = 86_400


def status_of(path: Path) -> str:
    """Return the status of a run, "3 of 12 runs" of a sweep, or "verdict"; "" for a run without a summary."""
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
    """Return whether a run ended as planned or by an `abort`, and has a summary."""
    try:
        values = Folder(path).read_json("summary.json")
        return values["complete"] is True or values["interrupted"].startswith("aborted")
    except (RecordingError, KeyError, TypeError, AttributeError):
        return False


def run_name(label: str, cell: int, repeat: int) -> str:
    """Return the folder of a run relative to its sweep: "runs/03-backlog-128-2"."""
    return f"runs/{cell + 1:02d}-{file_name(label)}-{repeat + 1}"


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
