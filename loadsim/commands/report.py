"""`loadsim report`: show a result again, from its folder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from loadsim import early_signals
from loadsim.commands import options, output

if TYPE_CHECKING:
    from pathlib import Path


@click.command("report", cls=options.Command, short_help="Show a result again, and regenerate its report files.")
@click.argument("run_name", metavar="[RUN]", type=options.ResultName(), default="latest")
@options.OUT
@click.option("--open", "open_", is_flag=True, help="Open report.html in a browser.")
@options.JSON
def command(*, run_name: str, out: Path, open_: bool, as_json: bool) -> None:
    """Show a run, a sweep or a verdict again from its folder, and regenerate its report files.

    RUN is a folder, a unique prefix of its name, or "latest" (the default).

    \b
    Exit status:
      0  it was shown, with any status or grade
      2  it could not be read

    \b
    Examples:
      loadsim report
      loadsim report --open
      loadsim report 20261122T0941 --json
    """
    with output.explained():
        from loadsim.record.folder import SWEEP_MARK, VERDICT_MARK, find, sound

        folder = find(run_name, out)
        is_verdict = (folder / VERDICT_MARK).exists()
        shown = _report_verdict if is_verdict else _report_sweep if (folder / SWEEP_MARK).exists() else _report_run
        early_signals.begin()
        with sound(folder):
            is_written = shown(folder, as_json=as_json)
        if open_ and is_written:
            output.open_page(folder / "report.html")
        elif open_:
            runs = f"a verdict has no page, but its runs have one: loadsim report --open {folder / 'runs'}/NAME"
            output.say(f"no page was opened: {runs if is_verdict else 'it could not be written'}")


def _report_run(folder: Path, *, as_json: bool) -> bool:
    """Show a run again, and return whether its report files were written."""
    from loadsim.analysis.dataset import Dataset
    from loadsim.analysis.judge import summary_of
    from loadsim.record.result import Bundle
    from loadsim.render.files import write_files

    bundle = Bundle(folder)
    data = Dataset.of(bundle.read())
    summary = summary_of(data)
    is_written = output.regenerated(folder, partial(write_files, bundle, data, summary))
    output.show(summary, folder, as_json=as_json)
    return is_written


def _report_verdict(folder: Path, *, as_json: bool) -> bool:
    from loadsim.verdict.run import read_verdict

    output.show_verdict(read_verdict(folder), as_json=as_json)
    return False


def _report_sweep(folder: Path, *, as_json: bool) -> bool:
    from loadsim.compare.collect import collect_sweep
    from loadsim.compare.files import write_comparison
    from loadsim.compare.folder import SweepFolder

    sweep = SweepFolder.open(folder)
    gathered = collect_sweep(sweep)
    is_written = output.regenerated(folder, partial(write_comparison, sweep, gathered.comparison, gathered.run_groups))
    output.show_comparison(gathered.comparison, folder, as_json=as_json)
    return is_written
