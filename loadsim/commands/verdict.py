"""`loadsim verdict`: run any server out of descriptors, and say what it does."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from loadsim import early_signals
from loadsim.commands import options, output
from loadsim.errors import ScenarioError

if TYPE_CHECKING:
    from pathlib import Path


@click.command("verdict", cls=options.Command, short_help="Run any server out of descriptors, and grade it.")
@click.argument("server_command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--nofile", type=click.IntRange(8, 100_000), default=64, show_default=True, help="The descriptor limit to exhaust."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="The port on which the server listens, if COMMAND has no {port}; 0 is any free one.",
)
@click.option(
    "--path", default="/", show_default=True, help="The path that clients request. A status below 400 is an answer."
)
@click.option(
    "--leak-path", metavar="PATH", help="A path with a handler that opens a descriptor. This adds the trial handler."
)
@click.option("--echo", is_flag=True, help="The server does not speak HTTP; it echoes what it receives.")
@click.option("--send", help='What a client sends to a server with another protocol, for example "PING\\r\\n".')
@click.option("--expect", help='How the answer to --send begins, for example "+PONG".')
@click.option("--repeat", type=click.IntRange(1, 100), default=1, show_default=True, help="Runs per trial.")
@click.option(
    "--at-limit",
    type=options.Duration("2s", "10min"),
    default="10s",
    show_default=True,
    help="How long the server stays at its limit. Some servers look harmless for two seconds.",
)
@click.option(
    "--recover-within",
    type=options.Duration("1s", "10min"),
    default="8s",
    show_default=True,
    help="How long it has to recover. After four times this it counts as dead.",
)
@click.option(
    "--start-timeout",
    type=options.Duration("100ms", "10min"),
    default="10s",
    show_default=True,
    help="How long it may take until it listens.",
)
@click.option(
    "--trial",
    "trials",
    type=click.Choice(["start", "lowered", "handler"]),
    multiple=True,
    help="Make only this trial: a limit from the start, a limit lowered while clients are connected, or a leak in the "
    "handler (--leak-path). May be repeated.",
)
@options.OUT
@options.UI
@options.JSON
def command(  # noqa: PLR0913 -- one for each option
    *,
    server_command: tuple[str, ...],
    nofile: int,
    port: int,
    path: str,
    leak_path: str | None,
    echo: bool,
    send: str | None,
    expect: str | None,
    repeat: int,
    at_limit: float,
    recover_within: float,
    start_timeout: float,
    trials: tuple[str, ...],
    out: Path,
    ui: str,
    as_json: bool,
) -> None:
    """Run COMMAND out of descriptors in two or three trials, and print one card: its class, its grade, and why.

    {port} in COMMAND is replaced by its port. First, the server must answer one request while descriptors are free.
    The trials: a limit from the start; a limit lowered while clients are connected; and, with --leak-path, requests to
    a handler that opens descriptors. In each trial the server stays at its limit for a while (--at-limit); then
    descriptors are freed, and a canary waits for the first answer.

    \b
    Exit status:
      0        a verdict was given, with any grade
      2        the command line is wrong; nothing was started
      3        this host cannot run it, or the server does not answer
      130/143  interrupted by Ctrl-C or SIGTERM; no verdict

    \b
    Examples:
      loadsim verdict -- python3 -m http.server {port}
      loadsim verdict --nofile 64 -- uvicorn app:app --port {port}
      loadsim verdict --send 'PING\\r\\n' --expect + -- redis-server --port {port}
      loadsim verdict --echo --repeat 3 --json -- ./echo-server {port}
    """
    with output.explained():
        import trio

        from loadsim.commands.output import sweep_display
        from loadsim.run.host import Options
        from loadsim.verdict.run import pass_verdict
        from loadsim.verdict.trials import AT_START, HANDLER, LOWERED, Probe, TrialPlan

        _raise_if_contradicting(echo=echo, send=send, expect=expect, leak_path=leak_path, trials=trials)
        exchange = "raw" if send is not None else "echo" if echo else "http"
        probe = Probe(
            exchange=exchange, path=path, send=_unescaped(send), expect=_unescaped(expect), leak_path=leak_path
        )
        names = [{"start": AT_START, "lowered": LOWERED, "handler": HANDLER}[name] for name in trials]
        plan = TrialPlan(
            command=server_command,
            probe=probe,
            nofile=nofile,
            port=port,
            start_timeout_s=start_timeout,
            exhausted_s=at_limit,
            watched_s=recover_within,
        )
        permitted, display = Options(out=out, argv=sys.argv[1:]), sweep_display(output.ui_of(ui))
        early_signals.begin()
        judged = trio.run(partial(pass_verdict, plan, permitted, display, names=names, repeat=repeat))
        output.show_verdict(judged, as_json=as_json)


def _raise_if_contradicting(
    *, echo: bool, send: str | None, expect: str | None, leak_path: str | None, trials: tuple[str, ...]
) -> None:
    """Raise ScenarioError for options that do not go together."""
    if echo and (send is not None or expect is not None):
        raise ScenarioError("--echo cannot be combined with --send or --expect.")
    if expect is not None and send is None:
        raise ScenarioError("--expect needs --send TEXT, the request that it answers (--send '' sends nothing).")
    if leak_path is not None and (echo or send is not None):
        raise ScenarioError("--leak-path cannot be combined with --echo or --send: it is a path of an HTTP server.")
    if "handler" in trials and leak_path is None:
        raise ScenarioError("--trial handler needs --leak-path PATH: a path with a handler that opens a descriptor.")


def _unescaped(text: str | None) -> str | None:
    r"""Return the text with \r, \n, \t and \0 replaced by the characters that they stand for."""
    if text is None:
        return None
    for typed, meant in ((r"\r", "\r"), (r"\n", "\n"), (r"\t", "\t"), (r"\0", "\0")):
        text = text.replace(typed, meant)
    return text
