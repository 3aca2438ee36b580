"""What several commands have in common: options, errors as sentences, what standard output can show."""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadsim.errors import EnvironmentRefusedError, LoadsimError, explanation, innermost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadsim.analysis.comparison import Comparison
    from loadsim.analysis.summary import Summary
    from loadsim.report.drawing import Terminal
    from loadsim.run.verdict import Judged

EXIT_THRESHOLD = 99

OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="The folder in which result folders are made.",
)
SET = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, for example --set server.backlog=8; an empty value takes it away, several with commas "
    "are swept (server.backlog=8,128). May be repeated.",
)
ALLOW_OUTSIDE = click.option("--allow-outside", is_flag=True, help="What SCENARIO extends may lie outside its folder.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document instead of text.")


def _a_number(_: click.Context, __: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("a share from 0 to 1 is needed, such as 0.05")
    return value


MIN_EFFECT = click.option(
    "--min-effect",
    callback=_a_number,
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="The smallest relative difference that matters.",
)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what loadsim can explain into a sentence and its exit code."""
    try:
        yield
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as raised:
        if isinstance(innermost(raised), KeyboardInterrupt):
            say("interrupted")
            sys.exit(128 + signal.SIGINT)
        error = explanation(raised)
        if error is None:
            raise
        say(str(error))
        sys.exit(error.exit_code)


def occupy_standard_descriptors() -> None:
    """Open /dev/null in place of standard input, output or error where they are closed.

    Whatever is opened next would get their numbers, and be taken for them by the processes that are started.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))  # noqa: SIM115  # for good


def say(sentence: str) -> None:
    """Say something to whoever typed the command, who may listen no more; names in it cannot command a terminal."""
    from loadsim.report.text import printable

    with suppress(OSError):
        click.echo("loadsim: " + "\n".join(map(printable, sentence.split("\n"))), err=True)


def put(text: str, saved: Path | None = None) -> None:
    """Print a result; `saved` is where it also stands. Who closes the pipe or the terminal has seen enough of it.

    Raises EnvironmentRefusedError where it cannot be printed for any other reason.
    """
    try:
        click.echo(text, nl=False)
    except OSError as error:
        with suppress(OSError):  # what is still in its buffer would fail again when the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in (errno.EPIPE, errno.EIO):
            remedy = f"loadsim report {saved} prints it again" if saved else "see to where it goes"
            raise EnvironmentRefusedError(f"the result could not be printed: {error.strerror}; {remedy}") from error


def made_anew(folder: Path, write: Callable[[], object]) -> bool:
    """Write files and return whether that was possible; where not, say so: what was recorded can still be shown."""
    try:
        write()
    except OSError as error:
        say(f"the files in {folder} stay as they are: {error.strerror}")
        return False
    return True


def terminal() -> Terminal:
    """Return what standard output can show: columns, colours, characters."""
    from loadsim.report.drawing import Terminal

    return Terminal.of(sys.stdout, os.environ)


def ui_of(asked: str) -> str:
    """Return how progress is shown; "auto": live on a terminal, lines otherwise."""
    if asked != "auto":
        return asked
    return "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"


def print_json(values: Any, saved: Path | None = None) -> None:  # noqa: ANN401 -- whatever json.dumps takes
    """Print one JSON document; `saved` as for `put`."""
    import json

    put(json.dumps(values, indent=1, allow_nan=False) + "\n", saved)


def open_page(page: Path) -> None:
    """Open a page in a browser, or say where it is: over ssh and in a container there is none."""
    if not page.exists():
        say(f"{page} could not be made; there is nothing to open")
        return
    address = page.resolve().as_uri()
    if click.launch(address):
        say(f"no browser could be started; open {address} in one")


def publish(folder: Path) -> None:
    """Append summary.md to the page of a GitHub job, where this is one."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        text = (folder / "summary.md").read_text(encoding="utf-8")
        with Path(target).open("a", encoding="utf-8") as page:
            page.write(text + "\n")
    except OSError as error:
        say(f"{target} stays without a summary: {error.strerror}")


def show(summary: Summary, folder: Path, *, as_json: bool) -> None:
    """Print what one run was."""
    if as_json:
        print_json(summary.to_json(), folder)
        return
    from loadsim.report.next_steps import next_steps
    from loadsim.report.terminal import render

    put(render(summary, terminal(), saved=str(folder), next_steps=next_steps(summary)), folder)


def show_comparison(comparison: Comparison, folder: Path | None, *, as_json: bool) -> None:
    """Print what several groups of runs say together; `folder` is where that is saved."""
    if as_json:
        print_json(comparison.to_json(), folder)
        return
    from loadsim.report.comparison import render
    from loadsim.report.next_steps import after_comparison

    steps = after_comparison(comparison, folder)
    put(render(comparison, terminal(), saved=str(folder) if folder else None, next_steps=steps), folder)


def show_verdict(judged: Judged, *, as_json: bool) -> None:
    """Print the card of a command, or its numbers."""
    if as_json:
        print_json(judged.to_json(), judged.folder)
        return
    from loadsim.report.verdict import render

    saved = str(judged.folder)
    card = render(judged.verdict, judged.seen, judged.command, terminal(), nofile=judged.nofile, saved=saved)
    put(card, judged.folder)


def status(summary: Summary) -> int:
    """Return the exit status of a run that no signal ended."""
    if not all(one.ok for one in summary.thresholds) or (summary.interrupted or "").startswith("aborted"):
        return EXIT_THRESHOLD
    return 0 if summary.complete else LoadsimError.exit_code
