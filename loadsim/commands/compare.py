"""`loadsim compare`: say what differs between results or sweeps, and whether it is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loadsim.commands import options, output
from loadsim.errors import EXIT_THRESHOLD

if TYPE_CHECKING:
    from pathlib import Path


@click.command("compare", cls=options.Command, short_help="Say what differs between results, and whether it is chance.")
@click.argument("runs", metavar="A B...", type=options.ResultName(), nargs=-1, required=True)
@options.OUT
@options.MIN_EFFECT
@click.option(
    "--fail-on",
    "rules",
    metavar="RULE",
    multiple=True,
    help='Exit with status 99 if a metric changed by more than this against A, for example "accept.p99 +10%". May be '
    "repeated.",
)
@click.option("--force", is_flag=True, help="Judge times and CPU even between different hosts.")
@options.JSON
def command(
    *, runs: tuple[str, ...], out: Path, min_effect: float, rules: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Compare results or sweeps: first their settings and hosts, then their numbers.

    A, B... are folders, unique prefixes of their names, or "latest". Results with the same settings form one group.
    Between sweeps, cells with the same name are compared. The unit is the run: with one run of each, a difference
    cannot be told from chance, so make several with --repeat.

    \b
    Exit status:
      0   they were compared
      2   they could not be compared, or the command line is wrong
      99  a rule of --fail-on is broken

    \b
    Examples:
      loadsim compare 20261122T0941 latest
      loadsim compare main-sweep branch-sweep --fail-on "accept.p99 +10%"
    """
    with output.explained():
        from loadsim.compare.collect import collect
        from loadsim.compare.compare import parse_gate
        from loadsim.record.folder import find, sound

        folders = [find(name, out) for name in runs]
        gates = [parse_gate(rule) for rule in rules]
        with sound(folders[0].parent):
            gathered = collect(folders, min_effect=min_effect, rules=gates, force=force)
            output.show_comparison(gathered.comparison, None, as_json=as_json)
    if not all(gate.ok for gate in gathered.comparison.gates):
        raise SystemExit(EXIT_THRESHOLD)
