"""The command that passes a verdict on any server."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from loadsim import interrupt
from loadsim.cli import shared
from loadsim.errors import ScenarioError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Run any server out of descriptors, and say what it does then.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--nofile", type=click.IntRange(8, 100_000), default=64, show_default=True, help="The limit to reach.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where it listens, without {port}; 0: any free.")
@click.option(
    "--path", default="/", show_default=True, help="What the canary asks for; a status below 400 is an answer."
)
@click.option("--url", "leak_path", metavar="PATH", help="A path whose handler opens something: a third way.")
@click.option("--echo", is_flag=True, help="The server sends back what it is sent, instead of speaking HTTP.")
@click.option("--send", help='What a client says to a server that speaks neither, such as "PING\\r\\n".')
@click.option("--expect", help='How its answer begins, such as "+PONG".')
@click.option("--repeat", type=click.IntRange(1, 100), default=1, show_default=True, help="Runs of each way.")
@click.option(
    "--seconds",
    type=click.FloatRange(2, 600),
    default=10,
    show_default=True,
    help="How long it is kept at its limit; some servers look harmless for two.",
)
@click.option(
    "--watch",
    type=click.FloatRange(1, 600),
    default=8,
    show_default=True,
    help="Seconds to come back in; four times as many before it is called gone for good.",
)
@click.option(
    "--start-timeout",
    type=click.FloatRange(0.1, 600),
    default=10,
    show_default=True,
    help="Seconds until it has to listen.",
)
@click.option(
    "--way",
    "ways",
    type=click.Choice(["start", "lowered", "handler"]),
    multiple=True,
    help="Only this way: a limit at the start, lowered live, a leak in the handler (--url). May be repeated.",
)
@shared.OUT
@click.option("--ui", type=click.Choice(["auto", "live", "plain", "none"]), default="auto", show_default=True)
@shared.JSON
def verdict(  # noqa: PLR0913 -- one for each option
    *,
    command: tuple[str, ...],
    nofile: int,
    port: int,
    path: str,
    leak_path: str | None,
    echo: bool,
    send: str | None,
    expect: str | None,
    repeat: int,
    seconds: float,
    watch: float,
    start_timeout: float,
    ways: tuple[str, ...],
    out: Path,
    ui: str,
    as_json: bool,
) -> None:
    """Run COMMAND out of descriptors in two or three ways, and print one card: its class, its grade, and why.

    {port} in COMMAND stands for its port. First it is asked once while there is room: it has to answer. The ways: a
    limit at the start; a limit that is lowered while clients are in; a leak in the handler, where --url names a path
    that opens something. In each it is kept at its limit for ten seconds, then there is room again and a canary watches
    for the first answer.

    \b
    Examples:
      loadsim verdict -- python3 -m http.server {port}
      loadsim verdict --nofile 64 -- uvicorn app:app --port {port}
      loadsim verdict --send 'PING\\r\\n' --expect + -- redis-server --port {port}
      loadsim verdict --echo --repeat 3 --json -- ./echo-server {port}
    \b
    Exit status:
      0        there is a verdict, whatever it says
      2        the command line is wrong; nothing was started
      3        this host cannot run it, or the command does not serve
      130/143  interrupted by Ctrl-C or SIGTERM; there is no verdict
    """
    with shared.explained():
        import trio

        from loadsim.report.views import watcher
        from loadsim.run.options import Options
        from loadsim.run.verdict import pass_verdict
        from loadsim.scenario.ways import AT_START, HANDLER, LOWERED, Probe, Trial

        _raise_if_contradicting(echo=echo, send=send, expect=expect, leak_path=leak_path, ways=ways)
        exchange = "raw" if send is not None else "echo" if echo else "http"
        probe = Probe(
            exchange=exchange, path=path, send=_unescaped(send), expect=_unescaped(expect), leak_path=leak_path
        )
        names = [{"start": AT_START, "lowered": LOWERED, "handler": HANDLER}[way] for way in ways]
        trial = Trial(
            command=command,
            probe=probe,
            nofile=nofile,
            port=port,
            start_timeout_s=start_timeout,
            exhausted_s=seconds,
            watched_s=watch,
        )
        options, view = Options(out=out, argv=sys.argv[1:]), watcher(shared.ui_of(ui))
        interrupt.begin()
        judged = trio.run(partial(pass_verdict, trial, options, view, names=names, repeat=repeat))
        shared.show_verdict(judged, as_json=as_json)


def _raise_if_contradicting(
    *, echo: bool, send: str | None, expect: str | None, leak_path: str | None, ways: tuple[str, ...]
) -> None:
    """Raise ScenarioError where the options do not say one thing how one talks to the server."""
    if echo and (send is not None or expect is not None):
        raise ScenarioError("--echo says already what is sent and expected: leave --send and --expect out, or --echo")
    if expect is not None and send is None:
        raise ScenarioError("--expect needs --send TEXT: what has to be said for that answer (--send '' for nothing)")
    if leak_path is not None and (echo or send is not None):
        raise ScenarioError("--url is a path of a server that speaks HTTP: leave out --echo and --send, or it")
    if "handler" in ways and leak_path is None:
        raise ScenarioError("--way handler needs --url PATH: a path whose handler opens something")


def _unescaped(text: str | None) -> str | None:
    r"""Return what was typed with \r, \n, \t and \0 as what they stand for."""
    if text is None:
        return None
    for typed, meant in ((r"\r", "\r"), (r"\n", "\n"), (r"\t", "\t"), (r"\0", "\0")):
        text = text.replace(typed, meant)
    return text
