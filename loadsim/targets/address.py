"""Where a server is reached, when it listens there, and whether its sockets can be seen from here."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from loadsim.errors import DidNotStartError, EnvironmentRefusedError
from loadsim.kernel.procfs import Process, ProcessGoneError, descendants
from loadsim.kernel.sockdiag import FAMILIES, LISTEN, family_of, inet_request, namespace_of
from loadsim.kernel.sockets import parse_inet
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadsim.kernel.processes import ProcessGroup
    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.process.tree import Tree
    from loadsim.scenario.specs import CommandSpec, RunningSpec


_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where clients reach a server; `seen`: its listener and its connections are in the table of this namespace."""

    address: str
    port: int
    seen: bool


def locate(spec: RunningSpec, diag: SockDiag) -> Reach:
    """Return where a running server is; raises EnvironmentRefusedError where that is not clear, or nobody listens."""
    if spec.pid is not None:
        _check_process(spec.pid)
    here = spec.pid is None or namespace_of(spec.pid) in {namespace_of("self"), ""}  # "": nobody may look
    if spec.address is None:
        found = _listens(spec.pid or 0, diag, here=here)
    else:
        found = Reach(address=spec.address, port=spec.port, seen=here and _is_of_this_host(spec.address))
        _check_listener(found, spec.pid, diag)
    if spec.on_ipv4_loopback and found.address == "::1":
        raise EnvironmentRefusedError(
            f"the server listens on [::1]:{found.port} alone, and a canary or several sources come from 127.0.x.y: "
            "take [canary] and client.sources away, or have it listen on 127.0.0.1"
        )
    return found


def door_of(pid: int, port: int, diag: SockDiag) -> tuple[str, int] | None:
    """Return where a process and its children listen, as the table of `diag` says.

    On this port, or on their only one: what clients connect to may be mapped to it. None: nobody can say.
    """
    own = listening(family_tree(pid), diag)
    chosen = [one for one in own if one[1] == port] or (own if len({port for _, port in own}) == 1 else [])
    return chosen[0] if chosen else None


def listening(pids: Iterable[int], diag: SockDiag) -> list[tuple[str, int]]:
    """Return address and port of all listeners that these processes hold, as far as one may look into them."""
    requests = (inet_request(family, socket.IPPROTO_TCP, states=1 << LISTEN) for family in FAMILIES)
    listeners = {
        f"socket:[{one.inode}]": (one.local, one.local_port)
        for request in requests
        for one in parse_inet(diag.answers(request), "TCP")
    }
    return [listeners[link] for pid in pids for link in _links(pid) if link in listeners]


def family_tree(pid: int) -> list[int]:
    """Return a process and all that descends from it."""
    return [pid, *descendants(pid)]


def _check_process(pid: int) -> None:
    try:
        with Process(pid) as process:
            alive = process.alive()
    except ProcessGoneError:
        alive = False
    if not alive:
        raise EnvironmentRefusedError(f"no process {pid} runs here; look for it with ps, or pgrep -l NAME")
    if os.getpid() in family_tree(pid):
        raise EnvironmentRefusedError(
            f"process {pid} is the one that started loadsim, and its children would be counted as the server's: name "
            "the server itself (pgrep -l NAME)"
        )


def _listens(pid: int, diag: SockDiag, *, here: bool) -> Reach:
    """Return where a process and its children listen, on exactly one port."""
    if not here:
        raise EnvironmentRefusedError(
            f"process {pid} is in another network namespace: add --address HOST:PORT, where it is reached from here, "
            f"or run loadsim inside (nsenter -t {pid} -n)"
        )
    own = listening(family_tree(pid), diag)
    ports = sorted({port for _, port in own})
    if not own:
        raise EnvironmentRefusedError(f"process {pid} and its children listen on no TCP port{_unless(pid)}")
    if len(ports) > 1:
        where = ", ".join(sorted({join(*one) for one in own}))
        raise EnvironmentRefusedError(
            f"process {pid} and its children listen on several ports, {where}: add --address HOST:PORT of one"
        )
    addresses = [address for address, _ in own]
    reached = [*(address for address in addresses if address.startswith("127.")), *_LOOPBACK]
    for address in reached:
        if diag.listener(address, ports[0]):
            return Reach(address=address, port=ports[0], seen=True)
    where = join(addresses[0], ports[0])
    raise EnvironmentRefusedError(f"process {pid} listens on {where}, not on loopback: add --address {where}")


def _unless(pid: int) -> str:
    """Return the end of a sentence that says what may be the reason."""
    try:
        with Process(pid) as process:
            process.fd_numbers()
    except PermissionError:
        return (
            ", as far as one may look: it belongs to another user; run loadsim as that user or as root, or add "
            "--address HOST:PORT"
        )
    except ProcessGoneError:
        return ": it has ended"
    return "; name the process that does (ss -ltnp)"


def _check_listener(found: Reach, pid: int | None, diag: SockDiag) -> None:
    if not found.seen:
        return
    where = join(found.address, found.port)
    if diag.listener(found.address, found.port) is None:
        raise EnvironmentRefusedError(f"nobody listens on {where} in this network namespace (ss -ltn shows who does)")
    own = [] if pid is None else listening(family_tree(pid), diag)
    if own and found.port not in {port for _, port in own}:
        others = ", ".join(sorted({join(*one) for one in own}))
        raise EnvironmentRefusedError(f"process {pid} does not listen on {where}, but on {others}: name one of these")


def _is_of_this_host(address: str) -> bool:
    """Return whether an address is one of this network namespace: only then can a socket be bound to it."""
    with socket.socket(family_of(address)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _links(pid: int) -> Sequence[str]:
    try:
        with Process(pid) as process:
            return [process.fd_link(number) for number in process.fd_numbers()]
    except (ProcessGoneError, PermissionError):
        return []


def join(address: str, port: int) -> str:
    """Return an address and a port as people write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


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
    tree: Tree, followed: ProcessGroup, diag: SockDiag, *, spec: CommandSpec, port: int, last_words: Callable[[], str]
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


async def _wait_all_there(followed: ProcessGroup) -> None:
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
