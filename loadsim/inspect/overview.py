"""All processes by their share of the limit, and every listener: what `inspect` shows without a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim import units
from loadsim.inspect.index import Index
from loadsim.inspect.join import link_of
from loadsim.inspect.targets import Candidate, candidates
from loadsim.kernel.processes import Holder, search
from loadsim.kernel.sockdiag import SockDiag
from loadsim.kernel.sockets import read_table

if TYPE_CHECKING:
    from loadsim.kernel.sockets import InetSocket

_NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A TCP listener of this network namespace."""

    local: str
    port: int
    family: str
    queue: int
    backlog: int  # in force
    drops: int | None
    holders: tuple[Holder, ...]

    @property
    def queue_capacity(self) -> int:
        """How many connections its accept queue holds."""
        return units.queue_capacity(self.backlog)

    @property
    def full(self) -> bool:
        """Whether its accept queue is full."""
        return self.queue >= self.queue_capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What there is."""

    processes: list[Candidate]
    listeners: list[Listener]
    unreadable: int  # processes whose descriptors may not be read


def take_overview() -> Overview:
    """Return all processes and listeners now."""
    with SockDiag() as diag:
        found = Index(read_table(diag)).listeners()
    searched = search({link_of(one.inode) for one in found}, leave_out=_NOBODY)
    listeners = [_listener(one, tuple(searched.holders.get(link_of(one.inode), ()))) for one in found]
    return Overview(
        processes=candidates(),
        listeners=sorted(listeners, key=lambda one: (one.port, one.local)),
        unreadable=searched.unreadable,
    )


def _listener(one: InetSocket, holders: tuple[Holder, ...]) -> Listener:
    return Listener(
        local=one.local,
        port=one.local_port,
        family=one.family_name,
        queue=one.rqueue,
        backlog=one.wqueue or 0,
        drops=one.drops,
        holders=holders,
    )
