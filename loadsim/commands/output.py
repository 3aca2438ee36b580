"""The output of commands: errors as sentences, and results as text or JSON for this standard output."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadsim.errors import EnvironmentRefusedError, explanation, innermost, status_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadsim.analysis.summary import Summary
    from loadsim.compare.comparison import Comparison
    from loadsim.render.drawing import Terminal
    from loadsim.render.progress import Display, Progress, SweepDisplay
    from loadsim.scenario.plan import Plan
    from loadsim.verdict.run import Judged


@contextmanager
def explained() -> Iterator[None]:
    """Print an error that loadsim can explain as a sentence, and exit with its status."""
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
    """Open /dev/null in place of a closed standard input, output or error.

    The next file would get its number, and child processes would read from it or write to it.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))  # noqa: SIM115  # it stays open


def say(sentence: str) -> None:
    """Print a sentence on standard error, which may be closed; escape sequences in it are shown, not sent."""
    from loadsim.render.text import printable

    with suppress(OSError):
        click.echo("loadsim: " + "\n".join(map(printable, sentence.split("\n"))), err=True)


def put(text: str, saved: Path | None = None) -> None:
    """Print a result that is also in the folder `saved`. A closed pipe or terminal is not an error.

    Raises EnvironmentRefusedError for any other failure to write.
    """
    try:
        click.echo(text, nl=False)
    except OSError as error:
        with suppress(OSError):  # flushing the rest of the buffer at exit would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in (errno.EPIPE, errno.EIO):
            remedy = f"loadsim report {saved} prints it again" if saved else "free space there, or write elsewhere"
            raise EnvironmentRefusedError(f"the result could not be printed: {error.strerror}; {remedy}") from error


def regenerated(folder: Path, write: Callable[[], object]) -> bool:
    """Write the report files and return whether that worked; a failure is reported, and the result is still shown."""
    try:
        write()
    except OSError as error:
        say(f"the report files in {folder} could not be written again: {error.strerror}")
        return False
    return True


def terminal() -> Terminal:
    """Return the width of standard output, and whether it can show colours and Unicode."""
    from loadsim.render.drawing import Terminal

    return Terminal.of(sys.stdout, os.environ)


def ui_of(asked: str) -> str:
    """Return how progress is shown; "auto" is live on a terminal and lines elsewhere."""
    if asked != "auto":
        return asked
    return "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"


def print_json(values: Any, saved: Path | None = None) -> None:  # noqa: ANN401 -- as json.dumps
    """Print one JSON document; `saved` as for `put`."""
    import json

    put(json.dumps(values, indent=1, allow_nan=False) + "\n", saved)


def open_page(page: Path) -> None:
    """Open a page in a browser, or print its address: over ssh and in a container no browser starts."""
    if not page.exists():
        say(f"{page} does not exist, so it cannot be opened")
        return
    address = page.resolve().as_uri()
    if click.launch(address):
        say(f"no browser could be started; open {address} yourself")


def publish(folder: Path) -> None:
    """Append summary.md to the job summary in GitHub Actions."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        text = (folder / "summary.md").read_text(encoding="utf-8")
        with Path(target).open("a", encoding="utf-8") as page:
            page.write(text + "\n")
    except OSError as error:
        say(f"the summary could not be added to {target}: {error.strerror}")


def show(summary: Summary, folder: Path, *, as_json: bool) -> None:
    """Print the result of one run."""
    if as_json:
        print_json(summary.to_json(), folder)
        return
    from loadsim.render.terminal import next_steps, render

    put(render(summary, terminal(), saved=str(folder), next_steps=next_steps(summary)), folder)


def show_comparison(comparison: Comparison, folder: Path | None, *, as_json: bool) -> None:
    """Print a comparison of several groups of runs; `folder` is where it is saved."""
    if as_json:
        print_json(comparison.to_json(), folder)
        return
    from loadsim.compare.text import after_comparison, render

    steps = after_comparison(comparison, folder)
    put(render(comparison, terminal(), saved=str(folder) if folder else None, next_steps=steps), folder)


def show_verdict(judged: Judged, *, as_json: bool) -> None:
    """Print the verdict on a command as a card, or as JSON."""
    if as_json:
        print_json(judged.to_json(), judged.folder)
        return
    from loadsim.verdict.card import render

    saved = str(judged.folder)
    card = render(judged.verdict, judged.seen, judged.command, terminal(), nofile=judged.nofile, saved=saved)
    put(card, judged.folder)


def exit_status(summary: Summary) -> int:
    """Return the exit status of a run that was not ended by a signal."""
    aborted = (summary.interrupted or "").startswith("aborted")
    return status_of_run(complete=summary.complete, met=not aborted and all(one.ok for one in summary.thresholds))


class NoDisplay:
    """A display of a run that shows nothing."""

    def begin(self, plan: Plan, *, hint: str) -> None:
        """Show nothing."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class NoSweepDisplay:
    """A display of a sweep that shows nothing."""

    def begin_sweep(self, name: str, runs: int, expected_s: float) -> None:
        """Show nothing."""

    def begin_run(self) -> Display:
        """Return a display that shows nothing."""
        return NoDisplay()

    def end_run(self, label: str, status: str, sentence: str, *, left_s: float) -> None:
        """Show nothing."""


def display(name: str) -> Display:
    """Return the display called "live", "plain" or "none"; only the live one imports rich."""
    if name == "live":
        from loadsim.render.live import LiveDisplay

        return LiveDisplay()
    if name == "plain":
        from loadsim.render.progress import PlainDisplay

        return PlainDisplay()
    return NoDisplay()


def sweep_display(name: str) -> SweepDisplay:
    """Return the display of a sweep: a line for each run ("plain"), also below its live display ("live"), or none."""
    if name == "none":
        return NoSweepDisplay()
    from loadsim.compare.text import SweepLines

    return SweepLines((lambda: display("live")) if name == "live" else NoDisplay)
