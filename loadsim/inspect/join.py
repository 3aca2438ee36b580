"""Descriptors and the socket table as rows: what each is, who is at its other end, who else has it. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from loadsim.inspect.model import (
    BOUND,
    CONNECTED,
    HELD,
    LISTENING,
    PHANTOM,
    QUEUED,
    ROLES,
    SYN_SENT,
    UNCONNECTED,
    UNHELD,
    OtherEnd,
    Row,
)
from loadsim.kernel.descriptors import DEVICE, PIPE, SOCKET, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadsim.inspect.index import Index
    from loadsim.kernel.descriptors import Descriptor
    from loadsim.kernel.processes import Holder
    from loadsim.kernel.sockets import InetSocket, UnixSocket

#: Descriptors of these kinds are one row for one link: three of a terminal are hardly ever three open files.
_BY_LINK = {TERMINAL, DEVICE, PIPE, SOCKET}
_UNIX_ROLES = {10: LISTENING, 1: CONNECTED}


def link_of(inode: int) -> str:
    """Return the link of a socket's inode."""
    return f"socket:[{inode}]"


def links_wanted(descriptors: Iterable[Descriptor], index: Index) -> set[str]:
    """Return the links to look for in other processes: shared sockets and pipes, both ends of each connection."""
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
    """One process's descriptors, the table of its namespace, and what a search for their holders found."""

    def __init__(
        self,
        index: Index,
        holders: Mapping[str, Sequence[Holder]],
        own: Mapping[str, Sequence[Holder]],
        protocols: Mapping[int, str],
    ) -> None:
        """Take the index; `own` are the holders of this process, `protocols` those of sockets in no table."""
        self._index = index
        self._holders = holders
        self._own = own
        self._protocols = protocols

    def rows(self, descriptors: Iterable[Descriptor]) -> list[Row]:
        """Return a row for each open file, by its lowest number."""
        groups: dict[object, list[Descriptor]] = defaultdict(list)
        for one in descriptors:
            groups[one.link if one.kind in _BY_LINK else one.number].append(one)
        return [self._row(group) for group in groups.values()]

    def waiting(self, rows: Iterable[Row]) -> list[Row]:
        """Return the connections in the accept queues of the listeners among the rows."""
        seen = {one.ends: one for listener in self._listeners(rows) for one in self._index.waiting(listener)}
        return [replace(self._inet((), one), role=QUEUED) for one in seen.values()]

    def knocking(self, rows: Iterable[Row]) -> list[Row]:
        """Return the clients on this machine that try to get in at these listeners, seen from the listener."""
        seen = {one.ends: one for listener in self._listeners(rows) for one in self._index.knocking(listener)}
        return [self._knocker(one) for one in seen.values()]

    def _knocker(self, client: InetSocket) -> Row:
        """Return the row of a client that has no socket here; local and remote as the listener would have them."""
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
            local=_written(one.local, one.local_port),
            remote=_written(one.remote, one.remote_port) if paired else "",
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
        """Return the other end with who has it, this process included."""
        if not end.inode:
            return end
        link = link_of(end.inode)
        found = (*self._own.get(link, ()), *self._holders.get(link, ()))
        return OtherEnd(where=HELD if found else UNHELD, inode=end.inode, state=end.state, holders=found)


def _written(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
