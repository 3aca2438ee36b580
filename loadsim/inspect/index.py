"""The sockets of a namespace, found by inode, by both ends, and by the port that they wait at. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING

from loadsim.inspect.model import CLOSED, HANDSHAKE, HELD, IN_QUEUE, NO_SOCKET, REMOTE, OtherEnd

if TYPE_CHECKING:
    from loadsim.kernel.sockets import InetSocket, SocketTable, UnixSocket

_NO_ADDRESS = bytes(16)
#: Sockets of a listener that no descriptor has yet; an inode of 0 in another state means that it was closed.
_WAITING = {"ESTABLISHED", "CLOSE_WAIT"}
_SHAKING = {"SYN_RECV", "NEW_SYN_RECV"}
_BOTH_SHUT = 3


class Index:
    """A socket table with the ways into it."""

    def __init__(self, table: SocketTable) -> None:
        """Index the table once; 0.5 us a socket."""
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
        """Return the TCP listeners of a port, or all."""
        if port is not None:
            return self._listeners.get(port, [])
        return [one for some in self._listeners.values() for one in some]

    def waiting(self, listener: InetSocket) -> list[InetSocket]:
        """Return the connections that wait in the accept queue of a listener; with SO_REUSEPORT of its group."""
        return [one for one in self._waiting.get(listener.local_port, []) if _takes(listener, one.ends[4:20])]

    def knocking(self, listener: InetSocket) -> list[InetSocket]:
        """Return the clients here that the listener has no socket for: their SYNs wait, or they are phantoms."""
        return [
            one
            for one in self._clients.get(listener.local_port, [])
            if one.state_name in {"SYN_SENT", "ESTABLISHED"}
            and _takes(listener, one.ends[20:36])
            and is_local(one)
            and self.other_end(one).where in {NO_SOCKET, HANDSHAKE}
        ]

    def other_end(self, one: InetSocket) -> OtherEnd:
        """Return the other end of a connection; its holders are not known here."""
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
        """Return the peer of a unix socket, None where it has none."""
        if one.peer_inode is None:
            return None
        if one.peer_inode == 0:
            return OtherEnd(where=CLOSED if one.shutdown == _BOTH_SHUT else IN_QUEUE, inode=0)
        return OtherEnd(where=HELD, inode=one.peer_inode)


def _takes(listener: InetSocket, address: bytes) -> bool:
    """Return whether a listener takes connections to an address."""
    own = listener.ends[4:20]
    return own in (_NO_ADDRESS, address)


def is_local(one: InetSocket) -> bool:
    """Return whether both ends must be on this machine: loopback, or a connection to its own address."""
    ends = one.ends
    return ends[4:20] == ends[20:36] or _is_loopback(one.remote)


@lru_cache(maxsize=1024)
def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
