"""The commands that read what is there: results, sweeps, scenarios, explanations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from loadsim import interrupt
from loadsim.cli import shared
from loadsim.errors import ScenarioError

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("run_name", metavar="[RUN]", default="latest")
@shared.OUT
@click.option("--open", "open_", is_flag=True, help="Open report.html in a browser.")
@shared.JSON
def report(*, run_name: str, out: Path, open_: bool, as_json: bool) -> None:
    """Show a result or a sweep again, from its folder alone; its derived files are made anew.

    RUN is a folder, a unique prefix of its name, or "latest".

    \b
    Examples:
      loadsim report
      loadsim report --open
      loadsim report 20261122T0941 --json
    \b
    Exit status:
      0  it could be shown, whatever it says
      2  it could not be read
    """
    with shared.explained():
        from loadsim.record.folder import VERDICT_MARK, find
        from loadsim.record.untrusted import sound
        from loadsim.run.gather import is_sweep

        folder = find(run_name, out)
        is_verdict = (folder / VERDICT_MARK).exists()
        shown = _report_verdict if is_verdict else _report_sweep if is_sweep(folder) else _report_run
        interrupt.begin()
        with sound(folder):
            is_made = shown(folder, as_json=as_json)
        if open_ and is_made:
            shared.open_page(folder / "report.html")
        elif open_:
            has_none = f"a verdict has none, its runs do: loadsim report --open {folder / 'runs'}/NAME"
            shared.say(f"no page was opened: {has_none if is_verdict else 'it could not be made anew'}")


def _report_run(folder: Path, *, as_json: bool) -> bool:
    """Show a run again, and return whether its page was made anew."""
    from loadsim.analysis.judge import summary_of
    from loadsim.analysis.view import View
    from loadsim.record.bundle import Bundle
    from loadsim.report.files import write_files

    bundle = Bundle(folder)
    view = View.of(bundle.read())
    summary = summary_of(view)
    is_made = shared.made_anew(folder, partial(write_files, bundle, view, summary))
    shared.show(summary, folder, as_json=as_json)
    return is_made


def _report_verdict(folder: Path, *, as_json: bool) -> bool:
    from loadsim.run.verdict import read_verdict

    shared.show_verdict(read_verdict(folder), as_json=as_json)
    return False


def _report_sweep(folder: Path, *, as_json: bool) -> bool:
    from loadsim.record.sweep import SweepFolder
    from loadsim.report.files import write_comparison
    from loadsim.run.gather import gather_sweep

    sweep = SweepFolder.open(folder)
    gathered = gather_sweep(sweep)
    is_made = shared.made_anew(folder, partial(write_comparison, sweep, gathered.comparison, gathered.sides))
    shared.show_comparison(gathered.comparison, folder, as_json=as_json)
    return is_made


@click.command(short_help="Say what differs between results or sweeps, and whether it is chance.")
@click.argument("runs", metavar="A B...", nargs=-1, required=True)
@shared.OUT
@shared.MIN_EFFECT
@click.option(
    "--fail-on",
    "rules",
    metavar="RULE",
    multiple=True,
    help='Exit with 99 where a metric changed by more than that against A: "accept.p99 +10%". May be repeated.',
)
@click.option("--force", is_flag=True, help="Judge times and CPU also between unlike hosts.")
@shared.JSON
def compare(
    *, runs: tuple[str, ...], out: Path, min_effect: float, rules: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Compare results or sweeps: what differs in their settings and hosts, then in their numbers.

    A, B... are folders, unique prefixes of their names, or "latest". Results of the same settings are one group; of
    sweeps, cells of the same name are compared. The unit is the run: one run of each cannot tell a difference from
    chance, make several with --repeat.

    \b
    Examples:
      loadsim compare 20261122T0941 latest
      loadsim compare main-sweep branch-sweep --fail-on "accept.p99 +10%"
    \b
    Exit status:
      0   they could be compared
      2   they could not
      99  a rule of --fail-on is broken
    """
    with shared.explained():
        from loadsim.analysis.gates import parse_gate
        from loadsim.record.folder import find
        from loadsim.record.untrusted import sound
        from loadsim.run.gather import gather

        folders = [find(name, out) for name in runs]
        gates = [parse_gate(rule) for rule in rules]
        with sound(folders[0].parent):
            gathered = gather(folders, min_effect=min_effect, rules=gates, force=force)
            shared.show_comparison(gathered.comparison, None, as_json=as_json)
    if not all(gate.ok for gate in gathered.comparison.gates):
        raise SystemExit(shared.EXIT_THRESHOLD)


@click.command("list")
@shared.OUT
def list_(*, out: Path) -> None:
    """List the shipped scenarios, then the results in --out."""
    with shared.explained():
        from loadsim.record.folder import results
        from loadsim.report.listing import render
        from loadsim.run.gather import verdict_of
        from loadsim.scenario.toml import shipped

        verdicts = [(path.name, verdict_of(path)) for path in results(out)]
        shared.put(render(shipped(), verdicts, shared.terminal()))


@click.command(short_help="Explain a finding, fate, outcome or metric.")
@click.argument("id_", metavar="[ID]", required=False)
def explain(*, id_: str | None) -> None:
    """Explain a finding, fate, outcome or metric by its ID; without ID: list them all.

    \b
    Examples:
      loadsim explain fd-leak
      loadsim explain phantom
      loadsim explain accept.p99
    """
    with shared.explained():
        from loadsim.analysis.explain import explain as explained
        from loadsim.report.explain import render, render_index

        if id_ is None:
            shared.put(render_index(shared.terminal()))
            return
        explanation = explained(id_)
        if explanation is None:
            raise ScenarioError(_unknown_id(id_))
        shared.put(render(explanation, shared.terminal()))


def _unknown_id(asked: str) -> str:
    import difflib

    from loadsim.analysis.explain import ids

    near = difflib.get_close_matches(asked, ids(), n=1, cutoff=0.5)
    return f'nothing is called "{asked}"' + (f'; did you mean "{near[0]}"?' if near else "; loadsim explain lists all")


_SCHEMAS = ("scenario", "summary", "comparison", "inspect", "overview")


@click.command(short_help="Print a JSON Schema: of a scenario, or of what loadsim writes as JSON.")
@click.argument(
    "of", type=click.Choice(["scenario", "summary", "comparison", "inspect", "overview"]), default="scenario"
)
def schema(*, of: str) -> None:
    """Print the JSON Schema of a scenario, for editors, or of what loadsim writes, for programs.

    summary and comparison are files of a result; inspect and overview what `inspect --json` prints with and without
    a target.
    """
    from loadsim.analysis.schema import comparison_schema, summary_schema
    from loadsim.inspect.schema import overview_schema, process_schema
    from loadsim.scenario.schema import schema as scenario_schema

    schemas = {
        "scenario": scenario_schema,
        "summary": summary_schema,
        "comparison": comparison_schema,
        "inspect": process_schema,
        "overview": overview_schema,
    }
    shared.print_json(schemas[of]())
