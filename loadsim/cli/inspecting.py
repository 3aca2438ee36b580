"""The command that looks at a live process. Imports no more than that needs: it starts on a host in trouble."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadsim.cli import shared
from loadsim.errors import EnvironmentRefusedError, ScenarioError
from loadsim.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from loadsim.inspect.model import Snapshot
    from loadsim.inspect.targets import Found

_KINDS = "TCP, UDP, unix, socket, file, pipe, terminal, device, epoll, eventfd, timerfd, signalfd, inotify, other"
#: Time between the two looks of a summary.
_OVER_S = 2.0
_SORTS = ("fd", "inode", "kind", "state", "port", "peer", "idle", "queue")


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(short_help="Look at a live process: its descriptors and sockets in one view.")
@click.argument("target", metavar="[PID|NAME|:PORT]", required=False)
@click.option("--exact", is_flag=True, help="NAME is the whole name, as with pgrep -x.")
@click.option("--fds", "all_rows", is_flag=True, help="List every descriptor; without it up to 39 are listed.")
@click.option("--kind", help=f"List these alone: {_KINDS}.")
@click.option("--state", help="List sockets in this TCP state or role alone: CLOSE_WAIT, LISTENING, QUEUED ...")
@click.option("--port", type=click.IntRange(1, 65535), help="List sockets with this port at either end alone.")
@click.option("--sort", type=click.Choice(_SORTS), default="fd", show_default=True, help="Order of the list.")
@click.option(
    "--over",
    metavar="DURATION",
    callback=_seconds,
    help="Look twice, so long apart, and show what changed; 0s: once.  [default: 2s for a summary]",
)
@click.option("--watch", "watches", is_flag=True, help="Show what happens as it happens; :PORT waits for a listener.")
@click.option("--for", "for_s", metavar="DURATION", callback=_seconds, help="Watch no longer than this.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a scenario from what the process shows: the incident on a laptop.",
)
@shared.JSON
def inspect(  # noqa: PLR0913 -- one for each option
    *,
    target: str | None,
    exact: bool,
    all_rows: bool,
    kind: str | None,
    state: str | None,
    port: int | None,
    sort: str,
    over: float | None,
    watches: bool,
    for_s: float | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Show what a live process holds: descriptors and sockets joined, both ends, who shares them, what leaks.

    Reads only: no process is stopped, traced or signalled. Without a target: processes by share of their limit, and
    every listener. NAME is a command, argv[0] or systemd unit; of several the one nearest to its limit.

    \b
    Examples:
      loadsim inspect
      loadsim inspect :9999
      loadsim inspect nginx --exact --state CLOSE_WAIT
      loadsim inspect 4242 --json | jq '.rows[] | select(.role == "QUEUED")'
    """
    with shared.explained():
        from loadsim.inspect.choice import Choice

        _refuse(target, watches=watches, save=save, as_json=as_json)
        choice = Choice(kind=kind, state=state, port=port, sort=sort)
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
        now, before = _look(found.pids[0], over, summary=not (all_rows or choice.chooses or as_json))
        if as_json:
            from loadsim.inspect.document import document

            shared.print_json(document(now, before, choice))
            return
        from loadsim.report.inspection.page import render

        shown = found.port or port
        text = render(now, before, shared.terminal(), choice=choice, all_rows=all_rows, port=shown)
        shared.put(text)


def _refuse(target: str | None, *, watches: bool, save: Path | None, as_json: bool) -> None:
    """Raise ScenarioError for options that do not go together."""
    if target is None and (watches or save is not None):
        raise ScenarioError("--watch and --save need a target: a pid, a name or :PORT")
    if watches and as_json:
        raise ScenarioError("--watch prints lines, --json one document: choose one")


def _overview(*, as_json: bool) -> None:
    from loadsim.inspect.overview import take_overview

    overview = take_overview()
    if as_json:
        from loadsim.inspect.document import overview_document

        shared.print_json(overview_document(overview))
        return
    from loadsim.report.inspection.overview import render

    shared.put(render(overview, shared.terminal()))


def _watch(target: str, *, exact: bool, for_s: float | None) -> None:
    """Show what happens until Ctrl-C, the end of the process, or the end of the time; then what leaked."""
    from loadsim.inspect.targets import find, parse_port
    from loadsim.inspect.watch import wait_listener, watch
    from loadsim.report.inspection.watching import Watching

    port = parse_port(target)
    watching = Watching(shared.terminal())
    ended = False
    begun = time.monotonic()
    with suppress(KeyboardInterrupt), _noting_interrupt() as interrupted:
        if port is not None:
            click.echo(f"loadsim: waiting for a listener on :{port}", err=True)
            pid = wait_listener(port)
        else:
            pid = find(target, exact=exact).pids[0]
        for seen in watch(pid, for_s=for_s):
            click.echo(watching.tell(seen), nl=False)
            if interrupted():
                break
        ended = for_s is None or time.monotonic() - begun < for_s
    click.echo(watching.end(ended=ended), nl=False)


@contextmanager
def _noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed.

    It raises KeyboardInterrupt as always; one that is raised while an object is being finalised is dropped by Python.
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
    """Write the scenario and say what it will do; an existing file is never overwritten."""
    from loadsim.inspect.incident import SYSCTLS, incident, to_toml
    from loadsim.inspect.watch import watch
    from loadsim.kernel.limits import read_sysctl
    from loadsim.scenario.budget import BASELINE_FDS
    from loadsim.scenario.toml import load

    if over_s <= 0:
        raise ScenarioError("a growth needs two looks: give --over a time above 0s, such as --over 5s")
    looks = [seen.now for seen in watch(pid, for_s=over_s)]
    if len(looks) < 2:
        raise EnvironmentRefusedError(f"process {pid} ended while it was being looked at: nothing is left")
    sysctls = {name: value for name in SYSCTLS if (value := read_sysctl(name)) is not None}
    found = incident(looks, BASELINE_FDS)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(to_toml(found, looks[-1], sysctls, BASELINE_FDS))
    except OSError as error:
        raise ScenarioError(f"{path} is not written: {error.strerror}; name another file") from error
    load(str(path))
    click.echo(f"saved {path}: {found.nofile} descriptors, {found.rate:.4g} clients/s, {found.leak:.0%} of them leak")
    click.echo(f"next  loadsim check {path}     loadsim run {path}")


def _look(pid: int, over: float | None, *, summary: bool) -> tuple[Snapshot, Snapshot | None]:
    """Return the look, and the one before it where there were two."""
    from loadsim.inspect.snapshot import take
    from loadsim.kernel.procfs import ProcessGoneError
    from loadsim.report.inspection.page import FEW

    try:
        now = take(pid)
        wait_s = (_OVER_S if summary and now.open_fds >= FEW else 0.0) if over is None else over
        if wait_s <= 0:
            return now, None
        before = now
        time.sleep(wait_s)
        return take(pid), before
    except ProcessGoneError as error:
        raise EnvironmentRefusedError(f"process {pid} ended while it was being looked at: nothing is left") from error


def _say_others(found: Found, target: str) -> None:
    """Say which other processes the target names, where it names several."""
    others = found.pids[1:]
    if others:
        more = ", ".join(map(str, others[:10])) + (" ..." if len(others) > 10 else "")
        click.echo(
            f"loadsim: {target} is {len(found.pids)} processes: nearest to its limit first; also {more}", err=True
        )
