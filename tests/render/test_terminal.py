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
from loadsim.render.terminal import in_shell, render

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = [too_many_open_files, healthy, phantoms, generator_limited]
NOTHING = Timeline(step_s=0.1, open_fds=[], fd_limit=None, queue=[], queue_capacity=None, marks=[])


def shown(summary: Summary, *, width: int = 80, color: bool = False, unicode: bool = True) -> str:
    """Return the report without a result folder."""
    return render(summary, Terminal(width=width, color=color, unicode=unicode))


def changed(summary: Summary, **changes: object) -> Summary:
    """Return the summary with other values; the type checker cannot follow names as keys."""
    return dataclasses.replace(summary, **changes)  # type: ignore[arg-type]


def odd() -> dict[str, Summary]:
    """Return summaries of extraordinary runs."""
    base = too_many_open_files()
    huge = 10**18
    no_clients = dict.fromkeys(base.ledger, 0)
    return {
        "nothing at all": changed(
            base,
            clients=0,
            duration_s=0.0,
            metrics={},
            ledger=no_clients,
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
def test_a_report_matches_its_golden_file(sample: Callable[[], Summary]) -> None:
    """Each kind of run has a golden file at 80 columns."""
    text = render(
        sample(),
        Terminal(width=80, color=False, unicode=True),
        saved="results/20261122T094107Z-too-many-open-files-3f2a",
        next_steps=["loadsim report latest", "loadsim run too-many-open-files --set server.leak=0"],
    )
    assert golden(f"{sample.__name__}-80.txt", text) == text


@pytest.mark.parametrize(("width", "color", "unicode"), [(120, False, True), (80, False, False), (80, True, True)])
def test_a_report_uses_the_abilities_of_the_terminal(*, width: int, color: bool, unicode: bool) -> None:
    """Width, colour and alphabet change the report, and each of them has a golden file."""
    text = shown(too_many_open_files(), width=width, color=color, unicode=unicode)
    name = f"too_many_open_files-{width}{'-color' if color else ''}{'' if unicode else '-ascii'}.txt"
    assert golden(name, text) == text


@pytest.mark.parametrize("width", [1, 10, 39, 40, 60, 79, 80, 100, 120, 200])
@pytest.mark.parametrize("unicode", [True, False], ids=["unicode", "ascii"])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:  # noqa: FBT001 -- pytest's parameter
    """Every line fits, for any summary."""
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
    """A report has the status at the start of one of its first lines, and ends in a newline."""
    text = shown(summary)
    assert any(line.startswith(summary.status) for line in text.splitlines()[:5])
    assert text.endswith("\n")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__name__)
def test_colour_adds_nothing_but_colour(sample: Callable[[], Summary]) -> None:
    """Without escape sequences a coloured report equals the plain one: colour never carries the meaning."""
    colored = shown(sample(), color=True)
    assert "\x1b[" in colored
    assert shown(sample()) == re.sub(r"\x1b\[[0-9;]*m", "", colored)


def test_ascii_is_ascii() -> None:
    """A terminal without Unicode gets only ASCII, also for foreign names."""
    summaries = [*(sample() for sample in SAMPLES), *odd().values()]
    assert all(shown(summary, unicode=False).isascii() for summary in summaries)


def test_foreign_text_cannot_act_on_the_terminal() -> None:
    """Control characters, escape sequences and reordering marks are shown escaped."""
    text = shown(odd()["hostile"])
    assert all(char == "\n" or char.isprintable() for char in text)
    assert r"\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe" in text


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (30, ["bash results/one/reproduce.sh"]),
        (29, ["bash results/one/reproduce.sh"]),
        (28, ["bash \\", "results/one/reproduce.sh"]),
        (20, ["bash results/one/rep", "roduce.sh"]),
    ],
)
def test_a_command_is_broken_between_words_only_with_a_backslash(width: int, expected: list[str]) -> None:
    """A shell runs it as it is copied, unless a word is too long for a line."""
    assert in_shell("bash results/one/reproduce.sh", width) == expected


def test_a_long_path_is_not_clipped() -> None:
    """The lines of a long path can be joined again, and a long command is continued as in a shell."""
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
    """A terminal with 24 lines still shows the first finding."""
    assert any("fd-leak" in line for line in shown(too_many_open_files()).splitlines()[-24:])


def test_an_interrupted_run_says_so_at_the_top() -> None:
    """A notice with the cause is below the status."""
    lines = shown(odd()["interrupted"]).splitlines()
    assert "            ! The run was interrupted (SIGINT). The numbers cover the time" in lines[:4]


def test_a_killed_run_says_so_at_the_top() -> None:
    """A run without a known cause has the notice without one."""
    assert "! The run was interrupted. The numbers" in "\n".join(shown(odd()["killed"]).splitlines()[:4])


def test_a_ledger_that_does_not_add_up_says_so() -> None:
    """The last line of the ledger says that it does not add up, and notices give the reasons."""
    text = shown(odd()["unbalanced"])
    assert "DOES NOT ADD UP" in text
    assert "! The server accepted 57 connections, and 56 attempts were accepted." in text
    assert "3 foreign" in text
    assert "1 ambiguous" in text


def test_a_threshold_that_was_not_met_is_named_in_words() -> None:
    """A missed threshold has words, not only a colour and a sign."""
    text = shown(generator_limited())
    assert "  NOT MET     ✗ fate.accepted == 40000 (measured: 17,207)" in text.splitlines()
    assert "  expected    ✓ emfile.count == 0 (0)" in text.splitlines()


def test_every_run_shows_its_generator() -> None:
    """Lag, CPU and own failures are shown, and also if the generator could not keep up."""
    assert "generator   lag p99 190 us   0.03 cores   0 own failures" in shown(healthy())
    assert "generator   COULD NOT KEEP UP   lag p99 21 ms" in shown(generator_limited())


def test_values_that_were_not_measured_are_left_out() -> None:
    """A run without samples, attempts or bands has no picture and no tables."""
    text = shown(odd()["nothing at all"])
    assert all(absent not in text for absent in ("open fds", "fd table", "how long", "as the table grew", "predicted"))


def test_every_status_has_a_style() -> None:
    """All four statuses have a style."""
    assert {"REPRODUCED", "HEALTHY", "FAILED", "INCONCLUSIVE"} == set(STATUSES)
