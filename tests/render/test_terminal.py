"""The end of a run on a terminal."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import pytest
from report_samples import generator_limited, golden, healthy, phantoms, too_many_open_files
from rich.cells import cell_len

from loadsim.analysis.summary import Compared, Finding, Judged, Mark, Summary, Timeline
from loadsim.render.drawing import STATUSES, Terminal
from loadsim.render.terminal import render

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = [too_many_open_files, healthy, phantoms, generator_limited]
NOTHING = Timeline(step_s=0.1, open_fds=[], fd_limit=None, queue=[], queue_capacity=None, marks=[])


def shown(summary: Summary, *, width: int = 80, color: bool = False, unicode: bool = True) -> str:
    """Return what a terminal would show, without where it is saved."""
    return render(summary, Terminal(width=width, color=color, unicode=unicode))


def changed(summary: Summary, **changes: object) -> Summary:
    """Return the summary with other values; the type checker cannot follow names as keys."""
    return dataclasses.replace(summary, **changes)  # type: ignore[arg-type]


def odd() -> dict[str, Summary]:
    """Return summaries as no ordinary run makes them."""
    base = too_many_open_files()
    huge = 10**18
    nobody = dict.fromkeys(base.ledger, 0)
    return {
        "nothing at all": changed(
            base,
            clients=0,
            duration_s=0.0,
            metrics={},
            ledger=nobody,
            fate_by_outcome={},
            growth=[],
            findings=[],
            thresholds=[],
            prediction=[],
            timeline=NOTHING,
            fd_map="",
            settings={},
        ),
        "no queue": changed(base, timeline=dataclasses.replace(base.timeline, queue=[None] * 102, queue_capacity=None)),
        "one step": changed(base, timeline=dataclasses.replace(base.timeline, open_fds=[8], queue=[0])),
        "a step of no length": changed(base, timeline=dataclasses.replace(base.timeline, step_s=0.0)),
        "many marks": changed(
            base,
            timeline=dataclasses.replace(
                base.timeline, marks=[Mark(at_s=5.0 + n / 1000, label=f"moment {n}") for n in range(60)]
            ),
        ),
        "interrupted": changed(base, complete=False, interrupted="SIGINT"),
        "killed": changed(base, complete=False, interrupted=None),
        "enormous": changed(
            base,
            clients=huge,
            duration_s=1e12,
            metrics=dict.fromkeys(base.metrics, 1e18),
            ledger=dict.fromkeys(base.ledger, huge),
            fate_by_outcome={fate: {"ok": huge, "reset": huge} for fate in base.ledger},
            growth=[dataclasses.replace(band, accepted=huge, emfile=huge, accept_max_s=1e9) for band in base.growth],
            fd_map="fffesseL" + "E" * 1_000_000,
            prediction=[Compared(name="accepted", unit="", predicted=1e30, measured=huge)] * 9,
        ),
        "unbalanced": changed(
            base,
            status="INCONCLUSIVE",
            balanced=False,
            imbalance=["The server accepted 57 connections, and 56 attempts were accepted."],
            fate_by_outcome={},
            foreign=3,
            ambiguous=1,
        ),
        "a long name": changed(base, scenario="a" * 300, sentence="b" * 500, status="UNHEARD-OF-VERDICT"),
        "wide characters": changed(base, scenario="記述子" * 30, sentence="記述子 " * 60, description="é" * 200),
        "hostile": changed(
            base,
            scenario="\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe",
            sentence="a\x1b[31m\nb\x00c",
            interrupted="\x9b31m",
            complete=False,
            notices=["\x1b[8m"],
            findings=[Finding(id="\x1b[1m", title="\x07", evidence="\x08" * 90, remedy="\x1bc", fault=True)],
            thresholds=[Judged(text="\x1b[5m > 0", ok=False, measured="\x1b[0m")],
            fd_map="\x1b[41m",
        ),
        "many findings": changed(base, findings=base.findings * 40),
        "a long id": changed(
            base, findings=[Finding(id="i" * 200, title="t" * 200, evidence="", remedy=None, fault=True)]
        ),
    }


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__name__)
def test_a_report_looks_as_it_should(sample: Callable[[], Summary]) -> None:
    """Each kind of run keeps its look at 80 columns."""
    text = render(
        sample(),
        Terminal(width=80, color=False, unicode=True),
        saved="results/20261122T094107Z-too-many-open-files-3f2a",
        next_steps=["loadsim report latest", "loadsim run too-many-open-files --set server.leak=0"],
    )
    assert golden(f"{sample.__name__}-80.txt", text) == text


@pytest.mark.parametrize(("width", "color", "unicode"), [(120, False, True), (80, False, False), (80, True, True)])
def test_a_report_uses_what_the_terminal_can_show(*, width: int, color: bool, unicode: bool) -> None:
    """Width, colour and alphabet change the report; each of them has a golden file."""
    text = shown(too_many_open_files(), width=width, color=color, unicode=unicode)
    name = f"too_many_open_files-{width}{'-color' if color else ''}{'' if unicode else '-ascii'}.txt"
    assert golden(name, text) == text


@pytest.mark.parametrize("width", [1, 10, 39, 40, 60, 79, 80, 100, 120, 200])
@pytest.mark.parametrize("unicode", [True, False], ids=["unicode", "ascii"])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:  # noqa: FBT001 -- pytest's parameter
    """Whatever the summary holds, every line fits."""
    for summary in [*(sample() for sample in SAMPLES), *odd().values()]:
        text = render(
            summary,
            Terminal(width=width, color=False, unicode=unicode),
            saved="results/" + "x" * 200,
            next_steps=["loadsim run " + "--set server.leak=0 " * 20],
        )
        assert max(cell_len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("summary", [pytest.param(summary, id=name) for name, summary in odd().items()])
def test_odd_runs_have_a_report(summary: Summary) -> None:
    """A report begins with the name, has the verdict at the start of a line, and ends in a newline."""
    text = shown(summary)
    assert any(line.startswith(summary.status) for line in text.splitlines()[:5])
    assert text.endswith("\n")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__name__)
def test_colour_adds_nothing_but_colour(sample: Callable[[], Summary]) -> None:
    """Without its escape sequences a coloured report is the plain one: meaning never hangs on colour."""
    colored = shown(sample(), color=True)
    assert "\x1b[" in colored
    assert shown(sample()) == re.sub(r"\x1b\[[0-9;]*m", "", colored)


def test_ascii_is_ascii() -> None:
    """A terminal without Unicode gets ASCII alone, also from foreign names."""
    summaries = [*(sample() for sample in SAMPLES), *odd().values()]
    assert all(shown(summary, unicode=False).isascii() for summary in summaries)


def test_foreign_text_cannot_act_on_the_terminal() -> None:
    """Control characters, escape sequences and reordering marks are shown, not sent."""
    text = shown(odd()["hostile"])
    assert all(char == "\n" or char.isprintable() for char in text)
    assert r"\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe" in text


def test_a_saved_path_is_shown_whole() -> None:
    """A path that takes several lines can be put together again; a command is continued as a shell would read it."""
    path, command = "/srv/" + "very-long-folder/" * 12, "loadsim run x " + "--set server.leak=0 " * 6
    lines = render(
        healthy(), Terminal(width=80, color=False, unicode=True), saved=path, next_steps=[command, "loadsim list"]
    ).splitlines()
    at, then = (
        next(i for i, line in enumerate(lines) if line.startswith(f"  {word}")) for word in ("saved in", "next")
    )
    assert path == "".join(line[14:] for line in lines[at:then])
    assert command.split() == " ".join(line[14:] for line in lines[then:-1]).replace(" \\", "").split()
    assert all(line.endswith(" \\") for line in lines[then:-2])
    assert lines[-1].strip() == "loadsim list"


def test_the_last_lines_are_the_findings() -> None:
    """What a terminal of 24 lines still shows begins with what happened."""
    assert any("fd-leak" in line for line in shown(too_many_open_files()).splitlines()[-24:])


def test_an_interrupted_run_says_so_at_the_top() -> None:
    """The cause stands below the verdict."""
    lines = shown(odd()["interrupted"]).splitlines()
    assert "            ! Interrupted (SIGINT): this is what happened until then." in lines[:4]


def test_a_killed_run_says_so_at_the_top() -> None:
    """A run whose conductor was killed never came to its end."""
    assert "! This run never came to its end" in "\n".join(shown(odd()["killed"]).splitlines()[:4])


def test_books_that_do_not_balance_are_accused() -> None:
    """The sum is replaced by the accusation, and what does not add up is said."""
    text = shown(odd()["unbalanced"])
    assert "DOES NOT ADD UP" in text
    assert "! The server accepted 57 connections, and 56 attempts were accepted." in text
    assert "3 foreign" in text
    assert "1 ambiguous" in text


def test_a_threshold_that_was_not_met_is_named_in_words() -> None:
    """Neither a colour nor a sign alone says that an expectation failed."""
    text = shown(generator_limited())
    assert "  NOT MET     ✗ fate.accepted == 40000 (measured: 17,207)" in text.splitlines()
    assert "  expected    ✓ emfile.count == 0 (0)" in text.splitlines()


def test_the_generator_speaks_in_every_run() -> None:
    """Its lag, CPU and own failures are shown, and that it was the limit if it was."""
    assert "generator   lag p99 190 us   0.03 cores   0 own failures" in shown(healthy())
    assert "generator   IT SET THE PACE   lag p99 21 ms" in shown(generator_limited())


def test_what_was_not_measured_is_not_shown() -> None:
    """A run without samples, attempts or bands has no picture and no tables of them."""
    text = shown(odd()["nothing at all"])
    assert all(absent not in text for absent in ("open fds", "fd table", "how long", "as the table grew", "predicted"))


def test_every_verdict_has_a_style() -> None:
    """The four words of the design are known."""
    assert {"REPRODUCED", "HEALTHY", "FAILED", "INCONCLUSIVE"} == set(STATUSES)
