"""The command line: parse, call, show, exit code. Decides nothing.

Heavy imports stand inside the commands, so that `loadsim --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadsim import __version__
from loadsim.errors import LoadsimError, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.analysis.summary import Summary
    from loadsim.report.progress import View

EXIT_THRESHOLD = 99

_OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="The folder in which result folders are made.",
)
_SET = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, for example --set server.backlog=8; an empty value takes it away. May be repeated.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document instead of text.")


class Group(click.Group):
    """Commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names in the order in which they were added."""
        return list(self.commands)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: loadsim run too-many-open-files",
)
@click.version_option(__version__, prog_name="loadsim")
def main() -> None:
    """Show what a TCP server does when its file descriptors run out or its listen queue overflows.

    On the real Linux kernel, over loopback, in a network namespace of its own.
    """


@main.command(short_help="Run a scenario and say what happened.")
@click.argument("scenario")
@_SET
@_OUT
@click.option(
    "--ui",
    type=click.Choice(["auto", "live", "plain", "none"]),
    default="auto",
    show_default=True,
    help="How to show progress: live on a terminal, plain lines otherwise.",
)
@click.option("--allow-degraded", is_flag=True, help="Run although a setting cannot be had; INCONCLUSIVE then.")
@_JSON
def run(*, scenario: str, overrides: tuple[str, ...], out: Path, ui: str, allow_degraded: bool, as_json: bool) -> None:
    """Run SCENARIO (a file, or the name of a shipped one) and say what happened.

    \b
    Examples:
      loadsim run too-many-open-files
      loadsim run too-many-open-files --set server.leak=0
      loadsim run my.toml --json | jq .metrics
    \b
    Exit status:
      0        as expected
      1        loadsim itself broke
      2        the command line or the scenario is wrong; nothing was started
      3        this host or the target could not run it
      99       a threshold failed
      130/143  interrupted by Ctrl-C or SIGTERM; the results are written
    """
    with _explained():
        import trio

        from loadsim.run.conductor import Options
        from loadsim.run.conductor import run as conduct
        from loadsim.scenario.toml import load

        options = Options(out=out, argv=sys.argv[1:], allow_degraded=allow_degraded)
        finished = trio.run(conduct, load(scenario, overrides), options, _view(ui))
        _show(finished.summary, finished.folder, as_json=as_json)
    sys.exit(128 + finished.signal if finished.signal else _status(finished.summary))


@main.command(short_help="Say what a scenario needs and will do; start nothing.")
@click.argument("scenario")
@_SET
@_JSON
def check(*, scenario: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Validate SCENARIO, say what it needs and predict what it will do; start nothing.

    \b
    Example:
      loadsim check too-many-open-files --set server.nofile=1024
    """
    with _explained():
        import dataclasses

        from loadsim.report.check import render
        from loadsim.run.stage import observe_host
        from loadsim.scenario.plan import make_plan
        from loadsim.scenario.toml import load

        loaded = load(scenario, overrides)
        plan = make_plan(loaded, observe_host(loaded))
        if as_json:
            _print_json(dataclasses.asdict(plan) | {"scenario": loaded.settings()})
        else:
            click.echo(render(plan, **_look()), nl=False)


@main.command()
@click.argument("run_name", metavar="[RUN]", default="latest")
@_OUT
@_JSON
def report(*, run_name: str, out: Path, as_json: bool) -> None:
    """Show a result again, from its folder alone.

    RUN is a result folder, a unique prefix of its name, or "latest".

    \b
    Examples:
      loadsim report
      loadsim report 20261122T0941 --json
    """
    with _explained():
        from loadsim.analysis.judge import summarise
        from loadsim.record.bundle import find

        bundle = find(run_name, out)
        _show(summarise(bundle.read()), bundle.path, as_json=as_json)


