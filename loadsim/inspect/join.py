"""Joins descriptors with the socket table to rows: kind, role, other end and other holders of each. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from loadsim.inspect.model import (
    BOUND,
    CLOSED,
    CONNECTED,
    HANDSHAKE,
    HELD,
    IN_QUEUE,
    LISTENING,
    NO_SOCKET,
    PHANTOM,
    QUEUED,
    REMOTE,
    ROLES,
    SYN_SENT,
    UNCONNECTED,
    UNHELD,
    OtherEnd,
    Row,
)
from loadsim.kernel.fds import DEVICE, PIPE, SOCKET, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadsim.kernel.fds import Descriptor
    from loadsim.kernel.processes import Holder
    from loadsim.kernel.sockets import InetSocket, SocketTable, UnixSocket


_NO_ADDRESS = bytes(16)
#: A socket with inode 0 in one of these states is in an accept queue; in any other state it was closed.
_WAITING = {"ESTABLISHED", "CLOSE_WAIT"}
_SHAKING = {"SYN_RECV", "NEW_SYN_RECV"}
_BOTH_SHUT = 3


class Index:
    """A socket table, indexed by inode, by both ends and by port."""

    def __init__(self, table: SocketTable) -> None:
        """Index the table once; this costs 0.5 us a socket."""
        self.by_inode: dict[int, InetSocket] = {}
        self.unix: dict[int, UnixSocket] = {one.inode: one for one in table.unix}
        self._by_ends: dict[tuple[str, bytes], InetSocket] = {}
        self._other_ends: dict[tuple[str, bytes], OtherEnd] = {}
        self._listeners: dict[int, list[InetSocket]] = defaultdict(list)
        self._waiting: dict[int, list[InetSocket]] = defaultdict(list)
        self._clients: dict[int, list[InetSocket]] = defaultdict(list)
        for one in table.inet:
            if one.inode:
                self.by_inode[one.inode] = one
            state = one.state_name
            if one.protocol == "TCP" and state == "LISTEN":
                self._listeners[one.local_port].append(one)
                continue
            self._by_ends[one.protocol, one.ends] = one
            if one.protocol == "TCP":
                if one.inode == 0 and state in _WAITING:
                    self._waiting[one.local_port].append(one)
                self._clients[one.remote_port].append(one)

    def listeners(self, port: int | None = None) -> list[InetSocket]:
        """Return the TCP listeners on a port, or all."""
        if port is not None:
            return self._listeners.get(port, [])
        return [one for some in self._listeners.values() for one in some]

    def waiting(self, listener: InetSocket) -> list[InetSocket]:
        """Return the connections in the accept queue of a listener; with SO_REUSEPORT in the queues of its group."""
        return [one for one in self._waiting.get(listener.local_port, []) if _takes(listener, one.ends[4:20])]

    def knocking(self, listener: InetSocket) -> list[InetSocket]:
        """Return the local clients without a socket at the listener: unanswered SYNs, and phantoms."""
        return [
            one
            for one in self._clients.get(listener.local_port, [])
            if one.state_name in {"SYN_SENT", "ESTABLISHED"}
            and _takes(listener, one.ends[20:36])
            and is_local(one)
            and self.other_end(one).where in {NO_SOCKET, HANDSHAKE}
        ]

    def other_end(self, one: InetSocket) -> OtherEnd:
        """Return the other end of a connection, without its holders."""
        key = (one.protocol, one.ends)
        if key not in self._other_ends:
            self._other_ends[key] = self._find_other_end(one)
        return self._other_ends[key]

    def _find_other_end(self, one: InetSocket) -> OtherEnd:
        twin = self._by_ends.get((one.protocol, one.mirrored))
        if twin is None:
            return OtherEnd(where=NO_SOCKET if is_local(one) else REMOTE)
        state = twin.state_name
        if twin.inode:
            return OtherEnd(where=HELD, inode=twin.inode, state=state)
        if state in _SHAKING:
            return OtherEnd(where=HANDSHAKE, state=state)
        at_listener = any(_takes(listener, twin.ends[4:20]) for listener in self.listeners(twin.local_port))
        return OtherEnd(where=IN_QUEUE if at_listener and state in _WAITING else CLOSED, inode=0, state=state)

    def unix_end(self, one: UnixSocket) -> OtherEnd | None:
        """Return the peer of a unix socket; None if it has none."""
        if one.peer_inode is None:
            return None
        if one.peer_inode == 0:
            return OtherEnd(where=CLOSED if one.shutdown == _BOTH_SHUT else IN_QUEUE, inode=0)
        return OtherEnd(where=HELD, inode=one.peer_inode)


def _takes(listener: InetSocket, address: bytes) -> bool:
    """Return whether a listener accepts connections to an address."""
    own = listener.ends[4:20]
    return own in (_NO_ADDRESS, address)


def is_local(one: InetSocket) -> bool:
    """Return whether both ends must be on this machine: loopback, or a connection to its own address."""
    ends = one.ends
    return ends[4:20] == ends[20:36] or _is_loopback(one.remote)


@lru_cache(maxsize=1024)
def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


#: Descriptors of these kinds with the same link are one row: three of a terminal are rarely three open files.
_BY_LINK = {TERMINAL, DEVICE, PIPE, SOCKET}
_UNIX_ROLES = {10: LISTENING, 1: CONNECTED}


def link_of(inode: int) -> str:
    """Return the link of a socket's inode."""
    return f"socket:[{inode}]"


