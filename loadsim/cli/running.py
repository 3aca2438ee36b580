"""The commands that start something, or say what would be started."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadsim import interrupt
from loadsim.cli import shared
from loadsim.errors import EnvironmentRefusedError, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.record.sweep import SweepFolder
    from loadsim.run.options import Options
    from loadsim.scenario.plan import Plan
    from loadsim.scenario.sweep import Matrix


@click.command(short_help="Run a scenario, or a sweep of it, and say what happened.")
@click.argument("scenario")
@shared.SET
@click.option("--repeat", type=click.IntRange(1, 1000), help="Run each cell so many times, and compare them.")
@click.option("--resume", is_flag=True, help="Go on with the last unfinished sweep of SCENARIO, or with that folder.")
@shared.OUT
@click.option(
    "--ui",
    type=click.Choice(["auto", "live", "plain", "none"]),
    default="auto",
    show_default=True,
    help="How to show progress: live on a terminal, plain lines otherwise.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--pid", type=click.IntRange(1), help="A server that runs already, by its process; it is left as it is.")
@click.option("--address", metavar="HOST:PORT", help="Where a server that runs already is reached.")
@click.option("--allow-remote", is_flag=True, help="The server may be on another host than this one.")
@click.option("--yes-public", is_flag=True, help="And that may be on the public internet.")
@click.option("--allow-heavy", is_flag=True, help="And get more there than 1,000 clients/s, or for more than 60 s.")
@click.option("--yes", is_flag=True, help="Do not ask before the first run of a command that SCENARIO names.")
@shared.ALLOW_OUTSIDE
@click.option("--allow-degraded", is_flag=True, help="Run although a setting cannot be had; INCONCLUSIVE then.")
@shared.MIN_EFFECT
@shared.JSON
def run(  # noqa: PLR0913 -- one for each option
    *,
    scenario: str,
    command: tuple[str, ...],
    pid: int | None,
    address: str | None,
    allow_remote: bool,
    yes_public: bool,
    allow_heavy: bool,
    yes: bool,
    allow_outside: bool,
    overrides: tuple[str, ...],
    repeat: int | None,
    resume: bool,
    out: Path,
    ui: str,
    allow_degraded: bool,
    min_effect: float,
    as_json: bool,
) -> None:
    """Run SCENARIO (a file, or the name of a shipped one) and say what happened.

    COMMAND is any server, started instead of the one of the scenario; {port} stands for its port. With --pid or
    --address it is one that runs already: nothing of it is started, limited, stopped or ended.

    Several values of a setting, a [sweep] in the file or --repeat make it a sweep: all runs in shuffled order, then one
    comparison of them. A sweep that was interrupted goes on with --resume.

    \b
    Examples:
      loadsim run too-many-open-files
      loadsim run too-many-open-files --set server.leak=0
      loadsim run backlog-sweep
      loadsim run healthy --set server.backlog=8,128,4096 --repeat 6
      loadsim run backlog-sweep --resume
      loadsim run my.toml --json | jq .metrics
      loadsim run real-http-server -- ./my-server --port {port}
      loadsim run my.toml --pid $(pgrep -o nginx)
    \b
    Exit status:
      0        as expected
      1        loadsim itself broke
      2        the command line or the scenario is wrong; nothing was started
      3        this host or the target could not run it
      99       a threshold failed
      130/143  interrupted by Ctrl-C or SIGTERM; the results are written
    """
    with shared.explained():
        from loadsim.cli import consent
        from loadsim.run.options import Options
        from loadsim.scenario.toml import find, load_matrix

        overrides = (*overrides, *_server_of(command, pid, address))
        options = Options(
            out=out,
            argv=sys.argv[1:],
            allow_degraded=allow_degraded,
            allow_remote=allow_remote,
            yes_public=yes_public,
            allow_heavy=allow_heavy,
        )
        ui = shared.ui_of(ui)
        if repeat is not None:
            overrides = (*overrides, f"sweep.repeat={repeat}")
        if resume:
            from loadsim.run.sweep import find_unfinished, matrix_of

            folder = find_unfinished(scenario, overrides, out, allow_outside=allow_outside)
            matrix, said_by = matrix_of(folder), folder.path
        else:
            folder, matrix = None, load_matrix(scenario, overrides, allow_outside=allow_outside)
            said_by = find(scenario)
        if not yes and (resume or not command):  # what a folder says is run, whatever command stands beside it
            consent.ask(matrix, said_by)
        if folder is None and matrix.is_single:
            code = _run_once(matrix, options, ui=ui, as_json=as_json)
        else:
            code = _sweep(folder, matrix, options, ui=ui, min_effect=min_effect, as_json=as_json)
    sys.exit(code)


def _server_of(command: tuple[str, ...], pid: int | None, address: str | None) -> Iterator[str]:
    """Yield what the command line says of the server, as settings of the scenario."""
    if command and (pid is not None or address is not None):
        raise ScenarioError("a command is started, and --pid and --address mean a server that runs: take one away")
    if command:
        yield f"server.command={json.dumps(command, ensure_ascii=False)}"
    if pid is not None:
        yield f"server.pid={pid}"
    if address is not None:
        yield f"server.address={json.dumps(_numeric(address))}"


def _numeric(address: str) -> str:
    """Return HOST:PORT with the number of a host that has a name; whatever is no name stays as it is."""
    import socket

    host, _, port = address.rpartition(":")
    if not host or host.startswith("["):
        return address
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        says = f"--address {address}: {host} has no IPv4 address ({error}); write [...]:PORT for IPv6"
        raise ScenarioError(says) from None
    return f"{found[0][4][0]}:{port}"


def _run_once(matrix: Matrix, options: Options, *, ui: str, as_json: bool) -> int:
    """Make one run, show it, and return the exit status."""
    import trio

    from loadsim.report.views import view
    from loadsim.run.conductor import run as conduct

    shown = view(ui)
    interrupt.begin()
    finished = trio.run(conduct, matrix.scenario, options, shown)
    shared.show(finished.summary, finished.folder, as_json=as_json)
    shared.publish(finished.folder)
    return 128 + finished.signal if finished.signal else shared.status(finished.summary)


def _sweep(
    unfinished: SweepFolder | None, matrix: Matrix, options: Options, *, ui: str, min_effect: float, as_json: bool
) -> int:
    """Make the runs that a sweep lacks, all of a new one, show what they say together, and return the exit status."""
    import trio

    from loadsim.report.views import watcher
    from loadsim.run.sweep import start, sweep

    shown = watcher(ui)
    interrupt.begin()
    folder = unfinished or start(matrix, options, min_effect)
    swept = trio.run(sweep, folder, matrix, options, shown)
    shared.show_comparison(swept.gathered.comparison, swept.folder, as_json=as_json)
    shared.publish(swept.folder)
    if swept.signal:
        return 128 + swept.signal
    codes = [shared.status(summary) for summary in swept.gathered.summaries]
    codes += [EnvironmentRefusedError.exit_code for side in swept.gathered.sides if side.refused]
    return max(codes)


@click.command(short_help="Say what a scenario needs and will do; start nothing.")
@click.argument("scenario")
@shared.SET
@click.option("--repeat", type=click.IntRange(1, 1000), help="Runs of each cell.")
@shared.ALLOW_OUTSIDE
@shared.JSON
def check(*, scenario: str, overrides: tuple[str, ...], repeat: int | None, allow_outside: bool, as_json: bool) -> None:
    """Validate SCENARIO, say what it needs and predict what it will do; start nothing.

    Of a sweep: its cells, how long all runs take, and whether so many repeats can tell them apart.

    \b
    Examples:
      loadsim check too-many-open-files --set server.nofile=1024
      loadsim check backlog-sweep
    """
    with shared.explained():
        from loadsim.run.stage import observe_host
        from loadsim.scenario.plan import make_plans
        from loadsim.scenario.toml import load_matrix

        if repeat is not None:
            overrides = (*overrides, f"sweep.repeat={repeat}")
        matrix = load_matrix(scenario, overrides, allow_outside=allow_outside)
        plans = make_plans([cell.scenario for cell in matrix.cells], observe_host)
        if matrix.is_single:
            _show_plan(plans[0], as_json=as_json)
        else:
            _show_matrix(matrix, plans, as_json=as_json)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    import dataclasses

    from loadsim.report.check import render

    if as_json:
        shared.print_json(dataclasses.asdict(plan) | {"scenario": plan.scenario.settings()})
    else:
        shared.put(render(plan, shared.terminal()))


def _show_matrix(matrix: Matrix, plans: list[Plan], *, as_json: bool) -> None:
    import dataclasses

    from loadsim.analysis.outlook import outlook_of
    from loadsim.report.outlook import render

    outlook = outlook_of(matrix, plans)
    if as_json:
        shared.print_json(dataclasses.asdict(outlook))
    else:
        shared.put(render(outlook, shared.terminal()))


@click.command(short_help="Run the simulated server alone.")
@click.argument("scenario", required=False)
@shared.SET
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0: any free one.")
@click.option("--address", help="Where it listens, when that is not to be loopback: other hosts may reach it there.")
def serve(*, scenario: str | None, overrides: tuple[str, ...], port: int, address: str | None) -> None:
    """Run the simulated server alone, for people and for other load generators; Ctrl-C ends it.

    Listens on loopback, in the host's network namespace, unless told otherwise. Without SCENARIO: a server that greets
    each client and leaks nothing.

    \b
    Examples:
      loadsim serve --set server.nofile=64 --set server.leak=1
      loadsim serve too-many-open-files --port 9999
    """
    with shared.explained():
        import trio

        from loadsim.run.stage import serve_spec
        from loadsim.scenario.toml import load, load_text
        from loadsim.target.serve import serve as serve_alone

        loaded = load(scenario, overrides) if scenario else load_text(_PLAIN_SERVER, overrides)
        interrupt.begin()
        with tempfile.TemporaryDirectory(prefix="loadsim-") as folder:
            spec = serve_spec(loaded, port, Path(folder), address=address)
            trio.run(serve_alone, spec, click.echo)


#: What `loadsim serve` without a scenario runs: [client] is needed for its exchange alone.
_PLAIN_SERVER = 'schema = 1\nname = "serve"\n[server]\nclose_after = "client"\n[client]\nrate = "1/s"\n'
