"""A run in progress: redrawn in place, as lines, or not shown."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import sys

import pytest
from report_samples import golden
from rich.cells import cell_len

from loadsim.commands.output import NoDisplay, display
from loadsim.render.drawing import Terminal, paint
from loadsim.render.live import LiveDisplay, frame
from loadsim.render.progress import Opening, PlainDisplay, Progress, first_line, progress_line
from loadsim.scenario.model import Scenario
from loadsim.scenario.plan import Host, Plan, make_plan

OPENING = Opening(
    scenario="too-many-open-files",
    description="A server that forgets close() meets RLIMIT_NOFILE = 64.",
    attempts=600,
    expected_s=5.0,
    length_s=7.0,
    hint="nsenter -t 4242 -n ss -tan",
)
EARLY = Progress(
    elapsed_s=0.25,
    started=50,
    rate=200.0,
    in_flight=0,
    ok=50,
    failed=0,
    accepted=50,
    open_fds=58,
    fd_limit=64,
    queue=0,
    queue_capacity=129,
    emfile=0,
    overflows=0,
)
LATE = dataclasses.replace(
    EARLY,
    elapsed_s=2.5,
    started=500,
    in_flight=323,
    ok=56,
    failed=121,
    accepted=56,
    open_fds=64,
    queue=129,
    emfile=22,
    overflows=314,
)
UNREAD = dataclasses.replace(
    LATE, open_fds=None, queue=None, queue_capacity=None, overflows=None, lost_by_generator=7, elapsed_s=-0.05
)
HUGE = dataclasses.replace(LATE, started=10**15, open_fds=10**9, fd_limit=10**9, rate=1e12, elapsed_s=1e7, shared=True)


def plan() -> Plan:
    """Return the plan of a scenario with three clients."""
    values = {"schema": 1, "name": "three", "client": {"rate": "3/s", "duration": "1s"}}
    return make_plan(Scenario.model_validate(values), Host())


def shown(progress: Progress, opening: Opening = OPENING, *, width: int = 80, unicode: bool = True) -> str:
    """Return a moment of the live view."""
    terminal = Terminal(width=width, color=False, unicode=unicode)
    return paint(frame(opening, progress, terminal), terminal)


@pytest.mark.parametrize("name", ["early", "late", "unread"])
def test_the_live_view_matches_its_golden_file(name: str) -> None:
    """Each stage of a run has a golden file."""
    text = shown({"early": EARLY, "late": LATE, "unread": UNREAD}[name])
    assert golden(f"live-{name}-80.txt", text) == text


@pytest.mark.parametrize("width", [1, 40, 60, 80, 120, 300])
@pytest.mark.parametrize("progress", [EARLY, LATE, UNREAD, HUGE])
def test_the_live_view_fits(width: int, progress: Progress) -> None:
    """No line is wider than the terminal, for any numbers and names."""
    hostile = dataclasses.replace(OPENING, scenario="\x1b[2J" * 50, description="d" * 500, hint="h " * 200)
    for opening in (OPENING, hostile):
        text = shown(progress, opening, width=width, unicode=width % 3 != 0)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert "\x1b" not in text


def test_full_is_a_word() -> None:
    """A gauge at its limit has a word for it, not only a colour."""
    assert "FULL" not in shown(EARLY)
    assert shown(LATE).count("FULL") == 2


def test_a_run_longer_than_expected_is_measured_against_its_limit() -> None:
    """The head then shows the longest possible time."""
    assert "2.5 s of about 5 s" in shown(LATE)
    assert "6.0 s of at most 7 s" in shown(dataclasses.replace(LATE, elapsed_s=6.0))
    assert "0.0 s of about 5 s" in shown(UNREAD)


def test_the_live_view_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it draws at most once per quarter of a second, and erases every line."""
    controller, tty = pty.openpty()
    with os.fdopen(tty, "w", encoding="utf-8") as stream, os.fdopen(controller, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm")
        live = LiveDisplay()
        live.begin(plan(), hint="")
        for elapsed_s in (0.26, 0.3, 0.49, 0.51):
            live.update(dataclasses.replace(EARLY, elapsed_s=elapsed_s))
        live.end()
        print("THE END", file=stream, flush=True)
        seen = ""
        while "THE END" not in seen:  # reads from a terminal return pieces
            seen += screen.read(65_536).decode(errors="replace")
    drawn = [match[1] for match in re.finditer(r"(\d\.\d) s of", seen)]
    assert drawn == ["0.3", "0.5", "0.5"]  # rich draws the last one again before it erases it
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1


def test_lines_suit_a_log() -> None:
    """There is one line at the beginning and one per second, in ASCII."""
    assert first_line(OPENING) == "too-many-open-files: 600 clients, about 5 s; see it: nsenter -t 4242 -n ss -tan"
    assert progress_line(LATE) == "   2.5 s     500 clients   64/64 fds   129/129 queued   22 EMFILE   314 SYNs lost"
    assert progress_line(UNREAD) == "   0.0 s     500 clients   ? fds   ? queued   22 EMFILE   7 own failures"


def test_a_line_is_printed_once_a_second() -> None:
    """Other updates are left out, also after a pause."""
    stream = io.StringIO()
    plain = PlainDisplay(stream)
    plain.begin(plan(), hint="ss -tan")
    for elapsed_s in (0.25, 0.99, 1.0, 1.25, 2.5, 2.75, 3.0):
        plain.update(dataclasses.replace(LATE, elapsed_s=elapsed_s))
    plain.end()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("three: 3 clients, ")
    assert [line.split()[0] for line in lines[1:]] == ["1.0", "2.5", "3.0"]


def test_a_reader_that_went_away_does_not_end_the_run() -> None:
    """Progress without a reader is dropped."""
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(io.FileIO(write, "w"), encoding="utf-8", write_through=True) as stream:
        PlainDisplay(stream).update(dataclasses.replace(LATE, elapsed_s=1.0))


def test_displays_have_names() -> None:
    """The command line has three displays."""
    assert isinstance(display("live"), LiveDisplay)
    assert isinstance(display("plain"), PlainDisplay)
    none = display("none")
    assert isinstance(none, NoDisplay)
    none.begin(plan(), hint="")
    none.update(LATE)
    none.end()
