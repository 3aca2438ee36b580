"""`loadsim inspect`: show what a live process holds.

It imports few modules, because it must start on a host in trouble.
"""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadsim.commands import options, output
from loadsim.errors import EnvironmentRefusedError, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from loadsim.inspect.model import Snapshot
    from loadsim.inspect.targets import Found

_KINDS = "TCP, UDP, unix, socket, file, pipe, terminal, device, epoll, eventfd, timerfd, signalfd, inotify, other"
#: Time between the two snapshots of a summary.
_OVER_S = 2.0
_SORTS = ("fd", "inode", "kind", "state", "port", "peer", "idle", "queue")


@click.command("inspect", cls=options.Command, short_help="Show the descriptors and sockets of a live process.")
@click.argument("target", metavar="[PID|NAME|:PORT]", required=False)
@click.option("--exact", is_flag=True, help="Match NAME exactly, like pgrep -x.")
@click.option("--fds", "all_rows", is_flag=True, help="List every descriptor. By default at most 39 are listed.")
@click.option("--kind", help=f"List only descriptors of this kind: {_KINDS}.")
@click.option("--state", help="List only sockets in this TCP state or role: CLOSE_WAIT, LISTENING, QUEUED ...")
@click.option("--socket-port", type=click.IntRange(1, 65535), help="List only sockets with this port at either end.")
@click.option("--sort", type=click.Choice(_SORTS), default="fd", show_default=True, help="The order of the list.")
@click.option(
    "--over",
    type=options.Duration(),
    help="Take two snapshots this far apart and show the change; 0s takes one.  [default: 2s for a summary]",
)
@click.option("--watch", "watches", is_flag=True, help="Print events as they happen. :PORT waits for a listener.")
@click.option("--for", "for_s", type=options.Duration(), help="End --watch after this time.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a scenario that reproduces what the process shows.",
)
@options.JSON
def command(  # noqa: PLR0913 -- one for each option
    *,
    target: str | None,
    exact: bool,
    all_rows: bool,
    kind: str | None,
    state: str | None,
    socket_port: int | None,
    sort: str,
    over: float | None,
    watches: bool,
    for_s: float | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Show what a live process holds: its descriptors joined with sockets, both ends, their holders, and leaks.

    It only reads: no process is stopped, traced or signalled. Without a target it lists processes by share of their
    limit, and every listener. NAME is a command, argv[0] or a systemd unit; of several processes the one nearest to its
    limit is shown.

    \b
    Exit status:
      0  it was shown
      2  the command line is wrong
      3  the process does not exist, ended, or cannot be read

    \b
    Examples:
      loadsim inspect
      loadsim inspect :9999
      loadsim inspect nginx --exact --state CLOSE_WAIT
      loadsim inspect :8080 --watch --for 10s
      loadsim inspect 4242 --json | jq '.rows[] | select(.role == "QUEUED")'
    """
    with output.explained():
        from loadsim.inspect.groups import Choice

        _raise_if_contradicting(target, watches=watches, for_s=for_s, save=save, as_json=as_json)
        choice = Choice(kind=kind, state=state, port=socket_port, sort=sort)
        if target is None:
            _overview(as_json=as_json)
            return
        if watches:
            _watch(target, exact=exact, for_s=for_s)
            return
        from loadsim.inspect.targets import find

        found = find(target, exact=exact)
        _say_others(found, target)
        if save is not None:
            _save(found.pids[0], save, _OVER_S if over is None else over)
            return
        now, before = _snapshots(found.pids[0], over, summary=not (all_rows or choice.chooses or as_json))
        if as_json:
            from loadsim.inspect.document import document

            output.print_json(document(now, before, choice))
            return
        from loadsim.inspect.text import render

        shown = found.port or socket_port
        text = render(now, before, output.terminal(), choice=choice, all_rows=all_rows, port=shown)
        output.put(text)


def _raise_if_contradicting(
    target: str | None, *, watches: bool, for_s: float | None, save: Path | None, as_json: bool
) -> None:
    """Raise ScenarioError for options that do not go together."""
    if target is None and (watches or save is not None):
        raise ScenarioError("--watch and --save need a target: PID, NAME or :PORT.")
    if watches and (as_json or save is not None):
        raise ScenarioError("--watch cannot be combined with --json or --save.")
    if for_s is not None and not watches:
        raise ScenarioError("--for needs --watch.")


def _overview(*, as_json: bool) -> None:
    from loadsim.inspect.overview import take_overview

    overview = take_overview()
    if as_json:
        from loadsim.inspect.document import overview_document

        output.print_json(overview_document(overview))
        return
    from loadsim.inspect.overview import render

    output.put(render(overview, output.terminal()))


def _watch(target: str, *, exact: bool, for_s: float | None) -> None:
    """Print events until Ctrl-C, the end of the process or the end of --for; then a summary of leaks."""
    from loadsim.inspect.targets import find, parse_port
    from loadsim.inspect.watch import WatchText, wait_listener, watch

    port = parse_port(target)
    watching = WatchText(output.terminal())
    ended = False
    begun = time.monotonic()
    with suppress(KeyboardInterrupt), _noting_interrupt() as interrupted:
        if port is not None:
            click.echo(f"loadsim: waiting for a listener on :{port}", err=True)
            pid = wait_listener(port)
        else:
            pid = find(target, exact=exact).pids[0]
        for sample in watch(pid, for_s=for_s):
            click.echo(watching.lines(sample), nl=False)
            if interrupted():
                break
        ended = for_s is None or time.monotonic() - begun < for_s
    click.echo(watching.summary(ended=ended), nl=False)


@contextmanager
def _noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed.

    Ctrl-C still raises KeyboardInterrupt, but Python drops an exception raised while it finalises an object.
    """
    pressed = []

    def note(number: int, _: FrameType | None) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _save(pid: int, path: Path, over_s: float) -> None:
    """Write the scenario and print its main numbers; an existing file is never overwritten."""
    from loadsim.inspect.incident import SYSCTLS, incident, to_toml
    from loadsim.inspect.watch import watch
    from loadsim.kernel.limits import read_sysctl
    from loadsim.scenario.budget import BASELINE_FDS
    from loadsim.scenario.toml import load

    if over_s <= 0:
        raise ScenarioError("--save needs two snapshots: give --over a duration above 0s, for example --over 5s.")
    snapshots = [sample.now for sample in watch(pid, for_s=over_s)]
    if len(snapshots) < 2:
        raise EnvironmentRefusedError(f"process {pid} ended before its second snapshot")
    sysctls = {name: value for name in SYSCTLS if (value := read_sysctl(name)) is not None}
    found = incident(snapshots, BASELINE_FDS)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(to_toml(found, snapshots[-1], sysctls, BASELINE_FDS))
    except OSError as error:
        raise ScenarioError(f"--save {path} was not written: {error.strerror}; choose another file") from error
    load(str(path))
    click.echo(f"saved {path}: {found.nofile} descriptors, {found.rate:.4g} clients/s, {found.leak:.0%} of them leak")
    click.echo(f"next  loadsim check {path}     loadsim run {path}")


def _snapshots(pid: int, over: float | None, *, summary: bool) -> tuple[Snapshot, Snapshot | None]:
    """Return the newest snapshot, and the one before it if two were taken."""
    from loadsim.inspect.snapshot import take
    from loadsim.inspect.text import FEW
    from loadsim.kernel.procfs import ProcessGoneError

    try:
        now = take(pid)
        wait_s = (_OVER_S if summary and now.open_fds >= FEW else 0.0) if over is None else over
        if wait_s <= 0:
            return now, None
        before = now
        time.sleep(wait_s)
        return take(pid), before
    except ProcessGoneError as error:
        raise EnvironmentRefusedError(f"process {pid} ended while it was being read") from error


def _say_others(found: Found, target: str) -> None:
    """Report the other processes that the target matches."""
    others = found.pids[1:]
    if others:
        more = ", ".join(map(str, others[:10])) + (" ..." if len(others) > 10 else "")
        nearest = f"{target} matches {len(found.pids)} processes; this is the one nearest to its limit"
        click.echo(f"loadsim: {nearest}. Others: {more}", err=True)
