"""Where a server listens, when it begins to, and whether its sockets are visible from this namespace."""

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
_POLL_S: Final = 0.02
#: A server has started its workers if the holders of its listener have not changed for this long. A server that never
#: stops changing is used after the longer time.
_SETTLED_S: Final = 0.2
_SETTLE_AT_MOST_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The address of a server; `seen`: its sockets are in the TCP table of this namespace."""

    address: str
    port: int
    seen: bool


def locate(spec: RunningSpec, diag: SockDiag) -> Reach:
    """Return the address of a running server; raises EnvironmentRefusedError if it is ambiguous or has no listener."""
    if spec.pid is not None:
        _check_process(spec.pid)
    here = spec.pid is None or namespace_of(spec.pid) in {namespace_of("self"), ""}  # "": not readable
    if spec.address is None:
        found = _only_listener(spec.pid or 0, diag, here=here)
    else:
        found = Reach(address=spec.address, port=spec.port, seen=here and _is_of_this_host(spec.address))
        _check_listener(found, spec.pid, diag)
    if spec.on_ipv4_loopback and found.address == "::1":
        raise EnvironmentRefusedError(
            f"the server listens only on [::1]:{found.port}, and a canary or several sources connect from 127.0.x.y: "
            "remove [canary] and client.sources, or let it listen on 127.0.0.1"
        )
    return found


def listener_of(pid: int, port: int, diag: SockDiag) -> tuple[str, int] | None:
    """Return where a process and its children listen according to `diag`: on this port, or on their only one.

    The only one may be another port if the port that clients connect to is mapped to it. None: not known.
    """
    own = listening(family_tree(pid), diag)
    chosen = [listener for listener in own if listener[1] == port]
    if not chosen and len({port for _, port in own}) == 1:
        chosen = own
    return chosen[0] if chosen else None


def listening(pids: Iterable[int], diag: SockDiag) -> list[tuple[str, int]]:
    """Return address and port of every listener that these processes hold; unreadable processes are skipped."""
    requests = (inet_request(family, socket.IPPROTO_TCP, states=1 << LISTEN) for family in FAMILIES)
    listeners = {
        f"socket:[{found.inode}]": (found.local, found.local_port)
        for request in requests
        for found in parse_inet(diag.answers(request), "TCP")
    }
    return [listeners[link] for pid in pids for link in _links(pid) if link in listeners]


def family_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    return [pid, *descendants(pid)]


def join(address: str, port: int) -> str:
    """Return "address:port", "[address]:port" for IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def choose_port(spec: CommandSpec, diag: SockDiag) -> int:
    """Return the port for the command; raises EnvironmentRefusedError if another process already listens on it."""
    if not spec.port:
        with socket.socket(family_of(spec.address)) as any_free:
            any_free.bind((spec.address, 0))
            return int(any_free.getsockname()[1])
    if diag.listener(spec.address, spec.port):
        raise EnvironmentRefusedError(
            f"port {spec.port} of {spec.address} is in use (ss -ltnp 'sport = :{spec.port}'); end that process, or "
            "set network.port = 0 (verdict: --port 0) for any free port"
        )
    return spec.port


async def wait_ready(
    tree: Tree, group: ProcessGroup, diag: SockDiag, *, spec: CommandSpec, port: int, last_words: Callable[[], str]
) -> None:
    """Wait until a process of the tree listens; raises DidNotStartError if that does not happen in time."""
    with trio.move_on_after(spec.start_timeout_s):
        while not tree.emptied_ns:
            if diag.listener(spec.address, port) and group.holders():
                await _wait_workers(group)
                return
            await trio.sleep(_POLL_S)
    if tree.emptied_ns:
        await trio.sleep(_POLL_S)  # for the pump to read its last output
        how = f"ended with status {tree.exit_status} before it listened on {spec.address}:{port}"
        remedy = "run it by hand to see the reason"
    else:
        how, remedy = _hanging(tree.pids(), diag, spec, port)
    output = last_words()
    raise DidNotStartError(
        f"{spec.command[0]} {how}; {remedy}. " + (f"Its last output:{output}" if output else "It printed nothing.")
    )


