"""`loadsim run`: run a scenario, or a sweep of it, and say what happened."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from loadsim import early_signals
from loadsim.commands import options, output
from loadsim.errors import EnvironmentRefusedError, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loadsim.compare.folder import SweepFolder
    from loadsim.run.host import Options
    from loadsim.scenario.layers import OptionValue, Override
    from loadsim.scenario.sweep import Matrix


@click.command("run", cls=options.Command, short_help="Run a scenario or a sweep, and say what happened.")
@click.argument("scenario", type=options.ScenarioName())
@options.SET
@options.REPEAT
@click.option(
    "--resume", is_flag=True, help="Continue the last unfinished sweep of SCENARIO, or the sweep in a folder."
)
@options.OUT
@options.UI
@click.argument("server_command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--pid", type=click.IntRange(1), help="The process id of a running server. It is only observed.")
@click.option("--address", metavar="HOST:PORT", help="The address of a running server. It is only observed.")
@click.option("--allow-remote", is_flag=True, help="Allow a server on another host.")
@click.option("--allow-public", is_flag=True, help="Allow a public address.")
@click.option(
    "--allow-heavy", is_flag=True, help="Allow more than 1,000 clients/s or 60 s against a server on another host."
)
@options.ALLOW_OUTSIDE
@click.option(
    "--allow-degraded",
    is_flag=True,
    help="Run even if a setting cannot be applied. The status is INCONCLUSIVE then.",
)
@click.option("--yes", is_flag=True, help="Do not ask before SCENARIO runs a command for the first time.")
@options.MIN_EFFECT
@options.JSON
def command(  # noqa: PLR0913 -- one for each option
    *,
    scenario: str,
    server_command: tuple[str, ...],
    pid: int | None,
    address: str | None,
    allow_remote: bool,
    allow_public: bool,
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
    """Run SCENARIO (a file, or the name of a shipped scenario) and say what happened.

    COMMAND starts any server instead of the one in the scenario. {port} in it is replaced by the port. --pid and
    --address name a server that already runs: it is only observed, never limited, stopped or ended.

    Several values of a setting, a [sweep] table in the file, or --repeat make a sweep. All its runs are made in random
    order, then compared. --resume continues an interrupted sweep.

    The first word of a result is its status: REPRODUCED, HEALTHY, FAILED or INCONCLUSIVE.

    \b
    Exit status:
      0        as expected
      1        loadsim itself failed
      2        the command line or the scenario is wrong; nothing was started
      3        this host or the server could not run it
      99       a threshold failed
      130/143  interrupted by Ctrl-C or SIGTERM; results were written

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
    """
    with output.explained():
        from loadsim.run.host import Options
        from loadsim.scenario.toml import find, load_matrix

        settings: list[Override] = [*overrides, *_settings_of(server_command, pid, address, repeat)]
        permitted = Options(
            out=out,
            argv=sys.argv[1:],
            allow_degraded=allow_degraded,
            allow_remote=allow_remote,
            allow_public=allow_public,
            allow_heavy=allow_heavy,
        )
        ui = output.ui_of(ui)
        if resume:
            from loadsim.compare.sweep import find_unfinished, matrix_of

            folder = find_unfinished(scenario, settings, out, allow_outside=allow_outside)
            matrix, origin = matrix_of(folder), folder.path
        else:
            folder, matrix = None, load_matrix(scenario, settings, allow_outside=allow_outside)
            origin = find(scenario)
        if not yes and (resume or not server_command):  # a resumed sweep runs the command in its folder
            options.ask(matrix, origin)
        if folder is None and matrix.is_single:
            code = _run_once(matrix, permitted, ui=ui, as_json=as_json)
        else:
            code = _sweep(folder, matrix, permitted, ui=ui, min_effect=min_effect, as_json=as_json)
    sys.exit(code)


def _settings_of(
    server_command: tuple[str, ...], pid: int | None, address: str | None, repeat: int | None
) -> Iterator[OptionValue]:
    """Yield the settings that options stand for."""
    from loadsim.scenario.layers import OptionValue

    if server_command and (pid is not None or address is not None):
        raise ScenarioError("COMMAND cannot be combined with --pid or --address.")
    if server_command:
        yield OptionValue("COMMAND", shlex.join(server_command), "server.command", list(server_command))
    if pid is not None:
        yield OptionValue("--pid", str(pid), "server.pid", pid)
    if address is not None:
        yield OptionValue("--address", address, "server.address", _numeric(address))
    if repeat is not None:
        yield OptionValue.repeat(repeat)


def _numeric(address: str) -> str:
    """Return HOST:PORT with the IPv4 address of HOST; anything that is not a name is returned unchanged."""
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


def _run_once(matrix: Matrix, permitted: Options, *, ui: str, as_json: bool) -> int:
    """Make one run, show it, and return the exit status."""
    import trio

    from loadsim.commands.output import display
    from loadsim.run.conductor import run as conduct

    shown = display(ui)
    early_signals.begin()
    finished = trio.run(conduct, matrix.scenario, permitted, shown)
    output.show(finished.summary, finished.folder, as_json=as_json)
    output.publish(finished.folder)
    return 128 + finished.signal if finished.signal else output.exit_status(finished.summary)


def _sweep(
    unfinished: SweepFolder | None, matrix: Matrix, permitted: Options, *, ui: str, min_effect: float, as_json: bool
) -> int:
    """Make all runs of a new sweep, or the missing runs of an unfinished one; compare them; return the exit status."""
    import trio

    from loadsim.commands.output import sweep_display
    from loadsim.compare.sweep import start, sweep

    shown = sweep_display(ui)
    early_signals.begin()
    folder = unfinished or start(matrix, permitted, min_effect)
    swept = trio.run(sweep, folder, matrix, permitted, shown)
    output.show_comparison(swept.collected.comparison, swept.folder, as_json=as_json)
    output.publish(swept.folder)
    if swept.signal:
        return 128 + swept.signal
    codes = [output.exit_status(summary) for summary in swept.collected.summaries]
    codes += [EnvironmentRefusedError.exit_code for side in swept.collected.run_groups if side.refused]
    return max(codes)
