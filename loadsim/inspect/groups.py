"""Many descriptors as a few groups, each with its change, and the filter and order of single rows. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.inspect.model import BOUND, LISTENING
from loadsim.kernel.fds import FILE, SOCKET
from loadsim.units import format_bytes, format_count, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loadsim.inspect.model import Row, Snapshot


_MOST_GROUPS = 12
_MOST_FOLDERS = 2
OTHER = "other"
_REST = "everything else"
_IN_COLUMNS = {"TCP", "UDP", "unix", FILE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Similar descriptors."""

    kind: str  # "TCP", "file", "listening", "other" ...
    state: str  # TCP state, "deleted", or ""
    where: str  # "to 10.0.3.7:5432", "on :8080", a folder
    fds: int
    change: int | None  # since the snapshot before; None without one
    detail: str = ""  # "41 peers", "2.1 GB held"
    oldest_idle_s: float | None = None
    newest_idle_s: float | None = None


_Key = tuple[str, str, str]  # kind, state, where


def groups_of(now: Snapshot, before: Snapshot | None) -> list[Group]:
    """Return the groups, largest first; every descriptor is in exactly one of them."""
    ports = now.ports
    found: dict[_Key, list[Row]] = defaultdict(list)
    for row in now.rows:
        found[_key(row, ports)].append(row)
    counts = {key: _fds(rows) for key, rows in found.items()}
    largest = set(sorted(counts, key=lambda key: (-counts[key], key))[:_MOST_GROUPS])
    earlier = _earlier(before, ports) if before is not None else None
    if earlier is not None:
        closed = {key for key in earlier if key not in found}
        found |= {key: [] for key in closed}
    folded: dict[_Key, list[Row]] = defaultdict(list)
    changes: Counter[_Key] = Counter()
    for key, rows in found.items():
        target = key if key in largest else (_REST, "", "")
        folded[target] += rows
        if earlier is not None:
            changes[target] += counts.get(key, 0) - earlier[key]
    groups = [_group(key, rows, changes[key] if earlier is not None else None) for key, rows in folded.items()]
    return sorted((one for one in groups if one.fds or one.change), key=_order)


def _order(group: Group) -> tuple[bool, int, str]:
    return (group.kind in {OTHER, _REST}, -group.fds, group.where)


def _earlier(before: Snapshot, ports: set[int]) -> Counter[_Key]:
    counts: Counter[_Key] = Counter()
    for row in before.rows:
        counts[_key(row, ports)] += len(row.fds)
    return counts


def _fds(rows: list[Row]) -> int:
    return sum(len(row.fds) for row in rows)


def _key(row: Row, ports: set[int]) -> _Key:
    if row.kind == "TCP" and row.remote:
        return ("TCP", row.state, f"on :{row.local_port}" if row.local_port in ports else f"to {row.remote}")
    if row.role == LISTENING:
        return ("listening", "", f":{row.local_port}" if row.kind == "TCP" else f"unix {row.local}")
    if row.role:
        return (
            row.kind,
            "",
            f"bound to :{row.local_port}" if row.role == BOUND and row.local_port else row.role.lower(),
        )
    if row.kind == FILE:
        return (FILE, "deleted" if row.held_bytes or row.path.endswith("(deleted)") else "", "")
    return (OTHER, "", "")


def _group(key: _Key, rows: list[Row], change: int | None) -> Group:
    kind, state, where = key
    idle = [row.idle_s for row in rows if row.idle_s is not None]
    return Group(
        kind=kind,
        state=state,
        where=where,
        fds=_fds(rows),
        change=change,
        detail=_detail(key, rows),
        oldest_idle_s=max(idle, default=None),
        newest_idle_s=min(idle, default=None),
    )


def _detail(key: _Key, rows: list[Row]) -> str:
    kind, state, where = key
    if kind == "TCP" and where.startswith("on "):
        return some(len({row.remote.rpartition(":")[0] for row in rows}), "peer")
    if kind == "listening":
        drops = sum(row.drops or 0 for row in rows)
        full = " FULL" if any(row.full for row in rows) else ""
        return "; ".join(map(queue_of, rows)) + full + (f", {some(drops, 'drop')}" if drops else "")
    if state == "deleted":
        return f"{format_bytes(sum(row.held_bytes for row in rows))} held"
    if kind == FILE:
        folders = Counter(row.path.rpartition("/")[0] or "/" for row in rows)
        return ", ".join(f"{folder} ({count})" for folder, count in folders.most_common(_MOST_FOLDERS))
    if kind in {OTHER, _REST}:
        kinds: Counter[str] = Counter()
        for row in rows:
            kinds[row.kind] += len(row.fds)
        return ", ".join(f"{one} {format_count(count)}" for one, count in kinds.most_common())
    return ""


def queue_of(row: Row) -> str:
    """Return the accept queue of a listener in words: "accept queue 2 of 2"."""
    limit = format_count(row.capacity) if row.capacity is not None else "an unknown limit"
    return f"accept queue {format_count(row.recv_q or 0)} of {limit}"


def name_of(group: Group) -> str:
    """Return kind and state in columns, then the place: "TCP  CLOSE_WAIT   to 10.0.3.7:5432"."""
    kind = f"{group.kind:<4}" if group.kind in _IN_COLUMNS else group.kind
    state = f"{group.state:<11}" if group.state and group.kind == "TCP" else group.state
    return " ".join(part for part in (kind, state, group.where) if part)


_INET = {"TCP", "UDP"}
#: Name of an order -> its sort key; idle times and queues sort largest first.
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
    """The filter and the order of rows: `--kind`, `--state`, `--socket-port`, `--sort`."""

    kind: str | None = None
    state: str | None = None
    port: int | None = None
    sort: str = "fd"

    @property
    def chooses(self) -> bool:
        """Whether it filters the rows."""
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
