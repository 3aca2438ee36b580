"""When a command is ready: it, or a process that it started, listens where its clients will come.

Nobody connects to find out: the kernel is asked who listens. Owns the words for what goes wrong before that.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from loadsim.errors import DidNotStartError, EnvironmentRefusedError
from loadsim.kernel.sockdiag import family_of
from loadsim.target.whereabouts import listening
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadsim.kernel.followed import Followed
    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.kernel.tree import Tree
    from loadsim.scenario.spec import CommandSpec

_LOOK_S: Final = 0.02
#: A server has started its workers when nobody new has come for so long; one that never rests is taken as it is.
_NOBODY_NEW_S: Final = 0.2
_NEVER_RESTS_S: Final = 2.0


def choose_port(spec: CommandSpec, diag: SockDiag) -> int:
    """Return the port that the command is to listen on; raises EnvironmentRefusedError where somebody does already."""
    if not spec.port:
        with socket.socket(family_of(spec.address)) as any_free:
            any_free.bind((spec.address, 0))
            return int(any_free.getsockname()[1])
    if diag.listener(spec.address, spec.port):
        raise EnvironmentRefusedError(
            f"port {spec.port} of {spec.address} is taken: somebody listens there already (ss -ltnp 'sport = "
            f":{spec.port}'); end that, or set network.port = 0 (verdict: --port 0) for any free one"
        )
    return spec.port


async def wait_ready(
    tree: Tree, followed: Followed, diag: SockDiag, *, spec: CommandSpec, port: int, last_words: Callable[[], str]
) -> None:
    """Wait until a process of the tree listens; raises DidNotStartError where that does not come to pass."""
    with trio.move_on_after(spec.start_timeout_s):
        while not tree.emptied_ns:
            if diag.listener(spec.address, port) and followed.holders():
                await _wait_all_there(followed)
                return
            await trio.sleep(_LOOK_S)
    what = f"{spec.command[0]} "
    if tree.emptied_ns:
        await trio.sleep(_LOOK_S)  # the pump has still to read what it said at last
        how = f"ended with status {tree.exit_status} before it listened on {spec.address}:{port}"
        remedy = "run it by hand to see what it needs"
    else:
        how, remedy = _hanging(tree.pids(), diag, spec, port)
    said = last_words()
    raise DidNotStartError(f"{what}{how}; {remedy}. " + (f"Its last words:{said}" if said else "It said nothing."))


async def _wait_all_there(followed: Followed) -> None:
    """Wait until the same processes have held the listener for a while: a server listens first, and forks then."""
    with trio.move_on_after(_NEVER_RESTS_S):
        holders, since = followed.holders(), trio.current_time()
        while trio.current_time() - since < _NOBODY_NEW_S:
            await trio.sleep(_LOOK_S)
            if (now := followed.holders()) != holders:
                holders, since = now, trio.current_time()


def _hanging(pids: Sequence[int], diag: SockDiag, spec: CommandSpec, port: int) -> tuple[str, str]:
    """Return what a command does that runs and does not listen where it should, and the remedy."""
    after = format_duration(spec.start_timeout_s)
    if diag.listener(spec.address, port):
        return (
            f"does not listen on port {port} after {after}, and somebody else does",
            "choose another: network.port = 0 (verdict: --port 0) for any free one",
        )
    if others := sorted(set(_ports_of(pids, diag)) - {port}):
        where = " and ".join(map(str, others))
        return (
            f"listens on port {where}, not on {spec.address}:{port}",
            f"put {{port}} where its port goes, or set network.port = {others[0]} (verdict: --port {others[0]})",
        )
    if port in _ports_of(pids, diag):
        return (
            f"listens on port {port}, but not on {spec.address}",
            "have it listen there, or set network.address to where it does",
        )
    return (
        f"does not listen on {spec.address}:{port} after {after}",
        "put {port} where its port goes, or raise server.start_timeout (verdict: --start-timeout)",
    )


def _ports_of(pids: Sequence[int], diag: SockDiag) -> list[int]:
    """Return the ports on which these processes listen."""
    return [port for _, port in listening(pids, diag)]