def links_wanted(descriptors: Iterable[Descriptor], index: Index) -> set[str]:
    """Return the links to search for in other processes: shared sockets and pipes, both ends of each connection."""
    wanted = set()
    ports = set()
    for one in descriptors:
        if one.kind in (SOCKET, PIPE):
            wanted.add(one.link)
        if one.kind == SOCKET and one.inode is not None:
            end = _end_of(one.inode, index)
            if end is not None and end.inode:
                wanted.add(link_of(end.inode))
            found = index.by_inode.get(one.inode)
            if found is not None and found.state_name == "LISTEN":
                ports.add(found)
    for listener in ports:
        for waiting in index.waiting(listener):
            wanted.add(link_of(index.other_end(waiting).inode or 0))
        wanted |= {link_of(one.inode) for one in index.knocking(listener)}
    return wanted


def _end_of(inode: int, index: Index) -> OtherEnd | None:
    if (found := index.by_inode.get(inode)) is not None:
        return None if found.state_name in {"LISTEN", "CLOSE"} else index.other_end(found)
    if (unix := index.unix.get(inode)) is not None:
        return index.unix_end(unix)
    return None


class Join:
    """Makes rows from a process's descriptors, the socket table of its namespace, and the holders found."""

    def __init__(
        self,
        index: Index,
        holders: Mapping[str, Sequence[Holder]],
        own: Mapping[str, Sequence[Holder]],
        protocols: Mapping[int, str],
    ) -> None:
        """Use an index; `own` holds this process's descriptors, `protocols` those of sockets in no table."""
        self._index = index
        self._holders = holders
        self._own = own
        self._protocols = protocols

    def rows(self, descriptors: Iterable[Descriptor]) -> list[Row]:
        """Return a row for each open file, in the order of the lowest descriptors."""
        groups: dict[object, list[Descriptor]] = defaultdict(list)
        for one in descriptors:
            groups[one.link if one.kind in _BY_LINK else one.number].append(one)
        return [self._row(group) for group in groups.values()]

    def waiting(self, rows: Iterable[Row]) -> list[Row]:
        """Return the connections in the accept queues of the listeners among the rows."""
        seen = {one.ends: one for listener in self._listeners(rows) for one in self._index.waiting(listener)}
        return [replace(self._inet((), one), role=QUEUED) for one in seen.values()]

    def knocking(self, rows: Iterable[Row]) -> list[Row]:
        """Return the local clients without a socket at these listeners, as seen from the listener."""
        seen = {one.ends: one for listener in self._listeners(rows) for one in self._index.knocking(listener)}
        return [self._knocker(one) for one in seen.values()]

    def _knocker(self, client: InetSocket) -> Row:
        # local and remote are swapped: the row shows the connection as the listener would have it
        shown = self._inet((), client)
        end = self._with_holders(OtherEnd(where=HELD, inode=client.inode, state=client.state_name))
        role = SYN_SENT if client.state_name == "SYN_SENT" else PHANTOM
        return replace(
            shown,
            inode=None,
            role=role,
            local=shown.remote,
            remote=shown.local,
            local_port=shown.remote_port,
            remote_port=shown.local_port,
            other=end,
        )

    def _listeners(self, rows: Iterable[Row]) -> list[InetSocket]:
        inodes = [row.inode or 0 for row in rows if row.role == LISTENING and row.kind == "TCP"]
        return [self._index.by_inode[inode] for inode in inodes if inode in self._index.by_inode]

    def _row(self, group: Sequence[Descriptor]) -> Row:
        first = group[0]
        fds = tuple(one.number for one in group)
        others = tuple(self._holders.get(first.link, ()))
        if first.kind != SOCKET:
            held = first.held_bytes
            return Row(fds=fds, inode=first.inode, kind=first.kind, path=first.link, held_bytes=held, others=others)
        inode = first.inode or 0
        if (found := self._index.by_inode.get(inode)) is not None:
            return self._inet(fds, found, others)
        if (unix := self._index.unix.get(inode)) is not None:
            return self._unix(fds, unix, others)
        protocol = self._protocols.get(first.number, "") or "socket"
        kind = "unix" if protocol.startswith("UNIX") else protocol.removesuffix("v6")
        family = "IPv6" if protocol.endswith("v6") else ""
        return Row(fds=fds, inode=inode, kind=kind, role=UNCONNECTED, family=family, path=first.link, others=others)

    def _inet(self, fds: tuple[int, ...], one: InetSocket, others: tuple[Holder, ...] = ()) -> Row:
        state = one.state_name
        paired = state not in {"LISTEN", "CLOSE"}
        listens = state == "LISTEN"
        return Row(
            fds=fds,
            inode=one.inode,
            kind=one.protocol,
            role=BOUND if state == "CLOSE" else ROLES.get(state, state.replace("_", "-")),
            state=state,
            family=one.family_name,
            local=_address(one.local, one.local_port),
            remote=_address(one.remote, one.remote_port) if paired else "",
            local_port=one.local_port,
            remote_port=one.remote_port,
            recv_q=one.rqueue,
            send_q=one.wqueue,
            drops=one.drops if not paired else None,
            retransmits=one.retransmits,
            idle_s=one.idle_s if paired else None,
            other=self._with_holders(self._index.other_end(one)) if paired else None,
            others=others,
            queued=len(self._index.waiting(one)) if listens else 0,
            rivals=len(self._index.listeners(one.local_port)) - 1 if listens else 0,
        )

    def _unix(self, fds: tuple[int, ...], one: UnixSocket, others: tuple[Holder, ...]) -> Row:
        end = self._index.unix_end(one)
        role = _UNIX_ROLES.get(one.state, BOUND if one.name else UNCONNECTED)
        if role == UNCONNECTED and end is not None:
            role = CONNECTED
        peer = self._index.unix.get(end.inode) if end is not None and end.inode else None
        return Row(
            fds=fds,
            inode=one.inode,
            kind="unix",
            role=role,
            local=one.name,
            remote=peer.name if peer is not None else "",
            recv_q=one.rqueue,
            send_q=one.wqueue,
            path=one.kind,
            other=self._with_holders(end) if end is not None else None,
            others=others,
        )

    def _with_holders(self, end: OtherEnd) -> OtherEnd:
        """Return the other end with its holders, this process included."""
        if not end.inode:
            return end
        link = link_of(end.inode)
        found = (*self._own.get(link, ()), *self._holders.get(link, ()))
        return OtherEnd(where=HELD if found else UNHELD, inode=end.inode, state=end.state, holders=found)


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
