"""The result folder of one run: its files, its format version, and reading it, format 1 included."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from loadsim import __version__
from loadsim.errors import RecordingError
from loadsim.metrics import FORMER_NAMES
from loadsim.record.facts import Facts
from loadsim.record.folder import Folder, new_folder, raise_if_newer, sound
from loadsim.record.journal import Journal
from loadsim.record.recording import (
    Recording,
    Records,
    dtype_of,
    empty,
    raise_if_impossible,
    raise_if_too_large,
    read_array,
    records_of,
)
from loadsim.record.records import ACCEPT, ATTEMPT, FAILURE, LAYOUTS, SAMPLE, SOCKET, Layout
from loadsim.units import queue_capacity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT = 2
#: The arrays of a recording, and the layout of each.
_ARRAYS = {
    "attempts": ATTEMPT,
    "accepts": ACCEPT,
    "failures": FAILURE,
    "samples": SAMPLE,
    "sockets": SOCKET,
    "canary": ATTEMPT,
    "held": ATTEMPT,
}
#: The arrays that every run writes.
_ALWAYS = frozenset({"attempts", "accepts", "failures", "samples"})
#: A sample of format 1.
SAMPLE_1 = Layout(
    "sample",
    (
        ("time", "Q"),
        *(
            (name, "q")
            for name in (
                "open_fds",
                "fd_limit",
                "queue",
                "queue_limit",
                "drops",
                "cpu_ns",
                "rss",
                "listen_overflows",
                "listen_drops",
                "cookies",
                "request_drops",
                "embryonic_resets",
                "syn_retransmits",
                "fd_size",
                "fds_established",
                "fds_close_wait",
                "fds_other",
                "cost_ns",
            )
        ),
    ),
    152,
)
_FIELDS_1 = frozenset(name for name, _ in SAMPLE_1.fields)
_NOT_READ = -1
_METRIC = re.compile(r"[\w.]+", re.ASCII)


class Bundle(Folder):
    """The result folder of one run."""

    @classmethod
    def create(cls, out: Path, scenario: str) -> Bundle:
        """Make `out/<UTC>-<scenario>-<4 hex>` and point `out/latest` to it; raises as `new_folder` does."""
        return cls(new_folder(out, scenario))

    def journal_path(self, name: str) -> Path:
        """Return the path of a journal during the run: "attempts-0", "accepts", "failures", "samples", "sockets"."""
        return self.path / f"{name}.journal"

    def journal_paths(self, name: str) -> list[Path]:
        """Return the journals of one array that exist, one per process."""
        return sorted(self.path.glob(f"{name}.journal")) + sorted(self.path.glob(f"{name}-*.journal"))

    def write_manifest(self, facts: Facts, argv: Sequence[str]) -> None:
        """Write the facts known so far; the run writes them again at its end."""
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
        """Turn the journals into .npy files and remove them; return the number of lost records, by array.

        At any time each array is complete in one of the two forms. Raises OSError if the disk is full, RecordingError
        if a required journal is missing.
        """
        lost = {}
        for name in _ARRAYS:
            for path in self.journal_paths(name):
                with contextlib.suppress(OSError):  # then the journal only takes more of the disk
                    Journal.trim(path)
        for name, layout in _ARRAYS.items():
            paths = self._journals(name)
            records, without_space = _read_journals(paths, layout)
            with self.writing(f"{name}.npy") as file:
                np.save(_Written(file), records, allow_pickle=False)
            for path in paths:
                path.unlink()
            if without_space:
                lost[name] = without_space
        return lost

    def _journals(self, name: str) -> list[Path]:
        """Return the journals of one array; raises RecordingError if a required one is missing."""
        paths = self.journal_paths(name)
        if not paths and name in _ALWAYS:
            raise RecordingError(f"{self.path}: the records of {name} are missing; they were removed")
        return paths

    def read_manifest(self) -> dict[str, Any]:
        """Return manifest.json; raises RecordingError if it is missing, damaged or of a newer format."""
        values = self.read_json("manifest.json")
        if not isinstance(values, dict) or not isinstance(values.get("format"), int) or "facts" not in values:
            raise RecordingError(f"{self.path / 'manifest.json'}: is damaged; no report is possible")
        raise_if_newer(self.path, values, FORMAT)
        return values

    def read_host(self) -> dict[str, Any]:
        """Return host.json, or {} if it is missing or damaged: a report does not need it."""
        try:
            host = self.read_json("host.json")
        except RecordingError:
            return {}
        return host if isinstance(host, dict) else {}

    def read(self) -> Recording:
        """Return the recording from its .npy files, or from the journals of a run that did not reach its end."""
        manifest = self.read_manifest()
        is_first = manifest["format"] < 2
        with sound(self.path / "manifest.json"):
            facts = Facts.from_json(_facts_of(manifest["facts"]) if is_first else manifest["facts"])
        arrays, lost = {}, dict(facts.lost_records)
        for name, layout in (_ARRAYS | {"samples": SAMPLE_1} if is_first else _ARRAYS).items():
            arrays[name], without_space = self._read_array(name, layout)
            if without_space:
                lost[name] = without_space
        if is_first:
            arrays["samples"] = _samples_of(arrays["samples"])
        recording = Recording(facts=replace(facts, lost_records=lost), **arrays)
        raise_if_impossible(self.path, recording)
        return recording

    def _read_array(self, name: str, layout: Layout) -> tuple[Records, int]:
        path = self.path / f"{name}.npy"
        if not os.path.lexists(path):
            return _read_journals(self._journals(name), layout)
        return read_array(path, dtype_of(layout)), 0


def _samples_of(old: Records) -> Records:
    """Return samples of format 1 as samples of this format; readings that format 1 lacks are -1."""
    new = empty(SAMPLE, len(old))
    for name, _ in SAMPLE.fields:
        new[name] = old[name] if name in _FIELDS_1 else _NOT_READ
    new["queue_capacity"] = [
        queue_capacity(backlog) if backlog >= 0 else _NOT_READ for backlog in old["queue_limit"].tolist()
    ]
    return new


def _facts_of(old: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a manifest of format 1 under the names of this format."""
    server, settings = dict(old["server"]), dict(old["settings"])
    server["backlog"] = server.pop("queue_limit")
    if thresholds := settings.get("thresholds"):
        settings["thresholds"] = {
            when: [_threshold_of(text) for text in texts or ()] for when, texts in thresholds.items()
        }
    return {**old, "server": server, "settings": settings}


class _Written:
    """Hides from numpy that this is a real file: its fast path for files loses the errno of a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def _read_journals(paths: Sequence[Path], layout: Layout) -> tuple[Records, int]:
    parts, lost = [empty(layout)], 0
    for path in paths:
        with Journal.attach(path, LAYOUTS | {layout.name: layout}) as journal:
            if journal.layout is not layout:
                raise RecordingError(f"{path}: is damaged (holds records of kind {journal.layout.name})")
            raise_if_too_large(path, journal.used * layout.size)
            parts.append(records_of(journal))
            lost += journal.lost
    # without a dtype, numpy packs the fields and loses the padding
    return np.concatenate(parts, dtype=dtype_of(layout)), lost


def _threshold_of(text: str) -> str:
    return _METRIC.sub(lambda name: FORMER_NAMES.get(name[0], name[0]), text, count=1)