@main.command(short_help="Run the simulated server alone.")
@click.argument("scenario", required=False)
@_SET
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0: any free one.")
def serve(*, scenario: str | None, overrides: tuple[str, ...], port: int) -> None:
    """Run the simulated server alone, for people and for other load generators; Ctrl-C ends it.

    Listens on loopback, in the host's network namespace. Without SCENARIO: a server that greets each client
    and leaks nothing.

    \b
    Examples:
      loadsim serve --set server.nofile=64 --set server.leak=1
      loadsim serve too-many-open-files --port 9999
    """
    with _explained():
        import trio

        from loadsim.run.stage import serve_spec
        from loadsim.scenario.toml import load, load_text
        from loadsim.target.serve import serve as serve_alone

        loaded = load(scenario, overrides) if scenario else load_text(_PLAIN_SERVER, overrides)
        with tempfile.TemporaryDirectory(prefix="loadsim-") as folder:
            trio.run(serve_alone, serve_spec(loaded, port, Path(folder)), click.echo)


@main.command("list")
@_OUT
def list_(*, out: Path) -> None:
    """List the shipped scenarios, then the results in --out."""
    with _explained():
        from loadsim.record.bundle import Bundle, results
        from loadsim.report.listing import render
        from loadsim.scenario.toml import shipped

        verdicts = [(path.name, Bundle(path).read_verdict()) for path in results(out)]
        click.echo(render(shipped(), verdicts, **_look()), nl=False)


@main.command(short_help="Explain a finding, fate, outcome or metric.")
@click.argument("id_", metavar="[ID]", required=False)
def explain(*, id_: str | None) -> None:
    """Explain a finding, fate, outcome or metric by its ID; without ID: list them all.

    \b
    Examples:
      loadsim explain fd-leak
      loadsim explain phantom
      loadsim explain accept.p99
    """
    with _explained():
        from loadsim.analysis.explain import explain as explained
        from loadsim.report.explain import render, render_index

        if id_ is None:
            click.echo(render_index(**_look()), nl=False)
            return
        explanation = explained(id_)
        if explanation is None:
            raise ScenarioError(_unknown_id(id_))
        click.echo(render(explanation, **_look()), nl=False)


@main.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    from loadsim.scenario.schema import schema as scenario_schema

    _print_json(scenario_schema())


#: What `loadsim serve` without a scenario runs: [client] is needed for its exchange alone.
_PLAIN_SERVER = 'schema = 1\nname = "serve"\n[server]\nclose_after = "client"\n[client]\nrate = "1/s"\n'


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what loadsim can explain into a sentence and its exit code."""
    try:
        yield
    except (LoadsimError, KeyboardInterrupt, BaseExceptionGroup) as raised:
        error = _innermost(raised)
        if isinstance(error, KeyboardInterrupt):
            click.echo("loadsim: interrupted; nothing was saved", err=True)
            sys.exit(128 + signal.SIGINT)
        if not isinstance(error, LoadsimError):
            raise
        click.echo(f"loadsim: {error}", err=True)
        sys.exit(error.exit_code)


def _innermost(error: BaseException) -> BaseException:
    """Return the one error in a group of groups; trio's nurseries wrap what is raised in them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _look() -> dict[str, Any]:
    """Return what standard output can show: columns, colours, characters."""
    from loadsim.report.look import Look

    look = Look.of(sys.stdout, os.environ)
    return {"width": look.width, "color": look.color, "unicode": look.unicode}


def _view(ui: str) -> View:
    """Return who watches a run; "auto": live on a terminal, lines otherwise."""
    from loadsim.report.views import view

    if ui == "auto":
        ui = "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    return view(ui)


def _show(summary: Summary, folder: Path, *, as_json: bool) -> None:
    if as_json:
        _print_json(summary.to_json())
        return
    from loadsim.report.next_steps import next_steps
    from loadsim.report.terminal import render

    click.echo(render(summary, saved=str(folder), next_steps=next_steps(summary), **_look()), nl=False)


def _unknown_id(asked: str) -> str:
    import difflib

    from loadsim.analysis.explain import ids

    near = difflib.get_close_matches(asked, ids(), n=1, cutoff=0.5)
    return f'nothing is called "{asked}"' + (f'; did you mean "{near[0]}"?' if near else "; loadsim explain lists all")


def _print_json(values: Any) -> None:  # noqa: ANN401 -- whatever json.dumps takes
    import json

    click.echo(json.dumps(values, indent=1, allow_nan=False))


def _status(summary: Summary) -> int:
    """Return the exit status of a run that no signal ended."""
    if not all(one.ok for one in summary.thresholds) or (summary.interrupted or "").startswith("aborted"):
        return EXIT_THRESHOLD
    return 0 if summary.complete else LoadsimError.exit_code
