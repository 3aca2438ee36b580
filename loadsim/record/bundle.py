"""The result folder: its files, its format version, and how to find and read one again.

Save first, render later: everything that a report says can be made from this folder alone, also when its run was
interrupted or its conductor killed. Must not know what the records mean.

    manifest.json             format and program versions, argv, times, and the facts of the run
    scenario.resolved.toml    the scenario with `extends` and overrides applied
    host.json                 kernel, CPU, sysctls, limits, load
    attempts.npy accepts.npy failures.npy samples.npy      the records (while running: *.journal)
    summary.json              what analysis made of them
    timeseries.csv connect.hlog accept.hlog *.hgrm         derived from the records, for other tools
    target.stdout target.stderr driver-N.stderr            what the processes printed

Format history: 1, the first.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadsim import __version__
from loadsim.errors import EnvironmentRefusedError, RecordingError
from loadsim.record.arrays import Recording, Records, dtype_of, empty, records_of
from loadsim.record.events import ACCEPT, ATTEMPT, FAILURE, SAMPLE, Layout
from loadsim.record.facts import Facts
from loadsim.record.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
LATEST = "latest"
#: The arrays of a recording and the journals they come from.
_ARRAYS = {"attempts": ATTEMPT, "accepts": ACCEPT, "failures": FAILURE, "samples": SAMPLE}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Bundle:
    """One result folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, out: Path, scenario: str) -> Bundle:
        """Make `out/<UTC>-<scenario>-<4 hex>` and point `out/latest` to it.

        Raises EnvironmentRefusedError where that is not possible.
        """
        stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        name = _UNSAFE.sub("-", scenario).strip("-.")[:60] or "run"
        folder = out / f"{stamp}-{name}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise EnvironmentRefusedError(
                f"cannot make the result folder {folder}: {error.strerror}; choose another with --out DIR"
            ) from error
        point_latest(out, folder)
        return cls(folder)

    def journal_path(self, name: str) -> Path:
        """Return where a journal is while the run lasts: "attempts-0", "accepts", "failures", "samples"."""
        return self.path / f"{name}.journal"

    def journal_paths(self, name: str) -> list[Path]:
        """Return the existing journals of one array, one per process."""
        return sorted(self.path.glob(f"{name}.journal")) + sorted(self.path.glob(f"{name}-*.journal"))

    def write_text(self, name: str, text: str) -> None:
        """Write one file so that a reader sees the old or the new one, never half of it."""
        temporary = self.path / f".{name}.part"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path / name)

    def write_json(self, name: str, values: Any) -> None:  # noqa: ANN401 -- whatever json.dumps takes
        """Write one JSON document."""
        self.write_text(name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def write_manifest(self, facts: Facts, argv: Sequence[str]) -> None:
        """Write what is known of the run so far; the run rewrites it at its end."""
        self.write_json(
            "manifest.json",
            {
                "format": FORMAT,
                "loadsim": __version__,
                "python": platform.python_version(),
                "kernel": platform.release(),
                "argv": list(argv),
                "written": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "facts": facts.to_json(),
            },
        )

    def merge_journals(self) -> dict[str, int]:
        """Turn the journals into .npy files and remove them; return the records that found no space, by array."""
        lost = {}
        for name, layout in _ARRAYS.items():
            paths = self.journal_paths(name)
            records, without_space = _read_journals(paths, layout)
            np.save(self.path / f"{name}.npy", records, allow_pickle=False)
            for path in paths:
                path.unlink()
            if without_space:
                lost[name] = without_space
        return lost

    def read_manifest(self) -> dict[str, Any]:
        """Return manifest.json; raises RecordingError where it is missing, damaged or of a newer format."""
        values = self.read_json("manifest.json")
        if not isinstance(values, dict) or not isinstance(values.get("format"), int) or "facts" not in values:
            raise RecordingError(f"{self.path / 'manifest.json'}: is damaged; the run cannot be reported on")
        if values["format"] > FORMAT:
            raise RecordingError(
                f"{self.path}: has format {values['format']}, this loadsim {__version__} reads up to {FORMAT}; "
                "upgrade loadsim"
            )
        return values

    def read_json(self, name: str) -> Any:  # noqa: ANN401 -- whatever the file holds
        """Return one JSON document; raises RecordingError where there is none."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecordingError(f"{self.path / name}: {error.strerror}; is it a result folder?") from error
        except ValueError as error:
            raise RecordingError(f"{self.path / name}: is damaged ({error})") from error

    def read_verdict(self) -> str:
        """Return the verdict in summary.json, "" where the run did not get that far."""
        try:
            verdict = self.read_json("summary.json")["verdict"]
        except (RecordingError, KeyError, TypeError):
            return ""
        return verdict if isinstance(verdict, str) else ""

    def read(self) -> Recording:
        """Return the whole recording, from .npy files or, where the run never got to its end, from its journals."""
        try:
            facts = Facts.from_json(self.read_manifest()["facts"])
        except (KeyError, TypeError) as error:
            raise RecordingError(f"{self.path / 'manifest.json'}: is damaged ({error!r})") from error
        arrays, lost = {}, dict(facts.lost_records)
        for name, layout in _ARRAYS.items():
            arrays[name], without_space = self._read_array(name, layout)
            if without_space:
                lost[name] = without_space
        return Recording(facts=replace(facts, lost_records=lost), **arrays)

    def _read_array(self, name: str, layout: Layout) -> tuple[Records, int]:
        path = self.path / f"{name}.npy"
        if not path.exists():
            return _read_journals(self.journal_paths(name), layout)
        try:
            records = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RecordingError(f"{path}: is damaged ({error})") from error
        if records.dtype != dtype_of(layout) or records.ndim != 1:
            raise RecordingError(f"{path}: has records of another shape; it was written by another version of loadsim")
        return records, 0


def point_latest(out: Path, folder: Path) -> None:
    """Let `out/latest` name this folder; a file system without links is left without it."""
    temporary = out / f".{LATEST}-{os.getpid()}"
    try:
        temporary.symlink_to(folder.name)
        temporary.replace(out / LATEST)
    except OSError:
        temporary.unlink(missing_ok=True)


def find(run: str, out: Path) -> Bundle:
    """Return the result folder that RUN names: a path, a unique prefix of a name in `out`, or "latest".

    Raises RecordingError naming the candidates where there is none, or more than one.
    """
    for path in (out / run, Path(run)):
        if _is_result(path):
            return Bundle(path.resolve())
    names = [path.name for path in results(out)]
    matching = [name for name in names if name.startswith(run)]
    if len(matching) == 1:
        return Bundle(out / matching[0])
    if matching:
        raise RecordingError(f'"{run}" names {len(matching)} results: {", ".join(matching[:5])}; give more letters')
    if not names:
        raise RecordingError(f"there is no result in {out} yet; make one: loadsim run too-many-open-files")
    raise RecordingError(f'no result in {out} is called "{run}"; the newest is {names[-1]} ("latest")')


def results(out: Path) -> list[Path]:
    """Return the result folders in `out`, oldest first; raises RecordingError where it may not be read."""
    try:
        return sorted(path.parent for path in out.glob("*/manifest.json") if not path.parent.is_symlink())
    except OSError as error:
        raise _unreadable(error) from error


def _is_result(path: Path) -> bool:
    try:
        return (path / "manifest.json").exists()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> RecordingError:
    return RecordingError(f"cannot look into {error.filename}: {error.strerror}; choose another folder with --out DIR")


def _read_journals(paths: Sequence[Path], layout: Layout) -> tuple[Records, int]:
    parts, lost = [empty(layout)], 0
    for path in paths:
        with Journal.attach(path) as journal:
            parts.append(records_of(journal))
            lost += journal.lost
    # without a dtype numpy would pack the fields and lose the padding
    return np.concatenate(parts, dtype=dtype_of(layout)), lost
