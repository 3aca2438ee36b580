"""Journals and result folders with lost records, missing files and name clashes."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from loadsim.errors import RecordingError
from loadsim.record.folder import new_folder
from loadsim.record.journal import HEADER_BYTES, Journal
from loadsim.record.records import FAILURE
from loadsim.record.result import Bundle

if TYPE_CHECKING:
    from pathlib import Path

RECORD = (1, 2, 3, 4, 5, 0, 0)


def test_trim_frees_unused_space(tmp_path: Path) -> None:
    """A trimmed journal keeps its records and its lost count, and no further space."""
    path = tmp_path / "failures.journal"
    with Journal.create(path, FAILURE, 1000) as journal:
        for _ in range(3):
            journal.append(*RECORD)
    Journal.trim(path)
    assert path.stat().st_size == HEADER_BYTES + 3 * FAILURE.size
    with Journal.attach(path) as again:
        assert (again.used, again.lost, again.capacity) == (3, 0, 3)
        assert FAILURE.struct.unpack_from(again.buffer, HEADER_BYTES + 2 * FAILURE.size)[:5] == RECORD[:5]


def test_trim_of_a_full_journal_changes_nothing(tmp_path: Path) -> None:
    """Lost records stay counted."""
    path = tmp_path / "failures.journal"
    with Journal.create(path, FAILURE, 2) as journal:
        for _ in range(5):
            journal.append(*RECORD)
    Journal.trim(path)
    with Journal.attach(path) as again:
        assert (again.used, again.lost) == (2, 3)


def test_a_missing_journal_is_an_error(tmp_path: Path) -> None:
    """A required journal that was removed is reported before an array is saved."""
    with Journal.create(tmp_path / "failures.journal", FAILURE, 2):
        pass
    with pytest.raises(RecordingError, match="the records of attempts are missing; they were removed"):
        Bundle(tmp_path).merge_journals()
    assert not list(tmp_path.glob("*.npy"))


def test_a_folder_name_is_not_used_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that begin in the same second and draw the same letters have different folders."""
    drawn = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(drawn))
    folders = {new_folder(tmp_path, "same") for _ in range(2)}
    assert len(folders) == 2  # also if a second ended in between