def _check_process(pid: int) -> None:
    try:
        with Process(pid) as process:
            alive = process.alive()
    except ProcessGoneError:
        alive = False
    if not alive:
        raise EnvironmentRefusedError(f"process {pid} does not exist; find the server with ps or pgrep -l NAME")
    if os.getpid() in family_tree(pid):
        raise EnvironmentRefusedError(
            f"process {pid} is an ancestor of loadsim, and its descendants would be counted as the server's: name the "
            "server itself (pgrep -l NAME)"
        )


def _only_listener(pid: int, diag: SockDiag, *, here: bool) -> Reach:
    """Return where a process and its children listen; raises EnvironmentRefusedError unless it is exactly one port."""
    if not here:
        raise EnvironmentRefusedError(
            f"process {pid} is in another network namespace: add --address HOST:PORT with its address from here, or "
            f"run loadsim inside (nsenter -t {pid} -n)"
        )
    own = listening(family_tree(pid), diag)
    ports = sorted({port for _, port in own})
    if not own:
        raise EnvironmentRefusedError(
            f"process {pid} and its children do not listen on a TCP port{_no_listener_hint(pid)}"
        )
    if len(ports) > 1:
        where = ", ".join(sorted({join(*listener) for listener in own}))
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


def _no_listener_hint(pid: int) -> str:
    """Return the end of a sentence, with a possible reason or the remedy."""
    try:
        with Process(pid) as process:
            process.fd_numbers()
    except PermissionError:
        return (
            " that this user can see: it belongs to another user; run loadsim as that user or as root, or add "
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
        raise EnvironmentRefusedError(
            f"no server listens on {where} in this network namespace (ss -ltn shows the listeners)"
        )
    own = [] if pid is None else listening(family_tree(pid), diag)
    if own and found.port not in {port for _, port in own}:
        others = ", ".join(sorted({join(*listener) for listener in own}))
        raise EnvironmentRefusedError(f"process {pid} does not listen on {where}, but on {others}: name one of these")


def _is_of_this_host(address: str) -> bool:
    """Return whether an address belongs to this network namespace: only then does bind() accept it."""
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


async def _wait_workers(group: ProcessGroup) -> None:
    """Wait until the holders of the listener no longer change: a server listens first and forks then."""
    with trio.move_on_after(_SETTLE_AT_MOST_S):
        holders, since = group.holders(), trio.current_time()
        while trio.current_time() - since < _SETTLED_S:
            await trio.sleep(_POLL_S)
            if (now := group.holders()) != holders:
                holders, since = now, trio.current_time()


def _hanging(pids: Sequence[int], diag: SockDiag, spec: CommandSpec, port: int) -> tuple[str, str]:
    """Return where a running command listens instead of the right address, and the remedy."""
    after = format_duration(spec.start_timeout_s)
    if diag.listener(spec.address, port):
        return (
            f"does not listen on port {port} after {after}, and another process does",
            "choose another port: network.port = 0 (verdict: --port 0) for any free one",
        )
    if others := sorted(set(_ports_of(pids, diag)) - {port}):
        ports = " and ".join(map(str, others))
        return (
            f"listens on port {ports}, not on {spec.address}:{port}",
            f"write {{port}} in place of its port, or set network.port = {others[0]} (verdict: --port {others[0]})",
        )
    if port in _ports_of(pids, diag):
        return (
            f"listens on port {port}, but not on {spec.address}",
            "let it listen there, or set network.address to its address",
        )
    return (
        f"does not listen on {spec.address}:{port} after {after}",
        "write {port} in place of its port, or raise server.start_timeout (verdict: --start-timeout)",
    )


def _ports_of(pids: Sequence[int], diag: SockDiag) -> list[int]:
    """Return the ports on which these processes listen."""
    return [port for _, port in listening(pids, diag)]
