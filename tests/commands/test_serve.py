"""The lines of `loadsim serve`, from journals that the tests write."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from loadsim.commands.serve import FAILURES_S, LINES_PER_READING, Narrator
from loadsim.record.facts import ServerFacts
from loadsim.record.journal import Journal
from loadsim.record.records import ACCEPT, AcceptFlag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTS = ServerFacts(
    pid=4242,
    address="127.0.0.1",
    port=9999,
    backlog_asked=8,
    backlog=8,
    nofile_soft=1_024,
    nofile_hard=20_000,
    baseline_fds=11,
    threads=1,
)
SECOND = 1_000_000_000


class Waiting:
    """An accept queue with a fixed length."""

    def length(self) -> int:
        """Return the length."""
        return 5


@contextmanager
def narrator_of(folder: Path, *, capacity: int = 1_000) -> Iterator[tuple[Narrator, Journal]]:
    """Return a narrator and the journal that it reads."""
    with Journal.create(folder / "accepts", ACCEPT, capacity) as journal:
        yield Narrator(journal, FACTS, queue=Waiting()), journal


def accept(journal: Journal, fd: int, flags: int = 0) -> None:
    """Write the record of an accept."""
    journal.append(1, 0, 0, fd, fd + 1, 0, bytes([10, 0, 0, 7]) + bytes(12), 40_000, 1, 0, flags)
    journal.count("accepted")


def test_opening(tmp_path: Path) -> None:
    """The first lines show its address, its free descriptors, and commands to inspect it."""
    with narrator_of(tmp_path) as (narrator, _):
        assert list(narrator.opening()) == [
            "simulated server on 127.0.0.1:9999, pid 4242",
            "11 of 1,024 descriptors are open, 1,013 free; the accept queue holds 9",
            "inspect  ls -l /proc/4242/fd     ss -tan 'sport = :9999'     Ctrl-C ends it",
        ]


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (0, ""),
        (AcceptFlag.LEAKED, "   never closed"),
        (AcceptFlag.SHED, "   shed: closed unserved"),
        (AcceptFlag.FAILED, "   its handler found no free descriptor"),
    ],
)
def test_accept(tmp_path: Path, flags: int, note: str) -> None:
    """An accept is one line with its descriptor, the number of open ones, its peer and its flags."""
    with narrator_of(tmp_path) as (narrator, journal):
        accept(journal, 1_000, flags)
        (line,) = narrator.news(0)
        assert line == f"    0.000 s  accept   fd 1000   1,001 of 1,024 open   from 10.0.0.7:40000{note}"
        assert list(narrator.news(0)) == []


def test_many_accepts_are_summed_up(tmp_path: Path) -> None:
    """After the first lines of a reading, further accepts are only counted."""
    with narrator_of(tmp_path) as (narrator, journal):
        for fd in range(LINES_PER_READING + 80):
            accept(journal, fd)
        lines = list(narrator.news(0))
        assert (len(lines), lines[-1]) == (LINES_PER_READING + 1, "    0.000 s  accept   80 more")


def test_failures_are_printed_at_most_twice_a_second(tmp_path: Path) -> None:
    """Failures are held back for half a second after the last line about them, except at the end."""
    with narrator_of(tmp_path) as (narrator, journal):
        journal.count("emfile_accept", 1)
        now = round(FAILURES_S * SECOND)
        (first,) = narrator.news(now)
        assert first.endswith("EMFILE   accept() found no free descriptor, once; 5 waiting in the queue")
        journal.count("emfile_accept", 2_000)
        assert list(narrator.news(now + 1)) == []
        journal.count("emfile_handler", 3)
        accepts, handler = narrator.news(now + 2, final=True)
        assert "accept() found no free descriptor, 2,000 times; " in accepts
        assert "the handler found no free descriptor, 3 times; " in handler


def test_closing(tmp_path: Path) -> None:
    """The last lines are the totals, and the clients that were never served."""
    with narrator_of(tmp_path, capacity=3) as (narrator, journal):
        for fd in range(5):
            accept(journal, fd)
        for name, count in (("closed", 2), ("shed", 1), ("emfile_accept", 48), ("emfile_handler", 1)):
            journal.count(name, count)
        empty, sums, *rest = narrator.closing(0)
        assert (empty, sums.partition(": ")[2]) == ("", "5 accepted, 2 closed, 3 still open")
        assert rest == [
            "1 of them shed: accepted and closed unserved",
            "48 times accept() found no free descriptor (EMFILE)",
            "once the handler found no free descriptor (EMFILE)",
            "5 waiting in the accept queue: connected, never served",
            "2 of them were only counted: the journal was full",
        ]
