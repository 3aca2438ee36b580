"""Which rows to list, and in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.kernel.descriptors import SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loadsim.inspect.model import Row

_INET = {"TCP", "UDP"}
#: Name of an order -> what it goes by; largest first where that is asked for most.
_ORDERS: dict[str, Callable[[Row], tuple[object, ...]]] = {
    "fd": lambda row: (row.fds or (1 << 31,),),
    "inode": lambda row: (row.inode or 0,),
    "kind": lambda row: (row.kind, row.role),
    "state": lambda row: (row.state or row.role or row.kind,),
    "port": lambda row: (row.local_port, row.remote_port),
    "peer": lambda row: (row.remote,),
    "idle": lambda row: (-(row.idle_s or 0.0),),
    "queue": lambda row: (-((row.recv_q or 0) + (row.send_q or 0)),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What `--kind`, `--state`, `--socket-port` and `--sort` ask for."""

    kind: str | None = None
    state: str | None = None
    port: int | None = None
    sort: str = "fd"

    @property
    def chooses(self) -> bool:
        """Whether it leaves anything out."""
        return any(one is not None for one in (self.kind, self.state, self.port))

    def of(self, rows: Iterable[Row]) -> list[Row]:
        """Return the chosen rows in order."""
        return sorted(filter(self._takes, rows), key=_ORDERS[self.sort])

    def _takes(self, row: Row) -> bool:
        return self._is_kind(row) and self._is_state(row) and self._is_port(row)

    def _is_kind(self, row: Row) -> bool:
        if self.kind is None:
            return True
        asked = self.kind.lower()
        return asked == row.kind.lower() or (asked == SOCKET and bool(row.role))

    def _is_state(self, row: Row) -> bool:
        if self.state is None:
            return True
        asked = self.state.upper().replace("-", "_")
        return asked in {row.state, row.role.replace("-", "_")}

    def _is_port(self, row: Row) -> bool:
        return self.port is None or (row.kind in _INET and self.port in {row.local_port, row.remote_port})
